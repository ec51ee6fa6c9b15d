//! `observe`: the half-edges of this machine, live, without operator or Kubernetes. The quickest look.
//!
//! Inputs: [`ObserveArgs`], the kernel. Outputs: a table, or one JSON object per half-edge and round, on stdout. Ends on a
//! signal (the kernel detaches the programs with the process), after one round with `--once`, or when nobody reads.
//!
//! Rows with one name, role, remote address and port are added up. Deliberately absent: pod names (only the API server
//! knows them; the uid is what the cgroup says) and which connection belongs to which: that is the operator's work.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, IsTerminal as _, Write};
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use leyline_abi::{HalfEdge, HalfEdgeKey, loss, role, transport};
use serde::Serialize;

use crate::addresses::node_addresses;
use crate::clock;
use crate::kernel::{Kernel, KernelOptions, ProbeState, SplitSet};
use crate::ledger::{Naming, Subject};
use crate::naming::{Cgroups, Names, Processes, own_netns, unified_root};

/// Rings are emptied this often, so that cgroups have names in time.
const DRAIN_EVERY: Duration = Duration::from_millis(250);
/// Records taken at once; the rest waits for the next time.
const MAX_RECORDS: usize = 65_536;
/// Moves the cursor home and clears the rest of the screen.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Options of `observe`.
#[derive(Clone, Debug, clap::Args)]
pub struct ObserveArgs {
    /// One JSON object per half-edge and round instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Print what is there now and end.
    #[arg(long)]
    pub once: bool,
    /// Seconds between two rounds.
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    pub interval: f64,
    /// Half-edges to make room for; about 240 bytes of kernel memory each.
    #[arg(long, default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub max_half_edges: u32,
    /// Show UDP as well (Linux 6.3). While it runs a datagram takes some 0.6 µs longer at each end, a TCP send or receive some 90 ns.
    #[arg(long)]
    pub udp: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|seconds| (0.1..=3_600.0).contains(seconds))
        .ok_or_else(|| "seconds between 0.1 and 3600".to_owned())
}

/// Which rows are one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct RowKey {
    name: String,
    role: &'static str,
    remote: IpAddr,
    port: u16,
    transport: u8,
}

/// What is printed of one row.
#[derive(Debug, Default, Serialize)]
struct Row {
    opened: u64,
    active: u64,
    failed: u64,
    aborted: u64,
    bytes_sent: u64,
    bytes_received: u64,
    retransmits: u64,
    #[serde(skip_serializing_if = "is_zero")]
    datagrams_sent: u64,
    #[serde(skip_serializing_if = "is_zero")]
    datagrams_received: u64,
    #[serde(skip)]
    rtt_us: u64,
    #[serde(skip)]
    rtt_samples: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    role: &'a str,
    remote: IpAddr,
    port: u16,
    transport: &'a str,
    #[serde(flatten)]
    row: &'a Row,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_us: Option<u64>,
}

impl Row {
    fn add(&mut self, value: &HalfEdge) {
        self.opened += value.opened;
        self.active += (value.opened + value.adopted).saturating_sub(value.closed);
        self.failed += value.refused + value.timed_out + value.unreachable + value.reset;
        self.aborted += value.aborted;
        self.bytes_sent += value.bytes_sent;
        self.bytes_received += value.bytes_received;
        self.retransmits += value.retransmits;
        self.datagrams_sent += value.datagrams_sent;
        self.datagrams_received += value.datagrams_received;
        self.rtt_us += value.rtt_us;
        self.rtt_samples += value.rtt_samples;
    }

    fn rtt(&self) -> Option<u64> {
        self.rtt_us.checked_div(self.rtt_samples)
    }
}

/// Runs until a signal, the end of `--once`, or a closed stdout.
///
/// # Errors
///
/// Nothing could be loaded, or the kernel stopped answering.
pub fn observe(args: &ObserveArgs) -> anyhow::Result<()> {
    let options = KernelOptions {
        max_half_edges: args.max_half_edges,
        ..KernelOptions::default()
    };
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let options = if args.udp {
        options.with_udp(unified_root(&mounts))
    } else {
        options
    };
    let kernel = Kernel::load(&options).context("nothing can be observed")?;
    for probe in kernel
        .probes()
        .iter()
        .filter(|probe| probe.state != ProbeState::Attached)
    {
        tracing::warn!(probe = probe.name, state = %probe.state, reason = probe.reason, "not attached");
    }
    let names = Names::new(
        Cgroups::new(unified_root(&mounts)),
        Processes::new(PathBuf::from("/proc")),
        own_netns().context("cannot read /proc/self/ns/net")?,
    );
    let mut observer = Observer { kernel, names };
    observer.prepare()?;
    let interval = Duration::from_secs_f64(args.interval);
    loop {
        let rows = observer.rows()?;
        let mut text = Vec::new();
        if args.json {
            write_json(&mut text, &rows)?;
        } else {
            let loss = observer.kernel.loss()?;
            if !args.once && io::stdout().is_terminal() {
                text.extend_from_slice(CLEAR.as_bytes());
            }
            write_table(&mut text, &rows, &loss)?;
        }
        match io::stdout().write_all(&text).and_then(|()| io::stdout().flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            result => result.context("cannot write to stdout")?,
        }
        if args.once {
            return Ok(());
        }
        observer.wait(interval);
    }
}

struct Observer {
    kernel: Kernel,
    names: Names,
}

impl Observer {
    /// Everything that must be known before connections are adopted.
    fn prepare(&mut self) -> anyhow::Result<()> {
        let addresses: Vec<IpAddr> = node_addresses().unwrap_or_default().into_iter().collect();
        self.kernel.set_split(SplitSet::new(&addresses))?;
        self.mark_pods();
        Ok(())
    }

    fn mark_pods(&mut self) {
        for cgroup in self.names.cgroups.take_unmarked() {
            // A full table costs a few more rows in the kernel, nothing here.
            let _ = self.kernel.mark_pod(cgroup);
        }
    }

    fn drain(&mut self) {
        let now = clock::now().monotonic_ns;
        let (kernel, names) = (&mut self.kernel, &mut self.names);
        let mut gone = Vec::new();
        kernel.drain_cgroups(MAX_RECORDS, |event| gone.extend(names.cgroups.apply(event, now)));
        kernel.drain_connections(MAX_RECORDS, |_| {});
        for cgroup in gone {
            let _ = kernel.unmark_pod(cgroup);
        }
        names.expire(now);
        self.mark_pods();
    }

    fn wait(&mut self, interval: Duration) {
        let until = Instant::now() + interval;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(DRAIN_EVERY));
            self.drain();
        }
    }

    fn rows(&mut self) -> anyhow::Result<BTreeMap<RowKey, Row>> {
        self.kernel.sweep()?;
        self.drain();
        let mut entries = Vec::new();
        self.kernel
            .half_edges(|key, value| entries.push((*key, *value)))?;
        let mut rows: BTreeMap<RowKey, Row> = BTreeMap::new();
        let mut known: HashMap<(u64, u32, u32), String> = HashMap::new();
        for (key, value) in &entries {
            let name = known
                .entry((key.cgroup, key.owner, key.netns))
                .or_insert_with(|| self.name(key));
            let row = RowKey {
                name: name.clone(),
                role: match key.role {
                    role::CLIENT => "client",
                    role::SERVER => "server",
                    _ => "unknown",
                },
                remote: IpAddr::V6(Ipv6Addr::from(key.remote)).to_canonical(),
                port: key.port,
                transport: key.transport,
            };
            rows.entry(row).or_default().add(value);
        }
        Ok(rows)
    }

    fn name(&mut self, key: &HalfEdgeKey) -> String {
        let kernel = &self.kernel;
        let comm = |tgid| kernel.owner(tgid).map(|owner| owner.comm);
        match self.names.name(key, clock::now().monotonic_ns, comm) {
            Naming::Subject(Subject::Pod(uid)) => format!("pod/{uid}"),
            Naming::Subject(Subject::Process(name)) => name.to_string(),
            Naming::ForeignNetwork | Naming::Unknown => {
                let comm = comm(key.owner).and_then(|comm| leyline_identity::sanitise(until_nul(&comm)));
                match comm {
                    Some(comm) => format!("{comm}@net:{}", key.netns),
                    None => format!("cgroup:{}@net:{}", key.cgroup, key.netns),
                }
            }
        }
    }
}

fn until_nul(comm: &[u8]) -> &[u8] {
    comm.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn write_json(out: &mut Vec<u8>, rows: &BTreeMap<RowKey, Row>) -> anyhow::Result<()> {
    for (key, row) in rows {
        let line = Line {
            name: &key.name,
            role: key.role,
            remote: key.remote,
            port: key.port,
            transport: if key.transport == transport::UDP {
                "UDP"
            } else {
                "TCP"
            },
            row,
            rtt_us: row.rtt(),
        };
        serde_json::to_writer(&mut *out, &line)?;
        out.push(b'\n');
    }
    Ok(())
}

const HEADINGS: [&str; 11] = [
    "NAME", "ROLE", "REMOTE", "PORT", "OPENED", "ACTIVE", "FAILED", "ABORTED", "SENT", "RECEIVED", "RTT",
];

fn write_table(
    out: &mut Vec<u8>,
    rows: &BTreeMap<RowKey, Row>,
    loss: &[u64; loss::COUNT as usize],
) -> io::Result<()> {
    let lines: Vec<[String; 11]> = std::iter::once(HEADINGS.map(str::to_owned))
        .chain(rows.iter().map(cells))
        .collect();
    let widths: [usize; 11] = std::array::from_fn(|column| {
        lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(String::len)
            .max()
            .unwrap_or(0)
    });
    for line in &lines {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(widths) {
            text.push_str(&format!("{cell:width$}  "));
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    // Sampled records concern the operator only.
    let lost: Vec<String> = (0..)
        .zip(loss)
        .filter(|(cause, count)| **count > 0 && *cause != loss::SAMPLED && *cause != loss::CONNECTION_RING)
        .map(|(cause, count)| format!("{}={count}", cause_name(cause)))
        .collect();
    if !lost.is_empty() {
        writeln!(out, "not recorded: {}", lost.join(" "))?;
    }
    writeln!(out)
}

fn cause_name(cause: u32) -> &'static str {
    match cause {
        loss::HALF_EDGES_FULL => "half_edges_full",
        loss::HALF_EDGE_BYTES => "half_edge_bytes",
        loss::SOCKET_STORAGE => "socket_storage",
        loss::CGROUP_RING => "cgroup_ring",
        loss::STATE_CHANGES => "state_changes",
        loss::UDP_UNADDRESSED => "udp_unaddressed",
        loss::UDP_FLOWS => "udp_flows",
        _ => "other",
    }
}

fn cells((key, row): (&RowKey, &Row)) -> [String; 11] {
    [
        key.name.clone(),
        key.role.to_owned(),
        key.remote.to_string(),
        if key.transport == transport::UDP {
            format!("{}/UDP", key.port)
        } else {
            key.port.to_string()
        },
        row.opened.to_string(),
        row.active.to_string(),
        row.failed.to_string(),
        row.aborted.to_string(),
        bytes(row.bytes_sent),
        bytes(row.bytes_received),
        row.rtt().map(micros).unwrap_or_default(),
    ]
}

/// Three digits at most, binary units.
fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1_000.0 && unit + 1 < units.len() {
        value /= 1_024.0;
        unit += 1;
    }
    let name = units.get(unit).unwrap_or(&"EiB");
    if unit == 0 || value >= 100.0 {
        format!("{value:.0}{name}")
    } else {
        format!("{value:.1}{name}")
    }
}

fn micros(us: u64) -> String {
    if us < 1_000 {
        format!("{us}us")
    } else {
        format!("{:.1}ms", us as f64 / 1_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> BTreeMap<RowKey, Row> {
        let mut row = Row::default();
        let value = HalfEdge {
            opened: 3,
            adopted: 1,
            closed: 2,
            refused: 1,
            timed_out: 1,
            aborted: 5,
            bytes_sent: 1_536,
            bytes_received: 10,
            rtt_us: 2_500,
            rtt_samples: 2,
            ..HalfEdge::default()
        };
        row.add(&value);
        let key = RowKey {
            name: "ssh".into(),
            role: "client",
            remote: "10.0.0.1".parse().unwrap(),
            port: 22,
            transport: transport::TCP,
        };
        BTreeMap::from([(key, row)])
    }

    #[test]
    fn the_table_is_aligned_and_names_losses() {
        let mut text = Vec::new();
        write_table(&mut text, &sample(), &[2, 0, 0, 7, 0, 9, 0, 0, 0]).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "NAME  ROLE    REMOTE    PORT  OPENED  ACTIVE  FAILED  ABORTED  SENT    RECEIVED  RTT\n\
             ssh   client  10.0.0.1  22    3       2       2       5        1.5KiB  10B       1.2ms\n\
             not recorded: half_edges_full=2\n\n"
        );
    }

    #[test]
    fn a_json_line_holds_plain_numbers() {
        let mut text = Vec::new();
        write_json(&mut text, &sample()).unwrap();
        let line: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(line["remote"], "10.0.0.1");
        assert_eq!(line["bytes_sent"], 1_536);
        assert_eq!(line["active"], 2);
        assert_eq!(line["rtt_us"], 1_250);
    }

    #[test]
    fn figures_are_short() {
        for (count, expected) in [
            (0, "0B"),
            (999, "999B"),
            (1_000, "1.0KiB"),
            (1 << 20, "1.0MiB"),
            (u64::MAX, "16.0EiB"),
        ] {
            assert_eq!(bytes(count), expected);
        }
        assert_eq!(
            (micros(999), micros(1_500)),
            ("999us".to_owned(), "1.5ms".to_owned())
        );
    }
}
