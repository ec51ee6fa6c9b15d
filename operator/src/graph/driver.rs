//! The task: takes in what happens, lets time pass, hands out writes.
//!
//! Inputs: [`Input`]s, the clock, leadership. Outputs: [`Work`]. No IO of its own. Every replica does all of this, so that
//! the next leader knows everything; only the leader hands out work.

use std::collections::HashSet;
use std::time::Duration;

use leyline_graph::Graph;
use leyline_graph::entity::Time;
use leyline_plan::{Adopted, Planner};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::answers::Answers;
use super::{Input, Inventory, Kind, Object, gauges, missing, zones};
use crate::admin::Readiness;
use crate::apply::Work;
use crate::args::Args;
use crate::clock;
use crate::lease::Leadership;
use crate::metrics::Metrics;

/// What a new edge waits at most before it is planned.
const TICK: Duration = Duration::from_millis(200);
/// Every how many ticks sizes are counted for the metrics.
const GAUGES_EVERY: u32 = 10;
/// Every how many ticks bytes by zone are counted: agents read the sockets that stay open every ten seconds.
const ZONES_EVERY: u32 = 50;
/// Answers to objects made by hand, per tick: they come after everything else.
const ANSWERS_PER_TICK: usize = 4;

/// What the driver is told by the arguments.
#[derive(Clone, Debug)]
pub struct Config {
    /// Of the graph.
    pub graph: leyline_graph::Config,
    /// Of the plan.
    pub plan: leyline_plan::Config,
    /// How long nodes that have not reported are waited for once the inventory is complete.
    pub settle_after: Duration,
    /// Most series of bytes by zone.
    pub zone_series: usize,
}

impl From<&Args> for Config {
    fn from(args: &Args) -> Self {
        let plan = leyline_plan::Config {
            system_namespace: args.namespace.clone(),
            idle_after: milliseconds(args.idle_after),
            delete_after: milliseconds(args.delete_after),
            event_silence: milliseconds(args.events_after),
            new: leyline_plan::Rate {
                burst: args.new_burst,
                per_second: args.new_per_second,
            },
            changes: leyline_plan::Rate {
                burst: args.updates_per_second,
                per_second: args.updates_per_second,
            },
            ..leyline_plan::Config::default()
        };
        Self {
            graph: leyline_graph::Config::default(),
            plan,
            settle_after: args.settle_after,
            zone_series: args.zone_series,
        }
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Owns graph and plan.
pub struct Driver {
    graph: Graph,
    plan: Planner,
    answers: Answers,
    system_namespace: String,
    settle_after: i64,
    listed: HashSet<Kind>,
    /// When the last kind was listed.
    complete: Option<Time>,
    settled: bool,
    leading: bool,
    ticks: u32,
    leadership: Leadership,
    metrics: Metrics,
    gauges: gauges::Gauges,
    zones: zones::ZoneCounters,
    readiness: Readiness,
}

impl Driver {
    /// A driver that knows nothing yet.
    #[must_use]
    pub fn new(config: Config, leadership: Leadership, metrics: Metrics, readiness: Readiness) -> Self {
        Self {
            graph: Graph::new(config.graph),
            system_namespace: config.plan.system_namespace.clone(),
            plan: Planner::new(config.plan, clock::now()),
            answers: Answers::default(),
            settle_after: milliseconds(config.settle_after),
            listed: HashSet::new(),
            complete: None,
            settled: false,
            leading: false,
            ticks: 0,
            leadership,
            gauges: gauges::Gauges::new(metrics.clone()),
            zones: zones::ZoneCounters::new(config.zone_series, metrics.clone()),
            metrics,
            readiness,
        }
    }

    /// Runs until `shutdown`, or until nobody can send inputs any more.
    pub async fn run(
        mut self,
        mut inputs_rx: mpsc::Receiver<Input>,
        work_tx: mpsc::Sender<Work>,
        shutdown: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // In this order: neither a flood of inputs nor a slow API server stops time.
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {
                    self.metrics.inputs_waiting.set(i64::try_from(inputs_rx.len()).unwrap_or(i64::MAX));
                    self.tick(&work_tx);
                }
                input = inputs_rx.recv() => {
                    let Some(input) = input else { return };
                    let freed = matches!(input, Input::Written(_)) && work_tx.capacity() > work_tx.max_capacity() / 2;
                    self.take(input, clock::now());
                    if freed {
                        self.hand_out(&work_tx, clock::now());
                    }
                }
            }
        }
    }

    fn take(&mut self, input: Input, now: Time) {
        match input {
            Input::Inventory(inventory) => self.inventory(inventory, now),
            Input::Listed(kind) => self.listed(kind, now),
            Input::Object(object) => self.object(object, now),
            Input::Hello {
                node,
                epoch,
                addresses,
            } => self.graph.hello(&node, epoch, &addresses, now),
            Input::Report {
                node,
                epoch,
                report,
                taken_tx,
            } => {
                // The stream may have ended meanwhile; what it said counts all the same.
                let _ = taken_tx.send(self.graph.report(&node, epoch, report, now));
            }
            Input::Gone { node } => self.graph.agent_gone(&node, now),
            Input::Written(written) => self.plan.done(written.ticket, written.outcome, now),
        }
    }

    fn inventory(&mut self, inventory: Inventory, now: Time) {
        match inventory {
            Inventory::Pod(pod) => self.graph.apply_pod(pod, now),
            Inventory::PodGone { uid } => self.graph.delete_pod(&uid, now),
            Inventory::Controller(controller) => self.graph.apply_controller(controller, now),
            Inventory::ControllerGone { uid } => self.graph.delete_controller(&uid, now),
            Inventory::Service(service) => self.graph.apply_service(service, now),
            Inventory::ServiceGone { namespace, name } => self.graph.delete_service(&namespace, &name, now),
            Inventory::Slice(slice) => self.graph.apply_endpoint_slice(slice, now),
            Inventory::SliceGone { namespace, name } => {
                self.graph.delete_endpoint_slice(&namespace, &name, now);
            }
            Inventory::Node(node) => self.graph.apply_node(node, now),
            Inventory::NodeGone { name } => self.graph.delete_node(&name, now),
            Inventory::Namespace {
                name,
                terminating: false,
            } => self.plan.namespace_present(&name),
            Inventory::Namespace {
                name,
                terminating: true,
            }
            | Inventory::NamespaceGone { name } => {
                self.plan.namespace_ended(&name, now);
            }
        }
    }

    fn listed(&mut self, kind: Kind, now: Time) {
        self.listed.insert(kind);
        if self.complete.is_none() && Kind::ALL.iter().all(|kind| self.listed.contains(kind)) {
            self.complete = Some(now);
            self.graph.inventory_synced(now);
            self.readiness.set(true);
            tracing::info!("every watch has listed; waiting for the nodes to report");
        }
    }

    fn object(&mut self, object: Object, now: Time) {
        match object {
            Object::Present(object) => {
                let adopted = if self.listed.contains(&Kind::ServiceDependency) {
                    self.plan.seen(&object, now)
                } else {
                    self.plan.adopt(&object, now)
                };
                match adopted {
                    Adopted::Ours(seed) => {
                        self.answers.forget(&object);
                        if !self.settled {
                            self.graph.seed(*seed);
                        }
                    }
                    // A copy of one of Leyline's own, or one of another installation: left alone.
                    Adopted::Stray => {}
                    Adopted::Foreign => self.answers.wanted(&object, now),
                }
            }
            Object::Invalid {
                namespace,
                name,
                generated,
                generation,
                error,
            } => {
                self.metrics.objects_invalid.inc();
                tracing::warn!(
                    namespace,
                    name,
                    generated,
                    error,
                    "an object cannot be understood"
                );
                self.answers.invalid(namespace, name, generation, &error, now);
            }
            Object::Gone(object) => {
                self.answers.forget(&object);
                self.plan.gone(&object, now);
            }
            Object::Missing(names) => {
                for object in missing::objects(&self.graph, &names, &self.system_namespace) {
                    self.plan.gone(&object, now);
                }
            }
        }
    }

    fn tick(&mut self, work_tx: &mpsc::Sender<Work>) {
        let now = clock::now();
        self.graph.tick(now);
        self.settle(now);
        for key in self.graph.drain_changed() {
            match self.graph.edge(&key) {
                Some(view) => self.plan.observe(&view, now),
                None => self.plan.vanish(&key, now),
            }
        }
        self.plan.tick(now);
        self.hand_out(work_tx, now);
        for key in self.plan.take_forgotten() {
            self.graph.forget(&key);
        }
        if self.ticks.is_multiple_of(GAUGES_EVERY) {
            self.gauges.set(&self.graph, &self.plan, now);
        }
        if self.settled && self.ticks.is_multiple_of(ZONES_EVERY) {
            self.zones.count(&self.graph, self.leading);
        }
        self.ticks = self.ticks.wrapping_add(1);
    }

    /// Once every node has reported, or the time for it has passed, what is unknown is unknown.
    fn settle(&mut self, now: Time) {
        let Some(complete) = self.complete.filter(|_| !self.settled) else {
            return;
        };
        let silent = self.graph.unreported_nodes();
        if !silent.is_empty() && now.0.saturating_sub(complete.0) < self.settle_after {
            return;
        }
        if silent.is_empty() {
            tracing::info!("every node has reported");
        } else {
            tracing::warn!(
                nodes = silent.len(),
                example = silent.first(),
                "going on without nodes that have not reported"
            );
        }
        self.settled = true;
        self.graph.settle(now);
        self.plan.settle(now);
        // What is known so far is from before: only what comes now moves the counters.
        self.zones.count(&self.graph, self.leading);
        self.metrics.graph_settled.set(1);
    }

    fn hand_out(&mut self, work_tx: &mpsc::Sender<Work>, now: Time) {
        let leading = self.leadership.held();
        if leading != self.leading {
            self.leading = leading;
            // Nobody waits for what an earlier term had under way.
            self.plan.abandon(now);
        }
        if !leading || !self.settled {
            return;
        }
        let graph = &self.graph;
        let writes = self.plan.take(work_tx.capacity(), now, |key| graph.edge(key));
        let mut work: Vec<Work> = writes.into_iter().map(Work::Write).collect();
        work.extend(self.plan.take_event(now).map(Work::Event));
        work.extend(self.answers.take(ANSWERS_PER_TICK).map(Work::Answer));
        for work in work {
            if let Err(error) = work_tx.try_send(work) {
                // There was room for the writes: this is an Event or an answer too many, or the end.
                match error.into_inner() {
                    Work::Answer(answer) => self.answers.put_back(answer),
                    Work::Event(_) => drop(self.metrics.events_dropped.inc()),
                    Work::Write(write) => self.plan.done(write.ticket, leyline_plan::Outcome::Failed, now),
                }
            }
        }
    }
}
