//! What happened, for the one who has to understand a failure.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

/// Events shown of a failed run.
const SHOWN: usize = 400;

/// The last events, if anybody wants to know.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    lines: Option<VecDeque<String>>,
}

impl Trace {
    pub(crate) fn begin(&mut self) {
        self.lines = Some(VecDeque::new());
    }

    /// Notes an event. The text is made only if it is wanted.
    pub(crate) fn note(&mut self, now: Duration, text: impl FnOnce() -> String) {
        let Some(lines) = &mut self.lines else { return };
        if lines.len() >= SHOWN {
            lines.pop_front();
        }
        lines.push_back(format!("{:>12.6} {}", now.as_secs_f64(), text()));
    }

    pub(crate) fn end(&self) -> String {
        let mut text = String::new();
        for line in self.lines.iter().flatten() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{line}");
        }
        text
    }
}
