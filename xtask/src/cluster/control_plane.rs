//! etcd, API server, controller manager and scheduler: their command lines. All of them run in the machine's network
//! namespace and, except for the API server, listen on loopback only.

use std::path::Path;

use anyhow::Result;

use super::node::{NODE_A, SERVICE_NETWORK, SERVICE_NETWORK_6};
use super::pki;
use super::process::Component;
use super::state::State;
use crate::setup::go_tools;

const ETCD: &str = "http://127.0.0.1:2379";
const ETCD_PEER: &str = "http://127.0.0.1:2380";
/// The default issuer, and thereby the default audience.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// The store. A killed process loses nothing without fsync, a killed machine may: right for tests.
pub(crate) fn etcd(state: &State) -> Component {
    let args = [
        "--name=leyline".to_owned(),
        format!("--data-dir={}", state.text("etcd")),
        format!("--listen-client-urls={ETCD}"),
        format!("--advertise-client-urls={ETCD}"),
        format!("--listen-peer-urls={ETCD_PEER}"),
        format!("--initial-advertise-peer-urls={ETCD_PEER}"),
        format!("--initial-cluster=leyline={ETCD_PEER}"),
        "--logger=zap".to_owned(),
        "--unsafe-no-fsync".to_owned(),
    ];
    Component::new("etcd", Path::new("etcd"), args.to_vec())
}

pub(crate) fn api_server(state: &State) -> Result<Component> {
    let args = vec![
        format!("--advertise-address={}", NODE_A.address),
        "--bind-address=0.0.0.0".to_owned(),
        "--secure-port=6443".to_owned(),
        format!("--etcd-servers={ETCD}"),
        format!("--service-cluster-ip-range={SERVICE_NETWORK},{SERVICE_NETWORK_6}"),
        "--allow-privileged=true".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        format!("--client-ca-file={}", state.text(pki::CA)),
        format!("--tls-cert-file={}", state.text("pki/apiserver.crt")),
        format!("--tls-private-key-file={}", state.text("pki/apiserver.key")),
        format!("--token-auth-file={}", state.text(pki::TOKENS)),
        format!("--service-account-issuer={ISSUER}"),
        format!("--api-audiences={ISSUER}"),
        format!(
            "--service-account-key-file={}",
            state.text(pki::SERVICE_ACCOUNT_PUBLIC_KEY)
        ),
        format!(
            "--service-account-signing-key-file={}",
            state.text(pki::SERVICE_ACCOUNT_KEY)
        ),
        format!("--kubelet-certificate-authority={}", state.text(pki::CA)),
        format!(
            "--kubelet-client-certificate={}",
            state.text("pki/apiserver-kubelet-client.crt")
        ),
        format!(
            "--kubelet-client-key={}",
            state.text("pki/apiserver-kubelet-client.key")
        ),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--profiling=false".to_owned(),
    ];
    Ok(Component::new(
        "kube-apiserver",
        &go_tools::kubernetes("kube-apiserver")?,
        args,
    ))
}

pub(crate) fn controller_manager(state: &State) -> Result<Component> {
    let mut args = delegated(state, "kube-controller-manager");
    args.extend([
        format!(
            "--service-account-private-key-file={}",
            state.text(pki::SERVICE_ACCOUNT_KEY)
        ),
        format!("--root-ca-file={}", state.text(pki::CA)),
        format!("--cluster-signing-cert-file={}", state.text(pki::CA)),
        format!("--cluster-signing-key-file={}", state.text(pki::CA_KEY)),
        "--use-service-account-credentials=true".to_owned(),
        "--allocate-node-cidrs=false".to_owned(),
        format!("--flex-volume-plugin-dir={}", state.text("volume-plugins")),
    ]);
    Ok(Component::new(
        "kube-controller-manager",
        &go_tools::kubernetes("kube-controller-manager")?,
        args,
    ))
}

pub(crate) fn scheduler(state: &State) -> Result<Component> {
    let args = delegated(state, "kube-scheduler");
    Ok(Component::new(
        "kube-scheduler",
        &go_tools::kubernetes("kube-scheduler")?,
        args,
    ))
}

/// Flags of a component that is a client of the API server and the only one of its kind.
fn delegated(state: &State, name: &str) -> Vec<String> {
    let kubeconfig = state.text(&format!("{name}.kubeconfig"));
    vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--leader-elect=false".to_owned(),
        "--profiling=false".to_owned(),
    ]
}
