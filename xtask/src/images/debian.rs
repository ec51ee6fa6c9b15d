//! The image of the sample application: real servers from Debian packages, without a registry.
//!
//! `debootstrap` unpacks the packages from the mirror this machine's own apt is configured with. The result is kept in
//! the tool cache under a hash of the recipe: changing a line below makes a new image, otherwise it is made once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::archive::{self, Owners, Start};
use crate::{cache, step};

const SUITE: &str = "bookworm";
const COMPONENT: &str = "main";

/// The servers, their clients, and Python for the small services. `-core`: MariaDB without its Perl tools.
const PACKAGES: &[&str] = &[
    "curl",
    "mariadb-client-core",
    "mariadb-server-core",
    "nginx",
    "python3",
    "python3-pymysql",
    "python3-redis",
    "redis-server",
    "redis-tools",
];

/// What no container needs: about half of the unpacked size.
const REMOVED: &[&str] = &[
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/zoneinfo",
    "var/cache",
    "var/lib/apt",
    "var/log",
    "dev",
    // The machine's own, copied by debootstrap; the kubelet brings a pod's.
    "etc/hostname",
    "etc/resolv.conf",
];

/// Folders that are expected to be there although what was in them is removed.
const EMPTY: &[&str] = &["dev", "var/cache/nginx", "var/lib/apt", "var/log/nginx"];

const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Where the archive is, in the tool cache.
pub(crate) fn path(reference: &str) -> Result<PathBuf> {
    Ok(cache::tool(&format!("image-debian-{SUITE}"), &recipe_hash(reference))?.join("image.tar"))
}

/// Makes the archive when it is missing.
pub(crate) fn ensure(reference: &str, path: &Path) -> Result<()> {
    cache::file(path, |to| {
        step::step(
            &format!("image {reference}: unpack Debian packages (about 2 minutes, once)"),
            || build(reference, to),
        )
    })
}

fn recipe_hash(reference: &str) -> String {
    let recipe = [
        &[reference, SUITE, COMPONENT, PATH][..],
        PACKAGES,
        &["removed"],
        REMOVED,
        &["empty"],
        EMPTY,
    ]
    .concat()
    .join("\n");
    let mut hex = HEXLOWER.encode(&Sha256::digest(recipe.as_bytes()));
    hex.truncate(12);
    hex
}

fn build(reference: &str, to: &Path) -> Result<()> {
    let folder = to
        .parent()
        .with_context(|| format!("{} has no folder", to.display()))?;
    let root = tempfile::Builder::new()
        .prefix(".rootfs-")
        .tempdir_in(folder)
        .context("make a folder for the image")?;
    let mut command = Command::new("debootstrap");
    command
        .args(["--variant=minbase", "--include", &PACKAGES.join(","), SUITE])
        .arg(root.path())
        .arg(mirror()?);
    step::run(&mut command, "image-debootstrap")
        .context("unpack the Debian packages of the sample application")?;
    for name in REMOVED {
        remove(&root.path().join(name))?;
    }
    for name in EMPTY {
        let path = root.path().join(name);
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
    }
    archive::write(
        root.path(),
        Owners::Kept,
        reference,
        &Start {
            entrypoint: &[],
            path: PATH,
        },
        to,
    )
}

fn remove(path: &Path) -> Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => return Ok(()),
    };
    result.with_context(|| format!("remove {}", path.display()))
}

/// The mirror of the suite that apt uses on this machine.
fn mirror() -> Result<String> {
    let mut command = Command::new("apt-get");
    command.args([
        "indextargets",
        "--format",
        "$(RELEASE) $(COMPONENT) $(REPO_URI)",
        "Created-By: Packages",
    ]);
    let targets = step::output(&mut command).context("ask apt for its mirrors")?;
    find_mirror(&targets).with_context(|| {
        format!(
            "apt on this machine has no source for `{SUITE} {COMPONENT}`; add one to /etc/apt/sources.list.d"
        )
    })
}

fn find_mirror(targets: &str) -> Option<String> {
    let start = format!("{SUITE} {COMPONENT} ");
    targets
        .lines()
        .find_map(|line| line.strip_prefix(&start))
        .map(|address| address.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_one_of_the_suite_itself() {
        let targets = "bookworm-security main http://mirror.test/security/\nbookworm contrib http://mirror.test/c/\n\
                       bookworm main http://mirror.test/debian/\n";
        assert_eq!(
            find_mirror(targets).as_deref(),
            Some("http://mirror.test/debian/")
        );
        assert_eq!(find_mirror("sid main http://mirror.test/debian/\n"), None);
    }

    #[test]
    fn another_name_is_another_recipe() {
        assert_ne!(recipe_hash("example.test/a:1"), recipe_hash("example.test/b:1"));
    }
}
