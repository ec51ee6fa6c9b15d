//! Reads what test programs print, and prints the table at the end.

use std::time::Duration;

use crate::step::say;

/// What one level or one run found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) ignored: u64,
    /// Names of failed tests, and whatever else went wrong; shown in the table.
    pub(super) failures: Vec<String>,
}

impl Counts {
    /// A level that could not run.
    pub(super) fn problem(reason: &str) -> Self {
        Self {
            failed: 1,
            failures: vec![reason.to_owned()],
            ..Self::default()
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        let Self {
            passed,
            failed,
            ignored,
            failures,
        } = other;
        self.passed += passed;
        self.failed += failed;
        self.ignored += ignored;
        self.failures.extend(failures);
    }

    /// A run that ended with an error although no test failed (it did not compile, was killed, ran into its time limit).
    pub(super) fn of_a_failed_run(mut self) -> Self {
        if self.failed == 0 {
            self.add(Self::problem(
                "cargo test ended with an error before all tests had run",
            ));
        }
        self
    }

    /// A finished level: one without a single test, or with tests left out, has failed.
    pub(super) fn checked(mut self) -> Self {
        if self.passed + self.failed == 0 {
            self.add(Self::problem("no test ran"));
        }
        if self.ignored > 0 {
            self.add(Self::problem(&format!(
                "{} tests were skipped, and no other level runs them",
                self.ignored
            )));
        }
        self
    }
}

/// Adds up the `test result:` lines of all test programs in the output.
pub(super) fn count(output: &str) -> Counts {
    let mut counts = Counts::default();
    let mut in_list = false;
    for line in output.lines() {
        if let Some(result) = parse_result(line) {
            counts.add(result);
            in_list = false;
        } else if line == "failures:" {
            in_list = true;
        } else if in_list && let Some(name) = parse_failure(line) {
            counts.failures.push(name.to_owned());
        }
    }
    counts
}

/// `test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.01s`
fn parse_result(line: &str) -> Option<Counts> {
    // With --nocapture a test may print without ending its line.
    let (_, rest) = line.split_once("test result: ")?;
    let (_, numbers) = rest.split_once(". ")?;
    let mut counts = Counts::default();
    for part in numbers.split(';') {
        let Some((number, word)) = part.trim().split_once(' ') else {
            continue;
        };
        let Ok(number) = number.parse::<u64>() else {
            continue;
        };
        match word {
            "passed" => counts.passed = number,
            "failed" => counts.failed = number,
            "ignored" => counts.ignored = number,
            _ => {}
        }
    }
    Some(counts)
}

/// A line of the list of names before the result. A section with what the failed tests printed stands before that list
/// under the same title; its lines hardly ever look like an indented path.
fn parse_failure(line: &str) -> Option<&str> {
    let name = line.strip_prefix("    ")?;
    let is_name = !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '_' | ':'));
    is_name.then_some(name)
}

/// Prints one line per level and gives the sum.
pub(super) fn print(results: &[(&str, Counts, Duration)]) -> Counts {
    let mut sum = Counts::default();
    say("");
    say(&format!(
        "{:<8} {:>7} {:>7} {:>9}",
        "level", "passed", "failed", "seconds"
    ));
    for (name, counts, time) in results {
        let seconds = time.as_secs_f64();
        say(&format!(
            "{name:<8} {:>7} {:>7} {seconds:>9.1}",
            counts.passed, counts.failed
        ));
        for failure in &counts.failures {
            say(&format!("    {failure}"));
        }
        sum.add(counts.clone());
    }
    say("");
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "     Running unittests src/lib.rs (target/debug/deps/x)

running 3 tests
test a::works ... ok
test a::breaks ... FAILED
test a::waits ... ignored, needs a cluster

failures:

---- a::breaks stdout ----
thread 'a::breaks' panicked at src/lib.rs:1:1:
    left: 1

failures:
    a::breaks

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

     Running tests/golden.rs (target/debug/deps/golden)
test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 4 filtered out; finished in 0.01s
";

    #[test]
    fn results_of_all_test_programs_are_added_up() {
        let counts = count(OUTPUT);
        assert_eq!((counts.passed, counts.failed, counts.ignored), (13, 1, 1));
        assert_eq!(counts.failures, ["a::breaks"]);
    }

    #[test]
    fn a_result_behind_a_line_that_was_not_ended_counts() {
        let line = "progress...test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(count(line).passed, 2);
    }

    #[test]
    fn a_level_without_tests_has_failed() {
        let counts = count("running 0 tests\ntest result: ok. 0 passed; 0 failed; 0 ignored;\n").checked();
        assert_eq!(counts.failed, 1);
    }

    #[test]
    fn a_skipped_test_is_a_failure() {
        let counts = count("test result: ok. 5 passed; 0 failed; 2 ignored; 0 measured\n").checked();
        assert_eq!((counts.passed, counts.failed), (5, 1));
    }

    #[test]
    fn a_run_that_did_not_compile_has_failed() {
        assert_eq!(count("error: could not compile").of_a_failed_run().failed, 1);
    }

    #[test]
    fn a_failed_test_is_not_counted_twice() {
        assert_eq!(count(OUTPUT).of_a_failed_run().failed, 1);
    }
}
