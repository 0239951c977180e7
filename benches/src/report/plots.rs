//! Which plots a record gives, and what each is about.

use super::lines::{Curve, lines};
use super::rows::{Group, Row, bars, percentiles, stacked};
use super::style::{self, Colour};
use crate::overhead::format::{Encapsulation, PARTS};
use crate::record::{Bench, Case, Metric, Record, Series};
use crate::stats::Spread;

/// A picture with the text that belongs to it.
#[derive(Debug)]
pub(crate) struct Plot {
    pub(crate) bench: Bench,
    /// Name of a file, without extension.
    pub(crate) name: String,
    pub(crate) caption: &'static str,
    pub(crate) svg: String,
}

/// All that there are figures for.
pub(crate) fn all(record: &Record) -> anyhow::Result<Vec<Plot>> {
    let mut plots = Vec::new();
    overhead(record, &mut plots)?;
    mtu(record, &mut plots)?;
    pair(record, &mut plots)?;
    cni(record, &mut plots)?;
    mesh(record, &mut plots)?;
    Ok(plots)
}

const SPREAD: &str = "Bars are medians, whiskers reach from the least to the most of all runs.";

fn overhead(record: &Record, plots: &mut Vec<Plot>) -> anyhow::Result<()> {
    if record.of(Bench::Overhead).next().is_none() {
        return Ok(());
    }
    let parts: Vec<(&str, Colour)> = PARTS
        .iter()
        .enumerate()
        .map(|(number, part)| (*part, style::colour(number)))
        .collect();
    let rows = Encapsulation::ALL
        .into_iter()
        .skip(1)
        .map(|encapsulation| Row {
            label: encapsulation.label().to_owned(),
            colour: style::INK,
            #[expect(clippy::cast_precision_loss, reason = "no header has 2^52 bytes")]
            value: encapsulation.parts().map(|bytes| bytes as f64).to_vec(),
        });
    let groups = [Group {
        label: "Encapsulation".to_owned(),
        rows: rows.collect(),
    }];
    plots.push(Plot {
        bench: Bench::Overhead,
        name: "overhead-headers".to_owned(),
        caption: "What each encapsulation puts around a pod's frame. The pods' MTU is the underlay's \
                  less all of it but one Ethernet header, which is 14 bytes either way.",
        svg: stacked("Bytes added to a frame", "bytes", &parts, &groups)?,
    });
    sweep(
        record,
        plots,
        &Sweep {
            bench: Bench::Overhead,
            metric: Metric::GoodputShare,
            name: "overhead-goodput",
            x: "frame, bytes from its Ethernet header on",
            curve: |series| series.case.subject.clone(),
            caption: "How much of the time that a line is busy moves payload of a UDP packet, with \
                      preamble, FCS, gap and padding counted. It follows from the headers, which the \
                      underlay's counters confirm to the byte.",
        },
    )?;
    sweep(
        record,
        plots,
        &Sweep {
            bench: Bench::Overhead,
            metric: Metric::CpuPerGb,
            name: "overhead-cpu",
            x: "frame, bytes from its Ethernet header on",
            curve: |series| series.case.subject.clone(),
            caption: "Busy time of all cores for a GB of UDP payload, without loss: a frame costs \
                      about the same whatever its size, so that small ones are dear. Both pods' \
                      traffic is in it. Whiskers reach from the least to the most of all runs.",
        },
    )
}

fn mtu(record: &Record, plots: &mut Vec<Plot>) -> anyhow::Result<()> {
    let curve = |series: &Series| format!("{}, {}", series.case.subject, series.case.load);
    for (metric, name, caption) in [
        (
            Metric::Throughput,
            "mtu-throughput",
            "One TCP stream over an underlay that really cuts at its MTU, with the pods' MTU chosen \
             automatically, too small, and as large as the underlay's, which is too big by the \
             encapsulation. Whiskers reach from the least to the most of all runs.",
        ),
        (
            Metric::CpuPerGb,
            "mtu-cpu",
            "Busy time of all cores for a GB of the same streams: frames cost, not bytes, so that an \
             underlay with jumbo frames is the cheapest way to more throughput.",
        ),
    ] {
        sweep(
            record,
            plots,
            &Sweep {
                bench: Bench::Mtu,
                metric,
                name,
                x: "MTU of the underlay",
                curve,
                caption,
            },
        )?;
    }
    Ok(())
}

fn pair(record: &Record, plots: &mut Vec<Plot>) -> anyhow::Result<()> {
    let mut settings: Vec<&str> = Vec::new();
    for series in record.of(Bench::Pair) {
        if !settings.contains(&series.case.setting.as_str()) {
            settings.push(&series.case.setting);
        }
    }
    for setting in settings {
        for (metric, name, caption) in [
            (Metric::Throughput, "pair-throughput", SPREAD),
            (Metric::CpuPerGb, "pair-cpu", SPREAD),
            (Metric::PacketRate, "pair-packets", SPREAD),
        ] {
            let groups = grouped(record, Bench::Pair, |series| {
                (series.case.setting == setting && series.case.metric == metric)
                    .then(|| series.case.load.clone())
            });
            if !groups.is_empty() {
                let title = format!("{}: {setting}", capital(metric.title()));
                plots.push(Plot {
                    bench: Bench::Pair,
                    name: format!("{name}-{}", slug(setting)),
                    caption,
                    svg: bars(&title, metric.unit(), &groups)?,
                });
            }
        }
        let groups = latencies(record, setting);
        if !groups.is_empty() {
            plots.push(Plot {
                bench: Bench::Pair,
                name: format!("pair-latency-{}", slug(setting)),
                caption: "Round trips of one small UDP packet at a time: the full mark is the median \
                          of all runs' medians, the hollow ones are those of their 99th and 99.9th \
                          percentiles.",
                svg: percentiles(
                    &format!("Round trips: {setting}"),
                    "us",
                    &["p50", "p99", "p99.9"],
                    &groups,
                )?,
            });
        }
    }
    Ok(())
}

fn cni(record: &Record, plots: &mut Vec<Plot>) -> anyhow::Result<()> {
    let groups = grouped(record, Bench::Cni, |series| {
        let Case { metric, load, .. } = &series.case;
        (metric.unit() == "ms").then(|| format!("{}, {load}", metric.title()))
    });
    if !groups.is_empty() {
        plots.push(Plot {
            bench: Bench::Cni,
            name: "cni".to_owned(),
            caption: SPREAD,
            svg: bars("Calls of a CNI plugin", "ms", &groups)?,
        });
    }
    Ok(())
}

fn mesh(record: &Record, plots: &mut Vec<Plot>) -> anyhow::Result<()> {
    let series = record
        .of(Bench::Mesh)
        .filter(|series| series.case.metric.unit() == "s");
    let curves = curves(series, |series| series.case.metric.title().to_owned());
    if !curves.is_empty() {
        plots.push(Plot {
            bench: Bench::Mesh,
            name: "mesh-join".to_owned(),
            caption: "Real routers on this machine's cores, all started at once with the address of \
                      the first one; and one more that joins those that run.",
            svg: lines("Until every router has a link to every other", "routers", "s", &curves)?,
        });
    }
    Ok(())
}

/// A plot of one metric over the axis of a sweep.
struct Sweep<'a> {
    bench: Bench,
    metric: Metric,
    name: &'a str,
    x: &'a str,
    /// Which curve a figure belongs to.
    curve: fn(&Series) -> String,
    caption: &'static str,
}

fn sweep(record: &Record, plots: &mut Vec<Plot>, sweep: &Sweep<'_>) -> anyhow::Result<()> {
    let series = record
        .of(sweep.bench)
        .filter(|series| series.case.metric == sweep.metric);
    let curves = curves(series, sweep.curve);
    if !curves.is_empty() {
        plots.push(Plot {
            bench: sweep.bench,
            name: sweep.name.to_owned(),
            caption: sweep.caption,
            svg: lines(
                &capital(sweep.metric.title()),
                sweep.x,
                sweep.metric.unit(),
                &curves,
            )?,
        });
    }
    Ok(())
}

fn curves<'a>(
    series: impl Iterator<Item = &'a Series>,
    label: impl Fn(&Series) -> String,
) -> Vec<Curve> {
    let mut curves: Vec<Curve> = Vec::new();
    for series in series {
        let (Some(x), Some(spread)) = (series.case.x, series.spread()) else {
            continue;
        };
        let label = label(series);
        let number = curves.len();
        match curves.iter_mut().find(|curve| curve.label == label) {
            Some(curve) => curve.points.push((x, spread)),
            None => curves.push(Curve {
                label,
                colour: style::colour(number),
                points: vec![(x, spread)],
            }),
        }
    }
    for curve in &mut curves {
        curve.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    curves
}

/// The figures of a bench in groups, with a row for each subject, which has the same colour in all;
/// `group` names the group of a figure, or leaves it out.
fn grouped(
    record: &Record,
    bench: Bench,
    group: impl Fn(&Series) -> Option<String>,
) -> Vec<Group<Spread>> {
    let subjects = subjects(record, bench);
    let mut groups: Vec<Group<Spread>> = Vec::new();
    for series in record.of(bench) {
        let (Some(label), Some(value)) = (group(series), series.spread()) else {
            continue;
        };
        let row = row(&subjects, &series.case.subject, value);
        match groups.iter_mut().find(|group| group.label == label) {
            Some(group) => group.rows.push(row),
            None => groups.push(Group {
                label,
                rows: vec![row],
            }),
        }
    }
    groups
}

fn latencies(record: &Record, setting: &str) -> Vec<Group<Vec<Spread>>> {
    let subjects = subjects(record, Bench::Pair);
    let mut groups: Vec<Group<Vec<Spread>>> = Vec::new();
    let wanted = [Metric::LatencyP50, Metric::LatencyP99, Metric::LatencyP999];
    let first = record.of(Bench::Pair).filter(|series| {
        series.case.setting == setting && series.case.metric == Metric::LatencyP50
    });
    for series in first {
        let of = |metric: Metric| {
            let same = record.of(Bench::Pair).find(|other| {
                other.case.setting == setting
                    && other.case.subject == series.case.subject
                    && other.case.load == series.case.load
                    && other.case.metric == metric
            });
            same.and_then(Series::spread)
        };
        let value = wanted.into_iter().filter_map(of).collect();
        let row = row(&subjects, &series.case.subject, value);
        match groups
            .iter_mut()
            .find(|group| group.label == series.case.load)
        {
            Some(group) => group.rows.push(row),
            None => groups.push(Group {
                label: series.case.load.clone(),
                rows: vec![row],
            }),
        }
    }
    groups
}

fn row<T>(subjects: &[String], subject: &str, value: T) -> Row<T> {
    let number = subjects.iter().position(|name| name == subject);
    Row {
        label: subject.to_owned(),
        colour: style::colour(number.unwrap_or_default()),
        value,
    }
}

fn subjects(record: &Record, bench: Bench) -> Vec<String> {
    let mut subjects: Vec<String> = Vec::new();
    for series in record.of(bench) {
        if !subjects.contains(&series.case.subject) {
            subjects.push(series.case.subject.clone());
        }
    }
    subjects
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}

/// As part of a file's name.
fn slug(text: &str) -> String {
    let words: Vec<_> = text
        .split(|letter: char| !letter.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    words.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Case;
    use crate::record::tests::{case, empty};

    #[test]
    fn every_bench_with_figures_gets_its_plots_and_no_other() {
        assert!(all(&empty()).unwrap().is_empty());
        let mut record = empty();
        for subject in ["kernel VXLAN", "weft"] {
            for metric in [
                Metric::Throughput,
                Metric::CpuPerGb,
                Metric::PacketRate,
                Metric::LatencyP50,
                Metric::LatencyP99,
            ] {
                for run in [1.0, 2.0, 3.0] {
                    record.push(case(subject, "TCP, 1 stream", metric), run * 10.0);
                }
            }
        }
        for bench in [Bench::Overhead, Bench::Mtu, Bench::Mesh, Bench::Cni] {
            for (x, metric) in [
                (64.0, Metric::GoodputShare),
                (64.0, Metric::CpuPerGb),
                (64.0, Metric::Throughput),
                (3.0, Metric::Join),
                (3.0, Metric::Add),
            ] {
                let case = Case {
                    bench,
                    x: Some(x),
                    ..case("weft", "automatic", metric)
                };
                record.push(case, 5.0);
            }
        }
        let names: Vec<_> = all(&record).unwrap().into_iter().map(|p| p.name).collect();
        assert_eq!(
            names,
            [
                "overhead-headers",
                "overhead-goodput",
                "overhead-cpu",
                "mtu-throughput",
                "mtu-cpu",
                "pair-throughput-veth",
                "pair-cpu-veth",
                "pair-packets-veth",
                "pair-latency-veth",
                "cni",
                "mesh-join",
            ]
        );
    }

    #[test]
    fn names_of_files_and_titles() {
        assert_eq!(slug("veth, offloads off"), "veth-offloads-off");
        assert_eq!(capital("round trip, p50"), "Round trip, p50");
        assert_eq!(capital(""), "");
    }
}
