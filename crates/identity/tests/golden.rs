//! One cgroup path per runtime style, from `golden.tsv`, and bytes that are nobody's style.

use leyline_identity::{CgroupIdentity, NAME_LEN, identify, identify_process, sanitise};
use proptest::prelude::*;

fn shown(identity: &CgroupIdentity) -> String {
    match identity {
        CgroupIdentity::Pod {
            uid,
            container: Some(container),
        } => format!("pod {uid} {container}"),
        CgroupIdentity::Pod { uid, container: None } => format!("pod {uid}"),
        CgroupIdentity::Unit(name) => format!("unit {name}"),
        CgroupIdentity::Other => "other".to_owned(),
    }
}

#[test]
fn every_runtime_style_is_recognised() {
    let table = include_str!("golden.tsv");
    let mut rows = 0;
    let mut wrong = Vec::new();
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [style, path, expected] = fields[..] else {
            panic!("three columns expected: {line}")
        };
        let got = shown(&identify(path.as_bytes()));
        if got != expected {
            wrong.push(format!("{style}: expected {expected}, got {got}"));
        }
        rows += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(rows > 40, "the table lost rows: {rows}");
}

#[test]
fn a_process_on_a_hybrid_machine_is_found_in_whichever_hierarchy_names_it() {
    let pod =
        b"9:name=systemd:/\n4:memory:/kubepods/besteffort/pod0a4f9c1e-1d2b-4c3d-8e5f-6a7b8c9d0e1f/c\n0::/\n";
    assert_eq!(
        shown(&identify_process(pod)),
        "pod 0a4f9c1e-1d2b-4c3d-8e5f-6a7b8c9d0e1f"
    );
    let unit = b"4:memory:/other.service\n1:name=systemd:/system.slice/nginx.service\n0::/\n";
    assert_eq!(shown(&identify_process(unit)), "unit nginx.service");
    let unified = b"1:name=systemd:/system.slice/nginx.service\n0::/system.slice/web.service\n";
    assert_eq!(shown(&identify_process(unified)), "unit web.service");
    assert_eq!(shown(&identify_process(b"0::/\n")), "other");
    assert_eq!(shown(&identify_process(b"nonsense\n\n:\n::\n")), "other");
}

#[test]
fn names_are_made_safe_and_cut() {
    assert_eq!(sanitise(b"nginx").as_deref(), Some("nginx"));
    assert_eq!(sanitise(b"we_ird\nname\xff!").as_deref(), Some("we-ird-name--"));
    assert_eq!(sanitise(&[b'a'; 200]).map(|name| name.len()), Some(NAME_LEN));
    assert_eq!(sanitise(b"\xff\xfe"), None);
    assert_eq!(sanitise(b""), None);
}

fn is_safe(name: &str) -> bool {
    name.len() <= NAME_LEN
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".@:-".contains(&b))
}

proptest! {
    #[test]
    fn any_bytes_give_a_bounded_safe_identity(path in proptest::collection::vec(any::<u8>(), 0..6000)) {
        for identity in [identify(&path), identify_process(&path)] {
            match identity {
                CgroupIdentity::Pod { uid, container } => {
                    prop_assert!(uid.len() <= 36 && container.is_none_or(|id| id.len() <= 64));
                }
                CgroupIdentity::Unit(name) => prop_assert!(is_safe(&name)),
                CgroupIdentity::Other => {}
            }
        }
    }

    #[test]
    fn near_misses_never_panic(path in "(/(kubepods|pod|system\\.slice|a@[0-9]-[:0-9]{0,4}\\.service|pod[0-9a-f_-]{30,40}(\\.slice)?|[a-z:-]{0,9}[0-9a-f]{10,66}(\\.scope)?)){0,6}") {
        if let CgroupIdentity::Unit(name) = identify(path.as_bytes()) {
            prop_assert!(is_safe(&name));
        }
    }
}
