//! Aligned columns for people.

use std::fmt::Write as _;

/// Rows under a heading, each column as wide as its widest cell.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| (*heading).to_owned()).collect()] }
    }

    /// A table without headings.
    pub fn bare() -> Self {
        Self { rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// The text, one line a row.
    pub fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, "{cell:<width$}   ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// The columns a terminal line may take: `COLUMNS` if it is set, else those of the terminal, if output goes to one.
pub fn width() -> Option<usize> {
    let given = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    given.or_else(|| terminal_size::terminal_size().map(|(width, _)| usize::from(width.0)))
}

/// The column at which the texts of [`Rows`] begin.
const INDENT: usize = 12;
/// Narrower than this, lines are not broken: they would be all indent.
const WIDTH_MIN: usize = 40;

/// Named rows, each broken between words to fit the width.
#[derive(Debug)]
pub struct Rows {
    text: String,
    width: Option<usize>,
}

impl Rows {
    /// No row yet. Without a width no line is broken.
    pub fn new(width: Option<usize>) -> Self {
        Self { text: String::new(), width: width.filter(|width| *width >= WIDTH_MIN) }
    }

    /// Adds a row.
    pub fn row(&mut self, name: &str, text: &str) {
        let mut line = format!("{name:<INDENT$}");
        let mut column = INDENT;
        for (nth, word) in text.split(' ').enumerate() {
            let long = word.chars().count();
            if nth > 0 && self.width.is_some_and(|width| column + 1 + long > width) {
                let _ = write!(line, "\n{:INDENT$}", "");
                column = INDENT;
            } else if nth > 0 {
                line.push(' ');
                column += 1;
            }
            line.push_str(word);
            column += long;
        }
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    pub fn text(self) -> String {
        self.text
    }
}

/// `1 service`, `2 services`.
pub fn count(count: usize, noun: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{s}")
}

/// A list that stays on a line: the first few, then how many more.
pub fn some(items: &[String], most: usize) -> String {
    match items {
        [] => "-".into(),
        _ if items.len() <= most => items.join(","),
        _ => format!("{},+{}", items[..most].join(","), items.len() - most),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_with_their_last_cell() {
        let mut table = Table::new(&["NAME", "X", ""]);
        table.row(["a".into(), "long cell".into(), "end".into()]);
        table.row(["ä".into(), String::new(), String::new()]);
        assert_eq!(table.text(), "NAME   X\na      long cell   end\nä\n");
    }

    #[test]
    fn rows_are_broken_between_words_and_go_on_under_their_text() {
        let text = "hub2, hub1 and a very-long-word-that-fits-no-line-of-this-width end";
        let shown = |width| {
            let mut rows = Rows::new(width);
            rows.row("source", text);
            rows.text()
        };
        assert_eq!(shown(None), format!("source      {text}\n"));
        let broken = "source      hub2, hub1 and a\n            very-long-word-that-fits-no-line-of-this-width\n            end\n";
        assert_eq!(shown(Some(40)), broken);
    }

    #[test]
    fn lists_are_cut_and_counted() {
        let items: Vec<String> = ["a", "b", "c"].map(String::from).into();
        assert_eq!([some(&items, 3), some(&items, 1), some(&[], 1)], ["a,b,c", "a,+2", "-"]);
        assert_eq!([count(1, "service"), count(0, "service")], ["1 service", "0 services"]);
    }
}
