//! What a call is, as text: `to=api:80,count=20,every=50,close=server`.

use std::str::FromStr;

use crate::protocol::{Close, REQUEST_HEAD};

/// Connections to one destination, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// Host and port.
    pub(crate) to: String,
    /// Connections.
    pub(crate) count: u64,
    /// Milliseconds from one to the next.
    pub(crate) every: u64,
    /// Bytes of each request, without the id.
    pub(crate) request: usize,
    /// Bytes of each reply.
    pub(crate) reply: usize,
    /// Who closes.
    pub(crate) close: Close,
    /// Milliseconds between the reply and the end.
    pub(crate) hold: u64,
    /// The phase with which it begins.
    pub(crate) phase: String,
    /// Each connection stays open, with a request now and then, until this phase begins.
    pub(crate) until: Option<String>,
    /// Attempts given up by the application after so many milliseconds.
    pub(crate) cancel: Option<u64>,
    /// SYNs that are sent again before an attempt has timed out.
    pub(crate) syn: Option<u8>,
    /// Another destination that is tried at the same time; the first one that answers is kept.
    pub(crate) race: Option<String>,
    /// As many addresses, counted up from the first one.
    pub(crate) addresses: u32,
    /// As many ports, counted up from the first one.
    pub(crate) ports: u16,
    /// An IPv6 socket, with an IPv4-mapped address.
    pub(crate) mapped: bool,
    /// Multipath TCP.
    pub(crate) mptcp: bool,
    /// The server is none of ours: connect, hold, close.
    pub(crate) foreign: bool,
}

impl FromStr for Call {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut call = Self {
            to: String::new(),
            count: 1,
            every: 50,
            request: 200,
            reply: 1000,
            close: Close::Client,
            hold: 0,
            phase: "go".to_owned(),
            until: None,
            cancel: None,
            syn: None,
            race: None,
            addresses: 1,
            ports: 1,
            mapped: false,
            mptcp: false,
            foreign: false,
        };
        for pair in text.split(',') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            call.set(key, value)
                .map_err(|reason| format!("`{pair}`: {reason}"))?;
        }
        if call.to.is_empty() {
            return Err("no destination: to=HOST:PORT".to_owned());
        }
        if call.request < REQUEST_HEAD {
            return Err(format!("a request has at least {REQUEST_HEAD} bytes"));
        }
        Ok(call)
    }
}

impl Call {
    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "to" => value.clone_into(&mut self.to),
            "count" => self.count = number(value)?,
            "every" => self.every = number(value)?,
            "request" => self.request = number(value)?,
            "reply" => self.reply = number(value)?,
            "close" => self.close = clap::ValueEnum::from_str(value, true)?,
            "hold" => self.hold = number(value)?,
            "phase" => value.clone_into(&mut self.phase),
            "until" => self.until = Some(value.to_owned()),
            "cancel" => self.cancel = Some(number(value)?),
            "syn" => self.syn = Some(number(value)?),
            "race" => self.race = Some(value.to_owned()),
            "addresses" => self.addresses = number(value)?,
            "ports" => self.ports = number(value)?,
            "mapped" => self.mapped = true,
            "mptcp" => self.mptcp = true,
            "foreign" => self.foreign = true,
            _ => return Err("no such key".to_owned()),
        }
        Ok(())
    }
}

fn number<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("{error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_read_from_its_text() {
        let call: Call = "to=api:80,count=3,close=server,mapped,until=end".parse().unwrap();
        assert_eq!((call.to.as_str(), call.count, call.every), ("api:80", 3, 50));
        assert_eq!((call.close, call.mapped), (Close::Server, true));
        assert_eq!(call.until.as_deref(), Some("end"));
    }

    #[test]
    fn a_misspelt_call_is_refused() {
        for text in [
            "count=3",
            "to=api:80,cuont=3",
            "to=api:80,count=many",
            "to=api:80,request=1",
        ] {
            assert!(text.parse::<Call>().is_err(), "{text}");
        }
    }
}
