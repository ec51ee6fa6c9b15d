//! One run over all scenarios: deployed together, begun together, judged together; those that disturb Leyline one after
//! the other afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::join::{self, Truth};
use super::judge::{Verdict, judge};
use super::log;
use super::machine::Machine;
use super::play::Play;
use super::proxy::{self, Mode};
use super::scenario::{Batch, NAMESPACES, Scenario};
use super::table::Row;
use crate::edges::{self, Dependency};
use crate::kubectl::Kubectl;
use crate::{leyline, wait};

/// Many pods on two cores.
const DEPLOYED: Duration = Duration::from_secs(300);
const ENDED: Duration = Duration::from_secs(180);
/// A connection without its other half becomes an edge after ten to twenty seconds: a wrong one is there by then.
const SETTLED: Duration = Duration::from_secs(21);
/// A total is written some seconds after its edge went quiet, then through a lane with a rate.
const CAUGHT_UP: Duration = Duration::from_secs(60);

/// From the beginning of one scenario to the next one's.
const APART: Duration = Duration::from_millis(150);

/// What a run needs.
#[derive(Debug, Clone)]
pub struct Options {
    /// The traffic tool, for processes outside pods.
    pub traffic: PathBuf,
    /// The xtask program.
    pub xtask: PathBuf,
    /// Where logs and objects are kept. Pods write there too: a path of the nodes.
    pub folder: PathBuf,
    /// The folder of the cluster, where its nodes keep their lists of addresses.
    pub cluster: PathBuf,
}

/// Runs scenarios and judges each one.
///
/// # Errors
/// When the cluster does not do what is needed to run them; a wrong edge is a verdict, not an error.
pub fn run(kubectl: &Kubectl, options: &Options, scenarios: &[Scenario]) -> Result<Vec<Row>> {
    leyline::ensure_installed(kubectl)?;
    let programs = options.folder.join("programs");
    let machine = Machine::prepare(&options.traffic, &options.xtask, &programs, &options.cluster)?;
    let mut stage = Stage {
        kubectl,
        failed: BTreeMap::new(),
        folder: &options.folder,
        plays: scenarios
            .iter()
            .map(|scenario| {
                let logs = options.folder.join("logs");
                Ok((scenario, Play::new(scenario, kubectl, &machine, &logs)?))
            })
            .collect::<Result<_>>()?,
    };
    let started = Instant::now();
    stage.deploy()?;
    say(started, "deployed");
    stage.prepare();
    proxy::knows(kubectl, Mode::Nftables)?;
    say(started, "everything listens");
    let quiet = stage.of(Batch::Quiet);
    let mut errors = stage.begin(&quiet);
    say(started, "all calls made");
    let mut rows = stage.judge(&quiet, errors)?;
    say(started, "judged");
    match leyline::loss_counters(kubectl) {
        Ok(lines) => lines.iter().for_each(|line| println!("          {line}")),
        Err(error) => eprintln!("the agents do not say what they lost: {error:#}"),
    }
    let alone = stage.of(Batch::Alone);
    errors = alone.iter().flat_map(|one| stage.begin(&[*one])).collect();
    if !alone.is_empty() {
        say(started, "all calls made that disturb Leyline");
        leyline::ready(kubectl)?;
        rows.extend(stage.judge(&alone, errors)?);
        say(started, "judged");
    }
    Ok(rows)
}

fn say(started: Instant, what: &str) {
    println!("{:>6.1} s  {what}", started.elapsed().as_secs_f64());
}

type Part<'a> = &'a (&'a Scenario, Play<'a>);

struct Stage<'a> {
    kubectl: &'a Kubectl,
    folder: &'a Path,
    /// Scenarios that could not even begin, and why.
    failed: BTreeMap<String, String>,
    plays: Vec<(&'a Scenario, Play<'a>)>,
}

impl Stage<'_> {
    fn of(&self, batch: Batch) -> Vec<Part<'_>> {
        self.plays
            .iter()
            .filter(|(scenario, _)| scenario.batch == batch)
            .collect()
    }

    /// Makes everything anew and waits until every process has started and every port is open.
    fn deploy(&mut self) -> Result<()> {
        self.remove()?;
        wait::until("old namespaces are gone", DEPLOYED, || {
            let left = self.kubectl.run(&["get", "namespaces", "--output=name"])?.output;
            ensure!(!left.contains(&format!("namespace/{NAMESPACES}")), "{left}");
            Ok(())
        })?;
        let namespaces: Vec<Value> = self.plays.iter().map(|(_, play)| namespace(play)).collect();
        self.kubectl.apply(&namespaces)?;
        let mut objects = Vec::new();
        for (scenario, play) in &self.plays {
            objects.extend(scenario.objects.iter().cloned());
            let logs = play.logs.to_string_lossy();
            let pods = scenario.actors.iter();
            objects.extend(pods.map(|(actor, shape)| actor.object(shape, &play.namespace, &logs)));
        }
        self.kubectl.apply(&objects)?;
        let deadline = Instant::now() + DEPLOYED;
        for (scenario, play) in &self.plays {
            let left = deadline.saturating_duration_since(Instant::now());
            let wanted = (
                scenario
                    .expected_processes()
                    .saturating_sub(scenario.more_processes),
                scenario.expected_ports(),
            );
            let waited = wait::until(&format!("{} is deployed", scenario.name), left, || {
                let progress = play.progress()?;
                ensure!(
                    progress.processes >= wanted.0 && progress.ports >= wanted.1,
                    "{progress:?} instead of {} processes and {} ports",
                    wanted.0,
                    wanted.1
                );
                Ok(())
            });
            if let Err(reason) = waited {
                let reason = format!("{reason:#}\n{}", self.pods(play));
                self.failed.insert(scenario.name.clone(), reason);
            }
        }
        Ok(())
    }

    fn pods(&self, play: &Play<'_>) -> String {
        let args = [
            "get",
            "pods,events",
            "--output=wide",
            "--namespace",
            &play.namespace,
        ];
        let shown = self.kubectl.run(&args);
        shown.map_or_else(|error| format!("{error:#}"), |it| it.output)
    }

    fn prepare(&mut self) {
        for (scenario, play) in &self.plays {
            if self.failed.contains_key(&scenario.name) {
                continue;
            }
            let prepared = scenario
                .prepare
                .iter()
                .try_for_each(|step| step(play))
                .and_then(|()| {
                    play.until("its other processes have started", |it| {
                        it.processes >= scenario.expected_processes()
                    })
                });
            if let Err(reason) = prepared {
                self.failed.insert(scenario.name.clone(), format!("{reason:#}"));
            }
        }
    }

    /// Begins some scenarios together, plays their scripts and waits until all their callers are done. Gives what went wrong.
    fn begin(&self, parts: &[Part<'_>]) -> Vec<Option<String>> {
        thread::scope(|scope| {
            let runs: Vec<_> = parts
                .iter()
                .enumerate()
                .map(|(number, (scenario, play))| {
                    scope.spawn(move || {
                        // All at once would be more connections per second than agents record one by one.
                        thread::sleep(APART * u32::try_from(number).unwrap_or_default());
                        if let Some(reason) = self.failed.get(&scenario.name) {
                            bail!("{reason}");
                        }
                        play.begin("go")?;
                        scenario.script.iter().try_for_each(|step| step(play))?;
                        let callers = scenario.expected_callers();
                        wait::until("all callers are done", ENDED, || {
                            let progress = play.progress()?;
                            ensure!(progress.done >= callers, "{progress:?}, {callers} callers");
                            Ok(())
                        })
                    })
                })
                .collect();
            runs.into_iter()
                .map(|run| match run.join() {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => Some(format!("{error:#}")),
                    Err(_) => Some("its script ended abnormally".to_owned()),
                })
                .collect()
        })
    }

    /// Waits until all are right, for as long as they may need; what is wrong then is wrong.
    fn judge(&self, parts: &[Part<'_>], errors: Vec<Option<String>>) -> Result<Vec<Row>> {
        let truths: Vec<Result<Truth>> = parts
            .iter()
            .map(|(scenario, play)| join::join(&log::read(&play.logs)?, &scenario.elsewhere, scenario.fold))
            .collect();
        let start = Instant::now();
        let mut rows = Vec::new();
        let look = || {
            let shown = edges::all(self.kubectl)?;
            rows = parts
                .iter()
                .zip(&truths)
                .zip(&errors)
                .map(|((part, truth), error)| row(part, truth, error.as_deref(), &shown))
                .collect();
            ensure!(start.elapsed() >= SETTLED, "it may still change");
            let wrong: Vec<&Row> = rows.iter().filter(|row| !row.verdict.is_exact()).collect();
            ensure!(wrong.is_empty(), "{} scenarios are not right", wrong.len());
            Ok(())
        };
        // The verdicts say what is wrong.
        wait::until("all scenarios are right", SETTLED + CAUGHT_UP, look).ok();
        ensure!(rows.len() == parts.len(), "the objects could not be read");
        let shown = edges::all(self.kubectl)?;
        for (_, play) in parts {
            keep(self.folder, play, &shown)?;
        }
        Ok(rows)
    }

    fn remove(&self) -> Result<()> {
        let list = self.kubectl.run(&["get", "namespaces", "--output=name"])?.output;
        let old: Vec<&str> = list
            .lines()
            .filter(|name| name.starts_with(&format!("namespace/{NAMESPACES}")))
            .collect();
        if !old.is_empty() {
            self.kubectl
                .run(&[&["delete", "--wait=false"], old.as_slice()].concat())?;
        }
        Ok(())
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("namespaces stay: {error:#}");
        }
    }
}

fn namespace(play: &Play<'_>) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": play.namespace } })
}

fn row(part: Part<'_>, truth: &Result<Truth>, error: Option<&str>, shown: &[Dependency]) -> Row {
    let (scenario, play) = part;
    let own: Vec<Dependency> = shown
        .iter()
        .filter(|one| one.edge.touches(&[&play.namespace]))
        .cloned()
        .collect();
    let mut verdict = match truth {
        Ok(truth) => judge(truth, &own, scenario.exactness, scenario.fold),
        Err(error) => Verdict::unknown(&format!("the logs do not say what is true: {error:#}")),
    };
    verdict
        .problems
        .extend(error.map(|error| format!("the scenario did not run: {error}")));
    Row {
        name: scenario.name.clone(),
        rule: scenario.rule.clone(),
        connections: truth
            .as_ref()
            .map_or(0, |truth| truth.values().map(|it| it.opened).sum()),
        verdict,
    }
}

/// Keeps the objects beside the logs.
fn keep(folder: &Path, play: &Play<'_>, shown: &[Dependency]) -> Result<()> {
    let own: Vec<&Value> = shown
        .iter()
        .filter(|one| one.edge.touches(&[&play.namespace]))
        .map(|one| &one.object)
        .collect();
    let path = folder.join("objects").join(format!("{}.json", play.namespace));
    fs::create_dir_all(folder.join("objects")).context("create the folder for objects")?;
    let text = serde_json::to_string_pretty(&own).context("encode objects")?;
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}
