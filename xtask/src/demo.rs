//! `make demo`: a cluster, Leyline on it, the sample application, and the comparison of what Leyline found with what the
//! sample is known to do. `make demo-down` removes all of it.
//!
//! Inputs: the checkout and this machine. Outputs: a running cluster, the table of dependencies, a verdict; the exit code
//! says whether the set of edges is exactly the ground truth `config/samples/shop/expected.tsv`.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use leyline_e2e::edges;
use leyline_e2e::kubectl::Kubectl;
use leyline_e2e::score::{self, Edge, Verdict};
use leyline_e2e::wait;
use serde_json::Value;

use crate::images::{self, Image};
use crate::setup::go_tools;
use crate::step::{say, step};
use crate::{cluster, outside, setup, workspace};

/// The namespaces the ground truth speaks of.
const NAMESPACES: [&str; 4] = ["shop", "data", "kube-system", "leyline-system"];
/// Pods start and pull nothing; the database initialises itself.
const ROLLOUT: Duration = Duration::from_secs(120);
/// A job runs at every full minute and takes a second.
const FIRST_JOB: Duration = Duration::from_secs(130);
const EXACT: Duration = Duration::from_secs(120);
/// An edge that appears late, or goes, within this time is a wrong one.
const STAYS: Duration = Duration::from_secs(20);

const LEYLINE: [&str; 2] = ["deployment/leyline-operator", "daemonset/leyline-node-agent"];
const SAMPLE: [(&str, &str); 9] = [
    ("data", "statefulset/mariadb"),
    ("data", "statefulset/redis"),
    ("shop", "deployment/catalog"),
    ("shop", "deployment/cart"),
    ("shop", "deployment/web"),
    ("shop", "deployment/ingress"),
    ("shop", "deployment/visitor"),
    ("shop", "deployment/journal"),
    ("shop", "daemonset/node-logger"),
];

/// Everything from nothing to the verdict.
pub(crate) fn up() -> Result<()> {
    let started = Instant::now();
    setup::for_build()?;
    let archives = images::build_all(&Image::DEMO)?;
    cluster::up()?;
    outside::up()?;
    cluster::load_images(&archives)?;
    let kubectl = Kubectl::new(
        &go_tools::kubernetes_folder()?.join("kubectl"),
        &cluster::kubeconfig()?,
    );
    step("install Leyline: kubectl apply -k config/default", || {
        install(&kubectl)
    })?;
    step("start the sample: kubectl apply -k config/samples/shop", || {
        sample(&kubectl)
    })?;
    let verdict = step("compare the edges with config/samples/shop/expected.tsv", || {
        compare(&kubectl)
    });
    say(&format!(
        "\n$ kubectl get servicedependencies -A\n{}",
        table(&kubectl)?
    ));
    match &verdict {
        Ok(exact) => say(&format!("exactly the ground truth: {exact}")),
        Err(_) => say("NOT the ground truth"),
    }
    say(&format!(
        "\nThe cluster stays up. To use it:\n    export KUBECONFIG={}\n    export PATH={}:$PATH\n    \
         kubectl get servicedependencies -A\nTo end it:\n    make demo-down\n({:.0} s in all)",
        cluster::kubeconfig()?.display(),
        go_tools::kubernetes_folder()?.display(),
        started.elapsed().as_secs_f64(),
    ));
    verdict.map(drop)
}

/// Removes the cluster and the machine outside of it.
pub(crate) fn down() -> Result<()> {
    outside::down()?;
    cluster::down()
}

/// Installs Leyline as a user does, and replaces pods that run an older build of the images.
pub(crate) fn install(kubectl: &Kubectl) -> Result<()> {
    apply(kubectl, "config/default")?;
    for (workload, image) in LEYLINE.iter().zip([Image::Operator, Image::NodeAgent]) {
        if runs_older_image(kubectl, image)? {
            kubectl.run(&["rollout", "restart", "--namespace=leyline-system", workload])?;
        }
    }
    LEYLINE
        .iter()
        .try_for_each(|workload| kubectl.rollout("leyline-system", workload, ROLLOUT))
}

fn sample(kubectl: &Kubectl) -> Result<()> {
    apply(kubectl, "config/samples/shop")?;
    SAMPLE
        .iter()
        .try_for_each(|(namespace, workload)| kubectl.rollout(namespace, workload, ROLLOUT))?;
    wait::until("the job `report` has run", FIRST_JOB, || {
        let job = kubectl.get(&["--namespace=shop", "cronjob", "report"])?;
        ensure!(
            job.pointer("/status/lastSuccessfulTime").is_some(),
            "no run has ended well yet"
        );
        Ok(())
    })
}

fn apply(kubectl: &Kubectl, folder: &str) -> Result<()> {
    let path = workspace::root().join(folder);
    kubectl
        .run(&["apply", "--kustomize", &path.to_string_lossy()])
        .map(drop)
}

/// The tag of an image stays, its content changes: a pod that runs already keeps the old one.
fn runs_older_image(kubectl: &Kubectl, image: Image) -> Result<bool> {
    let wanted = images::identity(image)?;
    let pods = kubectl.get(&["--namespace=leyline-system", "pods"])?;
    let containers = pods
        .pointer("/items")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let containers = containers.filter_map(|pod| pod.pointer("/status/containerStatuses/0"));
    let text = |container: &Value, key: &str| {
        container
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let reference = image.reference();
    Ok(containers
        .filter(|container| text(container, "image") == reference)
        .map(|container| text(container, "imageID"))
        .any(|running| !running.is_empty() && running != wanted))
}

/// Waits until the edges are exact, and sees that they stay so.
fn compare(kubectl: &Kubectl) -> Result<Verdict> {
    let expected = ground_truth(&workspace::root().join("config/samples/shop/expected.tsv"))?;
    let look = || {
        let verdict = judge(kubectl, &expected)?;
        ensure!(verdict.is_exact(), "{verdict}");
        Ok(verdict)
    };
    let verdict = wait::until("the edges equal the ground truth", EXACT, look)?;
    wait::throughout("the edges equal the ground truth", STAYS, || look().map(drop))?;
    Ok(verdict)
}

fn ground_truth(path: &Path) -> Result<Vec<Edge>> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    score::parse_expected(&text).with_context(|| format!("read {}", path.display()))
}

fn judge(kubectl: &Kubectl, expected: &[Edge]) -> Result<Verdict> {
    let list = edges::list(kubectl)?;
    Ok(score::score(
        expected,
        &score::parse_observed(&list)?,
        &NAMESPACES,
    ))
}

fn table(kubectl: &Kubectl) -> Result<String> {
    Ok(kubectl
        .run(&["get", "servicedependencies", "--all-namespaces"])?
        .output)
}
