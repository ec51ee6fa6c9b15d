//! What the traffic tool writes down about its connections, one JSON object per line.
//!
//! Written by `leyline-e2e-traffic act`, read by the scorer: the same types on both sides, so that a field that one side
//! forgets does not compile. A line is written with a single call, so that a killed process leaves whole lines only.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// Lines one process may write; then it writes [`Event::Full`] and nothing more, and its scenario fails.
pub const MOST_LINES: usize = 50_000;
/// Logs of one scenario that are read.
const MOST_FILES: usize = 2_000;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Milliseconds since 1970.
    pub at: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What a process says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Event {
    /// The first line of every log: who writes it.
    Actor {
        /// `<kind> <namespace> <name>`, namespace `-` when there is none.
        who: String,
        /// The pod or process.
        instance: String,
    },
    /// A port is open.
    Listening {
        /// The port.
        port: u16,
    },
    /// An attempt to connect has ended, well or not.
    Dialled {
        /// Names the connection at both ends; the client sends it as its first bytes.
        id: String,
        /// What was to be reached, as the scenario says it.
        dial: String,
        /// The socket's own address, where it has one.
        local: Option<SocketAddr>,
        /// Where the socket was connected to.
        peer: SocketAddr,
        /// What became of it.
        outcome: Dial,
    },
    /// A connection was accepted and its first bytes were read.
    Accepted {
        /// The client's id; absent when the client went away without a word.
        id: Option<String>,
        /// The port the server listens on.
        port: u16,
        /// The socket's own address.
        local: SocketAddr,
        /// The other end as the socket sees it.
        peer: SocketAddr,
    },
    /// A connection is over, for this side.
    Ended {
        /// As in `Dialled` and `Accepted`.
        id: String,
        /// Which side says so.
        role: Role,
        /// It did not end as agreed.
        broken: Option<String>,
        /// Payload bytes this side wrote.
        sent: u64,
        /// Payload bytes this side read.
        received: u64,
    },
    /// All calls have been made and have ended.
    Done,
    /// The log is full: what follows is unknown.
    Full,
}

/// What became of an attempt to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Dial {
    /// The connection stands.
    Connected,
    /// The other end refused.
    Refused,
    /// Nobody answered in time.
    TimedOut,
    /// No way there.
    Unreachable,
    /// Another error.
    Reset,
    /// The application gave it up.
    Aborted,
}

/// Which side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// It called `connect()`.
    Client,
    /// It accepted.
    Server,
}

/// One process and everything it wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// As in [`Event::Actor`].
    pub who: String,
    /// As in [`Event::Actor`].
    pub instance: String,
    /// All lines.
    pub lines: Vec<Line>,
}

/// Reads all logs of a scenario; a folder that is not there yet has none.
///
/// # Errors
/// When a log cannot be read or has a line that nobody wrote so.
pub fn read(folder: &Path) -> Result<Vec<Actor>> {
    let mut actors = Vec::new();
    for text in texts(folder)? {
        actors.extend(parse(&text).with_context(|| format!("read {}", folder.display()))?);
    }
    Ok(actors)
}

/// The texts of all logs of a scenario.
///
/// # Errors
/// When one cannot be read.
pub fn texts(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("list {}", folder.display())),
    };
    let mut texts = Vec::new();
    for entry in entries.take(MOST_FILES) {
        let path = entry
            .with_context(|| format!("list {}", folder.display()))?
            .path();
        if path.extension().is_some_and(|it| it == "jsonl") {
            texts.push(fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?);
        }
    }
    Ok(texts)
}

/// Reads one log. Its last line may still be on its way.
///
/// # Errors
/// When a line cannot be read, or something comes before the actor's name.
pub fn parse(text: &str) -> Result<Option<Actor>> {
    let whole = text
        .rfind('\n')
        .map_or("", |end| text.get(..end).unwrap_or_default());
    let mut actor: Option<Actor> = None;
    for (number, line) in whole.lines().enumerate() {
        let line: Line = serde_json::from_str(line).with_context(|| format!("line {}", number + 1))?;
        match (&mut actor, &line.event) {
            (None, Event::Actor { who, instance }) => {
                actor = Some(Actor {
                    who: who.clone(),
                    instance: instance.clone(),
                    lines: Vec::new(),
                });
            }
            (None, _) => anyhow::bail!("line {}: nobody has said who writes", number + 1),
            (Some(actor), _) => actor.lines.push(line),
        }
    }
    Ok(actor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read_as_it_was_written() {
        let lines = [
            Event::Actor {
                who: "Job red a".to_owned(),
                instance: "a-1".to_owned(),
            },
            Event::Dialled {
                id: "1".to_owned(),
                dial: "b:80".to_owned(),
                local: None,
                peer: SocketAddr::from(([10, 0, 0, 1], 80)),
                outcome: Dial::TimedOut,
            },
            Event::Done,
        ];
        let text: String = lines
            .iter()
            .map(|event| {
                let line = Line {
                    at: 7,
                    event: event.clone(),
                };
                serde_json::to_string(&line).unwrap() + "\n"
            })
            .collect();
        let actor = parse(&text).unwrap().unwrap();
        assert_eq!(actor.who, "Job red a");
        let events: Vec<Event> = actor.lines.into_iter().map(|line| line.event).collect();
        assert_eq!(events, lines[1..]);
    }

    #[test]
    fn a_line_on_its_way_is_left_for_later_and_a_broken_one_is_an_error() {
        let head = "{\"at\":1,\"event\":\"actor\",\"who\":\"Pod - a\",\"instance\":\"i\"}\n";
        let half = format!("{head}{{\"at\":2,\"event\":\"do");
        assert_eq!(parse(&half).unwrap().unwrap().lines, []);
        assert!(parse(&format!("{half}\n")).is_err());
        assert!(parse("{\"at\":2,\"event\":\"done\"}\n").is_err());
    }
}
