//! What client and server say to each other, the same on every connection: the request says how long it is, how long
//! the reply shall be and who closes; the reply begins with the server's name.
//!
//! Request: length, reply length (both u32, big endian), who closes (u8), filling. Reply: length of the name (u8), name,
//! filling. Every length includes its head, so that the bytes on the wire are exactly what was asked for.

use std::io::{self, Read, Write};

/// The head of a request.
pub(crate) const REQUEST_HEAD: usize = 9;
/// The longest request or reply.
pub(crate) const LONGEST: usize = 16 << 20;
/// The longest name of a server in a reply.
pub(crate) const LONGEST_NAME: usize = 63;
const CHUNK: usize = 16 << 10;

/// Who ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Close {
    /// The server, right after its reply.
    Server,
    /// The client, once it has the reply.
    Client,
    /// The client, with a reset.
    Reset,
    /// The server, with a reset, right after its reply.
    Abort,
}

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    /// Bytes of the request with its head.
    pub(crate) length: usize,
    /// Bytes of the reply with its head.
    pub(crate) reply: usize,
    /// Who ends the connection.
    pub(crate) close: Close,
}

impl Request {
    /// Sends it and gives the bytes sent.
    pub(crate) fn send(&self, to: &mut impl Write) -> io::Result<u64> {
        let close = match self.close {
            Close::Server => 0,
            Close::Client => 1,
            Close::Reset => 2,
            Close::Abort => 3,
        };
        let mut head = Vec::with_capacity(REQUEST_HEAD);
        head.extend_from_slice(&u32_bytes(self.length)?);
        head.extend_from_slice(&u32_bytes(self.reply)?);
        head.push(close);
        to.write_all(&head)?;
        fill(to, self.length.saturating_sub(REQUEST_HEAD))?;
        Ok(self.length as u64)
    }

    /// Reads one whole request.
    pub(crate) fn receive(from: &mut impl Read) -> io::Result<Self> {
        let mut head = [0; REQUEST_HEAD];
        from.read_exact(&mut head)?;
        let [a, b, c, d, e, f, g, h, close] = head;
        let request = Self {
            length: length(u32::from_be_bytes([a, b, c, d]))?,
            reply: length(u32::from_be_bytes([e, f, g, h]))?,
            close: match close {
                0 => Close::Server,
                1 => Close::Client,
                2 => Close::Reset,
                3 => Close::Abort,
                other => return Err(bad(format!("nobody closes with {other}"))),
            },
        };
        discard(from, request.length.saturating_sub(REQUEST_HEAD))?;
        Ok(request)
    }
}

/// Sends a reply of `length` bytes that begins with `name`.
pub(crate) fn send_reply(to: &mut impl Write, name: &str, length: usize) -> io::Result<()> {
    let name = name
        .as_bytes()
        .get(..name.len().min(LONGEST_NAME))
        .unwrap_or_default();
    let size = u8::try_from(name.len()).map_err(|_| bad("name too long".to_owned()))?;
    let rest = length
        .checked_sub(1 + name.len())
        .ok_or_else(|| bad("the reply has no room for a name".to_owned()))?;
    let mut head = vec![size];
    head.extend_from_slice(name);
    to.write_all(&head)?;
    fill(to, rest)
}

/// Reads a reply of `length` bytes and gives the server's name.
pub(crate) fn receive_reply(from: &mut impl Read, length: usize) -> io::Result<String> {
    let mut size = [0; 1];
    from.read_exact(&mut size)?;
    let [size] = size;
    let mut name = vec![0; usize::from(size)];
    from.read_exact(&mut name)?;
    let rest = length
        .checked_sub(1 + name.len())
        .ok_or_else(|| bad("the name is longer than the reply".to_owned()))?;
    discard(from, rest)?;
    String::from_utf8(name).map_err(|_| bad("the name is not text".to_owned()))
}

fn u32_bytes(value: usize) -> io::Result<[u8; 4]> {
    u32::try_from(value)
        .map(u32::to_be_bytes)
        .map_err(|_| bad(format!("{value} bytes are too many")))
}

fn length(value: u32) -> io::Result<usize> {
    match usize::try_from(value) {
        Ok(length) if length <= LONGEST => Ok(length),
        _ => Err(bad(format!("{value} bytes are too many"))),
    }
}

fn fill(to: &mut impl Write, mut rest: usize) -> io::Result<()> {
    let chunk = [b'x'; CHUNK];
    while rest > 0 {
        let part = chunk.get(..rest.min(CHUNK)).unwrap_or_default();
        to.write_all(part)?;
        rest -= part.len();
    }
    to.flush()
}

fn discard(from: &mut impl Read, rest: usize) -> io::Result<()> {
    let copied = io::copy(&mut from.take(rest as u64), &mut io::sink())?;
    if copied == rest as u64 {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

fn bad(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_exactly_the_length_it_names() {
        for length in [REQUEST_HEAD, 100, 3 * CHUNK + 1] {
            let request = Request {
                length,
                reply: 64,
                close: Close::Client,
            };
            let mut wire = Vec::new();
            assert_eq!(request.send(&mut wire).unwrap(), length as u64);
            assert_eq!(wire.len(), length);
            assert_eq!(Request::receive(&mut wire.as_slice()).unwrap(), request);
        }
    }

    #[test]
    fn a_reply_has_exactly_the_length_that_was_asked_for_and_names_the_server() {
        let mut wire = Vec::new();
        send_reply(&mut wire, "blue-1", 4096).unwrap();
        assert_eq!(wire.len(), 4096);
        assert_eq!(receive_reply(&mut wire.as_slice(), 4096).unwrap(), "blue-1");
    }

    #[test]
    fn a_request_cannot_ask_for_gigabytes() {
        let mut wire = [0xff; REQUEST_HEAD];
        wire[8] = 0;
        assert!(Request::receive(&mut wire.as_slice()).is_err());
    }

    #[test]
    fn a_cut_reply_is_an_error() {
        let mut wire = Vec::new();
        send_reply(&mut wire, "blue-1", 100).unwrap();
        assert!(receive_reply(&mut &wire[..99], 100).is_err());
    }
}
