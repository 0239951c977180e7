//! Plots whose rows are things and whose width is a quantity: bars with their spread, bars made of
//! parts, and percentiles on a logarithmic scale.

use std::ops::Range;

use anyhow::Context as _;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::style::{self, Colour, FONT, INK};
use crate::stats::{Short, Spread};

/// Rows under one heading.
#[derive(Debug)]
pub(super) struct Group<T> {
    pub(super) label: String,
    pub(super) rows: Vec<Row<T>>,
}

/// A name and what is drawn to the right of it.
#[derive(Debug)]
pub(super) struct Row<T> {
    pub(super) label: String,
    pub(super) colour: Colour,
    pub(super) value: T,
}

/// Room for the rows' names, for the figures behind the bars, and for title and axis, in pixels.
const LEFT: u32 = 190;
const RIGHT: u32 = 70;
const TITLE: u32 = 34;
const AXIS: u32 = 42;
/// Height of a row and of a group's heading, in pixels.
const ROW: u32 = 20;
const HEADING: u32 = 22;

/// Bars as long as the medians, with whiskers from least to most and the median in figures.
pub(super) fn bars(title: &str, axis: &str, groups: &[Group<Spread>]) -> anyhow::Result<String> {
    let most = largest(groups, |spread| spread.most).context("nothing to draw")?;
    let axis = Axis::from_zero(axis, most);
    draw(title, &axis, groups, |chart, y, row| {
        let Spread {
            least,
            median,
            most,
        } = row.value;
        chart.bar(y, 0.0, median, row.colour)?;
        chart.whisker(y, least, most)?;
        chart.note(y, most.max(median), &Short(median).to_string())
    })
}

/// Bars made of parts, each with its length in figures; `parts` names them, with their colours.
pub(super) fn stacked(
    title: &str,
    axis: &str,
    parts: &[(&str, Colour)],
    groups: &[Group<Vec<f64>>],
) -> anyhow::Result<String> {
    let most = largest(groups, |parts| parts.iter().sum()).context("nothing to draw")?;
    let axis = Axis::from_zero(axis, most);
    let drawn = draw(title, &axis, groups, |chart, y, row| {
        let mut from = 0.0;
        for (length, (_, colour)) in row.value.iter().zip(parts) {
            if *length > 0.0 {
                chart.bar(y, from, from + length, *colour)?;
                chart.label(y, from + length / 2.0, *length, *colour)?;
            }
            from += length;
        }
        chart.note(y, from, &style::tick(from))
    })?;
    style::with_legend(&drawn, parts)
}

/// Percentiles as marks on a logarithmic scale, joined by a line from the first to the last;
/// `percentiles` names them, from the lowest.
pub(super) fn percentiles(
    title: &str,
    axis: &str,
    percentiles: &[&str],
    groups: &[Group<Vec<Spread>>],
) -> anyhow::Result<String> {
    let most = largest(groups, |of| of.iter().map(|s| s.most).fold(0.0, f64::max));
    let least = groups
        .iter()
        .flat_map(|group| &group.rows)
        .flat_map(|row| row.value.iter().map(|spread| spread.least))
        .filter(|least| *least > 0.0)
        .reduce(f64::min);
    let (least, most) = least.zip(most).context("nothing to draw")?;
    let axis = Axis {
        title: axis,
        // Whole powers of ten, so that the axis has figures that people know.
        range: least.log10().floor()..most.log10().ceil().max(least.log10().floor() + 1.0),
        exponents: true,
    };
    let title = format!("{title}: {}", percentiles.join(", "));
    draw(&title, &axis, groups, |chart, y, row| {
        let at: Vec<f64> = row.value.iter().map(|s| s.median.log10()).collect();
        if let (Some(first), Some(last)) = (at.first(), at.last()) {
            chart.line(y, *first, *last, row.colour)?;
        }
        for (step, x) in at.iter().enumerate() {
            chart.mark(y, *x, step, row.colour)?;
        }
        let figures: Vec<_> = row
            .value
            .iter()
            .map(|s| Short(s.median).to_string())
            .collect();
        let end = at.last().copied().unwrap_or_default();
        chart.note(y, end, &figures.join(" "))
    })
}

fn largest<T>(groups: &[Group<T>], of: impl Fn(&T) -> f64) -> Option<f64> {
    groups
        .iter()
        .flat_map(|group| &group.rows)
        .map(|row| of(&row.value))
        .filter(|value| *value > 0.0)
        .reduce(f64::max)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Cartesian = Cartesian2d<RangedCoordf64, RangedCoordf64>;

/// What the width means.
struct Axis<'a> {
    title: &'a str,
    range: Range<f64>,
    /// The range is of powers of ten.
    exponents: bool,
}

impl<'a> Axis<'a> {
    fn from_zero(title: &'a str, most: f64) -> Self {
        Self {
            title,
            range: 0.0..most * 1.02,
            exponents: false,
        }
    }
}

/// The plot while it is drawn.
struct Chart<'a, 'b> {
    root: &'b Area<'a>,
    context: ChartContext<'b, SVGBackend<'a>, Cartesian>,
}

/// Title, axis, names of the rows; what belongs in each row is up to `content`.
fn draw<T>(
    title: &str,
    axis: &Axis<'_>,
    groups: &[Group<T>],
    mut content: impl FnMut(&mut Chart<'_, '_>, f64, &Row<T>) -> anyhow::Result<()>,
) -> anyhow::Result<String> {
    let rows: u32 = groups.iter().map(height).sum();
    let mut svg = String::new();
    {
        let size = (style::WIDTH, TITLE + rows + AXIS);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE)?;
        root.draw(&Text::new(
            title.to_owned(),
            (10, 8),
            (FONT, 16).into_font().style(FontStyle::Bold).color(&INK),
        ))?;
        let mut context = ChartBuilder::on(&root)
            .margin_top(TITLE)
            .margin_right(RIGHT)
            .x_label_area_size(AXIS)
            .y_label_area_size(LEFT)
            .build_cartesian_2d(axis.range.clone(), f64::from(rows)..0.0)?;
        context
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .x_labels(8)
            .x_max_light_lines(1)
            .bold_line_style(style::GRID)
            .light_line_style(TRANSPARENT)
            .x_desc(axis.title)
            .label_style((FONT, 12).into_font().color(&INK))
            .x_label_formatter(&|x| {
                if axis.exponents {
                    style::tick(10f64.powf(*x))
                } else {
                    style::tick(*x)
                }
            })
            .draw()?;
        let mut chart = Chart {
            root: &root,
            context,
        };
        let mut y = 0.0;
        for group in groups {
            chart.heading(y, &group.label)?;
            y += f64::from(HEADING);
            for row in &group.rows {
                let middle = y + f64::from(ROW) / 2.0;
                chart.name(middle, &row.label)?;
                content(&mut chart, middle, row)?;
                y += f64::from(ROW);
            }
            y += f64::from(HEADING) / 4.0;
        }
        root.present()?;
    }
    Ok(svg)
}

fn height<T>(group: &Group<T>) -> u32 {
    let rows = u32::try_from(group.rows.len()).unwrap_or(u32::MAX / ROW);
    HEADING + rows * ROW + HEADING / 4
}

impl Chart<'_, '_> {
    fn heading(&mut self, y: f64, text: &str) -> anyhow::Result<()> {
        let style = (FONT, 13).into_font().style(FontStyle::Bold).color(&INK);
        let (_, y) = self.pixel(0.0, y + f64::from(HEADING) / 2.0);
        let style = style.pos(Pos::new(HPos::Left, VPos::Center));
        Ok(self
            .root
            .draw(&Text::new(text.to_owned(), (10, y), style))?)
    }

    fn name(&mut self, y: f64, text: &str) -> anyhow::Result<()> {
        let style = (FONT, 12).into_font().color(&INK);
        let style = style.pos(Pos::new(HPos::Right, VPos::Center));
        let (_, y) = self.pixel(0.0, y);
        let x = i32::try_from(LEFT).unwrap_or_default() - 8;
        Ok(self.root.draw(&Text::new(text.to_owned(), (x, y), style))?)
    }

    fn bar(&mut self, y: f64, from: f64, to: f64, colour: Colour) -> anyhow::Result<()> {
        let half = f64::from(ROW) * 0.36;
        let corners = [(from, y - half), (to, y + half)];
        let bar = Rectangle::new(corners, colour.filled());
        self.context.draw_series([bar]).map(drop)?;
        Ok(())
    }

    fn line(&mut self, y: f64, from: f64, to: f64, colour: Colour) -> anyhow::Result<()> {
        let line = PathElement::new(vec![(from, y), (to, y)], colour.stroke_width(2));
        self.context.draw_series([line]).map(drop)?;
        Ok(())
    }

    /// From least to most, with ends.
    fn whisker(&mut self, y: f64, least: f64, most: f64) -> anyhow::Result<()> {
        let end = f64::from(ROW) * 0.18;
        let strokes = [
            vec![(least, y), (most, y)],
            vec![(least, y - end), (least, y + end)],
            vec![(most, y - end), (most, y + end)],
        ];
        let strokes = strokes.map(|points| PathElement::new(points, INK.stroke_width(1)));
        self.context.draw_series(strokes).map(drop)?;
        Ok(())
    }

    /// A circle, full for the lowest percentile and hollow for those above.
    fn mark(&mut self, y: f64, x: f64, step: usize, colour: Colour) -> anyhow::Result<()> {
        let style = if step == 0 {
            colour.filled()
        } else {
            colour.stroke_width(2)
        };
        let size = if step > 1 { 6 } else { 4 };
        self.context
            .draw_series([Circle::new((x, y), size, style)])?;
        Ok(())
    }

    /// Figures behind the end of a row.
    fn note(&mut self, y: f64, x: f64, text: &str) -> anyhow::Result<()> {
        let style = (FONT, 11).into_font().color(&INK);
        let style = style.pos(Pos::new(HPos::Left, VPos::Center));
        let (x, y) = self.pixel(x, y);
        let text = Text::new(text.to_owned(), (x + 8, y), style);
        Ok(self.root.draw(&text)?)
    }

    /// Figures inside a bar.
    fn label(&mut self, y: f64, x: f64, figure: f64, ground: Colour) -> anyhow::Result<()> {
        let style = (FONT, 11).into_font().color(&style::letters_on(ground));
        let style = style.pos(Pos::new(HPos::Center, VPos::Center));
        let at = self.pixel(x, y);
        Ok(self.root.draw(&Text::new(style::tick(figure), at, style))?)
    }

    fn pixel(&self, x: f64, y: f64) -> (i32, i32) {
        self.context.backend_coord(&(x, y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group<T>(label: &str, rows: Vec<(&str, T)>) -> Group<T> {
        let rows = rows
            .into_iter()
            .enumerate()
            .map(|(number, (label, value))| Row {
                label: label.to_owned(),
                colour: style::colour(number),
                value,
            });
        Group {
            label: label.to_owned(),
            rows: rows.collect(),
        }
    }

    #[test]
    fn bars_carry_name_median_and_whisker() {
        let spread = Spread::of(&[9.0, 10.0, 12.5]).unwrap();
        let groups = [group(
            "TCP, 1 stream",
            vec![("weft", spread), ("a & b", spread)],
        )];
        let svg = bars("Throughput", "Gb/s", &groups).unwrap();
        for text in [
            "Throughput",
            "Gb/s",
            "TCP, 1 stream",
            "weft",
            "a &amp; b",
            "10.0",
        ] {
            assert!(svg.contains(text), "{text} is missing in {svg}");
        }
        assert!(bars("Nothing", "Gb/s", &[]).is_err());
    }

    #[test]
    fn stacked_bars_show_every_part_and_the_sum() {
        let parts = [("IP", style::colour(0)), ("UDP", style::colour(1))];
        let groups = [group(
            "bytes",
            vec![("vxlan", vec![20.0, 8.0]), ("none", vec![0.0, 0.0])],
        )];
        let svg = stacked("Headers", "bytes", &parts, &groups).unwrap();
        for text in ["20\n", "8\n", "28\n", "UDP"] {
            assert!(svg.contains(text), "{text} is missing in {svg}");
        }
    }

    #[test]
    fn percentiles_stand_on_powers_of_ten() {
        let spreads = [20.0, 40.0, 900.0]
            .map(|us| Spread::of(&[us]).unwrap())
            .to_vec();
        let groups = [group("idle", vec![("weft", spreads)])];
        let svg = percentiles("Round trip", "us", &["p50", "p99", "p99.9"], &groups).unwrap();
        for text in ["Round trip: p50, p99, p99.9", "1000", "20.0 40.0 900"] {
            assert!(svg.contains(text), "{text} is missing in {svg}");
        }
        // All alike and on a power of ten: the axis still has a length.
        let flat = [group(
            "idle",
            vec![("weft", vec![Spread::of(&[100.0]).unwrap()])],
        )];
        percentiles("Round trip", "us", &["p50"], &flat).unwrap();
    }
}
