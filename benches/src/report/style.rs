//! What all plots have in common: size, colours, letters, and how a legend gets into a picture.

use anyhow::Context as _;
use plotters::style::{RGBColor, WHITE};

use crate::stats::Short;

pub(super) type Colour = RGBColor;

/// Pixels across, which fit beside a browser's scroll bar on a small screen.
pub(super) const WIDTH: u32 = 860;
pub(super) const FONT: &str = "sans-serif";
/// Letters and whiskers.
pub(super) const INK: Colour = RGBColor(0x22, 0x22, 0x22);
/// Lines of the grid.
pub(super) const GRID: Colour = RGBColor(0xdd, 0xdd, 0xdd);

/// Distinguishable with every kind of colour blindness (Okabe and Ito, "Color Universal Design").
const PALETTE: [Colour; 8] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x8c, 0x7a, 0x00),
    RGBColor(0x77, 0x77, 0x77),
];

/// The colour of the subject with this number.
pub(super) fn colour(number: usize) -> Colour {
    PALETTE[number % PALETTE.len()]
}

/// What can be read on this background: dark letters on light colours, light ones on dark.
pub(super) fn letters_on(RGBColor(r, g, b): Colour) -> Colour {
    // Luma (ITU-R BT.601), of 255.
    let luma = (u32::from(r) * 299 + u32::from(g) * 587 + u32::from(b) * 114) / 1000;
    if luma > 140 { INK } else { WHITE }
}

/// A figure at an axis or in a bar: whole ones without a fraction.
pub(super) fn tick(figure: f64) -> String {
    if (figure - figure.round()).abs() < 1e-9 {
        format!("{figure:.0}")
    } else {
        Short(figure).to_string()
    }
}

/// Room at the left of a legend, in pixels.
const MARGIN: u32 = 20;
/// Height of a line of a legend, in pixels.
const LEGEND: u32 = 26;

/// The picture with a row of named colours below it.
pub(super) fn with_legend(svg: &str, entries: &[(&str, Colour)]) -> anyhow::Result<String> {
    let start = svg.find("<svg").context("the picture is no SVG")?;
    let open = svg[start..].find('>').context("the picture is no SVG")? + start;
    let height: u32 = attribute(&svg[start..open], "height")
        .and_then(|value| value.parse().ok())
        .context("the picture has no height")?;
    let mut legend = String::new();
    let (mut x, mut line) = (MARGIN, 0);
    for (name, RGBColor(r, g, b)) in entries {
        // Letters of 12 pixels are about 7 wide.
        let length = 40 + 7 * u32::try_from(name.chars().count()).unwrap_or(WIDTH);
        if x > MARGIN && x + length > WIDTH {
            (x, line) = (MARGIN, line + 1);
        }
        let (top, base) = (height + line * LEGEND + 5, height + line * LEGEND + 15);
        legend += &format!(
            "<rect x=\"{x}\" y=\"{top}\" width=\"12\" height=\"12\" fill=\"#{r:02X}{g:02X}{b:02X}\"/>\n\
             <text x=\"{}\" y=\"{base}\" font-family=\"{FONT}\" font-size=\"12\" fill=\"#222222\">{}</text>\n",
            x + 17,
            escape(name)
        );
        x += length;
    }
    let lines = (line + 1) * LEGEND;
    let total = height + lines;
    let ground = format!(
        "<rect x=\"0\" y=\"{height}\" width=\"{WIDTH}\" height=\"{lines}\" fill=\"#FFFFFF\"/>\n"
    );
    let head = svg[start..open]
        .replacen(
            &format!("height=\"{height}\""),
            &format!("height=\"{total}\""),
            1,
        )
        .replacen(
            &format!("viewBox=\"0 0 {WIDTH} {height}\""),
            &format!("viewBox=\"0 0 {WIDTH} {total}\""),
            1,
        );
    let end = svg.rfind("</svg>").context("the picture does not end")?;
    Ok(format!("{head}{}{ground}{legend}</svg>\n", &svg[open..end]))
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let rest = tag.split_once(&format!(" {name}=\""))?.1;
    rest.split_once('"').map(|(value, _)| value)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_legend_makes_the_picture_taller_and_names_its_colours() {
        let svg = "<svg width=\"860\" height=\"100\" viewBox=\"0 0 860 100\" xmlns=\"x\">\n<g/>\n</svg>\n";
        let with = with_legend(svg, &[("a < b", colour(0)), ("c", colour(1))]).unwrap();
        assert!(
            with.starts_with("<svg width=\"860\" height=\"126\" viewBox=\"0 0 860 126\""),
            "{with}"
        );
        assert!(
            with.contains("a &lt; b") && with.contains("#0072B2"),
            "{with}"
        );
        assert_eq!(with.matches("</svg>").count(), 1);
        assert!(with_legend("nothing", &[]).is_err());
    }

    #[test]
    fn a_long_legend_goes_on_below() {
        let svg = "<svg width=\"860\" height=\"100\" viewBox=\"0 0 860 100\"></svg>";
        let names: Vec<_> = (0..8)
            .map(|n| format!("a subject with a long name {n}"))
            .collect();
        let entries: Vec<_> = names
            .iter()
            .map(|name| (name.as_str(), colour(0)))
            .collect();
        let with = with_legend(svg, &entries).unwrap();
        assert!(
            with.contains("height=\"178\"") && with.contains("y=\"141\""),
            "{with}"
        );
    }

    #[test]
    fn figures_of_axes_and_letters_on_colours() {
        assert_eq!(tick(14.0), "14");
        assert_eq!(tick(0.5), "0.50");
        assert_eq!(letters_on(INK), WHITE);
        assert_eq!(letters_on(GRID), INK);
    }

    #[test]
    fn more_subjects_than_colours_still_have_one() {
        assert_eq!(colour(0), colour(PALETTE.len()));
    }
}
