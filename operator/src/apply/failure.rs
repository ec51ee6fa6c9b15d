//! What an error of the API server means for the work.

use kube::core::Status;

/// Why a request did not work.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Asked before the request was sent.
    #[error("this replica does not lead")]
    NotLeader,
    /// The object is not there.
    #[error("the object is not there")]
    NotFound,
    /// Nothing can be created there.
    #[error("the namespace is gone")]
    NamespaceGone,
    /// The same request will be refused again.
    #[error("refused: {0}")]
    Refused(Box<Status>),
    /// May work later.
    #[error("{0}")]
    Temporary(kube::Error),
    /// No answer.
    #[error("no answer in time")]
    Timeout,
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        let kube::Error::Api(status) = error else {
            return Self::Temporary(error);
        };
        if namespace_gone(&status) {
            return Self::NamespaceGone;
        }
        match status.code {
            // A missing CRD is a 404 too, but names no object.
            404 if names_object(&status) => Self::NotFound,
            // Invalid, too large, malformed.
            400 | 413 | 415 | 422 => Self::Refused(status),
            _ => Self::Temporary(kube::Error::Api(status)),
        }
    }
}

fn names_object(status: &Status) -> bool {
    status
        .details
        .as_ref()
        .is_some_and(|details| !details.name.is_empty())
}

/// 404 naming the namespace itself, or 403 because it is being terminated. Any other 404 (a missing CRD) may heal.
fn namespace_gone(status: &Status) -> bool {
    let details = status.details.as_ref();
    match status.code {
        404 => details.is_some_and(|details| details.kind == "namespaces"),
        403 => {
            let cause = |cause: &kube::core::response::StatusCause| cause.reason == "NamespaceTerminating";
            details.is_some_and(|details| details.causes.iter().any(cause))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn failure(status: Value) -> Failure {
        kube::Error::Api(Box::new(serde_json::from_value(status).expect("a Status"))).into()
    }

    #[test]
    fn a_missing_or_terminating_namespace_ends_the_work() {
        let missing =
            json!({"code": 404, "reason": "NotFound", "details": {"name": "shop", "kind": "namespaces"}});
        assert!(matches!(failure(missing), Failure::NamespaceGone));
        let terminating = json!({
            "code": 403, "reason": "Forbidden",
            "details": {"causes": [{"reason": "NamespaceTerminating", "message": "m", "field": "metadata.namespace"}]}
        });
        assert!(matches!(failure(terminating), Failure::NamespaceGone));
    }

    #[test]
    fn a_missing_object_is_not_a_missing_kind() {
        let object = json!({"code": 404, "reason": "NotFound", "details": {"name": "x", "kind": "servicedependencies"}});
        assert!(matches!(failure(object), Failure::NotFound));
    }

    #[test]
    fn what_may_heal_is_tried_again_and_what_will_not_is_not() {
        let no_crd = json!({"code": 404, "reason": "NotFound", "details": {}});
        let forbidden = json!({"code": 403, "reason": "Forbidden"});
        for status in [
            no_crd,
            forbidden,
            json!({"code": 429}),
            json!({"code": 500}),
            json!({"code": 409}),
        ] {
            assert!(matches!(failure(status), Failure::Temporary(_)));
        }
        assert!(matches!(
            failure(json!({"code": 422, "reason": "Invalid"})),
            Failure::Refused(_)
        ));
    }
}
