//! Progress and the running of other programs.
//!
//! Every long step prints what it does when it starts and how long it took when it ends. Output of a program goes to a
//! log file; when the program fails, its last lines are printed and the error, one line, names that file. Deliberately
//! absent: retries. A caller that has to wait says for what, with [`wait_for`].

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How many lines of a failed program's log are shown.
const TAIL_LINES: usize = 30;
/// Pause between two looks at a condition that [`wait_for`] waits for.
const POLL: Duration = Duration::from_millis(100);

/// Runs one named step and prints its duration.
pub(crate) fn step<T>(what: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    say(&format!("{what} ..."));
    let started = Instant::now();
    let result = run();
    let word = if result.is_ok() { "done" } else { "FAILED" };
    say(&format!(
        "{what}: {word} after {:.1} s",
        started.elapsed().as_secs_f64()
    ));
    result
}

/// Prints one line of progress at once, also when standard output is a file.
pub(crate) fn say(line: &str) {
    println!("{line}");
    // A closed standard output must not end a teardown that is half done.
    drop(std::io::stdout().flush());
}

/// Runs a program to its end with its output in `<log folder>/<log>.log`.
pub(crate) fn run(command: &mut Command, log: &str) -> Result<()> {
    let path = log_path(log)?;
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    let errors = file.try_clone().context("share the log file")?;
    let status = command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(errors)
        .status()
        .with_context(|| format!("start `{}` (is it installed?)", show(command)))?;
    if status.success() {
        return Ok(());
    }
    // The reason first, so that the one line that names what failed is the last one on the screen.
    say(&tail(&path));
    bail!("`{}` failed ({status}); log: {}", show(command), path.display())
}

/// Runs a program to its end and gives its standard output. The error carries its standard error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let out = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start `{}` (is it installed?)", show(command)))?;
    if !out.status.success() {
        let errors = String::from_utf8_lossy(&out.stderr);
        bail!("`{}` failed ({}): {}", show(command), out.status, errors.trim());
    }
    String::from_utf8(out.stdout).with_context(|| format!("output of `{}` is not UTF-8", show(command)))
}

/// Runs a program with `input` on its standard input and gives its standard output.
pub(crate) fn output_with_input(command: &mut Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start `{}` (is it installed?)", show(command)))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends before it has read everything reports its own reason below.
        drop(stdin.write_all(input.as_bytes()));
    }
    let out = child
        .wait_with_output()
        .with_context(|| format!("wait for `{}`", show(command)))?;
    if !out.status.success() {
        let errors = String::from_utf8_lossy(&out.stderr);
        bail!("`{}` failed ({}): {}", show(command), out.status, errors.trim());
    }
    String::from_utf8(out.stdout).with_context(|| format!("output of `{}` is not UTF-8", show(command)))
}

/// A reason for which waiting longer is useless, e.g. that the awaited process has ended.
#[derive(Debug)]
pub(crate) struct Hopeless(pub(crate) String);

impl std::fmt::Display for Hopeless {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Hopeless {}

/// Waits until `ready` gives something; after `limit` it fails with `what` and the last reason `ready` gave, and at once
/// when that reason is [`Hopeless`].
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match ready() {
            Ok(value) => return Ok(value),
            Err(reason) if reason.is::<Hopeless>() => return Err(reason.context(format!("wait: {what}"))),
            Err(reason) if Instant::now() >= deadline => {
                return Err(reason.context(format!("{what}: not within {} s", limit.as_secs())));
            }
            Err(_) => thread::sleep(POLL),
        }
    }
}

/// The last lines of a log file, indented; a reason when it cannot be read.
pub(crate) fn tail(path: &Path) -> String {
    match fs::read(path) {
        Ok(bytes) => last_lines(&String::from_utf8_lossy(&bytes), TAIL_LINES),
        Err(error) => format!("    (log not readable: {error})"),
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let skip = lines.len().saturating_sub(count);
    let shown: Vec<String> = lines
        .iter()
        .skip(skip)
        .map(|line| format!("    {line}"))
        .collect();
    shown.join("\n")
}

/// The file that takes the output of the step `log`.
pub(crate) fn log_path(log: &str) -> Result<PathBuf> {
    let folder = crate::workspace::target_folder().join("xtask-logs");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder.join(format!("{log}.log")))
}

/// A command as one would type it; only for messages.
pub(crate) fn show(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_program_shows_the_end_of_its_log() {
        let text: String = (1..=40).map(|n| format!("line {n}\n")).collect();
        let shown = last_lines(&text, 30);
        assert_eq!(shown.lines().count(), 30);
        assert!(shown.starts_with("    line 11\n"));
        assert!(shown.ends_with("    line 40"));
    }

    #[test]
    fn output_of_a_failing_program_is_an_error_with_its_reason() {
        let error = output(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("why") && text.contains("exit status: 3"), "{text}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = output(&mut Command::new("leyline-no-such-program")).unwrap_err();
        assert!(format!("{error:#}").contains("leyline-no-such-program"));
    }

    #[test]
    fn waiting_for_a_process_that_has_ended_ends_at_once() {
        let started = Instant::now();
        let error = wait_for::<()>("the door", Duration::from_secs(60), || {
            bail!(Hopeless("it fell off".to_owned()))
        });
        assert!(format!("{:#}", error.unwrap_err()).contains("fell off"));
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn waiting_ends_with_the_last_reason() {
        let error = wait_for::<()>("the door", Duration::ZERO, || bail!("still closed")).unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.contains("the door") && text.contains("still closed"),
            "{text}"
        );
    }
}
