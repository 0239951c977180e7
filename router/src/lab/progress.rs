//! What the lab is doing, on standard error: a spinner for a person, plain lines for a log.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often the spinner turns: fast enough to look alive, slow enough to cost nothing.
const TICK: Duration = Duration::from_millis(100);

/// Reports one step after another; the last one ends when this is dropped.
#[derive(Debug)]
pub struct Progress {
    output: Output,
    current: Option<(String, Instant)>,
}

#[derive(Debug)]
enum Output {
    /// A terminal: a line that is rewritten.
    Spinner(ProgressBar),
    /// A file or a pipe: a line when a step begins.
    Lines,
    /// Nowhere: for tests and benchmarks that build worlds.
    Silent,
}

impl Progress {
    /// To standard error, in the form that suits it.
    pub fn stderr() -> Self {
        let output = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new_spinner();
            bar.set_style(
                ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| {
                    // The template is a constant; the default one shows the message as well.
                    ProgressStyle::default_spinner()
                }),
            );
            bar.enable_steady_tick(TICK);
            Output::Spinner(bar)
        } else {
            Output::Lines
        };
        Self {
            output,
            current: None,
        }
    }

    /// Shows nothing.
    pub const fn silent() -> Self {
        Self {
            output: Output::Silent,
            current: None,
        }
    }

    /// Ends the step before and begins this one.
    pub fn step(&mut self, what: impl Into<String>) {
        self.finish();
        let what = what.into();
        match &self.output {
            Output::Spinner(bar) => bar.set_message(what.clone()),
            Output::Lines => print_line(&format!("{what} ...")),
            Output::Silent => {}
        }
        self.current = Some((what, Instant::now()));
    }

    /// Adds to the current step how far it has come.
    pub fn detail(&self, detail: &str) {
        if let (Output::Spinner(bar), Some((what, _))) = (&self.output, &self.current) {
            bar.set_message(format!("{what}: {detail}"));
        }
    }

    /// Says something that stays.
    pub fn note(&self, text: &str) {
        match &self.output {
            Output::Spinner(bar) => bar.suspend(|| print_line(text)),
            Output::Lines => print_line(text),
            Output::Silent => {}
        }
    }

    /// Ends the current step.
    pub fn finish(&mut self) {
        let Some((what, started)) = self.current.take() else {
            return;
        };
        if let Output::Spinner(bar) = &self.output {
            let line = format!("  {what} ({:.1} s)", started.elapsed().as_secs_f64());
            bar.suspend(|| print_line(&line));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Output::Spinner(bar) = &self.output {
            bar.finish_and_clear();
        }
    }
}

/// A closed standard error is no reason to stop, so the result is not looked at.
fn print_line(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
