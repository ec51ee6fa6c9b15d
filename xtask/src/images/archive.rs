//! The `docker save` format: an outer tar with `manifest.json`, an image configuration and one tar per layer.
//!
//! The tars are written by the system's `tar`, with sorted names and without times, so that equal content gives equal
//! bytes and an image's digest says whether anything changed.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use data_encoding::HEXLOWER;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::step;

/// Whom the files of an image belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owners {
    /// Everything belongs to root.
    Root,
    /// As in the folder.
    Kept,
}

/// What a container of the image starts with.
pub(crate) struct Start<'a> {
    /// The program and its first arguments.
    pub(crate) entrypoint: &'a [&'a str],
    /// The search path for programs.
    pub(crate) path: &'a str,
}

/// Writes an image of one layer, made of everything in `root`, to `to`.
pub(crate) fn write(
    root: &Path,
    owners: Owners,
    reference: &str,
    start: &Start<'_>,
    to: &Path,
) -> Result<()> {
    let parent = to
        .parent()
        .with_context(|| format!("{} has no folder", to.display()))?;
    // Beside the archive: a layer may be large, and /tmp may be small.
    let parts = tempfile::Builder::new()
        .prefix(".image-")
        .tempdir_in(parent)
        .context("make a folder for the image")?;
    let layer = parts.path().join("layer.tar");
    tar(root, &["."], owners, &layer)?;
    let digest = sha256_of_file(&layer)?;
    write_json(&parts.path().join("config.json"), &config(&digest, start))?;
    write_json(&parts.path().join("manifest.json"), &manifest(reference))?;
    let whole = parts.path().join("image.tar");
    tar(
        parts.path(),
        &["manifest.json", "config.json", "layer.tar"],
        Owners::Root,
        &whole,
    )?;
    fs::rename(&whole, to).with_context(|| format!("move the image to {}", to.display()))
}

/// The identity of the image in an archive: the digest of its configuration, which names the layer's.
pub(crate) fn identity(archive: &Path) -> Result<String> {
    let mut unpack = Command::new("tar");
    unpack
        .args(["--extract", "--to-stdout", "--file"])
        .arg(archive)
        .arg("config.json");
    let config = step::output(&mut unpack).with_context(|| format!("read {}", archive.display()))?;
    Ok(format!(
        "sha256:{}",
        HEXLOWER.encode(&Sha256::digest(config.as_bytes()))
    ))
}

fn config(layer_digest: &str, start: &Start<'_>) -> serde_json::Value {
    json!({
        "architecture": "amd64",
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": { "Entrypoint": start.entrypoint, "Env": [format!("PATH={}", start.path)], "WorkingDir": "/" },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
        "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "cargo xtask image" }],
    })
}

fn manifest(reference: &str) -> serde_json::Value {
    json!([{ "Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"] }])
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    let text = serde_json::to_vec(value).context("encode the image's description")?;
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn tar(folder: &Path, names: &[&str], owners: Owners, to: &Path) -> Result<()> {
    let mut command = Command::new("tar");
    command.args([
        "--create",
        "--format=gnu",
        "--sort=name",
        "--mtime=@0",
        "--numeric-owner",
    ]);
    if owners == Owners::Root {
        command.args(["--owner=0", "--group=0"]);
    }
    command
        .arg("--file")
        .arg(to)
        .arg("--directory")
        .arg(folder)
        .args(names);
    step::output(&mut command)
        .with_context(|| format!("pack {}", folder.display()))
        .map(drop)
}

/// SHA-256 of a file, as hexadecimal digits.
pub(crate) fn sha256_of_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file
            .read(&mut buffer)
            .with_context(|| format!("read {}", path.display()))?;
        match buffer.get(..read) {
            Some(part) if read > 0 => hash.update(part),
            _ => return Ok(HEXLOWER.encode(&hash.finalize())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(to: &Path) {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("b"), "two").unwrap();
        fs::write(root.path().join("a"), "one").unwrap();
        let start = Start {
            entrypoint: &["/a"],
            path: "/",
        };
        write(root.path(), Owners::Root, "example.test/image:1", &start, to).unwrap();
    }

    #[test]
    fn equal_content_gives_equal_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("1.tar"), folder.path().join("2.tar"));
        packed(&first);
        packed(&second);
        assert_eq!(fs::read(first).unwrap(), fs::read(second).unwrap());
    }

    #[test]
    fn the_configuration_names_the_layer_by_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image.tar");
        packed(&image);
        let mut unpack = Command::new("tar");
        unpack.arg("-xf").arg(&image).arg("-C").arg(folder.path());
        step::output(&mut unpack).unwrap();
        let config = fs::read_to_string(folder.path().join("config.json")).unwrap();
        let digest = sha256_of_file(&folder.path().join("layer.tar")).unwrap();
        assert!(config.contains(&format!("sha256:{digest}")), "{config}");
        assert!(
            fs::read_to_string(folder.path().join("manifest.json"))
                .unwrap()
                .contains("example.test/image:1")
        );
    }

    #[test]
    fn nothing_of_the_making_stays_beside_the_image() {
        let folder = tempfile::tempdir().unwrap();
        packed(&folder.path().join("image.tar"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
