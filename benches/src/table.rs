//! Figures as tables: what was done in the rows, who did it in the columns; medians with their
//! spread, and their ratio to what they are to be compared with in the same run.

use std::fmt::Write as _;

use crate::record::{Bench, Case, Record, Series};
use crate::stats::{Short, Spread};

/// The figures of one bench in one setting.
#[derive(Debug, PartialEq)]
pub(crate) struct Table {
    pub(crate) setting: String,
    /// Whom the ratios are to.
    pub(crate) reference: Option<&'static str>,
    pub(crate) subjects: Vec<String>,
    pub(crate) rows: Vec<Row>,
}

/// One thing that was measured, with a cell for each subject.
#[derive(Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) label: String,
    pub(crate) cells: Vec<Option<Cell>>,
}

/// What one subject did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cell {
    pub(crate) spread: Spread,
    /// The median in terms of the reference's; absent for the reference itself.
    pub(crate) ratio: Option<f64>,
}

impl Bench {
    /// The subject that the others are compared with.
    pub(crate) const fn reference(self) -> Option<&'static str> {
        match self {
            Self::Pair | Self::Mtu => Some("kernel VXLAN"),
            Self::Cni => Some("bridge + host-local"),
            Self::Overhead | Self::Mesh => None,
        }
    }

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Overhead => "Encapsulation overhead",
            Self::Mtu => "MTU",
            Self::Pair => "Two nodes",
            Self::Cni => "CNI plugins",
            Self::Mesh => "Joining",
        }
    }
}

impl Table {
    /// The tables of a bench, one for each setting, in the order in which things were measured.
    pub(crate) fn of(record: &Record, bench: Bench) -> Vec<Self> {
        let mut settings: Vec<&str> = Vec::new();
        for series in record.of(bench) {
            if !settings.contains(&series.case.setting.as_str()) {
                settings.push(&series.case.setting);
            }
        }
        settings
            .into_iter()
            .map(|setting| {
                let of: Vec<_> = record
                    .of(bench)
                    .filter(|series| series.case.setting == setting)
                    .collect();
                Self::new(setting, bench.reference(), &of)
            })
            .collect()
    }

    fn new(setting: &str, reference: Option<&'static str>, of: &[&Series]) -> Self {
        let mut subjects: Vec<String> = Vec::new();
        let mut labels: Vec<&Case> = Vec::new();
        for series in of {
            if !subjects.contains(&series.case.subject) {
                subjects.push(series.case.subject.clone());
            }
            if !labels.iter().any(|case| same_row(case, &series.case)) {
                labels.push(&series.case);
            }
        }
        let reference = reference.filter(|name| subjects.iter().any(|subject| subject == name));
        let spread = |row: &Case, subject: &str| {
            of.iter()
                .find(|series| series.case.subject == subject && same_row(&series.case, row))
                .and_then(|series| series.spread())
        };
        let rows = labels
            .into_iter()
            .map(|case| {
                let base = reference.and_then(|name| spread(case, name));
                let cell = |subject: &String| {
                    let spread = spread(case, subject)?;
                    let ratio = base
                        .filter(|base| base.median > 0.0 && Some(subject.as_str()) != reference)
                        .map(|base| spread.median / base.median);
                    Some(Cell { spread, ratio })
                };
                Row {
                    label: label(case),
                    cells: subjects.iter().map(cell).collect(),
                }
            })
            .collect();
        Self {
            setting: setting.to_owned(),
            reference,
            subjects,
            rows,
        }
    }

    /// As text for a terminal, subjects side by side as far as they fit and the rest below.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let _ = write!(text, "\n{}: median [least .. most]", self.setting);
        if let Some(reference) = self.reference {
            let _ = write!(text, ", ratio to {reference}");
        }
        text.push('\n');
        let head = self.rows.iter().map(|row| row.label.chars().count()).max();
        let head = head.unwrap_or_default() + 2;
        for first in (0..self.subjects.len()).step_by(ACROSS) {
            let across = first..self.subjects.len().min(first + ACROSS);
            let _ = write!(text, "\n{:head$}", "");
            for subject in &self.subjects[across.clone()] {
                let _ = write!(text, "{subject:>CELL$}");
            }
            text.push('\n');
            for row in &self.rows {
                let _ = write!(text, "{:head$}", row.label);
                for cell in &row.cells[across.clone()] {
                    let cell = cell.map_or_else(|| "-".to_owned(), |cell| cell.to_string());
                    let _ = write!(text, "{cell:>CELL$}");
                }
                text.push('\n');
            }
        }
        text
    }
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.spread)?;
        match self.ratio {
            Some(ratio) => write!(f, " {}x", Short(ratio)),
            None => Ok(()),
        }
    }
}

/// Subjects side by side, and the width of each, in characters.
const ACROSS: usize = 4;
const CELL: usize = 33;

fn same_row(a: &Case, b: &Case) -> bool {
    a.load == b.load && a.metric == b.metric && a.x == b.x
}

fn label(case: &Case) -> String {
    let (title, unit) = (case.metric.title(), case.metric.unit());
    let place = case.x.map(|x| format!("{x}: ")).unwrap_or_default();
    if case.load.is_empty() {
        format!("{place}{title}, {unit}")
    } else {
        format!("{place}{}: {title}, {unit}", case.load)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Metric;
    use crate::record::tests::{case, empty};

    #[test]
    fn ratios_are_to_the_reference_of_the_same_row() {
        let mut record = empty();
        for run in [10.0, 12.0, 2.0] {
            record.push(case("kernel VXLAN", "TCP 1", Metric::Throughput), run);
        }
        record.push(case("weft", "TCP 1", Metric::Throughput), 8.0);
        record.push(case("weft", "UDP", Metric::PacketRate), 200.0);
        let tables = Table::of(&record, Bench::Pair);
        let [table] = &tables[..] else {
            panic!("one setting, one table: {tables:?}")
        };
        assert_eq!(table.subjects, ["kernel VXLAN", "weft"]);
        assert_eq!(table.rows[0].cells[0].unwrap().ratio, None);
        assert_eq!(table.rows[0].cells[1].unwrap().ratio, Some(0.8));
        assert_eq!(table.rows[1].cells[0], None);
        // Nothing to compare with: no ratio rather than one to something else.
        assert_eq!(table.rows[1].cells[1].unwrap().ratio, None);
        let text = table.text();
        assert!(text.contains("TCP 1: throughput, Gb/s"), "{text}");
        assert!(text.contains("10.0 [2.00 .. 12.0]"), "{text}");
        assert!(text.contains("8.00 [8.00 .. 8.00] 0.80x"), "{text}");
    }

    #[test]
    fn settings_and_places_of_a_sweep_keep_their_order() {
        let mut record = empty();
        for (setting, x) in [("b", 9000.0), ("b", 64.0), ("a", 64.0)] {
            let case = Case {
                setting: setting.to_owned(),
                x: Some(x),
                ..case("weft", "", Metric::WireBytes)
            };
            record.push(case, x + 50.0);
        }
        let tables = Table::of(&record, Bench::Pair);
        let settings: Vec<_> = tables.iter().map(|table| table.setting.as_str()).collect();
        assert_eq!(settings, ["b", "a"]);
        assert_eq!(
            tables[0].rows[0].label,
            "9000: bytes on the underlay, B a frame"
        );
        assert_eq!(tables[0].reference, None);
    }

    #[test]
    fn more_subjects_than_fit_go_below() {
        let mut record = empty();
        for subject in ["a", "b", "c", "d", "e"] {
            record.push(case(subject, "TCP 1", Metric::Throughput), 1.0);
        }
        let text = Table::of(&record, Bench::Pair)[0].text();
        assert_eq!(text.matches("TCP 1: throughput").count(), 2, "{text}");
        assert!(text.lines().all(|line| line.len() < 170), "{text}");
    }
}
