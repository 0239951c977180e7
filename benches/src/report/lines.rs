//! Plots of a sweep: a quantity over another one, a line for each subject, with the spread at every
//! point.

use std::ops::Range;

use anyhow::ensure;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::prelude::*;

use super::style::{self, Colour, FONT, GRID, INK};
use crate::stats::Spread;

/// A subject's points, in the order of the axis.
#[derive(Debug)]
pub(super) struct Curve {
    pub(super) label: String,
    pub(super) colour: Colour,
    pub(super) points: Vec<(f64, Spread)>,
}

const HEIGHT: u32 = 360;

/// Draws them. The measured places are equally far apart on the axis, whatever lies between them: a
/// sweep chooses its places because something happens there.
pub(super) fn lines(
    title: &str,
    x_axis: &str,
    y_axis: &str,
    curves: &[Curve],
) -> anyhow::Result<String> {
    let mut places: Vec<f64> = curves
        .iter()
        .flat_map(|curve| curve.points.iter().map(|(x, _)| *x))
        .filter(|x| *x > 0.0)
        .collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    ensure!(!places.is_empty(), "nothing to draw");
    let most = curves
        .iter()
        .flat_map(|curve| curve.points.iter().map(|(_, spread)| spread.most))
        .fold(0.0, f64::max);

    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (style::WIDTH, HEIGHT)).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(
                title,
                (FONT, 16).into_font().style(FontStyle::Bold).color(&INK),
            )
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(62)
            .build_cartesian_2d(Places(places), 0.0..(most * 1.05).max(f64::MIN_POSITIVE))?;
        chart
            .configure_mesh()
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .x_desc(x_axis)
            .y_desc(y_axis)
            .label_style((FONT, 12).into_font().color(&INK))
            .y_label_formatter(&|y| style::tick(*y))
            .draw()?;
        for curve in curves {
            let style = curve.colour.stroke_width(2);
            let points = curve.points.iter().map(|(x, spread)| (*x, spread.median));
            chart.draw_series(LineSeries::new(points, style))?;
            let marks = curve
                .points
                .iter()
                .map(|(x, spread)| Circle::new((*x, spread.median), 3, curve.colour.filled()));
            chart.draw_series(marks)?;
            let whiskers = curve.points.iter().map(|(x, spread)| {
                PathElement::new(vec![(*x, spread.least), (*x, spread.most)], style)
            });
            chart.draw_series(whiskers)?;
        }
        root.present()?;
    }
    let legend: Vec<_> = curves
        .iter()
        .map(|curve| (curve.label.as_str(), curve.colour))
        .collect();
    style::with_legend(&svg, &legend)
}

/// An axis of places that are equally far apart.
struct Places(Vec<f64>);

impl Ranged for Places {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let place = self.0.iter().position(|place| place == value);
        let place = i32::try_from(place.unwrap_or_default()).unwrap_or_default();
        let places = i32::try_from(self.0.len()).unwrap_or(i32::MAX);
        // Half a place of room at each end.
        from + (to - from) * (2 * place + 1) / (2 * places.max(1))
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.0.clone()
    }

    fn range(&self) -> Range<f64> {
        let first = self.0.first().copied().unwrap_or_default();
        first..self.0.last().copied().unwrap_or_default()
    }
}

impl ValueFormatter<f64> for Places {
    fn format(place: &f64) -> String {
        format!("{place:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_curve_is_drawn_and_named() {
        let spread = |median: f64| Spread {
            least: median * 0.9,
            median,
            most: median * 1.1,
        };
        let curves = ["weft", "kernel VXLAN"].map(|label| Curve {
            label: label.to_owned(),
            colour: style::colour(label.len()),
            points: vec![(576.0, spread(1.0)), (1500.0, spread(3.0))],
        });
        let svg = lines("Throughput", "MTU", "Gb/s", &curves).unwrap();
        for text in ["weft", "kernel VXLAN", "Throughput", "Gb/s", "576", "1500"] {
            assert!(svg.contains(text), "{text} is missing in {svg}");
        }
        assert_eq!(svg.matches("<circle").count(), 4);
        assert!(lines("Nothing", "x", "y", &[]).is_err());
    }

    #[test]
    fn a_sweep_of_zeros_is_drawn_too() {
        let zero = Spread::of(&[0.0]).unwrap();
        let curve = Curve {
            label: "weft".to_owned(),
            colour: style::colour(0),
            points: vec![(1500.0, zero)],
        };
        lines("Fragments", "MTU", "per GB", &[curve]).unwrap();
    }
}
