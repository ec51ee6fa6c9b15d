//! The operator's end of the stream for benchmarks without a cluster: a process that speaks the real protocol with
//! TLS, acknowledges every report and keeps nothing. It is `leyline-e2e-sink` of tests/e2e, so that this crate does
//! not have to build a gRPC stack before it can do anything else.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::step::{self, step, wait_for};
use crate::workspace;

const ADDRESS: &str = "127.0.0.1:18443";

/// A running sink.
pub(super) struct Sink {
    child: Child,
    folder: tempfile::TempDir,
}

impl Sink {
    /// Builds and starts it.
    pub(super) fn start() -> Result<Self> {
        step("build the collector that benchmarks report to", || {
            step::run(
                workspace::cargo().args([
                    "build",
                    "--release",
                    "--package",
                    "leyline-e2e",
                    "--bin",
                    "leyline-e2e-sink",
                    "--features",
                    "sink",
                ]),
                "bench-sink",
            )
        })?;
        let folder = tempfile::tempdir().context("make a folder for the collector's certificates")?;
        let child = Command::new(workspace::target_folder().join("release/leyline-e2e-sink"))
            .arg(ADDRESS)
            .arg(folder.path())
            .stdin(Stdio::null())
            .spawn()
            .context("start leyline-e2e-sink")?;
        let sink = Self { child, folder };
        wait_for("the collector's certificates", Duration::from_secs(10), || {
            // The token file is written last, when the port is open.
            ensure!(
                sink.token().exists(),
                "{} is not there yet",
                sink.token().display()
            );
            Ok(())
        })?;
        Ok(sink)
    }

    pub(super) fn address(&self) -> &'static str {
        ADDRESS
    }

    pub(super) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    pub(super) fn token(&self) -> PathBuf {
        self.folder.path().join("token")
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
