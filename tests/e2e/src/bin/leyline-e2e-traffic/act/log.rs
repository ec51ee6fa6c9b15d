//! The log of one process: whole lines, written at once, bounded.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use leyline_e2e::truth::log::{Event, Line, MOST_LINES};

/// Shared by all threads.
#[derive(Debug, Clone)]
pub(crate) struct Log(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: File,
    lines: AtomicUsize,
}

impl Log {
    /// A new file; its first line says who writes.
    pub(crate) fn open(folder: &Path, who: &str, instance: &str) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        // The pid is that of the pod's own namespace and repeats after a restart; the number does not.
        let name = format!("{instance}-{}-{:08x}.jsonl", process::id(), unique() >> 32);
        let path = folder.join(name);
        let file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("create {}", path.display()))?;
        let log = Self(Arc::new(Inner {
            file,
            lines: AtomicUsize::new(0),
        }));
        log.write(Event::Actor {
            who: who.to_owned(),
            instance: instance.to_owned(),
        });
        Ok(log)
    }

    /// Writes one line; a process that cannot say what it does must not go on.
    pub(crate) fn write(&self, event: Event) {
        let number = self.0.lines.fetch_add(1, Ordering::Relaxed);
        let event = match number {
            _ if number < MOST_LINES => event,
            MOST_LINES => Event::Full,
            _ => return,
        };
        let line = Line { at: now_ms(), event };
        let written = serde_json::to_string(&line)
            .map_err(std::io::Error::other)
            .and_then(|text| (&self.0.file).write_all(format!("{text}\n").as_bytes()));
        if let Err(error) = written {
            eprintln!("the log cannot be written: {error}");
            process::abort();
        }
    }

    /// All calls have ended.
    pub(crate) fn done(&self) {
        self.write(Event::Done);
    }
}

/// A number nobody else has: chance once per process, then counted.
pub(crate) fn unique() -> u64 {
    static FIRST: OnceLock<u64> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let first = *FIRST.get_or_init(|| fastrand::u64(..));
    first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Now, in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
