//! Object names: a pure function of the spec, the same for ever.
//!
//! `client(18)-server(18)-port-hash(10)`: readable first, unique by the hash. `tests/golden/names.txt` pins it: a name
//! that changes would duplicate every object of every user.

use data_encoding::{BASE32_NOPAD, Encoding, Specification};
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

use crate::service_dependency::ServiceDependencySpec;

/// Characters of each end's name that go into an object's name.
const PART_LENGTH: usize = 18;

/// Characters of a hash: 50 bits.
pub const HASH_LENGTH: usize = 10;

/// RFC 4648 alphabet in lower case, as object names need it.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut spec: Specification = BASE32_NOPAD.specification();
    spec.symbols.make_ascii_lowercase();
    spec.encoding().unwrap_or(BASE32_NOPAD)
});

/// Name of the object that describes `spec`.
#[must_use]
pub fn service_dependency(spec: &ServiceDependencySpec) -> String {
    let ServiceDependencySpec {
        client,
        server,
        port,
        transport,
    } = spec;
    let hash = hash([
        client.namespace(),
        client.api_group(),
        &client.kind,
        &client.name,
        server.namespace(),
        server.api_group(),
        &server.kind,
        &server.name,
        &port.to_string(),
        transport.as_str(),
    ]);
    format!("{}-{}-{port}-{hash}", part(&client.name), part(&server.name))
}

/// Namespace of the object that describes `spec`: the client's, or Leyline's own when the client is in none.
#[must_use]
pub fn namespace<'a>(spec: &'a ServiceDependencySpec, system_namespace: &'a str) -> &'a str {
    spec.client.namespace.as_deref().unwrap_or(system_namespace)
}

/// [`HASH_LENGTH`] characters of base32 over the SHA-256 of `parts`, each preceded by its length.
pub(crate) fn hash<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        sha.update(part.as_bytes());
    }
    BASE32.encode(&sha.finalize()).chars().take(HASH_LENGTH).collect()
}

/// The readable part: at most [`PART_LENGTH`] characters of `[a-z0-9-]` that neither start nor end with a dash.
fn part(name: &str) -> String {
    let readable: String = name
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| {
            if c.is_ascii_lowercase() || c.is_ascii_digit() {
                c
            } else {
                '-'
            }
        })
        .take(PART_LENGTH)
        .collect();
    match readable.trim_matches('-') {
        "" => "x".to_owned(),
        trimmed => trimmed.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EntityRef, Transport};
    use proptest::prelude::*;

    fn spec(client: EntityRef, server: EntityRef, port: u16) -> ServiceDependencySpec {
        ServiceDependencySpec {
            client,
            server,
            port,
            transport: Transport::Tcp,
        }
    }

    fn is_object_name(name: &str) -> bool {
        let alphanumeric = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        name.len() <= 63
            && alphanumeric(name.chars().next())
            && alphanumeric(name.chars().last())
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    }

    #[test]
    fn base32_is_in_lower_case() {
        assert_eq!(hash(["a"]), hash(["a"]));
        assert!(
            hash(["a"])
                .chars()
                .all(|c| c.is_ascii_lowercase() || ('2'..='7').contains(&c))
        );
    }

    #[test]
    fn moving_a_character_from_one_field_to_the_next_is_another_name() {
        assert_ne!(hash(["ab", "c"]), hash(["a", "bc"]));
        assert_ne!(hash(["", "a"]), hash(["a", ""]));
    }

    #[test]
    fn direction_port_and_transport_are_part_of_the_name() {
        let a = EntityRef::new("Deployment", "apps", "shop", "a");
        let b = EntityRef::new("Deployment", "apps", "shop", "b");
        let base = spec(a.clone(), b.clone(), 80);
        let mut udp = base.clone();
        udp.transport = Transport::Udp;
        let all = [
            service_dependency(&base),
            service_dependency(&spec(b, a.clone(), 80)),
            service_dependency(&spec(
                a.clone(),
                EntityRef::new("StatefulSet", "apps", "shop", "b"),
                80,
            )),
            service_dependency(&spec(a, EntityRef::new("Deployment", "apps", "data", "b"), 80)),
            service_dependency(&udp),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len(), "{all:?}");
    }

    proptest! {
        #[test]
        fn every_input_gives_a_legal_name(client in ".{0,300}", server in ".{0,300}", kind in ".{0,80}", port: u16) {
            let spec = spec(
                EntityRef::new(&kind, &server, &client, &client),
                EntityRef::new(&kind, &client, "", &server),
                port,
            );
            let name = service_dependency(&spec);
            prop_assert!(is_object_name(&name), "{name:?}");
            prop_assert_eq!(&name, &service_dependency(&spec));
        }
    }
}
