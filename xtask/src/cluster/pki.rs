//! Keys and certificates of the cluster, made anew by every `cluster up`: one CA, the serving certificates of the API
//! server and the kubelets, one client certificate per component, the key that signs ServiceAccount tokens.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::node::{NODES, Node};
use super::state::State;

/// Files of this module, relative to the state folder.
pub(crate) const CA: &str = "pki/ca.crt";
pub(crate) const CA_KEY: &str = "pki/ca.key";
pub(crate) const SERVICE_ACCOUNT_KEY: &str = "pki/service-account.key";
pub(crate) const SERVICE_ACCOUNT_PUBLIC_KEY: &str = "pki/service-account.pub";
pub(crate) const TOKENS: &str = "pki/tokens.csv";

/// Where components on the control plane's machine reach the API server, and where everybody else does.
const LOCAL_SERVER: &str = "https://127.0.0.1:6443";
const NODE_SERVER: &str = "https://10.250.0.1:6443";

type Authority = Issuer<'static, KeyPair>;

/// Makes everything and writes the kubeconfigs.
pub(crate) fn create(state: &State) -> Result<()> {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "leyline test cluster");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let key = KeyPair::generate().context("make the key of the CA")?;
    let certificate = params.self_signed(&key).context("sign the CA")?;
    state.write(CA, &certificate.pem())?;
    state.write_secret(CA_KEY, &key.serialize_pem())?;
    let ca_pem = certificate.pem();
    let authority = Issuer::new(params, key);

    let names = [
        "localhost",
        "127.0.0.1",
        "10.96.0.1",
        "10.250.0.1",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    issue(state, &authority, "apiserver", "kube-apiserver", None, &names)?;
    issue(
        state,
        &authority,
        "apiserver-kubelet-client",
        "kube-apiserver",
        Some("system:masters"),
        &[],
    )?;
    for (name, user) in [
        ("kube-controller-manager", "system:kube-controller-manager"),
        ("kube-scheduler", "system:kube-scheduler"),
    ] {
        issue(state, &authority, name, user, None, &[])?;
        client_kubeconfig(state, &ca_pem, name, LOCAL_SERVER)?;
    }
    issue(state, &authority, "kube-proxy", "system:kube-proxy", None, &[])?;
    client_kubeconfig(state, &ca_pem, "kube-proxy", NODE_SERVER)?;
    for node in NODES {
        node_certificates(state, &authority, &ca_pem, node)?;
    }
    let signing = KeyPair::generate().context("make the key for ServiceAccount tokens")?;
    state.write_secret(SERVICE_ACCOUNT_KEY, &signing.serialize_pem())?;
    state.write(SERVICE_ACCOUNT_PUBLIC_KEY, &signing.public_key_pem())?;
    admin(state, &ca_pem)
}

fn node_certificates(state: &State, authority: &Authority, ca_pem: &str, node: &Node) -> Result<()> {
    let client = format!("kubelet-{}", node.name);
    issue(
        state,
        authority,
        &client,
        &format!("system:node:{}", node.name),
        Some("system:nodes"),
        &[],
    )?;
    client_kubeconfig(state, ca_pem, &client, NODE_SERVER)?;
    issue(
        state,
        authority,
        &format!("{client}-serving"),
        node.name,
        None,
        &[node.name, node.address, "127.0.0.1"],
    )
}

/// Signs one certificate and writes `pki/<name>.crt` and `pki/<name>.key`.
fn issue(
    state: &State,
    authority: &Authority,
    name: &str,
    user: &str,
    group: Option<&str>,
    subject_names: &[&str],
) -> Result<()> {
    let names: Vec<String> = subject_names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).with_context(|| format!("name the certificate {name}"))?;
    params.distinguished_name.push(DnType::CommonName, user);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    let key = KeyPair::generate().with_context(|| format!("make the key of {name}"))?;
    let certificate = params
        .signed_by(&key, authority)
        .with_context(|| format!("sign the certificate {name}"))?;
    state.write(&format!("pki/{name}.crt"), &certificate.pem())?;
    state.write_secret(&format!("pki/{name}.key"), &key.serialize_pem())?;
    Ok(())
}

/// The administrator has a token, not a certificate: short enough to paste into a client's own configuration.
fn admin(state: &State, ca_pem: &str) -> Result<()> {
    let token = random_token()?;
    state.write_secret(TOKENS, &format!("{token},admin,admin,\"system:masters\"\n"))?;
    let user = serde_json::json!({ "token": token });
    let text = kubeconfig(ca_pem, LOCAL_SERVER, &user)?;
    state.write_secret("admin.kubeconfig", &text)?;
    Ok(())
}

fn client_kubeconfig(state: &State, ca_pem: &str, name: &str, server: &str) -> Result<()> {
    let user = serde_json::json!({
        "client-certificate": state.text(&format!("pki/{name}.crt")),
        "client-key": state.text(&format!("pki/{name}.key")),
    });
    state.write_secret(&format!("{name}.kubeconfig"), &kubeconfig(ca_pem, server, &user)?)?;
    Ok(())
}

/// A kubeconfig as JSON, which is YAML too.
fn kubeconfig(ca_pem: &str, server: &str, user: &serde_json::Value) -> Result<String> {
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "leyline",
            "cluster": { "server": server, "certificate-authority-data": base64(ca_pem.as_bytes()) },
        }],
        "users": [{ "name": "leyline", "user": user }],
        "contexts": [{ "name": "leyline", "context": { "cluster": "leyline", "user": "leyline" } }],
        "current-context": "leyline",
    });
    serde_json::to_string_pretty(&config).context("encode a kubeconfig")
}

fn random_token() -> Result<String> {
    let mut bytes = [0u8; 24];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("read /dev/urandom")?;
    let mut token = String::new();
    for byte in bytes {
        write!(token, "{byte:02x}").context("write to a string")?;
    }
    Ok(token)
}

fn base64(bytes: &[u8]) -> String {
    data_encoding::BASE64.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn keys_and_kubeconfigs_are_for_root_alone() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::at(folder.path());
        create(&state).unwrap();
        for name in [
            CA_KEY,
            TOKENS,
            SERVICE_ACCOUNT_KEY,
            "admin.kubeconfig",
            "pki/kubelet-node-b.key",
        ] {
            let mode = fs::metadata(state.path(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{name}");
        }
    }

    #[test]
    fn the_admin_kubeconfig_names_the_token_of_the_token_file() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::at(folder.path());
        create(&state).unwrap();
        let tokens = fs::read_to_string(state.path(TOKENS)).unwrap();
        let (token, _) = tokens.split_once(',').unwrap();
        let config: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(state.kubeconfig()).unwrap()).unwrap();
        assert_eq!(config["users"][0]["user"]["token"], token);
        assert_eq!(token.len(), 48);
    }
}
