//! A real Kubernetes cluster of two nodes on one machine: `up`, `down`, `status`, `load-image`, and for the fault tests
//! `kill` and `start` of one component.
//!
//! Everything runs as processes of the machine, built from source by [`crate::setup`]; see `node.rs` for the layout.
//! A cluster that is whole is left as it is by `up`; one that is not is removed and made anew, which takes less than the
//! time to find out what is wrong with it.

mod addons;
mod base_images;
mod cgroups;
mod control_plane;
mod network;
mod node;
mod pki;
mod process;
mod state;
mod teardown;
mod tracefs;

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
pub(crate) use network::Masquerade;
pub(crate) use node::ProxyMode;
use node::{NODES, Node};
use process::Component;
pub(crate) use state::State;

use crate::setup;
use crate::step::{output, say, step, wait_for};

/// How many components a whole cluster has: four of the control plane, three per node.
const COMPONENTS: usize = 4 + 3 * NODES.len();
/// Generous: the machine may be busy with other work.
const START_LIMIT: Duration = Duration::from_secs(120);

/// Makes the cluster, or leaves a whole one alone. Prints how to use it.
pub(crate) fn up() -> Result<()> {
    let state = State::of_this_machine()?;
    setup::for_cluster()?;
    let images = base_images::ensure()?;
    let _lock = state.lock()?;
    match whole(&state) {
        Ok(()) => {
            addons::apply(&state)?;
            say("the cluster is up already");
        }
        Err(reason) => {
            if state.exists() {
                say(&format!("the cluster is not whole ({reason:#}): it is made anew"));
            }
            teardown::check_free(&state)?;
            teardown::run(&state)?;
            let started = Instant::now();
            create(&state, &images)?;
            say(&format!(
                "cluster up after {:.1} s",
                started.elapsed().as_secs_f64()
            ));
        }
    }
    say(&format!("export KUBECONFIG={}", state.kubeconfig().display()));
    say(&format!(
        "export PATH={}:$PATH",
        setup::go_tools::kubernetes_folder()?.display()
    ));
    Ok(())
}

/// Removes the cluster completely.
pub(crate) fn down() -> Result<()> {
    let state = State::of_this_machine()?;
    let _lock = state.lock()?;
    step("remove the cluster", || teardown::run(&state))
}

/// Prints each component with its pid; fails when one is down.
pub(crate) fn status() -> Result<()> {
    let state = State::of_this_machine()?;
    let all = Component::all(&state)?;
    for component in &all {
        match component.running(&state) {
            Some(running) => say(&format!("{:<26} up    pid {}", component.name, running.pid)),
            None => say(&format!(
                "{:<26} DOWN  log {}",
                component.name,
                component.log(&state).display()
            )),
        }
    }
    whole(&state).context("the cluster is not up")?;
    let nodes = output(addons::kubectl(&state)?.args([
        "get",
        "nodes",
        "-o",
        "wide",
        "-L",
        "topology.kubernetes.io/zone",
    ]))?;
    say(nodes.trim_end());
    say(&format!("KUBECONFIG={}", state.kubeconfig().display()));
    Ok(())
}

/// Imports docker archives into the container runtimes of both nodes.
pub(crate) fn load_images(files: &[PathBuf]) -> Result<()> {
    let state = State::of_this_machine()?;
    for file in files {
        step(&format!("load {}", file.display()), || import(&state, file))?;
    }
    Ok(())
}

/// Ends one component with SIGKILL.
pub(crate) fn kill(name: &str) -> Result<()> {
    let state = State::of_this_machine()?;
    let component = Component::named(&state, name)?;
    let running = component
        .running(&state)
        .with_context(|| format!("{} does not run", component.name))?;
    running.kill()?;
    say(&format!("{} killed, pid {}", component.name, running.pid));
    Ok(())
}

/// Starts one component with the command line it had, and waits until it works.
pub(crate) fn start(name: &str) -> Result<()> {
    let state = State::of_this_machine()?;
    let component = Component::named(&state, name)?;
    ensure!(
        component.running(&state).is_none(),
        "{} runs already",
        component.name
    );
    component.start(&state)?;
    match component.name.as_str() {
        "etcd" => wait_for_etcd(&state, &component)?,
        "kube-apiserver" => wait_for_api(&state, &component)?,
        _ => {
            for node in NODES
                .iter()
                .filter(|node| component.name == node.containerd(&state).name)
            {
                wait_for_containerd(&state, node)?;
            }
        }
    }
    component.check(&state)?;
    say(&format!("{} started", component.name));
    Ok(())
}

/// Switches masquerading between the nodes.
pub(crate) fn masquerade(mode: Masquerade) -> Result<()> {
    network::masquerade(mode)
}

/// Restarts kube-proxy of both nodes in another mode; it removes the rules of the one before.
pub(crate) fn proxy_mode(mode: ProxyMode) -> Result<()> {
    let state = State::of_this_machine()?;
    for node in NODES {
        node.write_proxy_config(&state, mode)?;
        let component = Component::named(&state, &format!("kube-proxy-{}", node.name))?;
        if let Some(running) = component.running(&state) {
            running.kill()?;
        }
        component.start(&state)?;
        component.check(&state)?;
    }
    say(&format!("kube-proxy runs in mode {mode:?}"));
    Ok(())
}

/// The administrator's kubeconfig.
pub(crate) fn kubeconfig() -> Result<PathBuf> {
    Ok(State::of_this_machine()?.kubeconfig())
}

/// Says why the cluster is not whole.
fn whole(state: &State) -> Result<()> {
    let all = Component::all(state)?;
    ensure!(!all.is_empty(), "there is none");
    ensure!(
        all.len() == COMPONENTS,
        "only {} of {COMPONENTS} components were started",
        all.len()
    );
    for component in &all {
        ensure!(component.running(state).is_some(), "{} is down", component.name);
    }
    output(addons::kubectl(state)?.args(["get", "--raw", "/readyz", "--request-timeout=5s"]))
        .context("ask the API server")?;
    nodes_ready(state)
}

fn create(state: &State, images: &[PathBuf]) -> Result<()> {
    step("write certificates and configuration", || {
        pki::create(state)?;
        NODES.iter().try_for_each(|node| node.write_config(state))
    })?;
    step("make the network and cgroups", || {
        network::create(state)?;
        cgroups::create()?;
        tracefs::create(state)
    })?;
    step("start etcd, the API server and the container runtimes", || {
        let etcd = control_plane::etcd(state);
        etcd.start(state)?;
        for node in NODES {
            node.containerd(state).start(state)?;
        }
        wait_for_etcd(state, &etcd)?;
        let api_server = control_plane::api_server(state)?;
        api_server.start(state)?;
        for node in NODES {
            wait_for_containerd(state, node)?;
        }
        images.iter().try_for_each(|image| import(state, image))?;
        wait_for_api(state, &api_server)
    })?;
    step("start the other components", || {
        control_plane::controller_manager(state)?.start(state)?;
        control_plane::scheduler(state)?.start(state)?;
        for node in NODES {
            node.kubelet(state)?.start(state)?;
            node.kube_proxy(state)?.start(state)?;
        }
        addons::apply(state)
    })?;
    step("wait for the nodes and the cluster's DNS", || {
        wait_for("all nodes ready", START_LIMIT, || {
            all_running(state).and_then(|()| nodes_ready(state))
        })?;
        NODES.iter().try_for_each(|node| set_pod_network(state, node))?;
        wait_for("CoreDNS ready", START_LIMIT, || {
            all_running(state).and_then(|()| dns_ready(state))
        })
    })
}

fn all_running(state: &State) -> Result<()> {
    Component::all(state)?
        .iter()
        .try_for_each(|component| component.check(state))
}

fn nodes_ready(state: &State) -> Result<()> {
    let path =
        "jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type=='Ready')].status} {end}";
    let text = output(addons::kubectl(state)?.args(["get", "nodes", "-o", path, "--request-timeout=10s"]))?;
    for node in NODES {
        let wanted = format!("{}=True", node.name);
        ensure!(
            text.split_whitespace().any(|word| word == wanted),
            "{} is not ready",
            node.name
        );
    }
    Ok(())
}

/// The controller manager hands out no networks here (their order would be chance), so each node's is written down.
fn set_pod_network(state: &State, node: &Node) -> Result<()> {
    let patch = serde_json::json!({ "spec": { "podCIDR": node.pods, "podCIDRs": [node.pods, node.pods_6] } })
        .to_string();
    output(addons::kubectl(state)?.args(["patch", "node", node.name, "-p", &patch]))
        .with_context(|| format!("write the pod network of {}", node.name))
        .map(drop)
}

fn dns_ready(state: &State) -> Result<()> {
    let path = "jsonpath={.status.readyReplicas}";
    let text = output(addons::kubectl(state)?.args([
        "-n",
        "kube-system",
        "get",
        "deployment",
        "coredns",
        "-o",
        path,
    ]))?;
    ensure!(text.trim() == "1", "CoreDNS is not ready");
    Ok(())
}

fn wait_for_etcd(state: &State, etcd: &Component) -> Result<()> {
    wait_for("etcd listens", START_LIMIT, || {
        etcd.check(state)?;
        TcpStream::connect("127.0.0.1:2379")
            .context("connect to etcd")
            .map(drop)
    })
}

fn wait_for_api(state: &State, api_server: &Component) -> Result<()> {
    wait_for("the API server is ready", START_LIMIT, || {
        api_server.check(state)?;
        output(addons::kubectl(state)?.args(["get", "--raw", "/readyz"])).map(drop)
    })
}

fn wait_for_containerd(state: &State, node: &Node) -> Result<()> {
    wait_for(
        &format!("containerd of {} answers", node.name),
        START_LIMIT,
        || {
            node.containerd(state).check(state)?;
            output(ctr(state, node).args(["plugins", "list", "--quiet"])).map(drop)
        },
    )
}

fn ctr(state: &State, node: &Node) -> Command {
    let mut command = Command::new("ctr");
    command
        .arg("--address")
        .arg(node.containerd_socket(state))
        .args(["--namespace", "k8s.io"]);
    command
}

/// Imports one archive into all nodes at the same time.
fn import(state: &State, file: &Path) -> Result<()> {
    ensure!(file.is_file(), "{} is not a file", file.display());
    thread::scope(|scope| {
        let runs: Vec<_> = NODES
            .iter()
            .map(|node| {
                (
                    node,
                    scope.spawn(|| output(ctr(state, node).args(["images", "import"]).arg(file))),
                )
            })
            .collect();
        for (node, run) in runs {
            match run.join() {
                Ok(result) => {
                    drop(result.with_context(|| format!("import {} into {}", file.display(), node.name))?)
                }
                Err(_) => bail!(anyhow!("the import into {} ended abnormally", node.name)),
            }
        }
        Ok(())
    })
}
