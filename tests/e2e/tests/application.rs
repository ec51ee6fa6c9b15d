//! The sample application: the set of edges is the ground truth beside it, exactly.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use leyline_e2e::kubectl::Kubectl;
use leyline_e2e::{edges, faults, leyline, score, wait};

const NAMESPACES: [&str; 4] = ["shop", "data", "kube-system", "leyline-system"];

/// Removes the sample at the end, unless it was there before.
struct Shop<'a> {
    kubectl: &'a Kubectl,
    remove: bool,
}

impl Drop for Shop<'_> {
    fn drop(&mut self) {
        for namespace in ["shop", "data"] {
            if self.remove
                && let Err(error) = self.kubectl.delete_namespace(namespace)
            {
                eprintln!("namespace {namespace} stays: {error:#}");
            }
        }
    }
}

#[test]
#[ignore = "needs the two-node cluster"]
fn shop_edges_are_exact() -> Result<()> {
    let kubectl = Kubectl::from_env()?;
    leyline::ensure_installed(&kubectl)?;
    faults::xtask(&["outside", "up"])?;
    let there = kubectl
        .run(&["get", "namespace", "shop", "--ignore-not-found", "--output=name"])?
        .output;
    let _shop = Shop {
        kubectl: &kubectl,
        remove: there.trim().is_empty(),
    };
    kubectl.run(&["apply", "--kustomize", &leyline::checkout("config/samples/shop")])?;
    wait::until(
        "all pods of the sample are ready",
        Duration::from_secs(120),
        || {
            for kind in ["deployment", "statefulset", "daemonset"] {
                for namespace in ["shop", "data"] {
                    ready(&kubectl, kind, namespace)?;
                }
            }
            Ok(())
        },
    )?;
    wait::until("the job `report` has run", Duration::from_secs(130), || {
        let job = kubectl.get(&["--namespace=shop", "cronjob", "report"])?;
        ensure!(
            job.pointer("/status/lastSuccessfulTime").is_some(),
            "no run has ended well yet"
        );
        Ok(())
    })?;
    let compared = compare(&kubectl);
    if compared.is_err() {
        leyline::dump(&kubectl);
    }
    compared
}

/// Every workload of a kind has as many ready pods as it wants.
fn ready(kubectl: &Kubectl, kind: &str, namespace: &str) -> Result<()> {
    let list = kubectl.get(&[kind, "--namespace", namespace])?;
    for item in list
        .get("items")
        .and_then(|items| items.as_array())
        .context("no list")?
    {
        let number = |pointer: &str| item.pointer(pointer).and_then(serde_json::Value::as_u64);
        let wanted = number("/spec/replicas").or_else(|| number("/status/desiredNumberScheduled"));
        let there = number("/status/readyReplicas").or_else(|| number("/status/numberReady"));
        let name = item.pointer("/metadata/name");
        ensure!(
            wanted.is_some() && there == wanted,
            "{kind} {name:?}: {there:?} of {wanted:?} pods are ready"
        );
    }
    Ok(())
}

fn compare(kubectl: &Kubectl) -> Result<()> {
    let path = leyline::checkout("config/samples/shop/expected.tsv");
    let expected =
        score::parse_expected(&fs::read_to_string(&path).with_context(|| format!("read {path}"))?)?;
    let look = || {
        let list = edges::list(kubectl)?;
        let verdict = score::score(&expected, &score::parse_observed(&list)?, &NAMESPACES);
        ensure!(verdict.is_exact(), "{verdict}");
        Ok(())
    };
    wait::until("the edges equal the ground truth", Duration::from_secs(120), look)?;
    wait::throughout("the edges equal the ground truth", Duration::from_secs(20), look)
}
