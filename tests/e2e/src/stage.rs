//! A namespace of one test: made new, removed at the end whatever happens, its state printed when the test failed.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::kubectl::Kubectl;
use crate::{edges, leyline, wait};

/// The namespace.
#[derive(Debug)]
pub struct Stage {
    /// kubectl for the cluster.
    pub kubectl: Kubectl,
    /// Its name.
    pub namespace: String,
}

impl Stage {
    /// Runs `test` in a new namespace `e2e-<name>`, with Leyline installed and ready.
    ///
    /// # Errors
    /// What the test returns; then everything needed to understand it has been printed.
    pub fn run(name: &str, test: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let kubectl = Kubectl::from_env()?;
        leyline::ensure_installed(&kubectl)?;
        let mut guard = Guard {
            stage: Self {
                kubectl,
                namespace: format!("e2e-{name}"),
            },
            ended_well: false,
        };
        let stage = &guard.stage;
        // A leftover of a run that was killed.
        stage.kubectl.delete_namespace(&stage.namespace)?;
        stage.kubectl.apply(&[
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": stage.namespace } }),
        ])?;
        test(stage)?;
        guard.ended_well = true;
        Ok(())
    }

    /// Applies objects.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        self.kubectl.apply(objects).map(drop)
    }

    /// Waits until Deployments are complete.
    ///
    /// # Errors
    /// With the pods when one is not in time.
    pub fn ready(&self, deployments: &[&str]) -> Result<()> {
        deployments.iter().try_for_each(|name| {
            self.kubectl.rollout(
                &self.namespace,
                &format!("deployment/{name}"),
                Duration::from_secs(60),
            )
        })
    }

    /// The pods with label `app=<name>`.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub fn pods(&self, name: &str) -> Result<Vec<String>> {
        let list = self.kubectl.get(&[
            "pods",
            "--namespace",
            &self.namespace,
            "--selector",
            &format!("app={name}"),
        ])?;
        let items = list
            .get("items")
            .and_then(Value::as_array)
            .context("the answer is no list")?;
        let names = items
            .iter()
            .filter_map(|pod| pod.pointer("/metadata/name").and_then(Value::as_str));
        Ok(names.map(str::to_owned).collect())
    }

    /// Prints what there is: pods, objects, the logs of the test's pods and of Leyline, the metrics.
    fn dump(&self) {
        let namespace = self.namespace.as_str();
        let show = |title: &str, args: &[&str]| {
            let text = self
                .kubectl
                .run(args)
                .map_or_else(|error| format!("{error:#}"), |printed| printed.output);
            eprintln!("---- {title}\n{text}");
        };
        show(
            "pods",
            &["get", "pods", "--namespace", namespace, "--output=wide"],
        );
        show(
            "services",
            &[
                "get",
                "services,endpointslices",
                "--namespace",
                namespace,
                "--output=wide",
            ],
        );
        show(
            "Leyline",
            &["get", "pods", "--namespace", leyline::NAMESPACE, "--output=wide"],
        );
        match edges::touching(&self.kubectl, namespace) {
            Ok(found) => {
                eprintln!("---- {} dependencies with an end in {namespace}", found.len());
                found
                    .iter()
                    .for_each(|one| eprintln!("{}\n    {}", one.edge, one.status));
            }
            Err(error) => eprintln!("---- dependencies: {error:#}"),
        }
        for pod in self
            .kubectl
            .run(&["get", "pods", "--namespace", namespace, "--output=name"])
            .iter()
        {
            for name in pod.output.lines().take(12) {
                show(name, &["logs", "--namespace", namespace, name, "--tail=5"]);
            }
        }
        leyline::dump(&self.kubectl);
    }
}

struct Guard {
    stage: Stage,
    ended_well: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.ended_well {
            self.stage.dump();
        }
        // The API server may just have been killed by the test.
        let gone = wait::until("clean up", Duration::from_secs(60), || {
            self.stage.kubectl.run(&[
                "delete",
                "namespace",
                &self.stage.namespace,
                "--ignore-not-found",
                "--wait=false",
            ])
        });
        if let Err(error) = gone {
            eprintln!("namespace {} stays: {error:#}", self.stage.namespace);
        }
    }
}
