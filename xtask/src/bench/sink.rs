//! The operator's end of the stream for benchmarks without a cluster: a process that speaks the real protocol with
//! TLS, acknowledges every report and keeps nothing. It is `leyline-e2e-sink` of tests/e2e, so that this crate does
//! not have to build a gRPC stack before it can do anything else.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::images::program::Program;
use crate::step::wait_for;

const ADDRESS: &str = "127.0.0.1:18443";

/// See the module's documentation.
pub(super) const PROGRAM: Program = Program {
    package: "leyline-e2e",
    name: "leyline-e2e-sink",
    feature: Some("leyline-e2e/sink"),
};

/// A running sink.
pub(super) struct Sink {
    child: Child,
    folder: tempfile::TempDir,
}

impl Sink {
    /// Starts it; it is compiled already.
    pub(super) fn start() -> Result<Self> {
        let folder = tempfile::tempdir().context("make a folder for the collector's certificates")?;
        let child = Command::new(PROGRAM.path())
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
