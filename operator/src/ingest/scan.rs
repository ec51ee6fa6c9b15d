//! A look at an encoded message before it is decoded.
//!
//! Inputs: the bytes of one message. Output: nothing, or the [`Violation`] that ends the stream. No IO. An empty
//! entry takes two bytes on the wire and a hundred once decoded, so a message far below the size limit could still
//! take hundreds of megabytes; entries are counted here first, and nothing is allocated for them.

use super::limits;
use super::validate::Violation;

/// The repeated fields of `Hello`, by number.
const HELLO: &[Repeated] = &[
    Repeated {
        number: 5,
        name: "hello.node_addresses",
        limit: limits::NODE_ADDRESSES,
    },
    Repeated {
        number: 6,
        name: "hello.probes",
        limit: limits::PROBES,
    },
];
/// The repeated fields of `Report`, by number. `ended` is packed: a byte is at least an entry of four.
const REPORT: &[Repeated] = &[
    Repeated {
        number: 3,
        name: "report.definitions",
        limit: limits::DEFINITIONS,
    },
    Repeated {
        number: 4,
        name: "report.counters",
        limit: limits::COUNTERS,
    },
    Repeated {
        number: 5,
        name: "report.connections",
        limit: limits::CONNECTIONS,
    },
    Repeated {
        number: 9,
        name: "report.node_addresses",
        limit: limits::NODE_ADDRESSES,
    },
    Repeated {
        number: 10,
        name: "report.probes",
        limit: limits::PROBES,
    },
];

struct Repeated {
    number: u64,
    name: &'static str,
    limit: usize,
}

/// Checks an encoded `AgentMessage`.
///
/// # Errors
/// [`Violation::TooMany`] when a list is longer than a message may have it, [`Violation::Encoding`] when the outer
/// structure is not protobuf.
pub fn message(bytes: &[u8]) -> Result<(), Violation> {
    // One body can be spread over several fields that are merged: the counts go on over all of them.
    let mut hello = [0; HELLO.len()];
    let mut report = [0; REPORT.len()];
    each_field(bytes, |number, body| match number {
        1 => count(body, HELLO, &mut hello),
        2 => count(body, REPORT, &mut report),
        _ => Ok(()),
    })
}

fn count(bytes: &[u8], fields: &[Repeated], counts: &mut [usize]) -> Result<(), Violation> {
    each_field(bytes, |number, _| {
        for (field, count) in fields.iter().zip(counts.iter_mut()) {
            if field.number == number {
                *count += 1;
                if *count > field.limit {
                    return Err(Violation::TooMany {
                        field: field.name,
                        count: *count,
                        limit: field.limit,
                    });
                }
            }
        }
        Ok(())
    })
}

/// Calls `visit` with the number and content of every length-delimited field; skips the others.
fn each_field(
    mut rest: &[u8],
    mut visit: impl FnMut(u64, &[u8]) -> Result<(), Violation>,
) -> Result<(), Violation> {
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        match tag & 7 {
            0 => drop(varint(&mut rest)?),
            1 => drop(take(&mut rest, 8)?),
            2 => {
                let length = varint(&mut rest)?;
                let length =
                    usize::try_from(length).map_err(|_| broken("a field is longer than the message"))?;
                visit(tag >> 3, take(&mut rest, length)?)?;
            }
            5 => drop(take(&mut rest, 4)?),
            _ => return Err(broken("unknown wire type")),
        }
    }
    Ok(())
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Violation> {
    let (head, tail) = rest
        .split_at_checked(length)
        .ok_or_else(|| broken("a field is longer than the message"))?;
    *rest = tail;
    Ok(head)
}

fn varint(rest: &mut &[u8]) -> Result<u64, Violation> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let Some((&byte, tail)) = rest.split_first() else {
            return Err(broken("it ends inside of a number"));
        };
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(broken("a number has more than 64 bits"))
}

fn broken(why: &str) -> Violation {
    Violation::Encoding(why.to_owned())
}

#[cfg(test)]
mod tests {
    use leyline_wire::{AgentMessage, Connection, Hello, Report, agent_message::Body};
    use prost::Message;

    use super::*;

    fn encoded(body: Body) -> Vec<u8> {
        AgentMessage { body: Some(body) }.encode_to_vec()
    }

    #[test]
    fn an_ordinary_message_passes() {
        let hello = Hello {
            node: "n".into(),
            node_addresses: vec![vec![1, 2, 3, 4]; 8],
            ..Hello::default()
        };
        assert_eq!(message(&encoded(Body::Hello(hello))), Ok(()));
        let report = Report {
            sequence: 1,
            connections: vec![Connection::default(); 1000],
            ..Report::default()
        };
        assert_eq!(message(&encoded(Body::Report(report))), Ok(()));
        assert_eq!(message(&[]), Ok(()));
    }

    #[test]
    fn too_many_empty_entries_are_refused_before_they_are_decoded() {
        let report = Report {
            connections: vec![Connection::default(); limits::CONNECTIONS + 1],
            ..Report::default()
        };
        let bytes = encoded(Body::Report(report));
        assert!(bytes.len() < limits::MESSAGE_BYTES / 10);
        assert!(matches!(
            message(&bytes),
            Err(Violation::TooMany {
                field: "report.connections",
                ..
            })
        ));
    }

    #[test]
    fn entries_spread_over_merged_bodies_are_counted_together() {
        let half = Report {
            connections: vec![Connection::default(); limits::CONNECTIONS / 2 + 1],
            ..Report::default()
        };
        let mut bytes = encoded(Body::Report(half.clone()));
        bytes.extend(encoded(Body::Report(half)));
        assert!(matches!(message(&bytes), Err(Violation::TooMany { .. })));
    }

    #[test]
    fn broken_structure_is_named() {
        for bytes in [
            &[0x12][..],
            &[0x12, 0xff],
            &[0x0f],
            &[0x80; 11],
            &[0x12, 0x02, 0x1a, 0x05],
        ] {
            assert!(matches!(message(bytes), Err(Violation::Encoding(_))), "{bytes:?}");
        }
    }
}
