//! Labels of generated objects: for selecting, never for identity (`spec` holds the truth).

use std::collections::BTreeMap;

use crate::{names, service_dependency::ServiceDependencySpec};

/// Marks what Leyline wrote; objects without it are never changed or deleted.
pub const GENERATED: &str = "leyline.dev/generated";
/// Name of the client.
pub const CLIENT: &str = "leyline.dev/client";
/// Kind of the client.
pub const CLIENT_KIND: &str = "leyline.dev/client-kind";
/// Name of the server.
pub const SERVER: &str = "leyline.dev/server";
/// Kind of the server.
pub const SERVER_KIND: &str = "leyline.dev/server-kind";
/// Namespace of the server; the label is absent when the server is in none.
pub const SERVER_NAMESPACE: &str = "leyline.dev/server-namespace";

/// Longest label value.
const VALUE_LENGTH: usize = 63;

/// Labels of the object that describes `spec`.
#[must_use]
pub fn service_dependency(spec: &ServiceDependencySpec) -> BTreeMap<String, String> {
    let ServiceDependencySpec {
        client,
        server,
        port: _,
        transport: _,
    } = spec;
    let mut labels = BTreeMap::from([
        (GENERATED.to_owned(), "true".to_owned()),
        (CLIENT.to_owned(), value(&client.name)),
        (CLIENT_KIND.to_owned(), value(&client.kind)),
        (SERVER.to_owned(), value(&server.name)),
        (SERVER_KIND.to_owned(), value(&server.kind)),
    ]);
    if let Some(namespace) = &server.namespace {
        labels.insert(SERVER_NAMESPACE.to_owned(), value(namespace));
    }
    labels
}

/// Whether an object with these labels was written by Leyline.
#[must_use]
pub fn is_generated(labels: Option<&BTreeMap<String, String>>) -> bool {
    labels
        .and_then(|labels| labels.get(GENERATED))
        .is_some_and(|value| value == "true")
}

/// A legal label value: other characters than `[A-Za-z0-9._-]` become `-`; longer than 63 characters it is cut and ends with
/// a hash of the whole.
#[must_use]
pub fn value(text: &str) -> String {
    let clean: String = text
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
                c
            } else {
                '-'
            }
        })
        .collect();
    // One character of `clean` is one byte from here on.
    let ends = |c: char| !c.is_ascii_alphanumeric();
    if clean.len() <= VALUE_LENGTH {
        return match clean.trim_matches(ends) {
            "" => "x".to_owned(),
            trimmed => trimmed.to_owned(),
        };
    }
    let kept: String = clean
        .chars()
        .take(VALUE_LENGTH - names::HASH_LENGTH - 1)
        .collect();
    let kept = kept.trim_start_matches(ends);
    format!(
        "{kept}{}{}",
        if kept.is_empty() { "" } else { "-" },
        names::hash([text])
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_label_value(value: &str) -> bool {
        let alphanumeric = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        (1..=63).contains(&value.len())
            && alphanumeric(value.chars().next())
            && alphanumeric(value.chars().last())
            && value
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
    }

    #[test]
    fn short_values_are_cleaned_and_long_ones_hashed() {
        assert_eq!(value("cart"), "cart");
        assert_eq!(value("kubelet.service"), "kubelet.service");
        assert_eq!(value("2001:db8::1"), "2001-db8--1");
        assert_eq!(value("*.example.com"), "example.com");
        assert_eq!(value(":::"), "x");
        assert_eq!(value(&"a".repeat(63)), "a".repeat(63));
        let long = value(&"a".repeat(64));
        assert!(
            long.starts_with(&format!("{}-", "a".repeat(52))) && long.len() == 63,
            "{long}"
        );
        assert_ne!(long, value(&"a".repeat(65)));
    }

    proptest! {
        #[test]
        fn every_text_gives_a_legal_value(text in ".{0,300}") {
            prop_assert!(is_label_value(&value(&text)), "{:?}", value(&text));
        }
    }
}
