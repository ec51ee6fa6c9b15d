//! Who is at the other end of a stream.
//!
//! Inputs: the bearer token of a stream. Output: the node the token was issued on. IO: one TokenReview per stream.
//! Nothing is cached beyond the stream, so a revoked token ends with its stream.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::metrics::Rejection;

/// Audience that agents' tokens are made for. A token of another audience opens nothing here, and theirs nothing else.
pub const AUDIENCE: &str = "leyline";
/// The claim that names the node of the pod a token is bound to.
const NODE_CLAIM: &str = "authentication.kubernetes.io/node-name";
/// Service account of the agents.
const AGENT: &str = "leyline-node-agent";
/// A projected token has about 1,200 bytes.
const TOKEN_BYTES: usize = 16 * 1024;
/// Strangers with random tokens must not become a load test of the API server.
const CONCURRENT_REVIEWS: usize = 16;
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a stream may not speak.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// No usable `authorization` metadata.
    #[error(
        "the stream carries no bearer token; the agent reads its own from a projected volume of audience {AUDIENCE}"
    )]
    Missing,
    /// The API server does not accept it.
    #[error("the API server does not accept the token for audience {AUDIENCE}")]
    Invalid,
    /// Somebody else's token.
    #[error("the token is not one of service account {expected}")]
    Identity {
        /// The accepted user name.
        expected: String,
    },
    /// A token without node claim: not bound to a scheduled pod.
    #[error(
        "the token names no node; it must be bound to a pod (Kubernetes 1.30 or newer says so in the token)"
    )]
    NoNode,
    /// The API server could not be asked.
    #[error("the token could not be reviewed, the API server did not answer")]
    Review(#[source] Option<kube::Error>),
}

impl AuthError {
    /// How the stream ends.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Missing | Self::Invalid => Status::unauthenticated(self.to_string()),
            Self::Identity { .. } | Self::NoNode => Status::permission_denied(self.to_string()),
            Self::Review(_) => Status::unavailable(self.to_string()),
        }
    }

    /// What is counted.
    #[must_use]
    pub fn rejection(&self) -> Rejection {
        match self {
            Self::Missing => Rejection::MissingToken,
            Self::Invalid => Rejection::InvalidToken,
            Self::Identity { .. } => Rejection::WrongIdentity,
            Self::NoNode => Rejection::WrongNode,
            Self::Review(_) => Rejection::ReviewFailed,
        }
    }
}

/// Asks the API server about tokens.
#[derive(Clone)]
pub struct Authenticator {
    reviews: Api<TokenReview>,
    user: Arc<str>,
    slots: Arc<Semaphore>,
}

impl Authenticator {
    /// Accepts the agents of `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            reviews: Api::all(client),
            user: format!("system:serviceaccount:{namespace}:{AGENT}").into(),
            slots: Arc::new(Semaphore::new(CONCURRENT_REVIEWS)),
        }
    }

    /// The node that the stream's token was issued on.
    ///
    /// # Errors
    /// [`AuthError`]: no token, an unaccepted or foreign one, or no answer.
    pub async fn node(&self, metadata: &MetadataMap) -> Result<String, AuthError> {
        let token = bearer(metadata).ok_or(AuthError::Missing)?;
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(vec![AUDIENCE.to_owned()]),
                token: Some(token.to_owned()),
            },
            ..TokenReview::default()
        };
        let parameters = PostParams::default();
        let answer = tokio::time::timeout(REVIEW_TIMEOUT, async {
            let _slot = self.slots.acquire().await;
            self.reviews.create(&parameters, &review).await
        })
        .await
        .map_err(|_| AuthError::Review(None))?
        .map_err(|error| AuthError::Review(Some(error)))?;
        let status = answer.status.unwrap_or_default();
        let audience = status
            .audiences
            .is_some_and(|list| list.iter().any(|one| one == AUDIENCE));
        if status.authenticated != Some(true) || !audience {
            return Err(AuthError::Invalid);
        }
        claimed_node(&status.user.unwrap_or_default(), &self.user)
    }
}

fn bearer(metadata: &MetadataMap) -> Option<&str> {
    let value = metadata.get("authorization")?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= TOKEN_BYTES)
        .then_some(token)
}

fn claimed_node(user: &UserInfo, expected: &str) -> Result<String, AuthError> {
    if user.username.as_deref() != Some(expected) {
        return Err(AuthError::Identity {
            expected: expected.to_owned(),
        });
    }
    let claim = user.extra.as_ref().and_then(|extra| extra.get(NODE_CLAIM));
    match claim.map(Vec::as_slice) {
        Some([node]) if !node.is_empty() => Ok(node.clone()),
        _ => Err(AuthError::NoNode),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const USER: &str = "system:serviceaccount:leyline-system:leyline-node-agent";

    fn user(name: &str, nodes: &[&str]) -> UserInfo {
        let nodes: Vec<String> = nodes.iter().map(|&node| node.to_owned()).collect();
        UserInfo {
            username: Some(name.to_owned()),
            extra: Some(BTreeMap::from([(NODE_CLAIM.to_owned(), nodes)])),
            ..UserInfo::default()
        }
    }

    #[test]
    fn an_agents_token_names_its_node() {
        assert_eq!(claimed_node(&user(USER, &["n1"]), USER).expect("accepted"), "n1");
    }

    #[test]
    fn other_accounts_and_unbound_tokens_are_refused() {
        let other = user("system:serviceaccount:default:leyline-node-agent", &["n1"]);
        assert!(matches!(
            claimed_node(&other, USER),
            Err(AuthError::Identity { .. })
        ));
        assert!(matches!(
            claimed_node(&user(USER, &[]), USER),
            Err(AuthError::NoNode)
        ));
        assert!(matches!(
            claimed_node(&user(USER, &["a", "b"]), USER),
            Err(AuthError::NoNode)
        ));
        assert!(matches!(
            claimed_node(&UserInfo::default(), USER),
            Err(AuthError::Identity { .. })
        ));
    }

    #[test]
    fn only_a_bearer_token_of_sane_size_counts() {
        let with = |value: String| {
            let mut metadata = MetadataMap::new();
            metadata.insert("authorization", value.parse().expect("ascii"));
            bearer(&metadata).map(str::to_owned)
        };
        assert_eq!(with("Bearer abc".into()).as_deref(), Some("abc"));
        assert_eq!(with("bearer abc".into()).as_deref(), Some("abc"));
        assert_eq!(with("Basic abc".into()), None);
        assert_eq!(with("Bearer ".into()), None);
        assert_eq!(with(format!("Bearer {}", "x".repeat(TOKEN_BYTES + 1))), None);
        assert_eq!(bearer(&MetadataMap::new()), None);
    }
}
