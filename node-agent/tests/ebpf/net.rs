//! Network namespaces, links and addresses, made with `ip` and removed on drop.

use std::fs::File;
use std::net::IpAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A name nobody else uses, short enough for an interface.
pub(crate) fn unique(prefix: &str) -> String {
    format!(
        "{prefix}{:x}x{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Runs a command, panics with its output if it fails.
pub(crate) fn run(command: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap_or_else(|e| panic!("{command}: {e}"));
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A network namespace.
pub(crate) struct Netns {
    pub(crate) name: String,
    pub(crate) inode: u32,
}

impl Netns {
    pub(crate) fn new() -> Self {
        let name = unique("lk");
        run(&format!("ip netns add {name}"));
        run(&format!("ip -n {name} link set lo up"));
        let inode =
            std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(format!("/run/netns/{name}")).unwrap());
        Self {
            name,
            inode: inode.try_into().unwrap(),
        }
    }

    /// Runs `work` in a thread inside this namespace; sockets made there stay there.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.name)).unwrap();
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A command inside this namespace.
    pub(crate) fn command(&self, command: &str) {
        run(&format!("ip netns exec {} {command}", self.name));
    }

    /// Adds one rule on what arrives here.
    pub(crate) fn input_rule(&self, rule: &str) {
        self.nft(&format!(
            "table inet t {{\nchain in {{\ntype filter hook input priority 0;\n{rule}\n}}\n}}\n"
        ));
    }

    /// Loads an nftables rule set inside this namespace.
    pub(crate) fn nft(&self, rules: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), rules).unwrap();
        self.command(&format!("nft -f {}", file.path().display()));
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // Sockets that still linger keep the namespace alive a little, not its name.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Joins two namespaces with a veth pair; each end gets its addresses (`10.0.0.1/24`).
pub(crate) fn join(a: (&Netns, &[&str]), b: (&Netns, &[&str])) {
    let (left, right) = (unique("va"), unique("vb"));
    run(&format!(
        "ip link add {left} netns {} type veth peer name {right} netns {}",
        a.0.name, b.0.name
    ));
    for (namespace, addresses, link) in [(a.0, a.1, &left), (b.0, b.1, &right)] {
        for address in addresses {
            // Without duplicate address detection an IPv6 address works at once.
            let flag = if address.contains(':') { "nodad" } else { "" };
            run(&format!(
                "ip -n {} addr add {address} dev {link} {flag}",
                namespace.name
            ));
        }
        run(&format!("ip -n {} link set {link} up", namespace.name));
    }
}

/// The form the kernel side uses.
pub(crate) fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}
