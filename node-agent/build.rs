//! Builds the eBPF programs (the package `leyline-node-agent-ebpf`) for the BPF target and puts the object into OUT_DIR.
//!
//! Needs bpf-linker: on PATH, or in the tool cache where `cargo xtask setup` puts it. `LEYLINE_EBPF_SKIP=1` builds
//! without programs, for tools that only want to read the code; the loader then says so.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

const BPF_LINKER: &str = "bpf-linker";
const BPF_LINKER_VERSION: &str = "0.13.0";
const PROGRAMS: &str = "leyline-node-agent-ebpf";
const OBJECT: &str = "leyline";
const SKIP: &str = "LEYLINE_EBPF_SKIP";

fn main() -> anyhow::Result<()> {
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = manifest
        .parent()
        .context("the package is not inside a workspace")?;
    for input in [
        "node-agent-ebpf",
        "crates/abi",
        "Cargo.toml",
        "Cargo.lock",
        "rust-toolchain.toml",
    ] {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }
    println!("cargo::rerun-if-env-changed={SKIP}");
    let out = PathBuf::from(variable("OUT_DIR")?);
    let object = out.join(OBJECT);
    if env::var_os(SKIP).is_some_and(|skip| skip == "1") {
        return fs::write(&object, []).context("cannot write the empty object");
    }
    let built = build(workspace, &out.join("ebpf-target"))?;
    fs::copy(&built, &object).with_context(|| format!("cannot copy {}", built.display()))?;
    Ok(())
}

/// Runs cargo for the BPF target; returns where the object is.
fn build(workspace: &Path, target_dir: &Path) -> anyhow::Result<PathBuf> {
    let endian = variable("CARGO_CFG_TARGET_ENDIAN")?;
    let target = if endian == "big" {
        "bpfeb-unknown-none"
    } else {
        "bpfel-unknown-none"
    };
    let arch = variable("CARGO_CFG_TARGET_ARCH")?.to_string_lossy().into_owned();
    let flags = [
        &format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Cdebuginfo=2",
        // v3 has the atomic compare-exchange that folding needs (Linux 5.12); newer instructions would need newer kernels.
        "-Ctarget-cpu=v3",
        "-Clink-arg=--btf",
    ]
    .join("\x1f");
    let mut cargo = Command::new(variable("CARGO")?);
    cargo
        .current_dir(workspace)
        .args([
            "build",
            "--package",
            PROGRAMS,
            "--bins",
            "--release",
            "--target",
            target,
            "-Z",
            "build-std=core",
        ])
        // bpf-linker optimises over all crates itself; the workspace's profile is for host binaries.
        .args([
            "--config",
            "profile.release.lto='off'",
            "--config",
            "profile.release.codegen-units=1",
        ])
        .args([
            "--config",
            "profile.release.debug=2",
            "--config",
            "profile.release.strip='none'",
        ])
        .arg("--target-dir")
        .arg(target_dir)
        .env("PATH", path_with_linker()?)
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        // One stable toolchain builds host and BPF code; `-Z build-std` asks for this.
        .env("RUSTC_BOOTSTRAP", "1");
    // What the outer cargo set for this build would send the inner one astray.
    for name in [
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTFLAGS",
        "CARGO_BUILD_TARGET",
    ] {
        cargo.env_remove(name);
    }
    let output = cargo
        .output()
        .context("cannot start cargo for the eBPF programs")?;
    ensure!(
        output.status.success(),
        "building the eBPF programs failed ({}):\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(target_dir.join(target).join("release").join(OBJECT))
}

fn variable(name: &str) -> anyhow::Result<OsString> {
    env::var_os(name).with_context(|| format!("{name} is not set: build with cargo"))
}

/// PATH, with the tool cache in front if bpf-linker is only there.
fn path_with_linker() -> anyhow::Result<OsString> {
    for variable in ["PATH", "LEYLINE_CACHE", "HOME"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let path = env::var_os("PATH").unwrap_or_default();
    if env::split_paths(&path).any(|folder| is_file(&folder.join(BPF_LINKER))) {
        return Ok(path);
    }
    let cache = env::var_os("LEYLINE_CACHE")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache/leyline")))
        .context("neither LEYLINE_CACHE nor HOME is set: cannot look for bpf-linker")?;
    let folder = cache
        .join(format!("{BPF_LINKER}-{BPF_LINKER_VERSION}"))
        .join("bin");
    if !is_file(&folder.join(BPF_LINKER)) {
        bail!(
            "bpf-linker is neither on PATH nor in {}: run `cargo xtask setup` (or `cargo install bpf-linker --version {BPF_LINKER_VERSION}`)",
            folder.display()
        );
    }
    Ok(env::join_paths(
        std::iter::once(folder).chain(env::split_paths(&path)),
    )?)
}

fn is_file(path: &Path) -> bool {
    path.is_file()
}
