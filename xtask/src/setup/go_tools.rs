//! The programs that are built from Go modules: Kubernetes and CoreDNS. `assets/kubernetes` and `assets/coredns` hold
//! the `go.mod` and `go.sum` of each, so that every machine builds the same source.
//!
//! Go's own settings (proxy, checksum database, caches) are left as the machine has them.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::{cache, step, workspace};

const KUBERNETES: &str = "1.34.3";
const COREDNS: &str = "1.15.0";
/// Programs of Kubernetes in the order in which they are built; the first one takes most of the time.
const KUBERNETES_PROGRAMS: &[&str] = &[
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
];

/// The folder with the programs of Kubernetes.
pub(crate) fn kubernetes_folder() -> Result<PathBuf> {
    Ok(cache::tool("kubernetes", KUBERNETES)?.join("bin"))
}

/// One program of Kubernetes.
pub(crate) fn kubernetes(program: &str) -> Result<PathBuf> {
    Ok(kubernetes_folder()?.join(program))
}

/// The DNS server of the cluster.
pub(crate) fn coredns() -> Result<PathBuf> {
    Ok(cache::tool("coredns", COREDNS)?.join("bin/coredns"))
}

/// Builds what is missing.
pub(crate) fn ensure() -> Result<()> {
    for program in KUBERNETES_PROGRAMS {
        let package = format!("k8s.io/kubernetes/cmd/{program}");
        build(
            "kubernetes",
            program,
            KUBERNETES,
            &package,
            &kubernetes_flags(),
            &kubernetes(program)?,
        )?;
    }
    build(
        "coredns",
        "coredns",
        COREDNS,
        "github.com/coredns/coredns",
        "-s -w",
        &coredns()?,
    )
}

/// Linker flags: no symbols, and the version, without which the server calls itself v0.0.0.
fn kubernetes_flags() -> String {
    let version = format!("v{KUBERNETES}");
    let mut parts = KUBERNETES.split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut flags = String::from("-s -w");
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        for (name, value) in [
            ("gitVersion", version.as_str()),
            ("gitMajor", major),
            ("gitMinor", minor),
            ("gitTreeState", "clean"),
        ] {
            flags.push_str(&format!(" -X {package}.{name}={value}"));
        }
    }
    flags
}

fn build(
    module: &str,
    program: &str,
    version: &str,
    package: &str,
    flags: &str,
    to: &std::path::Path,
) -> Result<()> {
    cache::file(to, |partial| {
        need_go()?;
        step::step(&format!("build {program} {version} from Go modules"), || {
            let mut go = Command::new("go");
            go.current_dir(workspace::asset(module))
                .env("CGO_ENABLED", "0")
                // The go.mod here is the whole truth; no workspace or flags of the user change it.
                .env("GOWORK", "off")
                .env("GOFLAGS", "-mod=readonly -buildvcs=false")
                .args(["build", "-p", "2", "-trimpath", "-ldflags", flags, "-o"])
                .arg(partial)
                .arg(package);
            step::run(&mut go, &format!("go-build-{program}"))
                .with_context(|| format!("missing: {program} {version}, which could not be built"))
        })
    })
}

fn need_go() -> Result<()> {
    let found = Command::new("go")
        .arg("version")
        .output()
        .is_ok_and(|out| out.status.success());
    ensure!(
        found,
        "missing: Go (1.26 or newer), which builds Kubernetes for the test cluster"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_knows_its_version() {
        let flags = kubernetes_flags();
        assert!(
            flags.contains("k8s.io/component-base/version.gitVersion=v1.34.3"),
            "{flags}"
        );
        assert!(
            flags.contains("k8s.io/component-base/version.gitMinor=34"),
            "{flags}"
        );
    }

    #[test]
    fn the_modules_say_the_versions_this_file_says() {
        let text = |module: &str| std::fs::read_to_string(workspace::asset(module).join("go.mod")).unwrap();
        assert!(text("kubernetes").contains(&format!("k8s.io/kubernetes v{KUBERNETES}")));
        assert!(text("coredns").contains(&format!("github.com/coredns/coredns v{COREDNS}")));
    }
}
