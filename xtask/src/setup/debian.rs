//! Debian packages. Installing one must not start its daemon (containerd, etcd), so a `policy-rc.d` that forbids it is in
//! place meanwhile.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::step;

/// What is needed, and for what.
pub(super) const PACKAGES: &[&str] = &[
    // Rust: a linker, C for ring, LLVM for bpf-linker, musl for static programs.
    "gcc",
    "g++",
    "libc6-dev",
    "make",
    "musl-tools",
    "llvm-22-dev",
    "libpolly-22-dev",
    "zlib1g-dev",
    "libzstd-dev",
    // The cluster: store, container runtime, network, and the programs the kubelet and kube-proxy call.
    "etcd-server",
    "containerd",
    "runc",
    "containernetworking-plugins",
    "iproute2",
    "nftables",
    "iptables",
    "conntrack",
    "socat",
    "mount",
    "util-linux",
    // Images without a registry.
    "umoci",
    "skopeo",
    "debootstrap",
    "ca-certificates",
];

const POLICY: &str = "/usr/sbin/policy-rc.d";
const POLICY_TEXT: &str =
    "#!/bin/sh\n# While Leyline's set-up installs packages, no daemon starts.\nexit 101\n";

/// Installs those of `packages` that are missing.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    let missing = missing(packages, &installed()?);
    if missing.is_empty() {
        return Ok(());
    }
    ensure!(
        nix::unistd::geteuid().is_root(),
        "missing: the Debian packages {}, and installing them needs root",
        missing.join(" ")
    );
    step::step(
        &format!("install {} Debian packages: {}", missing.len(), missing.join(" ")),
        || {
            let _no_daemons = NoDaemons::new(Path::new(POLICY))?;
            step::run(apt().arg("update"), "apt-update")
                .context("missing: a list of the Debian packages there are")?;
            step::run(
                apt()
                    .args(["install", "--yes", "--no-install-recommends"])
                    .args(&missing),
                "apt-install",
            )
            .with_context(|| format!("missing: the Debian packages {}", missing.join(" ")))
        },
    )
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    // Another installation on this machine is waited for; a registry that stumbles is asked again.
    command
        .args([
            "--quiet",
            "-o",
            "DPkg::Lock::Timeout=300",
            "-o",
            "Acquire::Retries=3",
        ])
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Names of all installed packages.
fn installed() -> Result<String> {
    step::output(Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status} ${Package}\n"]))
        .context("list the installed packages (this set-up knows Debian only)")
}

fn missing<'a>(wanted: &[&'a str], installed: &str) -> Vec<&'a str> {
    let there: std::collections::HashSet<&str> = installed
        .lines()
        .filter_map(|line| line.strip_prefix("installed "))
        .collect();
    wanted
        .iter()
        .copied()
        .filter(|package| !there.contains(package))
        .collect()
}

/// While it lives, installing a package starts no daemon. An existing policy is put back at the end.
struct NoDaemons {
    policy: PathBuf,
    saved: Option<PathBuf>,
}

impl NoDaemons {
    fn new(policy: &Path) -> Result<Self> {
        let aside = policy.with_extension("d.leyline-saved");
        // Ours of an interrupted run is not the machine's, and what that run set aside must not be overwritten.
        let is_ours = fs::read_to_string(policy).is_ok_and(|text| text == POLICY_TEXT);
        if policy.exists() && !is_ours {
            fs::rename(policy, &aside).with_context(|| format!("set {} aside", policy.display()))?;
        }
        let saved = aside.exists().then_some(aside);
        let guard = Self {
            policy: policy.to_owned(),
            saved,
        };
        fs::write(policy, POLICY_TEXT).with_context(|| format!("write {}", policy.display()))?;
        fs::set_permissions(policy, Permissions::from_mode(0o755))
            .with_context(|| format!("make {} executable", policy.display()))?;
        Ok(guard)
    }
}

impl Drop for NoDaemons {
    fn drop(&mut self) {
        let result = match &self.saved {
            Some(saved) => fs::rename(saved, &self.policy),
            None => fs::remove_file(&self.policy),
        };
        if let Err(error) = result {
            step::say(&format!(
                "{} could not be put back: {error}",
                self.policy.display()
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packages_that_are_fully_installed_count() {
        let list = "installed gcc\nconfig-files runc\ninstalled make\n";
        assert_eq!(
            missing(&["gcc", "runc", "make", "socat"], list),
            ["runc", "socat"]
        );
    }

    #[test]
    fn the_policy_of_the_machine_is_put_back() {
        let folder = tempfile::tempdir().unwrap();
        let policy = folder.path().join("policy-rc.d");
        fs::write(&policy, "own").unwrap();
        let guard = NoDaemons::new(&policy).unwrap();
        assert_eq!(Command::new(&policy).status().unwrap().code(), Some(101));
        drop(guard);
        assert_eq!(fs::read_to_string(&policy).unwrap(), "own");
    }

    #[test]
    fn the_policy_of_the_machine_survives_an_interrupted_run() {
        let folder = tempfile::tempdir().unwrap();
        let policy = folder.path().join("policy-rc.d");
        fs::write(&policy, "own").unwrap();
        std::mem::forget(NoDaemons::new(&policy).unwrap());
        drop(NoDaemons::new(&policy).unwrap());
        assert_eq!(fs::read_to_string(&policy).unwrap(), "own");
    }

    #[test]
    fn a_policy_of_ours_does_not_stay() {
        let folder = tempfile::tempdir().unwrap();
        let policy = folder.path().join("policy-rc.d");
        drop(NoDaemons::new(&policy).unwrap());
        assert!(!policy.exists());
    }
}
