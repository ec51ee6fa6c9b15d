//! The two nodes: their addresses, and the configuration of the daemons that run on each (containerd, kubelet,
//! kube-proxy, CNI). Everything here is data; the order of events is in `mod.rs`.
//!
//! `node-a` runs in the machine's network namespace, `node-b` in one of its own. Both share the kernel, as in kind; the
//! pods of node-b are in cgroups below `/node-b`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::pki;
use super::process::Component;
use super::state::State;
use crate::setup::go_tools;

/// Addresses of all pods; each node has a /24 of it.
pub(crate) const POD_NETWORK: &str = "10.244.0.0/16";
/// The same for IPv6, with a /64 for each node.
pub(crate) const POD_NETWORK_6: &str = "fd6c:6579:244::/48";
/// Addresses of Services.
pub(crate) const SERVICE_NETWORK: &str = "10.96.0.0/16";
/// The same for IPv6: Services have such an address only when they ask for it.
pub(crate) const SERVICE_NETWORK_6: &str = "fd6c:6579:96::/112";
/// The Service of the cluster's DNS server.
pub(crate) const DNS_ADDRESS: &str = "10.96.0.10";
/// The process that holds a pod's namespaces.
pub(crate) const PAUSE_IMAGE: &str = "leyline.dev/pause:1";
/// The bridge the pods of a node are on; each node has its own in its own network namespace.
pub(crate) const BRIDGE: &str = "leyline-pods";
/// Where Debian puts the CNI plugins.
const CNI_PLUGINS: &str = "/usr/lib/cni";

/// How kube-proxy makes Services work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ProxyMode {
    /// The default here.
    Nftables,
    /// What most clusters have.
    Iptables,
}

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) zone: &'static str,
    pub(crate) address: &'static str,
    pub(crate) address_6: &'static str,
    pub(crate) pods: &'static str,
    pub(crate) pods_6: &'static str,
    /// None: the machine's own.
    pub(crate) netns: Option<&'static str>,
    pub(crate) cgroup_root: &'static str,
}

/// All nodes; the first one is in the machine's network namespace and reaches the control plane there.
pub(crate) const NODES: &[Node] = &[NODE_A, NODE_B];

pub(crate) const NODE_A: Node = Node {
    name: "node-a",
    zone: "zone-a",
    address: "10.250.0.1",
    address_6: "fd6c:6579:250::1",
    pods: "10.244.0.0/24",
    pods_6: "fd6c:6579:244::/64",
    netns: None,
    cgroup_root: "/",
};

pub(crate) const NODE_B: Node = Node {
    name: "node-b",
    zone: "zone-b",
    address: "10.250.0.2",
    address_6: "fd6c:6579:250::2",
    pods: "10.244.1.0/24",
    pods_6: "fd6c:6579:244:1::/64",
    netns: Some("leyline-b"),
    cgroup_root: "/node-b",
};

impl Node {
    /// A path in the node's own folder.
    fn text(&self, state: &State, name: &str) -> String {
        state.text(&format!("{}/{name}", self.name))
    }

    /// The socket of the node's containerd.
    pub(crate) fn containerd_socket(&self, state: &State) -> PathBuf {
        state.path(self.name).join("containerd.sock")
    }

    /// Writes all configuration files of the node.
    pub(crate) fn write_config(&self, state: &State) -> Result<()> {
        let file = |name: &str| format!("{}/{name}", self.name);
        state.write(&file("containerd.toml"), &self.containerd_config(state))?;
        state.write(
            &file("cni/10-leyline.conflist"),
            &pretty(&self.cni_config(state))?,
        )?;
        state.write(&file("kubelet.json"), &pretty(&self.kubelet_config(state))?)?;
        self.write_proxy_config(state, ProxyMode::Nftables)?;
        // Pods with the node's DNS settings get none: nothing outside is there to be asked.
        state.write(&file("resolv.conf"), "options ndots:1\n")?;
        Ok(())
    }

    /// Writes the configuration of kube-proxy; it is read when it starts.
    pub(crate) fn write_proxy_config(&self, state: &State, mode: ProxyMode) -> Result<()> {
        let name = format!("{}/kube-proxy.json", self.name);
        state
            .write(&name, &pretty(&self.kube_proxy_config(state, mode))?)
            .map(drop)
    }

    pub(crate) fn containerd(&self, state: &State) -> Component {
        let args = vec!["--config".to_owned(), self.text(state, "containerd.toml")];
        Component::new(
            &format!("containerd-{}", self.name),
            Path::new("containerd"),
            args,
        )
        .in_netns(self.netns)
    }

    pub(crate) fn kubelet(&self, state: &State) -> Result<Component> {
        let args = vec![
            format!("--config={}", self.text(state, "kubelet.json")),
            format!(
                "--kubeconfig={}",
                state.text(&format!("kubelet-{}.kubeconfig", self.name))
            ),
            format!("--root-dir={}", self.text(state, "kubelet")),
            format!("--hostname-override={}", self.name),
            format!("--node-ip={},{}", self.address, self.address_6),
            format!(
                "--node-labels=topology.kubernetes.io/zone={},topology.kubernetes.io/region=leyline",
                self.zone
            ),
        ];
        let name = format!("kubelet-{}", self.name);
        Ok(Component::new(&name, &go_tools::kubernetes("kubelet")?, args).in_netns(self.netns))
    }

    pub(crate) fn kube_proxy(&self, state: &State) -> Result<Component> {
        let args = vec![format!("--config={}", self.text(state, "kube-proxy.json"))];
        let name = format!("kube-proxy-{}", self.name);
        Ok(Component::new(&name, &go_tools::kubernetes("kube-proxy")?, args).in_netns(self.netns))
    }

    fn containerd_config(&self, state: &State) -> String {
        let root = self.text(state, "containerd");
        let run = self.text(state, "run");
        let socket = self.containerd_socket(state);
        let cni = self.text(state, "cni");
        let runc = self.text(state, "runc");
        let opt = self.text(state, "opt");
        // restrict_oom_score_adj: lowering a score needs CAP_SYS_RESOURCE, which not every machine gives to root.
        // netns_mounts_under_state_dir: the pods' network namespaces are then found by their path and cleaned up.
        format!(
            r#"version = 2
root = "{root}"
state = "{run}"

[grpc]
address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
tolerate_missing_hugetlb_controller = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_PLUGINS}"
conf_dir = "{cni}"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
Root = "{runc}"

[plugins."io.containerd.internal.v1.opt"]
path = "{opt}"
"#,
            socket = socket.display(),
        )
    }

    fn cni_config(&self, state: &State) -> serde_json::Value {
        // Masquerading is done by one rule of our own in `network.rs`, which can be switched: no ipMasq here.
        json!({
            "cniVersion": "1.0.0",
            "name": format!("leyline-{}", self.name),
            "plugins": [{
                "type": "bridge",
                "bridge": BRIDGE,
                "isDefaultGateway": true,
                "hairpinMode": true,
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{ "subnet": self.pods }], [{ "subnet": self.pods_6 }]],
                    "dataDir": self.text(state, "ipam"),
                },
            }, {
                // Ports of the node that lead into pods.
                "type": "portmap",
                "capabilities": { "portMappings": true },
            }],
        })
    }

    fn kubelet_config(&self, state: &State) -> serde_json::Value {
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": { "enabled": false },
                "webhook": { "enabled": true },
                "x509": { "clientCAFile": state.text(pki::CA) },
            },
            "authorization": { "mode": "Webhook" },
            "tlsCertFile": state.text(&format!("pki/kubelet-{}-serving.crt", self.name)),
            "tlsPrivateKeyFile": state.text(&format!("pki/kubelet-{}-serving.key", self.name)),
            "address": self.address,
            "readOnlyPort": 0,
            "clusterDNS": [DNS_ADDRESS],
            "clusterDomain": "cluster.local",
            "resolvConf": self.text(state, "resolv.conf"),
            "containerRuntimeEndpoint": format!("unix://{}", self.containerd_socket(state).display()),
            "podLogsDir": self.text(state, "pod-logs"),
            "volumePluginDir": self.text(state, "volume-plugins"),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self.cgroup_root,
            "enforceNodeAllocatable": [],
            "failSwapOn": false,
            "failCgroupV1": false,
            // kube-proxy uses nftables; nobody needs the kubelet's iptables chains.
            "makeIPTablesUtilChains": false,
            "oomScoreAdj": 0,
            // Images exist only here, so none may be collected, and a nearly full disk of a developer is no reason to evict.
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": "1%",
                "nodefs.inodesFree": "1%",
                "imagefs.available": "1%",
                "imagefs.inodesFree": "1%",
            },
            "serializeImagePulls": false,
            "nodeStatusUpdateFrequency": "5s",
            "syncFrequency": "10s",
        })
    }

    fn kube_proxy_config(&self, state: &State, mode: ProxyMode) -> serde_json::Value {
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": match mode {
                ProxyMode::Nftables => "nftables",
                ProxyMode::Iptables => "iptables",
            },
            "hostnameOverride": self.name,
            "clusterCIDR": format!("{POD_NETWORK},{POD_NETWORK_6}"),
            "bindAddress": "0.0.0.0",
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            "oomScoreAdj": 0,
            "clientConnection": { "kubeconfig": state.text("kube-proxy.kubeconfig") },
            // The machine's conntrack settings stay as they are.
            "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
        })
    }
}

fn pretty(value: &serde_json::Value) -> Result<String> {
    serde_json::to_string_pretty(value).context("encode a configuration")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State::at(Path::new("/state"))
    }

    #[test]
    fn nodes_share_no_address_and_no_folder() {
        assert_ne!(NODE_A.pods, NODE_B.pods);
        assert_ne!(NODE_A.address, NODE_B.address);
        assert_ne!(
            NODE_A.containerd_socket(&state()),
            NODE_B.containerd_socket(&state())
        );
    }

    #[test]
    fn containerd_writes_into_the_folder_of_its_node_only() {
        let config = NODE_B.containerd_config(&state());
        for line in [
            "root = \"/state/node-b/containerd\"",
            "address = \"/state/node-b/containerd.sock\"",
        ] {
            assert!(config.contains(line), "{line} is missing in\n{config}");
        }
        assert!(!config.contains("node-a"));
    }

    #[test]
    fn the_network_plugin_hands_out_the_addresses_of_its_node() {
        let config = NODE_B.cni_config(&state());
        assert_eq!(
            config["plugins"][0]["ipam"]["ranges"][0][0]["subnet"],
            "10.244.1.0/24"
        );
        assert_eq!(
            config["plugins"][0]["ipam"]["ranges"][1][0]["subnet"],
            "fd6c:6579:244:1::/64"
        );
        assert_eq!(config["plugins"][0]["ipMasq"], false);
    }

    #[test]
    fn the_second_node_runs_in_its_own_namespace_below_its_own_cgroup() {
        assert_eq!(NODE_B.containerd(&state()).netns.as_deref(), Some("leyline-b"));
        assert_eq!(NODE_B.kubelet_config(&state())["cgroupRoot"], "/node-b");
        assert_eq!(NODE_A.kubelet_config(&state())["cgroupRoot"], "/");
    }
}
