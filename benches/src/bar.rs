//! How far a run has come, on standard error: a bar for a person, a line per part for a log.

use std::io::{IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressStyle};

/// The bar of one verb. It goes when it is dropped.
#[derive(Debug)]
pub(crate) struct Bar {
    bar: ProgressBar,
    terminal: bool,
}

impl Bar {
    /// Begins a run of so many measurements.
    pub(crate) fn new(what: &str, measurements: usize) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal {
            ProgressBar::new(measurements as u64)
        } else {
            // A closed standard error is no reason to stop.
            let _ = writeln!(std::io::stderr(), "{what}: {measurements} measurements");
            ProgressBar::hidden()
        };
        let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {eta} {msg}");
        // The template is a constant; the default style shows the position too.
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(what.to_owned());
        Self { bar, terminal }
    }

    /// Says what comes next, which is no measurement.
    pub(crate) fn prepare(&self, what: &str) {
        self.bar.set_message(what.to_owned());
        if !self.terminal {
            let _ = writeln!(std::io::stderr(), "  {what}");
        }
    }

    /// Says what is measured next.
    pub(crate) fn next(&self, what: String) {
        self.bar.set_message(what);
        self.bar.inc(1);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
