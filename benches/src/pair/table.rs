//! The figures as tables, one for each underlay: medians over rounds with their spread, and their
//! ratio to the kernel's VXLAN in the same run.

use std::fmt::Write as _;

use super::testbed::{Overlay, Underlay};
use super::{Figure, Load};

/// A column: its head, the load that it is about, and how a figure of that load is read.
type Column = (&'static str, Load, fn(&Figure) -> Option<f64>);

const COLUMNS: &[Column] = &[
    ("TCP 1, Gb/s", Load::Tcp1, |f| {
        f.bits_per_second.map(|b| b / 1e9)
    }),
    ("TCP 4, Gb/s", Load::Tcp4, |f| {
        f.bits_per_second.map(|b| b / 1e9)
    }),
    ("CPU s/GB, 1", Load::Tcp1, |f| f.cpu_per_gb),
    ("CPU s/GB, 4", Load::Tcp4, |f| f.cpu_per_gb),
    ("64 B, kpps", Load::Udp1, |f| {
        f.packets_per_second.map(|p| p / 1e3)
    }),
    ("64 flows, kpps", Load::Udp64, |f| {
        f.packets_per_second.map(|p| p / 1e3)
    }),
    ("RTT p50, us", Load::RoundTrip, |f| {
        f.latency.map(|l| micros(l.p50_ns))
    }),
    ("RTT p99, us", Load::RoundTrip, |f| {
        f.latency.map(|l| micros(l.p99_ns))
    }),
];
/// Characters of the first column, and of each other.
const HEAD: usize = 15;
const CELL: usize = 32;

/// The tables as text.
pub(crate) fn render(figures: &[Figure]) -> String {
    let mut text = String::new();
    for underlay in [Underlay::Veth, Underlay::Nooff] {
        let of: Vec<_> = figures
            .iter()
            .filter(|figure| figure.underlay == underlay)
            .collect();
        if of.is_empty() {
            continue;
        }
        // A build beside this one is the exception, and no column without it.
        let overlays: Vec<_> = Overlay::ALL
            .into_iter()
            .filter(|overlay| {
                *overlay != Overlay::Beside || of.iter().any(|figure| figure.overlay == *overlay)
            })
            .collect();
        let _ = write!(
            text,
            "\n{underlay}: median [least .. most], ratio to the kernel's VXLAN\n\n{:HEAD$}",
            ""
        );
        for &overlay in &overlays {
            let _ = write!(text, "{:>CELL$}", overlay.label());
        }
        text.push('\n');
        for column in COLUMNS {
            let _ = write!(text, "{:<HEAD$}", column.0);
            for &overlay in &overlays {
                let cell = cell(&of, overlay, column).unwrap_or_else(|| "not run".to_owned());
                let _ = write!(text, "{cell:>CELL$}");
            }
            text.push('\n');
        }
        let _ = write!(text, "{:<HEAD$}", "RSS, MB");
        for &overlay in &overlays {
            let runs = of.iter().filter(|figure| figure.overlay == overlay);
            let resident = runs.filter_map(|figure| figure.resident).max();
            let cell = resident.map_or_else(|| "-".to_owned(), |bytes| (bytes >> 20).to_string());
            let _ = write!(text, "{cell:>CELL$}");
        }
        text.push('\n');
    }
    text
}

fn cell(figures: &[&Figure], overlay: Overlay, column: &Column) -> Option<String> {
    let [least, median, most] = spread(figures, overlay, column)?;
    let mut cell = format!("{median:.2} [{least:.2} .. {most:.2}]");
    if overlay != Overlay::Kernel
        && let Some([_, kernel, _]) = spread(figures, Overlay::Kernel, column)
        && kernel > 0.0
    {
        let _ = write!(cell, " {:.2}x", median / kernel);
    }
    Some(cell)
}

/// Least, median and most over the rounds.
fn spread(figures: &[&Figure], overlay: Overlay, (_, load, read): &Column) -> Option<[f64; 3]> {
    let of = figures
        .iter()
        .filter(|figure| figure.overlay == overlay && figure.load == *load);
    let mut values: Vec<f64> = of.filter_map(|figure| read(figure)).collect();
    values.sort_by(f64::total_cmp);
    Some([*values.first()?, values[values.len() / 2], *values.last()?])
}

#[expect(clippy::cast_precision_loss, reason = "2^52 nanoseconds are 52 days")]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ratios() {
        let figure = |overlay, round, gbits: f64| Figure {
            underlay: Underlay::Veth,
            overlay,
            load: Load::Tcp1,
            round,
            bits_per_second: Some(gbits * 1e9),
            packets_per_second: None,
            sent_per_second: None,
            cpu_per_gb: None,
            latency: None,
            resident: Some(20 << 20),
            counted: Vec::new(),
        };
        let figures = [
            figure(Overlay::Kernel, 1, 10.0),
            figure(Overlay::Kernel, 2, 12.0),
            figure(Overlay::Kernel, 3, 2.0),
            figure(Overlay::Weft, 1, 8.0),
        ];
        let text = render(&figures);
        assert!(text.contains("10.00 [2.00 .. 12.00]"), "{text}");
        assert!(text.contains("8.00 [8.00 .. 8.00] 0.80x"), "{text}");
        assert!(
            text.contains("not run") && text.contains("RSS, MB"),
            "{text}"
        );
        assert!(!text.contains("offloads off:"), "{text}");
    }
}
