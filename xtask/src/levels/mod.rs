//! `cargo xtask test`: the levels of tests, each by name, with counts.
//!
//! lint, unit and golden need nothing; ebpf needs root and a kernel with BTF; api and e2e run on the cluster of
//! `cargo xtask cluster`, which is made for them and removed again whatever happens.
//!
//! A level that ran nothing, or left a test out, counts as a failure: silence must never look like success.

mod lint;
mod report;
mod targets;

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use report::Counts;
use targets::Selection;

use crate::step::{self, say, step};
use crate::{cluster, demo, images, setup, workspace};

/// One level of tests, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Level {
    /// Formatting, clippy, docs, dependencies; each check counts as one test
    Lint,
    /// Tests beside the code, and those of a crate's contract
    Unit,
    /// What users rely on, pinned in files
    Golden,
    /// The eBPF programs on this machine's kernel
    Ebpf,
    /// The operator against a real API server
    Api,
    /// Everything, on the two-node cluster
    E2e,
}

impl Level {
    const ALL: [Self; 6] = [
        Self::Lint,
        Self::Unit,
        Self::Golden,
        Self::Ebpf,
        Self::Api,
        Self::E2e,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Lint => "lint",
            Self::Unit => "unit",
            Self::Golden => "golden",
            Self::Ebpf => "ebpf",
            Self::Api => "api",
            Self::E2e => "e2e",
        }
    }

    fn needs_cluster(self) -> bool {
        matches!(self, Self::Api | Self::E2e)
    }

    /// Levels on shared ground run one test at a time and show their output while they run.
    fn is_exclusive(self) -> bool {
        matches!(self, Self::Ebpf | Self::Api | Self::E2e)
    }

    /// A test that hangs must not take the whole run with it.
    fn limit(self) -> Duration {
        match self {
            Self::Lint | Self::Unit | Self::Golden | Self::Ebpf | Self::Api => Duration::from_secs(30 * 60),
            Self::E2e => Duration::from_secs(50 * 60),
        }
    }
}

/// Runs the levels (none named: all) and prints a table and, as the last line, the sum.
pub(crate) fn run(levels: &[Level], keep: bool) -> Result<()> {
    let mut levels = if levels.is_empty() {
        Level::ALL.to_vec()
    } else {
        levels.to_vec()
    };
    levels.sort_unstable();
    levels.dedup();
    workspace::own_program()?;
    setup::for_build()?;
    let mut cluster = None;
    let mut results = Vec::new();
    for level in levels {
        let started = Instant::now();
        say(&format!("== {} ==", level.name()));
        let counts = match run_level(level, keep, &mut cluster) {
            Ok(counts) => counts.checked(),
            // What kept a level from running is one failure, and the other levels still run.
            Err(error) => Counts::problem(&format!("{error:#}")),
        };
        results.push((level.name(), counts, started.elapsed()));
    }
    drop(cluster);
    let sum = report::print(&results);
    say(&format!("{} passed, {} failed", sum.passed, sum.failed));
    if sum.failed > 0 {
        bail!("not everything passed");
    }
    Ok(())
}

fn run_level(level: Level, keep: bool, cluster: &mut Option<TestCluster>) -> Result<Counts> {
    if level == Level::Lint {
        setup::cargo_deny::ensure()?;
        return lint::run();
    }
    if level.needs_cluster() && cluster.is_none() {
        *cluster = Some(TestCluster::new(keep)?);
    }
    if level == Level::E2e {
        let archives = images::build_all(&images::Image::ALL)?;
        cluster::load_images(&archives)?;
    }
    let mut counts = Counts::default();
    for (number, selection) in targets::of(level)?.into_iter().enumerate() {
        counts.add(cargo_test(level, number, &selection)?);
    }
    Ok(counts)
}

/// The cluster of the api and e2e levels; removed when this value goes, unless it is to be kept.
struct TestCluster {
    keep: bool,
}

impl TestCluster {
    /// A cluster of an earlier run holds objects of that run, so it is made anew, except for a developer who keeps it.
    fn new(keep: bool) -> Result<Self> {
        let guard = Self { keep };
        if !keep {
            demo::down()?;
        }
        cluster::up()?;
        Ok(guard)
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        if self.keep {
            say("the cluster stays up (--keep); end it with `cargo xtask cluster down`");
        } else if let Err(error) = demo::down() {
            say(&format!("the test cluster could not be removed: {error:#}"));
        }
    }
}

/// Compiles the test programs of one selection, runs them and counts what they say.
fn cargo_test(level: Level, number: usize, selection: &Selection) -> Result<Counts> {
    let what = selection.cargo_args().join(" ");
    let log = format!("test-{}-{number}", level.name());
    let mut compile = workspace::cargo();
    compile
        .args(["test", "--no-run"])
        .args(selection.cargo_args())
        .envs(environment()?);
    step(&format!("compile the tests: {what}"), || {
        step::run(&mut compile, &format!("{log}-compile"))
    })?;
    let mut command = test_command(level, selection)?;
    step(&format!("cargo test {what}"), || {
        let (success, text) = tee(&mut command, &log, level.is_exclusive())?;
        let counts = report::count(&text);
        for name in &counts.failures {
            say(&format!("    FAILED {name}"));
        }
        if success {
            return Ok(counts);
        }
        let path = step::log_path(&log)?;
        if !level.is_exclusive() {
            say(&step::tail(&path));
        }
        say(&format!("    log: {}", path.display()));
        Ok(counts.of_a_failed_run())
    })
}

fn test_command(level: Level, selection: &Selection) -> Result<Command> {
    let mut command = Command::new("timeout");
    command
        .current_dir(workspace::root())
        .args(["--kill-after=30", &level.limit().as_secs().to_string()])
        .arg(workspace::cargo().get_program())
        .args(["test", "--no-fail-fast", "--quiet"])
        .args(selection.cargo_args())
        .envs(environment()?)
        .stdin(Stdio::null());
    // Not `--quiet` for the test programs: the log names every test.
    command.args(["--", "--format=pretty"]);
    if level.is_exclusive() {
        command.args(["--include-ignored", "--test-threads=1", "--nocapture"]);
    }
    Ok(command)
}

/// Runs a program with both outputs in one log file, which is given back; shown while it runs when `show` is set.
fn tee(command: &mut Command, log: &str, show: bool) -> Result<(bool, String)> {
    let path = step::log_path(log)?;
    let mut file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    let (reader, writer) = std::io::pipe().context("make a pipe")?;
    let errors = writer.try_clone().context("share the pipe")?;
    let mut child = command
        .stdout(writer)
        .stderr(errors)
        .spawn()
        .with_context(|| format!("start `{}`", step::show(command)))?;
    // The command holds the writing ends: without this the reader would never see the end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut text = String::new();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.context("read the output of cargo test")?;
        let line = String::from_utf8_lossy(&line);
        writeln!(file, "{line}").with_context(|| format!("write {}", path.display()))?;
        if show {
            say(&line);
        }
        text.push_str(&line);
        text.push('\n');
    }
    let status = child.wait().context("wait for cargo test")?;
    Ok((status.success(), text))
}

/// What tests and builds find in their environment: bpf-linker, kubectl, the cluster and this very program.
fn environment() -> Result<Vec<(&'static str, OsString)>> {
    let own_path = env::var_os("PATH").unwrap_or_default();
    let mut folders = vec![setup::bpf_linker_folder()?, setup::go_tools::kubernetes_folder()?];
    folders.extend(env::split_paths(&own_path));
    Ok(vec![
        (
            "PATH",
            env::join_paths(folders).context("put the tools in front of PATH")?,
        ),
        ("KUBECONFIG", cluster::kubeconfig()?.into_os_string()),
        ("LEYLINE_XTASK", workspace::own_program()?.into()),
    ])
}

/// `cargo xtask lint`.
pub(crate) fn lint() -> Result<()> {
    run(&[Level::Lint], false)
}
