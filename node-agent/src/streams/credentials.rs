//! The two files a connection needs, read again for each one: the kubelet replaces both.

use std::io;
use std::path::{Path, PathBuf};

use tokio::io::AsyncReadExt;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig};

use super::Settings;

/// No certificate bundle or token is larger.
const MAX_FILE: u64 = 1024 * 1024;

/// Why a connection cannot be attempted.
#[derive(Debug, thiserror::Error)]
pub(super) enum CredentialError {
    #[error(
        "cannot read the operator's certificate authority {path}: {source}; is the ConfigMap leyline-ca there yet?"
    )]
    Ca { path: PathBuf, source: io::Error },
    #[error("cannot read the token {path}: {source}; is the projected token mounted?")]
    Token { path: PathBuf, source: io::Error },
    #[error("the token in {path} is empty or holds characters that no token has")]
    BadToken { path: PathBuf },
}

pub(super) async fn tls(settings: &Settings) -> Result<ClientTlsConfig, CredentialError> {
    let pem = read(&settings.ca).await.map_err(|source| CredentialError::Ca {
        path: settings.ca.clone(),
        source,
    })?;
    Ok(ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(pem))
        .domain_name(settings.server_name.clone()))
}

pub(super) async fn bearer(settings: &Settings) -> Result<MetadataValue<Ascii>, CredentialError> {
    let path = &settings.token;
    let token = read(path).await.map_err(|source| CredentialError::Token {
        path: path.clone(),
        source,
    })?;
    let mut header = b"Bearer ".to_vec();
    header.extend_from_slice(token.trim_ascii());
    let is_empty = token.trim_ascii().is_empty();
    let value = MetadataValue::try_from(header.as_slice())
        .ok()
        .filter(|_| !is_empty);
    let mut value = value.ok_or_else(|| CredentialError::BadToken { path: path.clone() })?;
    value.set_sensitive(true);
    Ok(value)
}

async fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    tokio::fs::File::open(path)
        .await?
        .take(MAX_FILE)
        .read_to_end(&mut bytes)
        .await?;
    Ok(bytes)
}
