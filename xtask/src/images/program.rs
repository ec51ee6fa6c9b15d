//! Images with one static program of this workspace and nothing else.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::archive::{self, Owners, Start};
use crate::{setup, step, workspace};

/// Static, because the image has no C library.
const TARGET: &str = "x86_64-unknown-linux-musl";
/// Part of every image's fingerprint; counted up when the way of packing changes.
const FORMAT: &str = "1";

/// A program of the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Program {
    /// The cargo package.
    pub(crate) package: &'static str,
    /// The program's name; it is at `/<name>` in the image.
    pub(crate) name: &'static str,
    /// A cargo feature it needs, as `package/feature`.
    pub(crate) feature: Option<&'static str>,
}

impl Program {
    /// Where [`compile`] puts it.
    pub(crate) fn path(&self) -> PathBuf {
        workspace::target_folder()
            .join(TARGET)
            .join("release")
            .join(self.name)
    }
}

/// Compiles programs in release mode; cargo finds out what is up to date.
pub(crate) fn compile(programs: &[Program]) -> Result<()> {
    if programs.is_empty() {
        return Ok(());
    }
    let mut command = workspace::cargo();
    command.args(["build", "--release", "--locked", "--target", TARGET]);
    for program in programs {
        command.args(["--package", program.package, "--bin", program.name]);
        command.args(program.feature.iter().flat_map(|feature| ["--features", feature]));
    }
    // The agent's build script needs bpf-linker; ring has some C, which must be compiled against musl as well.
    command
        .env("PATH", path_with(&setup::bpf_linker_folder()?)?)
        .env("CC_x86_64_unknown_linux_musl", "musl-gcc");
    let names: Vec<&str> = programs.iter().map(|program| program.name).collect();
    step::step(&format!("compile {} (static, release)", names.join(", ")), || {
        step::run(&mut command, "image-programs").context("compile the programs for the images")
    })
}

fn path_with(first: &Path) -> Result<OsString> {
    let rest = env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(first.to_owned()).chain(env::split_paths(&rest));
    env::join_paths(folders).context("put bpf-linker in front of PATH")
}

/// Puts a compiled program into an image, unless the archive holds it already.
pub(crate) fn package(program: &Program, reference: &str, to: &Path) -> Result<()> {
    let binary = program.path();
    let fingerprint = format!("{FORMAT} {reference} {}", archive::sha256_of_file(&binary)?);
    let note = to.with_extension("fingerprint");
    if to.exists() && fs::read_to_string(&note).is_ok_and(|last| last == fingerprint) {
        return Ok(());
    }
    step::step(&format!("image {reference}"), || {
        let root = tempfile::tempdir().context("make a folder for the image")?;
        let copy = root.path().join(program.name);
        fs::copy(&binary, &copy).with_context(|| format!("copy {}", binary.display()))?;
        let entry = format!("/{}", program.name);
        archive::write(
            root.path(),
            Owners::Root,
            reference,
            &Start {
                entrypoint: &[&entry],
                path: "/",
            },
            to,
        )?;
        fs::write(&note, &fingerprint).with_context(|| format!("write {}", note.display()))
    })
}
