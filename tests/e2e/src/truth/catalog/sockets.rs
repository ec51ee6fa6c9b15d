//! What programs do with their sockets.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::truth::actor::{NODE_A, NODE_B, Shape, actor};
use crate::truth::play::Play;
use crate::truth::scenario::{Scenario, scenario};

const PORT: &str = "9000";
/// Where the second version of control groups is mounted: alone, or beside the first.
const CGROUP: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// The family.
pub(super) fn all() -> Vec<Scenario> {
    vec![
        prefork(),
        passed(),
        executed(),
        moved(),
        mapped(),
        mptcp(),
        mptcp_both(),
        closed_by_server(),
        reset("client"),
        reset("server"),
        large(),
        long_lived(),
    ]
}

fn prefork() -> Scenario {
    scenario(
        "pre-fork",
        "Children accept on a listener that their parent opened: the server is their pod's workload.",
    )
    .with(
        actor("server").listen(PORT).option("--serve=prefork"),
        Shape::Deployment(1),
    )
    .service("api", "server", 80, 9000)
    .with(actor("client").call("to=api:80,count=30"), Shape::Job)
}

fn passed() -> Scenario {
    scenario(
        "descriptor-passed",
        "A connection is handed to another pod over a Unix socket: whoever made the socket keeps it.",
    )
    .with(
        actor("door")
            .on(NODE_A)
            .listen(PORT)
            .option("--serve=pass")
            .option("--socket=/truth/door.sock"),
        Shape::Deployment(1),
    )
    .with(
        actor("worker")
            .on(NODE_A)
            .option("--serve=take")
            .option("--socket=/truth/door.sock"),
        Shape::Deployment(1),
    )
    .service("api", "door", 80, 9000)
    .with(actor("client").on(NODE_B).call("to=api:80,count=20"), Shape::Job)
}

fn executed() -> Scenario {
    scenario(
        "dup-and-exec",
        "Each connection is duplicated into a new program and closed by the one that accepted it: one connection each.",
    )
    .with(actor("server").listen(PORT).option("--serve=exec"), Shape::Deployment(1))
    .service("api", "server", 80, 9000)
    .with(actor("client").call("to=api:80,count=20"), Shape::Job)
}

fn moved() -> Scenario {
    scenario(
        "changes-cgroup",
        "A process is moved to another control group: the sockets it has, and those accepted from them, keep the old one.",
    )
    .with(actor("server").on(NODE_A).listen(PORT), Shape::Deployment(1))
    .with(
        actor("client").on(NODE_A).call("to=api:80,count=1,until=end").call("to=api:80,count=1,phase=moved"),
        Shape::Job,
    )
    .service("api", "server", 80, 9000)
    .then(|play| {
        play.until("the connections stand", |it| it.dialled >= 1)?;
        leave_cgroup(play, "server")?;
        play.begin("moved")?;
        play.until("the server has been called again", |it| it.dialled >= 2)?;
        play.begin("end")
    })
}

/// Moves all processes of a pod to the root of the control groups.
fn leave_cgroup(play: &Play<'_>, app: &str) -> Result<()> {
    let root = CGROUP
        .iter()
        .map(Path::new)
        .find(|root| root.join("cgroup.controllers").exists())
        .context("no control groups of the second version")?;
    let pod = play.pod(app)?;
    let uid = pod
        .pointer("/metadata/uid")
        .and_then(Value::as_str)
        .context("a pod without uid")?;
    let mut found = 0;
    for entry in fs::read_dir("/proc").context("list /proc")? {
        let path = entry.context("list /proc")?.path();
        // A process may end while it is looked at.
        let read = |file: &str| fs::read_to_string(path.join(file)).unwrap_or_default();
        if read("comm").starts_with("leyline-e2e-tra") && read("cgroup").contains(uid) {
            let pid = path
                .file_name()
                .and_then(|it| it.to_str())
                .context("a process without pid")?;
            fs::write(root.join("cgroup.procs"), pid).context("move a process")?;
            found += 1;
        }
    }
    if found == 0 {
        bail!("no process of {app}");
    }
    Ok(())
}

fn mapped() -> Scenario {
    scenario(
        "ipv4-mapped",
        "An IPv6 socket with an IPv4-mapped address is the same connection as any other of IPv4.",
    )
    .with(actor("server").listen(PORT), Shape::Deployment(1))
    .service("api", "server", 80, 9000)
    .with(
        actor("one").on(NODE_A).call("to=api:80,count=15,mapped"),
        Shape::Job,
    )
    .with(
        actor("two").on(NODE_B).call("to=api:80,count=15,mapped"),
        Shape::Job,
    )
}

fn mptcp() -> Scenario {
    scenario(
        "mptcp-listener",
        "A listener for multipath TCP, as Go's are, that is called with plain TCP.",
    )
    .with(
        actor("server").listen(PORT).option("--mptcp"),
        Shape::Deployment(1),
    )
    .service("api", "server", 80, 9000)
    .with(actor("one").on(NODE_A).call("to=api:80,count=15"), Shape::Job)
    .with(
        actor("two").on(NODE_B).call("to=api:80,count=15,close=server"),
        Shape::Job,
    )
}

fn mptcp_both() -> Scenario {
    scenario(
        "mptcp-both",
        "Multipath TCP at both ends: one connection is one connection.",
    )
    .with(
        actor("server").on(NODE_A).listen(PORT).option("--mptcp"),
        Shape::Deployment(1),
    )
    .service("api", "server", 80, 9000)
    .with(
        actor("client").on(NODE_A).call("to=api:80,count=15,mptcp"),
        Shape::Job,
    )
}

fn closed_by_server() -> Scenario {
    scenario(
        "closed-by-server",
        "Who closes first changes nothing about who called.",
    )
    .with(actor("server").on(NODE_B).listen(PORT), Shape::Deployment(1))
    .service("api", "server", 80, 9000)
    .with(
        actor("client")
            .on(NODE_A)
            .call("to=api:80,count=40,every=20,close=server"),
        Shape::Job,
    )
}

fn reset(by: &str) -> Scenario {
    let (name, close) = if by == "client" {
        ("reset-by-client", "reset")
    } else {
        ("reset-by-server", "abort")
    };
    scenario(
        name,
        "A connection that stood and ended with a reset was opened: it counts, with its bytes, and is no failed attempt.",
    )
    .with(actor("server").on(NODE_A).listen(PORT), Shape::Deployment(1))
    .service("api", "server", 80, 9000)
    .with(
        actor("client").on(NODE_B).call(&format!("to=api:80,count=20,reply=20000,close={close},hold=20")),
        Shape::Job,
    )
}

fn large() -> Scenario {
    scenario(
        "large",
        "Megabytes in both directions count to the byte, within 1 %.",
    )
    .with(actor("server").on(NODE_B).listen(PORT), Shape::Deployment(1))
    .service("api", "server", 80, 9000)
    .with(
        actor("client")
            .on(NODE_A)
            .call("to=api:80,count=5,request=1000000,reply=3000000,every=200"),
        Shape::Job,
    )
}

fn long_lived() -> Scenario {
    scenario(
        "long-lived",
        "A connection that stays open and is used now and then counts once, with all its bytes.",
    )
    .with(actor("server").on(NODE_A).listen(PORT), Shape::Deployment(1))
    .service("api", "server", 80, 9000)
    .with(
        actor("client")
            .on(NODE_B)
            .call("to=api:80,count=1,until=end,reply=5000"),
        Shape::Job,
    )
    .then(|play| {
        play.until("the connection stands", |it| it.dialled == 1)?;
        // Others call meanwhile; the connection has a past when it ends.
        let brief = actor("brief").call("to=api:80,count=20,every=100");
        play.add(&brief, &Shape::Job)?;
        play.until("the others are through", |it| it.done == 1)?;
        play.begin("end")
    })
    .callers(1)
}
