//! The checks that read the code without running it. Each counts as one test.

use std::process::Command;

use anyhow::Result;

use super::report::Counts;
use crate::step::{self, say, step};
use crate::{setup, workspace};

/// Runs all checks, also after one has failed.
pub(super) fn run() -> Result<Counts> {
    let mut counts = Counts::default();
    for (name, mut command) in checks()? {
        match step(&format!("check {name}"), || {
            step::run(&mut command, &format!("lint-{name}"))
        }) {
            Ok(()) => counts.passed += 1,
            Err(error) => {
                say(&format!("{error:#}"));
                counts.failed += 1;
                counts.failures.push(name.to_owned());
            }
        }
    }
    Ok(counts)
}

fn checks() -> Result<Vec<(&'static str, Command)>> {
    let environment = super::environment()?;
    let cargo = |args: &str| {
        let mut command = workspace::cargo();
        command.args(args.split(' ')).envs(environment.iter().cloned());
        command
    };
    let fmt = cargo("fmt --all --check");
    let clippy = cargo("clippy --all-targets --all-features -- -D warnings");
    // The eBPF crate compiles for its own target only, with the standard library's core built beside it.
    let mut clippy_ebpf = cargo(
        "clippy --package leyline-node-agent-ebpf --target bpfel-unknown-none -Z build-std=core -- -D warnings",
    );
    clippy_ebpf
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "--cfg=bpf_target_arch=\"x86_64\"");
    let mut doc = cargo("doc --no-deps --all-features --document-private-items");
    doc.env("RUSTDOCFLAGS", "-D warnings");
    let mut deny = Command::new(setup::cargo_deny::program()?);
    deny.current_dir(workspace::root())
        .args("--all-features check --hide-inclusion-graph bans licenses sources".split(' '));
    Ok(vec![
        ("fmt", fmt),
        ("clippy", clippy),
        ("clippy-ebpf", clippy_ebpf),
        ("doc", doc),
        ("deny", deny),
    ])
}
