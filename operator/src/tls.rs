//! The operator's own certificate authority.
//!
//! Inputs: Secret `leyline-operator-tls`, made here when it is absent. Outputs: certificate and key to serve with, and
//! ConfigMap `leyline-ca` that the kubelet mounts into agents. IO: the API server. Deliberately absent: rotation; the
//! certificates are made for ten years.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use tokio_util::sync::CancellationToken;

use crate::FIELD_MANAGER;

/// Secret with CA and serving certificate.
pub const SECRET: &str = "leyline-operator-tls";
/// ConfigMap with the CA's certificate.
pub const CONFIG_MAP: &str = "leyline-ca";
const CA_CERTIFICATE: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const YEARS: i16 = 10;
/// How often the ConfigMap is applied: somebody's change lasts no longer.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(30);

/// PEM texts to serve with.
#[derive(Clone, PartialEq, Eq)]
pub struct Material {
    /// Certificate of the authority, for agents.
    pub authority: String,
    /// Serving certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The Secret cannot be read.
    #[error("cannot read Secret {SECRET}")]
    Read(#[source] kube::Error),
    /// The Secret cannot be made.
    #[error("cannot create Secret {SECRET}")]
    Create(#[source] kube::Error),
    /// Somebody made the Secret without what belongs into it.
    #[error("Secret {SECRET} has no usable `{key}`; delete the Secret to have a new one made")]
    Incomplete {
        /// The entry.
        key: &'static str,
    },
    /// Making keys or certificates failed.
    #[error("cannot make a certificate")]
    Generate(#[from] rcgen::Error),
}

/// Reads the Secret, or makes it. Of two replicas that make it at once one meets a conflict and reads the other's.
///
/// # Errors
/// [`TlsError`].
pub async fn load_or_create(client: Client, namespace: &str) -> Result<Material, TlsError> {
    let secrets: Api<Secret> = Api::namespaced(client, namespace);
    loop {
        if let Some(secret) = secrets.get_opt(SECRET).await.map_err(TlsError::Read)? {
            return material(&secret);
        }
        match secrets
            .create(&PostParams::default(), &generate(namespace)?)
            .await
        {
            Ok(secret) => return material(&secret),
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            Err(error) => return Err(TlsError::Create(error)),
        }
    }
}

/// Keeps the ConfigMap as it should be until `shutdown`; every replica does, they write the same.
pub async fn publish(client: Client, namespace: String, authority: String, shutdown: CancellationToken) {
    let maps: Api<ConfigMap> = Api::namespaced(client, &namespace);
    let wanted = ConfigMap {
        metadata: ObjectMeta {
            name: Some(CONFIG_MAP.to_owned()),
            labels: Some(labels()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(CA_CERTIFICATE.to_owned(), authority)])),
        ..ConfigMap::default()
    };
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let mut ticks = tokio::time::interval(PUBLISH_INTERVAL);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = maps.patch(CONFIG_MAP, &parameters, &Patch::Apply(&wanted)).await {
            tracing::warn!(%error, "cannot publish the CA certificate in ConfigMap {CONFIG_MAP}; agents need it");
            ticks.reset_after(Duration::from_secs(2));
        }
    }
}

/// Names the serving certificate is good for.
#[must_use]
pub fn server_names(namespace: &str) -> Vec<String> {
    vec![
        format!("leyline-operator.{namespace}.svc"),
        format!("leyline-operator.{namespace}.svc.cluster.local"),
    ]
}

fn material(secret: &Secret) -> Result<Material, TlsError> {
    let entry = |key: &'static str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        let text = bytes.and_then(|ByteString(bytes)| std::str::from_utf8(bytes).ok());
        text.filter(|text| text.contains("-----BEGIN"))
            .map(str::to_owned)
            .ok_or(TlsError::Incomplete { key })
    };
    Ok(Material {
        authority: entry(CA_CERTIFICATE)?,
        certificate: entry(CERTIFICATE)?,
        key: entry(KEY)?,
    })
}

fn generate(namespace: &str) -> Result<Secret, TlsError> {
    let ca_key = KeyPair::generate()?;
    let mut ca = parameters("Leyline CA", Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = ca.self_signed(&ca_key)?;
    let key = KeyPair::generate()?;
    let mut serving = parameters("leyline-operator", server_names(namespace))?;
    serving.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    serving.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    serving.use_authority_key_identifier_extension = true;
    let certificate = serving.signed_by(&key, &Issuer::from_params(&ca, &ca_key))?;
    let data = [
        (CA_CERTIFICATE, authority.pem()),
        (CA_KEY, ca_key.serialize_pem()),
        (CERTIFICATE, certificate.pem()),
        (KEY, key.serialize_pem()),
    ];
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.to_owned()),
            labels: Some(labels()),
            ..ObjectMeta::default()
        },
        data: Some(
            data.map(|(key, pem)| (key.to_owned(), ByteString(pem.into_bytes())))
                .into(),
        ),
        ..Secret::default()
    })
}

fn parameters(name: &str, names: Vec<String>) -> Result<CertificateParams, TlsError> {
    let mut parameters = CertificateParams::new(names)?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    // Since yesterday: clocks of nodes differ.
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let since = today.yesterday().unwrap_or(today);
    let month = u8::try_from(since.month()).unwrap_or(1);
    // The 28th exists in every month of every year.
    let day = u8::try_from(since.day()).unwrap_or(1).min(28);
    parameters.not_before = rcgen::date_time_ymd(since.year().into(), month, day);
    parameters.not_after = rcgen::date_time_ymd((since.year() + YEARS).into(), month, day);
    Ok(parameters)
}

fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([("app.kubernetes.io/part-of".to_owned(), "leyline".to_owned())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_secret_can_be_served_with() {
        let material = material(&generate("ns").expect("made")).expect("complete");
        let identity = tonic::transport::Identity::from_pem(&material.certificate, &material.key);
        let config = tonic::transport::ServerTlsConfig::new().identity(identity);
        tonic::transport::Server::builder()
            .tls_config(config)
            .expect("certificate and key belong together");
        assert_ne!(material.authority, material.certificate);
    }

    #[test]
    fn a_secret_without_an_entry_says_which_one() {
        for missing in [CA_CERTIFICATE, CERTIFICATE, KEY] {
            let mut secret = generate("ns").expect("made");
            secret
                .data
                .as_mut()
                .expect("data")
                .insert(missing.to_owned(), ByteString(vec![0xff, 0]));
            let Err(TlsError::Incomplete { key }) = material(&secret) else {
                panic!("accepted without {missing}");
            };
            assert_eq!(key, missing);
        }
    }
}
