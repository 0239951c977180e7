//! Plain text in columns.

/// Where a page ends on the right, in characters: a terminal's usual width.
pub const WIDTH: usize = 80;

/// Which side of its column a cell keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows of cells, padded to columns when they are printed.
#[derive(Debug)]
pub struct Table {
    align: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns and no rows.
    pub fn new(align: &[Align]) -> Self {
        Self {
            align: align.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; cells that are missing at the end are empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// The lines, each after `indent` spaces, with two spaces between columns.
    pub fn render(&self, indent: usize) -> String {
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.align.len()).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = " ".repeat(indent);
            for ((cell, align), width) in row.iter().zip(&self.align).zip(&widths) {
                let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
                let (before, after) = match align {
                    Align::Left => ("", padding.as_str()),
                    Align::Right => (padding.as_str(), ""),
                };
                line.push_str(&format!("{before}{cell}{after}  "));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Breaks `items` into lines that end before [`WIDTH`]. The first line follows `first`, the others
/// as many spaces. An item is broken only if it does not fit a line of its own, and then between
/// words.
pub fn wrap(
    first: &str,
    items: impl IntoIterator<Item = impl AsRef<str>>,
    between: &str,
) -> String {
    let indent = first.chars().count();
    let room = WIDTH.saturating_sub(indent);
    let mut pieces: Vec<String> = Vec::new();
    for item in items {
        if let Some(before) = pieces.last_mut() {
            before.push_str(between);
        }
        let item = item.as_ref();
        if item.chars().count() > room {
            pieces.extend(item.split_inclusive(' ').map(str::to_owned));
        } else {
            pieces.push(item.to_owned());
        }
    }
    let mut lines = vec![first.to_owned()];
    let mut left = room;
    for piece in pieces {
        if piece.trim_end().chars().count() > left {
            lines.push(" ".repeat(indent));
            left = room;
        }
        left = left.saturating_sub(piece.chars().count());
        if let Some(line) = lines.last_mut() {
            line.push_str(&piece);
        }
    }
    lines
        .iter()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_by_characters() {
        let mut table = Table::new(&[Align::Left, Align::Right, Align::Left]);
        table.row(["a", "1", "·"]);
        table.row(["longer", "22", "x"]);
        table.row(["short"]);
        assert_eq!(table.render(1), " a        1  ·\n longer  22  x\n short\n");
    }

    #[test]
    fn items_wrap_whole_and_keep_their_indent() {
        let item = "i".repeat(30);
        let text = wrap("head  ", [&item, &item, &item], ", ");
        assert_eq!(text, format!("head  {item}, {item},\n      {item}\n"));
        assert_eq!(wrap("head", std::iter::empty::<&str>(), ", "), "head\n");
        let long = format!("{item} {item} {item}");
        let broken = wrap("a ", [long.as_str(), "b"], ", ");
        assert_eq!(broken, format!("a {item} {item}\n  {item}, b\n"));
    }
}
