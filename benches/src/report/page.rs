//! The page: what was measured on what, plots, tables, every run's figure.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::plots::Plot;
use crate::record::{Bench, Record};
use crate::stats::Short;
use crate::table::{Row, Table};

const STYLE: &str = "
body { font: 15px/1.5 sans-serif; color: #222; max-width: 980px; margin: 2em auto; padding: 0 1em; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5em; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto; }
th, td { border: 1px solid #ddd; padding: 3px 8px; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
td small { color: #666; } .bad { background: #fdd; } figure { margin: 1.5em 0; }
figcaption { color: #444; font-size: 14px; max-width: 860px; } svg { max-width: 100%; height: auto; }
pre, code { background: #f4f4f4; padding: 1px 4px; } pre { padding: 8px; overflow-x: auto; }
details { margin: 1em 0; } .warn { background: #fec; padding: 6px 10px; }
";

const BENCHES: [(Bench, &str); 5] = [
    (
        Bench::Pair,
        "Two nodes and a pod on each, joined by each peer in turn; every round measures every case \
         once, so that what the machine does meanwhile falls on all alike. Pods, daemons and traffic \
         share the cores: throughput is economy of CPU, not a node's limit.",
    ),
    (
        Bench::Overhead,
        "Bytes on the wire by the formats of the headers, beside the underlay's counters; and CPU for \
         UDP packets of each size without loss.",
    ),
    (
        Bench::Mtu,
        "The pods' MTU: chosen automatically, too small, and the underlay's own, over an underlay that \
         cuts at its MTU.",
    ),
    (
        Bench::Cni,
        "What a container runtime waits for: ADD and DEL as processes, one at a time and all at once.",
    ),
    (
        Bench::Mesh,
        "Real routers on one machine, from their start until each has a link to each.",
    ),
];

/// The whole page.
pub(super) fn render(record: &Record, plots: &[Plot]) -> anyhow::Result<String> {
    let raw = serde_json::to_string(record)?.replace('<', "\\u003c");
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "weft-bench, " (record.taken()) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "weft-bench" }
                p { (record.taken()) " · " (record.machine.summary()) }
                @if record.debug_build {
                    p.warn { "Taken with a debug build: the figures say little." }
                }
                p {
                    "Medians of all runs with their [least .. most]. Only ratios within a run carry \
                     over to another day or machine."
                }
                @for (bench, about) in BENCHES {
                    @let tables = Table::of(record, bench);
                    @if !tables.is_empty() {
                        h2 id=(format!("{bench:?}").to_lowercase()) { (bench.title()) }
                        p { (about) }
                        @for plot in plots.iter().filter(|plot| plot.bench == bench) {
                            figure id=(plot.name) {
                                (PreEscaped(&plot.svg))
                                figcaption { (plot.caption) }
                            }
                        }
                        @for table in &tables { (self::table(table)) }
                    }
                }
                @if !record.notes.is_empty() {
                    h2 { "In words" }
                    ul { @for note in &record.notes { li { (note) } } }
                }
                (checks(record))
                (method(record))
                (runs(record))
                script type="application/json" id="record" { (PreEscaped(raw)) }
            }
        }
    };
    Ok(page.into_string())
}

fn table(table: &Table) -> Markup {
    html! {
        details {
            summary {
                "Table: " (table.setting)
                @if let Some(reference) = table.reference { ", ratios to " (reference) }
            }
            table {
                tr { th {} @for subject in &table.subjects { th { (subject) } } }
                @for Row { label, cells } in &table.rows {
                    tr {
                        td { (label) }
                        @for cell in cells {
                            td {
                                @match cell {
                                    Some(cell) => {
                                        (Short(cell.spread.median))
                                        @if let Some(ratio) = cell.ratio { " (" (Short(ratio)) "x)" }
                                        br;
                                        small {
                                            (Short(cell.spread.least)) " .. " (Short(cell.spread.most))
                                        }
                                    }
                                    None => { "-" }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn checks(record: &Record) -> Markup {
    html! {
        @if !record.checks.is_empty() {
            h2 { "Headers against counters" }
            table {
                tr { th { "what" } th { "by the headers" } th { "counted" } }
                @for check in &record.checks {
                    tr class=(if check.agrees() { "" } else { "bad" }) {
                        td { (check.what) } td { (check.expected) } td { (check.counted) }
                    }
                }
            }
        }
    }
}

/// What one needs to know to do it again.
fn method(record: &Record) -> Markup {
    let machine = &record.machine;
    html! {
        h2 { "Machine and commands" }
        ul {
            li { (machine.summary()) }
            @if !machine.governor.is_empty() { li { "governor: " (machine.governor) } }
            li {
                "bridge-nf-call-iptables: "
                (if machine.bridge_netfilter { "on, which taxes every overlay" } else { "off" })
            }
            @for mitigation in &machine.mitigations { li { (mitigation) } }
        }
        pre { @for command in &record.commands { (command) "\n" } }
        @if !record.not_run.is_empty() {
            p { "Not run:" }
            ul { @for not_run in &record.not_run { li { (not_run.subject) ": " (not_run.reason) } } }
        }
    }
}

fn runs(record: &Record) -> Markup {
    html! {
        h2 { "Every run" }
        details {
            summary { (record.series.len()) " series" }
            table {
                tr {
                    th { "bench" } th { "setting" } th { "subject" } th { "load" } th { "at" }
                    th { "metric" } th { "unit" } th { "runs" }
                }
                @for series in &record.series {
                    @let case = &series.case;
                    tr {
                        td { (case.bench.title()) } td { (case.setting) } td { (case.subject) }
                        td { (case.load) }
                        td { @if let Some(x) = case.x { (x) } }
                        td { (case.metric.title()) } td { (case.metric.unit()) }
                        td { @for run in &series.runs { (Short(*run)) " " } }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{case, empty};
    use crate::record::{Check, Metric, NotRun};
    use crate::report::plots;

    fn page() -> String {
        let mut record = empty();
        for run in [9.0, 10.0, 11.0] {
            record.push(case("kernel VXLAN", "TCP", Metric::Throughput), run);
            record.push(case("weft", "TCP", Metric::Throughput), run / 2.0);
        }
        record.not_run.push(NotRun {
            subject: "tinc".to_owned(),
            reason: "<not installed>".to_owned(),
        });
        record.checks.push(Check {
            what: "frames of 64 B".to_owned(),
            expected: 114,
            counted: 113,
        });
        render(&record, &plots::all(&record).unwrap()).unwrap()
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let page = page();
        for fetched in ["src=", "href=", "@import", "url("] {
            assert!(!page.contains(fetched), "{fetched} in {page}");
        }
        // Addresses in an SVG are names of namespaces, which no browser fetches.
        let addresses = page.matches("http").count();
        assert_eq!(addresses, page.matches("xmlns=\"http").count());
        assert!(page.contains("<svg"), "no plot in {page}");
    }

    #[test]
    fn figures_spread_ratio_lacks_and_wrong_checks_are_shown() {
        let page = page();
        for text in [
            "10.0",
            "9.00 .. 11.0",
            "0.50x",
            "2023-11-14T22:13:20Z",
            "tinc: &lt;not installed&gt;",
            "class=\"bad\"",
            "weft-bench pair",
        ] {
            assert!(page.contains(text), "{text} is missing in {page}");
        }
    }

    #[test]
    fn the_record_is_inside_and_reads_back() {
        let page = page();
        let (_, rest) = page.split_once("id=\"record\">").unwrap();
        let (raw, _) = rest.split_once("</script>").unwrap();
        let record: Record = serde_json::from_str(raw).unwrap();
        assert_eq!(record.series.len(), 2);
        assert_eq!(record.not_run[0].reason, "<not installed>");
    }
}
