//! kubectl: the only way these tests talk to the cluster.

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::wait;

/// A run of kubectl that the API server does not answer must not hang for ever.
const REQUEST_TIMEOUT: &str = "--request-timeout=20s";

/// kubectl with a kubeconfig.
#[derive(Debug, Clone)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: Option<PathBuf>,
}

/// What a run printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Printed {
    /// Standard output.
    pub output: String,
    /// Standard error; warnings of the API server are here.
    pub errors: String,
}

impl Kubectl {
    /// This program with this kubeconfig.
    #[must_use]
    pub fn new(program: &Path, kubeconfig: &Path) -> Self {
        Self {
            program: program.to_owned(),
            kubeconfig: Some(kubeconfig.to_owned()),
        }
    }

    /// `LEYLINE_KUBECTL`, else `kubectl` on PATH; the kubeconfig of the environment.
    ///
    /// # Errors
    /// When `KUBECONFIG` is not set: the tests never use a cluster nobody named.
    pub fn from_env() -> Result<Self> {
        ensure!(
            env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty()),
            "KUBECONFIG is not set; `cargo xtask cluster up` prints it"
        );
        let program = env::var_os("LEYLINE_KUBECTL").map_or_else(|| PathBuf::from("kubectl"), PathBuf::from);
        Ok(Self {
            program,
            kubeconfig: None,
        })
    }

    /// The command, to be completed and run by the caller.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        command.args(args).stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it does not start or does not end with 0; then with what it said.
    pub fn run(&self, args: &[&str]) -> Result<Printed> {
        let output = self.command(&[args, &[REQUEST_TIMEOUT]].concat()).output();
        printed(
            args,
            output.with_context(|| format!("start {}", self.program.display()))?,
        )
    }

    /// Runs it with text on its standard input.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_with(&self, args: &[&str], input: &str) -> Result<Printed> {
        let mut command = self.command(&[args, &[REQUEST_TIMEOUT]].concat());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).context("write to kubectl")?;
        }
        printed(args, child.wait_with_output().context("wait for kubectl")?)
    }

    /// `kubectl get … --output=json`.
    ///
    /// # Errors
    /// As [`Self::run`], and when the answer is not JSON.
    pub fn get(&self, args: &[&str]) -> Result<Value> {
        let printed = self.run(&[&["get"], args, &["--output=json"]].concat())?;
        serde_json::from_str(&printed.output)
            .with_context(|| format!("kubectl get {}: not JSON", args.join(" ")))
    }

    /// Applies objects.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn apply(&self, objects: &[Value]) -> Result<Printed> {
        let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        self.run_with(&["apply", "--filename=-"], &list.to_string())
    }

    /// Deletes a namespace, if it is there, and waits until it is gone.
    ///
    /// # Errors
    /// When it is still there after a minute and a half.
    pub fn delete_namespace(&self, name: &str) -> Result<()> {
        self.run(&["delete", "namespace", name, "--ignore-not-found", "--wait=false"])?;
        wait::until(
            &format!("namespace {name} is gone"),
            Duration::from_secs(90),
            || {
                let left = self
                    .run(&["get", "namespace", name, "--ignore-not-found", "--output=name"])?
                    .output;
                ensure!(left.trim().is_empty(), "it is still there");
                Ok(())
            },
        )
    }

    /// What one pod printed.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn logs(&self, namespace: &str, pod: &str) -> Result<String> {
        Ok(self.run(&["logs", "--namespace", namespace, pod])?.output)
    }

    /// The rollout of a workload (`deployment/x`) is complete.
    ///
    /// # Errors
    /// With the workload's pods when it is not complete in time.
    pub fn rollout(&self, namespace: &str, workload: &str, limit: Duration) -> Result<()> {
        let timeout = format!("--timeout={}s", limit.as_secs());
        let args = ["rollout", "status", "--namespace", namespace, workload, &timeout];
        let output = self
            .command(&args)
            .output()
            .with_context(|| format!("start {}", self.program.display()))?;
        if let Err(reason) = printed(&args, output) {
            let pods = self.run(&["get", "pods", "--namespace", namespace, "--output=wide"]);
            let events = self.run(&[
                "get",
                "events",
                "--namespace",
                namespace,
                "--sort-by=.lastTimestamp",
            ]);
            let shown =
                |result: Result<Printed>| result.map_or_else(|error| format!("{error:#}"), |it| it.output);
            let (pods, events) = (shown(pods), shown(events));
            bail!(
                "{workload} is not ready after {} s: {reason:#}\n{pods}\n{events}",
                limit.as_secs()
            );
        }
        Ok(())
    }
}

fn printed(args: &[&str], output: Output) -> Result<Printed> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let printed = Printed {
        output: text(&output.stdout),
        errors: text(&output.stderr),
    };
    ensure!(
        output.status.success(),
        "kubectl {}: {}: {}",
        args.join(" "),
        output.status,
        printed.errors.trim()
    );
    Ok(printed)
}
