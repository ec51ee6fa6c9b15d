//! A reader for the kernel's type information (BTF), as small as the question: where is this field?
//!
//! Input: the raw bytes of `/sys/kernel/btf/vmlinux`, format version 1. Output: byte offsets and enumerator values. No IO.
//! It indexes where each type starts and copies nothing else: general readers keep every name and member, tens of
//! megabytes that an agent with a small memory limit would hold for three lookups. Every read is bounds-checked.

use std::collections::HashMap;

const MAGIC: u16 = 0xeb9f;
const TYPE_LEN: usize = 12;
/// What the names of tracepoints' types begin with.
const TRACEPOINT: &[u8] = b"btf_trace_";

/// Kinds this reader looks into or through.
mod kind {
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const TYPE_TAG: u32 = 18;
}

/// Why a blob is not BTF.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum BtfError {
    /// It does not start like BTF of this machine's byte order.
    #[error("not BTF")]
    Magic,
    /// It ends early or points outside itself.
    #[error("truncated at byte {0}")]
    Truncated(usize),
    /// A kind newer than this reader: the length of what follows is unknown.
    #[error("unknown kind {0} of type {1}")]
    Kind(u32, usize),
}

/// An index over BTF bytes.
pub(super) struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Start of each type in `types`; index 0 is void.
    starts: Vec<u32>,
    /// Structs, enums and tracepoints, by (kind, name).
    named: HashMap<(u32, &'a [u8]), u32>,
}

#[derive(Clone, Copy)]
struct Type {
    name: u32,
    kind: u32,
    count: usize,
    /// Bit 31 of `info`: member offsets carry a bit field's size as well.
    flag: bool,
    size_or_type: u32,
    /// Where what follows the type starts.
    rest: usize,
}

#[derive(Clone, Copy)]
struct Member {
    /// In bits.
    offset: u32,
    of: u32,
    /// Bits of a bit field, else 0.
    bit_field: u32,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(word.try_into().ok()?))
}

impl<'a> Btf<'a> {
    /// Indexes `bytes`.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        let magic = bytes.first_chunk::<2>().map(|magic| u16::from_ne_bytes(*magic));
        if magic != Some(MAGIC) {
            return Err(BtfError::Magic);
        }
        let header = |at| {
            word(bytes, at)
                .map(|word| word as usize)
                .ok_or(BtfError::Truncated(at))
        };
        let (start, type_at, type_len, string_at, string_len) =
            (header(4)?, header(8)?, header(12)?, header(16)?, header(20)?);
        let section = |at: usize, len: usize| {
            let from = start.checked_add(at)?;
            bytes.get(from..from.checked_add(len)?)
        };
        let types = section(type_at, type_len).ok_or(BtfError::Truncated(bytes.len()))?;
        let strings = section(string_at, string_len).ok_or(BtfError::Truncated(bytes.len()))?;
        let mut btf = Self {
            types,
            strings,
            starts: vec![u32::MAX],
            named: HashMap::new(),
        };
        btf.index()?;
        Ok(btf)
    }

    fn index(&mut self) -> Result<(), BtfError> {
        let mut at = 0;
        while at < self.types.len() {
            let found = self.type_at(at).ok_or(BtfError::Truncated(at))?;
            let id = self.starts.len();
            let follow = match found.kind {
                // INT, VAR, DECL_TAG
                1 | 14 | 17 => elements(4, 1),
                // ARRAY
                3 => elements(12, 1),
                // STRUCT, UNION, DATASEC, ENUM64
                4 | 5 | 15 | 19 => elements(12, found.count),
                // ENUM, FUNC_PROTO
                6 | 13 => elements(8, found.count),
                // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
                2 | 7..=12 | 16 | 18 => 0,
                unknown => return Err(BtfError::Kind(unknown, id)),
            };
            if (matches!(found.kind, kind::STRUCT | kind::ENUM) || self.is_tracepoint(&found))
                && found.name != 0
                && let Some(name) = self.string(found.name)
            {
                let id = u32::try_from(id).map_err(|_| BtfError::Truncated(at))?;
                // Two structs of one name exist in big kernels; the first is the one of the core.
                self.named.entry((found.kind, name)).or_insert(id);
            }
            self.starts
                .push(u32::try_from(at).map_err(|_| BtfError::Truncated(at))?);
            at = found.rest + follow;
        }
        Ok(())
    }

    /// Every tracepoint has a type of this name.
    fn is_tracepoint(&self, found: &Type) -> bool {
        found.kind == kind::TYPEDEF
            && self
                .string(found.name)
                .is_some_and(|name| name.starts_with(TRACEPOINT))
    }

    /// Whether the kernel has a tracepoint of this name.
    pub(super) fn has_tracepoint(&self, name: &str) -> bool {
        let name = [TRACEPOINT, name.as_bytes()].concat();
        self.named.contains_key(&(kind::TYPEDEF, name.as_slice()))
    }

    /// Byte offset of a field of a struct. `path` may go through nested and anonymous structs and unions, not through
    /// pointers. `None` for bit fields.
    pub(super) fn offset(&self, of: &str, path: &str) -> Option<u32> {
        let mut id = *self.named.get(&(kind::STRUCT, of.as_bytes()))?;
        let mut bits = 0u32;
        for name in path.split('.') {
            let found = self.member(id, name.as_bytes(), 0)?;
            if found.bit_field != 0 {
                return None;
            }
            bits = bits.checked_add(found.offset)?;
            id = found.of;
        }
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    /// Bit offset, from the start of the struct, of a field that lies within one byte: a bit field or a byte of its own.
    pub(super) fn bit_offset(&self, of: &str, name: &str) -> Option<u32> {
        let id = *self.named.get(&(kind::STRUCT, of.as_bytes()))?;
        let found = self.member(id, name.as_bytes(), 0)?;
        let bits = match found.bit_field {
            0 => self.resolve(found.of)?.size_or_type.checked_mul(8)?,
            bits => bits,
        };
        (found.offset % 8 + bits <= 8).then_some(found.offset)
    }

    /// Value of an enumerator.
    pub(super) fn enumerator(&self, of: &str, name: &str) -> Option<u32> {
        let id = *self.named.get(&(kind::ENUM, of.as_bytes()))?;
        let found = self.get(id)?;
        (0..found.count)
            .map(|index| found.rest + index * 8)
            .find_map(|at| {
                let matches = self.string(word(self.types, at)?)? == name.as_bytes();
                if matches { word(self.types, at + 4) } else { None }
            })
    }

    /// A member, looked for in anonymous members too.
    fn member(&self, id: u32, name: &[u8], depth: u32) -> Option<Member> {
        let found = self.resolve(id)?;
        if !matches!(found.kind, kind::STRUCT | kind::UNION) || depth > 8 {
            return None;
        }
        (0..found.count)
            .map(|index| found.rest + index * TYPE_LEN)
            .find_map(|at| {
                let (name_at, of, raw) = (
                    word(self.types, at)?,
                    word(self.types, at + 4)?,
                    word(self.types, at + 8)?,
                );
                let (offset, bit_field) = if found.flag {
                    (raw & 0x00ff_ffff, raw >> 24)
                } else {
                    (raw, 0)
                };
                if self.string(name_at)? == name {
                    return Some(Member {
                        offset,
                        of,
                        bit_field,
                    });
                }
                if name_at != 0 {
                    return None;
                }
                let inner = self.member(of, name, depth + 1)?;
                Some(Member {
                    offset: offset.checked_add(inner.offset)?,
                    ..inner
                })
            })
    }

    /// The type behind typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Option<Type> {
        for _ in 0..32 {
            let found = self.get(id)?;
            match found.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = found.size_or_type
                }
                _ => return Some(found),
            }
        }
        None
    }

    fn get(&self, id: u32) -> Option<Type> {
        self.type_at(*self.starts.get(id as usize)? as usize)
    }

    fn type_at(&self, at: usize) -> Option<Type> {
        let info = word(self.types, at.checked_add(4)?)?;
        Some(Type {
            name: word(self.types, at)?,
            kind: (info >> 24) & 0x1f,
            count: (info & 0xffff) as usize,
            flag: info >> 31 == 1,
            size_or_type: word(self.types, at + 8)?,
            rest: at + TYPE_LEN,
        })
    }

    fn string(&self, at: u32) -> Option<&'a [u8]> {
        let rest = self.strings.get(at as usize..)?;
        rest.get(..rest.iter().position(|byte| *byte == 0)?)
    }
}

/// Bytes that follow a type: `count` elements of `size`; `count` is at most 65,535.
const fn elements(size: usize, count: usize) -> usize {
    size * count
}

#[cfg(test)]
mod tests {
    use super::*;

    /// struct outer { int a; union { struct inner { int b; int c:3; } n; int d; }; }; enum e { FIRST = 4 }
    fn sample() -> Vec<u8> {
        let strings = b"\0outer\0a\0n\0d\0inner\0b\0c\0e\0FIRST\0int\0";
        let at = |name: &[u8]| {
            let with_nul = [b"\0", name, b"\0"].concat();
            strings
                .windows(with_nul.len())
                .position(|w| w == with_nul)
                .unwrap() as u32
                + 1
        };
        let info = |kind: u32, count: u32, flag: u32| flag << 31 | kind << 24 | count;
        let types: Vec<u32> = [
            vec![at(b"int"), info(1, 0, 0), 4, 0],
            vec![
                at(b"inner"),
                info(4, 2, 1),
                8,
                at(b"b"),
                1,
                0,
                at(b"c"),
                1,
                3 << 24 | 32,
            ],
            vec![0, info(5, 2, 0), 8, at(b"n"), 4, 0, at(b"d"), 1, 0],
            vec![0, info(10, 0, 0), 2],
            vec![at(b"outer"), info(4, 2, 0), 12, at(b"a"), 1, 0, 0, 3, 32],
            vec![at(b"e"), info(6, 1, 0), 4, at(b"FIRST"), 4],
        ]
        .concat();
        let type_len = types.len() as u32 * 4;
        let mut bytes = vec![];
        bytes.extend(MAGIC.to_ne_bytes());
        bytes.extend([1, 0]);
        for word in [24, 0, type_len, type_len, strings.len() as u32] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(types.iter().flat_map(|word| word.to_ne_bytes()));
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn fields_are_found_through_anonymous_unions_and_qualifiers() {
        let bytes = sample();
        let btf = Btf::parse(&bytes).unwrap();
        for (path, expected) in [
            ("a", Some(0)),
            ("d", Some(4)),
            ("n.b", Some(4)),
            ("n.c", None),
            ("x", None),
            ("a.b", None),
        ] {
            assert_eq!(btf.offset("outer", path), expected, "{path}");
        }
        assert_eq!(btf.offset("nobody", "a"), None);
        assert_eq!(btf.bit_offset("inner", "c"), Some(32));
        assert_eq!(btf.bit_offset("inner", "b"), None);
        assert_eq!(btf.offset("int", "a"), None);
        assert_eq!(btf.enumerator("e", "FIRST"), Some(4));
        assert_eq!(btf.enumerator("e", "SECOND"), None);
    }

    #[test]
    fn any_truncation_or_flipped_byte_is_an_error_or_an_answer_never_a_panic() {
        let bytes = sample();
        for len in 0..bytes.len() {
            if let Ok(btf) = Btf::parse(&bytes[..len]) {
                let _ = btf.offset("outer", "n.b");
            }
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] = value;
                if let Ok(btf) = Btf::parse(&bytes) {
                    let _ = (
                        btf.offset("outer", "n.b"),
                        btf.offset("outer", "d"),
                        btf.enumerator("e", "FIRST"),
                    );
                }
            }
        }
    }
}
