//! What users do to the objects, and what they read of the API.

use std::time::Duration;

use anyhow::{Result, ensure};
use leyline_e2e::stage::Stage;
use leyline_e2e::{edges, leyline, wait};
use serde_json::{Value, json};

/// Longer than everything the operator does to an object of its own that looks wrong.
const LONG_ENOUGH: Duration = Duration::from_secs(15);

fn dependency(namespace: &str, name: &str, port: u32) -> Value {
    let end = |name: &str| json!({ "kind": "Deployment", "apiGroup": "apps", "namespace": namespace, "name": name });
    json!({
        "apiVersion": "leyline.dev/v1alpha1", "kind": "ServiceDependency",
        "metadata": { "name": name, "namespace": namespace },
        "spec": { "client": end("red"), "server": end("blue"), "port": port, "transport": "TCP" },
    })
}

fn refused(stage: &Stage, object: Value, reason: &str) -> Result<()> {
    let text = match stage.kubectl.apply(&[object]) {
        Ok(printed) => printed.output,
        Err(error) => format!("{error:#}"),
    };
    ensure!(text.contains(reason), "not refused with `{reason}`: {text}");
    Ok(())
}

#[test]
#[ignore = "needs the two-node cluster"]
fn an_invalid_object_is_refused_and_a_foreign_one_is_left_alone() -> Result<()> {
    Stage::run("foreign", |stage| {
        let ns = stage.namespace.as_str();
        let restarts = leyline::restarts(&stage.kubectl, leyline::OPERATOR)?;
        refused(stage, dependency(ns, "no-port", 70_000), "spec.port")?;
        let mut unknown = dependency(ns, "no-transport", 80);
        if let Some(transport) = unknown.pointer_mut("/spec/transport") {
            *transport = "SCTP".into();
        }
        refused(stage, unknown, "spec.transport")?;
        stage.apply(&[dependency(ns, "mine", 80)])?;
        refused(stage, dependency(ns, "mine", 81), "immutable")?;
        let read = || stage.kubectl.get(&[edges::RESOURCE, "mine", "--namespace", ns]);
        let made = read()?;
        wait::throughout("the object stays as its user made it", LONG_ENOUGH, || {
            let now = read()?;
            ensure!(now == made, "it was {made}, is {now}");
            Ok(())
        })?;
        let now = leyline::restarts(&stage.kubectl, leyline::OPERATOR)?;
        ensure!(now == restarts, "an operator was restarted");
        Ok(())
    })
}

#[test]
#[ignore = "needs the two-node cluster"]
fn the_api_explains_itself_and_warns_about_nothing() -> Result<()> {
    Stage::run("explain", |stage| {
        for field in [
            "spec.client",
            "spec.port",
            "status.state",
            "status.connections.opened",
            "status.conditions",
        ] {
            let resource = format!("sdep.{field}");
            let text = stage
                .kubectl
                .run(&["explain", &resource, "--api-version=leyline.dev/v1alpha1"])?
                .output;
            let description = text
                .split_once("DESCRIPTION:")
                .map(|(_, rest)| rest.trim())
                .unwrap_or_default();
            ensure!(
                description.len() > 20 && !description.starts_with('<'),
                "{field} is not explained:\n{text}"
            );
        }
        let folder = leyline::checkout("config/default");
        let printed = stage
            .kubectl
            .run(&["apply", "--dry-run=server", "--kustomize", &folder])?;
        ensure!(printed.errors.trim().is_empty(), "warnings: {}", printed.errors);
        Ok(())
    })
}
