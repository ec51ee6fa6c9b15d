//! The two images the cluster itself needs, made from nothing but one static program each and written as docker archives:
//! pause (every pod's sandbox) and CoreDNS.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::node::PAUSE_IMAGE;
use crate::images::archive::{self, Owners, Start};
use crate::setup::go_tools;
use crate::step;
use crate::{cache, workspace};

/// The DNS server's image.
pub(crate) const DNS_IMAGE: &str = "leyline.dev/coredns:1.15.0";

/// Both archives, made when missing.
pub(crate) fn ensure() -> Result<Vec<PathBuf>> {
    let folder = cache::tool("image-cluster", "1")?;
    let pause = folder.join("pause.tar");
    cache::file(&pause, |to| {
        step::step("make the pause image", || {
            let build = tempfile::tempdir().context("make a build folder")?;
            let program = build.path().join("pause");
            step::run(
                Command::new("musl-gcc")
                    .args(["-static", "-Os", "-s", "-Wall", "-Wextra", "-Werror", "-o"])
                    .arg(&program)
                    .arg(workspace::asset("pause/pause.c")),
                "build-pause",
            )?;
            archive(&program, "pause", PAUSE_IMAGE, to)
        })
    })?;
    let dns = folder.join(format!("{}.tar", DNS_IMAGE.replace(['/', ':'], "_")));
    cache::file(&dns, |to| {
        step::step("make the CoreDNS image", || {
            archive(&go_tools::coredns()?, "coredns", DNS_IMAGE, to)
        })
    })?;
    Ok(vec![pause, dns])
}

/// An image with one program, which is the entry point.
fn archive(program: &Path, name: &str, image: &str, to: &Path) -> Result<()> {
    let root = tempfile::tempdir().context("make the image's root")?;
    let inside = root.path().join(name);
    fs::copy(program, &inside).with_context(|| format!("copy {}", program.display()))?;
    fs::set_permissions(&inside, Permissions::from_mode(0o755)).context("make the program executable")?;
    let start = Start {
        entrypoint: &[&format!("/{name}")],
        path: "/",
    };
    archive::write(root.path(), Owners::Root, image, &start, to)
}
