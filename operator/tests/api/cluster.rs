//! A namespace of a test, and what is made in it.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, LazyLock, Once};
use std::time::{SystemTime, UNIX_EPOCH};

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use leyline_api::ServiceDependency;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::wait::eventually;

pub const AGENT: &str = "leyline-node-agent";

/// A namespace that is deleted with this value.
pub struct Cluster {
    pub client: Client,
    pub namespace: String,
    /// For the operator: its own service account with the rights of `config/rbac`, and no more.
    pub kubeconfig: PathBuf,
    /// Third byte of the pods' addresses: tests that run beside each other must not share any.
    subnet: u8,
    pods: AtomicU8,
    /// Every operator sees the whole cluster: that of another test would repair what this one breaks.
    _turn: OwnedMutexGuard<()>,
}

/// A pod that exists as an object.
pub struct TestPod {
    pub name: String,
    pub uid: String,
    pub address: [u8; 4],
}

/// Runs kubectl.
pub fn kubectl(arguments: &[&str]) -> Output {
    Command::new("kubectl")
        .args(arguments)
        .output()
        .expect("kubectl is on the path")
}

/// Path of a file of the repository.
pub fn repository(path: &str) -> String {
    format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"))
}

/// Runs kubectl with an input.
fn apply(objects: &str) {
    let mut child = Command::new("kubectl")
        .args(["apply", "--server-side", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("kubectl is on the path");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(objects.as_bytes())
        .expect("written");
    assert!(child.wait().expect("ended").success());
}

/// Applies `config/rbac` in another namespace and under other cluster-wide names; a kubeconfig for the operator.
async fn rights(client: &Client, namespace: &str) -> PathBuf {
    let output = kubectl(&["kustomize", &repository("config/rbac")]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout)
        .expect("text")
        .replace("leyline-system", namespace);
    let mut objects = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(&text) {
        let mut object = Value::deserialize(document).expect("an object");
        let kind = object["kind"].as_str().expect("kind").to_owned();
        if kind == "ClusterRole" && object["metadata"]["name"] != "leyline-operator" {
            continue;
        }
        if kind.starts_with("Cluster") {
            object["metadata"]["name"] = json!(namespace);
        }
        if kind == "ClusterRoleBinding" {
            object["roleRef"]["name"] = json!(namespace);
        }
        objects.push(object);
    }
    apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string());
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let request = TokenRequest {
        spec: TokenRequestSpec {
            expiration_seconds: Some(3_600),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let answer = accounts
        .create_token_request("leyline-operator", &PostParams::default(), &request)
        .await;
    let token = answer.expect("token").status.expect("status").token;
    let output = kubectl(&["config", "view", "--raw", "--minify", "--flatten", "-o", "json"]);
    let mut config: Value = serde_json::from_slice(&output.stdout).expect("a kubeconfig");
    config["users"][0]["user"] = json!({"token": token});
    let path = std::env::temp_dir().join(format!("{namespace}.kubeconfig"));
    std::fs::write(&path, config.to_string()).expect("written");
    path
}

impl Cluster {
    /// A new namespace with the agents' service account; the CRDs are installed.
    pub async fn new(name: &str) -> Self {
        static INSTALL: Once = Once::new();
        static SUBNETS: AtomicU8 = AtomicU8::new(0);
        assert!(
            std::env::var_os("KUBECONFIG").is_some(),
            "KUBECONFIG must name the API server to test against"
        );
        static TURN: LazyLock<Arc<Mutex<()>>> = LazyLock::new(Arc::default);
        let turn = Arc::clone(&TURN).lock_owned().await;
        leyline_operator::runtime::install_tls_provider();
        INSTALL.call_once(|| {
            let output = kubectl(&["apply", "--server-side", "-k", &repository("config/crds")]);
            assert!(output.status.success(), "{output:?}");
        });
        let client = Client::try_default().await.expect("a client");
        let nanos = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970")
            .as_nanos();
        let namespace = format!("op-{name}-{:x}", nanos & 0xff_ffff_ffff);
        let object: Namespace = serde_json::from_value(
            json!({"metadata": {"name": namespace, "labels": {"leyline-test": "api"}}}),
        )
        .expect("a namespace");
        Api::all(client.clone())
            .create(&PostParams::default(), &object)
            .await
            .expect("namespace");
        let kubeconfig = rights(&client, &namespace).await;
        Self {
            client,
            namespace,
            kubeconfig,
            subnet: SUBNETS.fetch_add(1, Ordering::Relaxed),
            pods: AtomicU8::new(0),
            _turn: turn,
        }
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType: Default>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn service_account(&self, name: &str) {
        let object: ServiceAccount =
            serde_json::from_value(json!({"metadata": {"name": name}})).expect("a service account");
        self.api()
            .create(&PostParams::default(), &object)
            .await
            .expect("service account");
    }

    /// A running pod, as an object: no kubelet has the node, so nothing is started.
    pub async fn pod(&self, name: &str, node: &str) -> TestPod {
        self.pod_of(name, node, AGENT).await
    }

    /// The same in another namespace, which must be new.
    pub async fn pod_in(&self, namespace: &str, name: &str, node: &str) -> TestPod {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let account = serde_json::from_value(json!({"metadata": {"name": AGENT}})).expect("an account");
        accounts
            .create(&PostParams::default(), &account)
            .await
            .expect("service account");
        self.make_pod(
            &Api::namespaced(self.client.clone(), namespace),
            name,
            node,
            AGENT,
        )
        .await
    }

    pub async fn pod_of(&self, name: &str, node: &str, account: &str) -> TestPod {
        self.make_pod(&self.api(), name, node, account).await
    }

    async fn make_pod(&self, pods: &Api<Pod>, name: &str, node: &str, account: &str) -> TestPod {
        let number = self.pods.fetch_add(1, Ordering::Relaxed) + 1;
        let address = [198, 18, self.subnet, number];
        let ip = std::net::Ipv4Addr::from(address).to_string();
        let object: Pod = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "nodeName": node, "serviceAccountName": account, "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "none.invalid/none"}]
            }
        }))
        .expect("a pod");
        let pod = pods.create(&PostParams::default(), &object).await.expect("pod");
        let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}});
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .expect("pod status");
        TestPod {
            name: name.to_owned(),
            uid: pod.uid().expect("uid"),
            address,
        }
    }

    /// A token of `account` for `audience`, bound to a pod if one is given.
    pub async fn token(&self, account: &str, audience: &str, pod: Option<&TestPod>) -> String {
        let accounts: Api<ServiceAccount> = self.api();
        let bound = pod.map(|pod| BoundObjectReference {
            kind: Some("Pod".into()),
            api_version: Some("v1".into()),
            name: Some(pod.name.clone()),
            uid: Some(pod.uid.clone()),
        });
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: vec![audience.to_owned()],
                bound_object_ref: bound,
                expiration_seconds: Some(3_600),
            },
            ..TokenRequest::default()
        };
        let answer = accounts
            .create_token_request(account, &PostParams::default(), &request)
            .await;
        answer.expect("token").status.expect("status").token
    }

    /// The token an agent on `node` has.
    pub async fn agent_token(&self, node: &str) -> String {
        let pod = self.pod(&format!("agent-{node}"), node).await;
        self.token(AGENT, "leyline", Some(&pod)).await
    }

    /// The certificate that agents trust.
    pub async fn authority(&self) -> String {
        let maps: Api<ConfigMap> = self.api();
        eventually("ConfigMap leyline-ca", async || {
            let map = maps
                .get_opt("leyline-ca")
                .await
                .map_err(|error| error.to_string())?;
            let data = map.and_then(|map| map.data).ok_or("absent")?;
            data.get("ca.crt").cloned().ok_or_else(|| "no ca.crt".to_owned())
        })
        .await
    }

    pub async fn objects(&self) -> Vec<ServiceDependency> {
        let objects: Api<ServiceDependency> = self.api();
        objects
            .list(&kube::api::ListParams::default())
            .await
            .expect("objects")
            .items
    }

    /// The only object of the namespace, once it satisfies `check`.
    pub async fn object(&self, what: &str, check: impl Fn(&ServiceDependency) -> bool) -> ServiceDependency {
        eventually(what, async || match self.objects().await.as_slice() {
            [object] if check(object) => Ok(object.clone()),
            others => Err(serde_json::to_string(others).expect("json")),
        })
        .await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.kubeconfig);
        let rights = ["clusterrole", "clusterrolebinding"];
        for kind in rights {
            let _ = kubectl(&["delete", kind, &self.namespace, "--wait=false"]);
        }
        let (client, name) = (self.client.clone(), self.namespace.clone());
        // A runtime of its own: this one may be ending. Not waited for: without controllers a namespace stays.
        let deleted = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                drop(client);
                let client = Client::try_default().await.map_err(std::io::Error::other)?;
                let pods: Api<Pod> = Api::namespaced(client.clone(), &name);
                let now = DeleteParams::default().grace_period(0);
                let _ = pods
                    .delete_collection(&now, &kube::api::ListParams::default())
                    .await;
                let namespaces: Api<Namespace> = Api::all(client);
                namespaces
                    .delete(&name, &DeleteParams::default())
                    .await
                    .map(drop)
                    .map_err(std::io::Error::other)
            })
        });
        if let Ok(Err(error)) = deleted.join() {
            eprintln!("namespace {} stays: {error}", self.namespace);
        }
    }
}
