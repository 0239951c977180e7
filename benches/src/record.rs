//! What runs of weft-bench leave behind: every single figure with what it is about, the machine, and
//! what could not be run. Tables, the report and comparisons read nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::stats::Spread;

/// The version of the document; another one is refused.
const FORMAT: u32 = 1;

/// The runs of one command, or of several that were put together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    format: u32,
    /// When the first run began, in seconds since 1970-01-01 UTC.
    pub(crate) taken_unix: u64,
    /// Unoptimised executables: the figures say little.
    pub(crate) debug_build: bool,
    /// What was typed.
    pub(crate) commands: Vec<String>,
    pub(crate) machine: Machine,
    pub(crate) series: Vec<Series>,
    /// What this machine lacks for.
    pub(crate) not_run: Vec<NotRun>,
    /// What has to agree exactly.
    pub(crate) checks: Vec<Check>,
    /// What was found out besides, in words.
    #[serde(default)]
    pub(crate) notes: Vec<String>,
    /// What routers counted while they were measured.
    #[serde(default)]
    pub(crate) counted: Vec<Counted>,
}

/// What the routers' data paths counted in one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counted {
    pub(crate) setting: String,
    pub(crate) subject: String,
    pub(crate) load: String,
    pub(crate) round: u16,
    /// The sender's, then the receiver's; only those that moved.
    pub(crate) counters: Vec<BTreeMap<String, u64>>,
}

/// Repeated runs of one measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Series {
    #[serde(flatten)]
    pub(crate) case: Case,
    /// One figure for each run, in the metric's unit, in the order of the runs.
    pub(crate) runs: Vec<f64>,
}

/// What is measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Case {
    pub(crate) bench: Bench,
    /// What all subjects have in common, such as the underlay.
    pub(crate) setting: String,
    /// Who is measured.
    pub(crate) subject: String,
    /// What it is made to do.
    pub(crate) load: String,
    pub(crate) metric: Metric,
    /// Where on the axis, for a sweep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) x: Option<f64>,
}

/// The verb that measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Bench {
    Overhead,
    Mtu,
    Pair,
    Cni,
    Mesh,
}

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Metric {
    /// Payload that arrived.
    Throughput,
    /// Busy time of all cores for the payload that arrived.
    CpuPerGb,
    /// Packets that arrived.
    PacketRate,
    /// Packets that did not.
    Loss,
    /// Round trips: the median.
    LatencyP50,
    LatencyP99,
    LatencyP999,
    /// Memory of the largest process.
    Resident,
    /// TCP segments that were sent again.
    Retransmissions,
    /// IP fragments that were made.
    Fragments,
    /// Reports to a sender that its packet is too big.
    TooBig,
    /// Bytes of a frame on the underlay, from its Ethernet header on.
    WireBytes,
    /// Payload in terms of what the line is busy with.
    GoodputShare,
    /// A call of a plugin.
    Add,
    AddP99,
    Del,
    DelP99,
    /// Calls that were made at once, until the last is done, for each.
    AddParallel,
    DelParallel,
    /// Busy time of a router that has nothing to do.
    IdleCpu,
    /// Until all routers have a link to all.
    Join,
    /// Until one more router has a link to all.
    JoinOne,
    /// Busy time of all cores until all are linked.
    JoinCpu,
}

/// Which way is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// A peer or tool that is not on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NotRun {
    pub(crate) subject: String,
    pub(crate) reason: String,
}

/// A figure that follows from a format, beside the one that was counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Check {
    pub(crate) what: String,
    pub(crate) expected: u64,
    pub(crate) counted: u64,
}

impl Metric {
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::CpuPerGb => "CPU per payload",
            Self::PacketRate => "packets received",
            Self::Loss => "packets lost",
            Self::LatencyP50 => "round trip, p50",
            Self::LatencyP99 => "round trip, p99",
            Self::LatencyP999 => "round trip, p99.9",
            Self::Resident => "memory of a daemon",
            Self::Retransmissions => "TCP retransmissions",
            Self::Fragments => "IP fragments made",
            Self::TooBig => "packet-too-big reports",
            Self::WireBytes => "bytes on the underlay",
            Self::GoodputShare => "goodput of the line",
            Self::Add => "ADD, p50",
            Self::AddP99 => "ADD, p99",
            Self::Del => "DEL, p50",
            Self::DelP99 => "DEL, p99",
            Self::AddParallel => "ADD, all at once",
            Self::DelParallel => "DEL, all at once",
            Self::IdleCpu => "CPU of a router",
            Self::Join => "all linked",
            Self::JoinOne => "one more linked",
            Self::JoinCpu => "CPU until all linked",
        }
    }

    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::Throughput => "Gb/s",
            Self::CpuPerGb => "s/GB",
            Self::PacketRate => "kpps",
            Self::Loss | Self::GoodputShare => "%",
            Self::LatencyP50 | Self::LatencyP99 | Self::LatencyP999 => "us",
            Self::Resident => "MB",
            Self::Retransmissions | Self::Fragments | Self::TooBig => "per GB",
            Self::WireBytes => "B a frame",
            Self::Add | Self::AddP99 | Self::Del | Self::DelP99 => "ms",
            Self::AddParallel | Self::DelParallel => "ms a pod",
            Self::IdleCpu => "ms/s",
            Self::Join | Self::JoinOne | Self::JoinCpu => "s",
        }
    }

    pub(crate) const fn better(self) -> Better {
        match self {
            Self::Throughput | Self::PacketRate | Self::GoodputShare => Better::Higher,
            _ => Better::Lower,
        }
    }
}

impl Series {
    /// `None` if nothing was measured.
    pub(crate) fn spread(&self) -> Option<Spread> {
        Spread::of(&self.runs)
    }
}

impl Check {
    pub(crate) const fn agrees(&self) -> bool {
        self.expected == self.counted
    }
}

impl Record {
    /// An empty one of this machine, now, by the command that this process was called with.
    pub(crate) fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            format: FORMAT,
            taken_unix: now.map_or(0, |since| since.as_secs()),
            debug_build: cfg!(debug_assertions),
            commands: vec![command()],
            machine: Machine::this(),
            series: Vec::new(),
            not_run: Vec::new(),
            checks: Vec::new(),
            notes: Vec::new(),
            counted: Vec::new(),
        }
    }

    /// Adds a run to the series of its case, which is begun if it is the first.
    pub(crate) fn push(&mut self, case: Case, figure: f64) {
        match self.series.iter_mut().find(|series| series.case == case) {
            Some(series) => series.runs.push(figure),
            None => self.series.push(Series {
                case,
                runs: vec![figure],
            }),
        }
    }

    /// Takes over what another record of this machine holds.
    pub(crate) fn append(&mut self, other: Self) {
        self.taken_unix = self.taken_unix.min(other.taken_unix);
        self.debug_build |= other.debug_build;
        for command in other.commands {
            if !self.commands.contains(&command) {
                self.commands.push(command);
            }
        }
        self.series.extend(other.series);
        for not_run in other.not_run {
            if !self.not_run.contains(&not_run) {
                self.not_run.push(not_run);
            }
        }
        self.checks.extend(other.checks);
        self.notes.extend(other.notes);
        self.counted.extend(other.counted);
    }

    /// What one verb measured.
    pub(crate) fn of(&self, bench: Bench) -> impl Iterator<Item = &Series> {
        self.series
            .iter()
            .filter(move |series| series.case.bench == bench)
    }

    /// When it was taken, as people write it (RFC 3339, UTC).
    pub(crate) fn taken(&self) -> String {
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(self.taken_unix);
        humantime::format_rfc3339_seconds(at).to_string()
    }

    /// Fails, with all of them, if checks do not agree.
    pub(crate) fn verify(&self) -> anyhow::Result<()> {
        let wrong: Vec<_> = self
            .checks
            .iter()
            .filter(|check| !check.agrees())
            .map(|check| {
                format!(
                    "{}: {} by the headers, {} counted",
                    check.what, check.expected, check.counted
                )
            })
            .collect();
        if !wrong.is_empty() {
            bail!("figures that must agree do not:\n{}", wrong.join("\n"));
        }
        Ok(())
    }

    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is no record of weft-bench", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Versioned {
            format: u32,
        }
        let Versioned { format } = serde_json::from_str(text)?;
        if format != FORMAT {
            bail!("it has format {format}, this weft-bench reads {FORMAT}: measure anew");
        }
        Ok(serde_json::from_str(text)?)
    }

    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Where a verb's figures go.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Output {
    /// Print every run's figures as one JSON document instead of tables
    #[arg(long)]
    json: bool,
    /// Write that document to a file as well, for `weft-bench report` and `compare`
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Output {
    /// Prints the record, as JSON or as the text that `table` makes of it, and writes the file.
    pub(crate) fn finish(
        &self,
        record: &Record,
        table: impl FnOnce(&Record) -> String,
    ) -> anyhow::Result<()> {
        if let Some(path) = &self.out {
            record.write(path)?;
        }
        if self.json {
            println!("{}", serde_json::to_string_pretty(record)?);
        } else {
            print!("{}", table(record));
            for note in &record.notes {
                println!("{note}");
            }
            for not_run in &record.not_run {
                println!("not run: {}: {}", not_run.subject, not_run.reason);
            }
            if record.debug_build {
                println!("This is a debug build, its figures say little: use --release.");
            }
        }
        Ok(())
    }
}

/// The command line of this process, without the directory that the executable is in.
fn command() -> String {
    let arguments = std::env::args().skip(1);
    let words: Vec<_> = std::iter::once("weft-bench".to_owned())
        .chain(arguments)
        .collect();
    words.join(" ")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A record with nothing of the machine that runs the tests.
    pub(crate) fn empty() -> Record {
        Record {
            taken_unix: 1_700_000_000,
            debug_build: false,
            commands: vec!["weft-bench pair".to_owned()],
            machine: Machine::default(),
            ..Record::new()
        }
    }

    pub(crate) fn case(subject: &str, load: &str, metric: Metric) -> Case {
        Case {
            bench: Bench::Pair,
            setting: "veth".to_owned(),
            subject: subject.to_owned(),
            load: load.to_owned(),
            metric,
            x: None,
        }
    }

    #[test]
    fn runs_of_one_case_are_one_series() {
        let mut record = empty();
        for run in [1.0, 2.0] {
            record.push(case("weft", "TCP 1", Metric::Throughput), run);
            record.push(case("weft", "TCP 4", Metric::Throughput), run * 2.0);
        }
        let runs: Vec<_> = record.series.iter().map(|s| s.runs.clone()).collect();
        assert_eq!(runs, [[1.0, 2.0], [2.0, 4.0]]);
        assert_eq!(record.of(Bench::Pair).count(), 2);
        assert_eq!(record.of(Bench::Mtu).count(), 0);
    }

    #[test]
    fn a_document_reads_back_as_it_was_written() {
        let mut record = empty();
        record.push(case("weft", "TCP 1", Metric::CpuPerGb), 1.25);
        record.push(
            Case {
                x: Some(1500.0),
                ..case("weft", "TCP 1", Metric::Fragments)
            },
            0.0,
        );
        record.not_run.push(NotRun {
            subject: "tinc".to_owned(),
            reason: "not installed".to_owned(),
        });
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record.json");
        record.write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), record);
        assert_eq!(record.taken(), "2023-11-14T22:13:20Z");
    }

    #[test]
    fn a_document_of_another_format_is_refused_with_its_number() {
        let mut document = serde_json::to_value(empty()).unwrap();
        document["format"] = 7.into();
        let error = Record::parse(&document.to_string())
            .unwrap_err()
            .to_string();
        assert!(error.contains("format 7"), "{error}");
        assert!(Record::parse("{}").is_err() && Record::parse("").is_err());
    }

    #[test]
    fn every_disagreement_is_named() {
        let mut record = empty();
        record.verify().unwrap();
        for (what, counted) in [
            ("frames of 64 B", 114),
            ("frames of 128 B", 0),
            ("right", 178),
        ] {
            record.checks.push(Check {
                what: what.to_owned(),
                expected: if what == "right" { 178 } else { 113 },
                counted,
            });
        }
        let error = record.verify().unwrap_err().to_string();
        assert!(
            error.contains("frames of 64 B: 113 by the headers, 114 counted"),
            "{error}"
        );
        assert!(error.contains("128") && !error.contains("right"), "{error}");
    }

    #[test]
    fn appended_records_keep_the_earlier_time_and_name_a_lack_once() {
        let lack = NotRun {
            subject: "tinc".to_owned(),
            reason: "not installed".to_owned(),
        };
        let mut first = empty();
        first.not_run.push(lack.clone());
        let mut second = Record {
            taken_unix: 1_600_000_000,
            ..first.clone()
        };
        second.push(case("weft", "TCP 1", Metric::Throughput), 1.0);
        first.append(second);
        assert_eq!(first.taken_unix, 1_600_000_000);
        assert_eq!((first.not_run, first.series.len()), (vec![lack], 1));
        assert_eq!(first.commands.len(), 1);
    }
}
