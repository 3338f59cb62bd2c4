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

    /// Adds a row. Names come from hubs, which may send any: a control character of a cell moves no cursor and makes no line.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        let plain = |cell: String| if cell.contains(char::is_control) { without_controls(&cell) } else { cell };
        self.rows.push(cells.map(plain).into());
    }

    /// The text, one line a row; without a width no line is broken.
    ///
    /// Where a row is wider than that, columns stand closer, the last one is broken between words, and columns that find no
    /// place go to a second line, indented.
    pub fn text(&self, width: Option<usize>) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widest = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(widest).collect();
        let layout = Layout::new(&widths, width.filter(|width| *width >= WIDTH_MIN));
        let mut text = String::new();
        for row in &self.rows {
            layout.row(row, &mut text);
        }
        text
    }
}

/// Control characters, which could end a line or change the terminal, become U+FFFD.
pub fn without_controls(cell: &str) -> String {
    cell.chars().map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char }).collect()
}

/// Where the columns of a table stand.
#[derive(Debug)]
struct Layout {
    /// The line of each column, counted from the first one of its row, and where it begins there.
    places: Vec<(usize, usize)>,
    /// The width in which the last column is broken between words.
    last: Option<usize>,
}

impl Layout {
    fn new(widths: &[usize], width: Option<usize>) -> Self {
        let line = |gap: usize| widths.iter().sum::<usize>() + gap * widths.len().saturating_sub(1);
        let (gap, bound) = match width {
            None => (GAP, usize::MAX),
            Some(width) if line(GAP) <= width => (GAP, width),
            Some(width) => (GAP_NARROW, width),
        };
        let (mut places, mut row, mut column) = (Vec::new(), 0, 0);
        for (nth, wide) in widths.iter().enumerate() {
            let is_last = nth + 1 == widths.len();
            let least = if is_last { (*wide).min(LAST_MIN) } else { *wide };
            if nth > 0 && column + least > bound {
                (row, column) = (row + 1, CONTINUED);
            }
            places.push((row, column));
            column += wide + gap;
        }
        let last = places.last().and_then(|(_, column)| width.map(|width| width.saturating_sub(*column)));
        Self { places, last }
    }

    fn row(&self, cells: &[String], text: &mut String) {
        let mut line = String::new();
        let mut at = 0;
        for (nth, (cell, (row, column))) in cells.iter().zip(&self.places).enumerate() {
            if *row > at {
                end(&line, text);
                (line, at) = (String::new(), *row);
            }
            let used = line.chars().count();
            let _ = write!(line, "{:1$}", "", column.saturating_sub(used));
            match self.last.filter(|_| nth + 1 == self.places.len()) {
                None => line.push_str(cell),
                Some(width) => {
                    let mut broken = broken(cell, width).into_iter();
                    line.push_str(&broken.next().unwrap_or_default());
                    for more in broken {
                        end(&line, text);
                        line = format!("{:1$}{more}", "", column);
                    }
                }
            }
        }
        if at == 0 || !line.trim().is_empty() {
            end(&line, text);
        }
    }
}

fn end(line: &str, text: &mut String) {
    text.push_str(line.trim_end());
    text.push('\n');
}

/// The text in lines of this width, broken between words; a word that is longer has a line of its own.
pub fn broken(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for (nth, word) in text.split(' ').enumerate() {
        let line = lines.last_mut().expect("never empty");
        if nth > 0 && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            line.push_str(if nth > 0 { " " } else { "" });
            line.push_str(word);
        }
    }
    lines
}

/// Columns between two columns, and where a line is too narrow for that.
const GAP: usize = 3;
const GAP_NARROW: usize = 2;
/// Least width of a last column that is broken between words.
const LAST_MIN: usize = 24;
/// Where a row goes on in its second line.
const CONTINUED: usize = 4;

/// The columns a terminal line may take: `COLUMNS` if it is set, else those of the terminal, if output goes to one.
pub fn width() -> Option<usize> {
    let given = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    given.or_else(|| terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| usize::from(width.0)))
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
        let lines = broken(text, self.width.map_or(usize::MAX, |width| width - INDENT));
        for (nth, line) in lines.iter().enumerate() {
            end(&format!("{:<INDENT$}{line}", if nth == 0 { name } else { "" }), &mut self.text);
        }
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
    fn control_characters_of_a_cell_stay_in_their_place() {
        let mut table = Table::new(&["NAME", "ADDRESS"]);
        table.row(["web\u{1b}[2J\nbank".into(), "10.0.0.1\r".into()]);
        assert_eq!(table.text(None), "NAME           ADDRESS\nweb\u{FFFD}[2J\u{FFFD}bank   10.0.0.1\u{FFFD}\n");
    }

    #[test]
    fn columns_are_aligned_and_lines_end_with_their_last_cell() {
        let mut table = Table::new(&["NAME", "X", ""]);
        table.row(["a".into(), "long cell".into(), "end".into()]);
        table.row(["ä".into(), String::new(), String::new()]);
        assert_eq!(table.text(None), "NAME   X\na      long cell   end\nä\n");
    }

    #[test]
    fn a_table_fits_the_terminal() {
        let mut table = Table::new(&["NAMESPACE", "HELD", "SINCE", "WHY"]);
        table.row([
            "shop".into(),
            "100 services".into(),
            "1m10s ago".into(),
            "the list of the apiserver is half empty".into(),
        ]);
        let wide = "NAMESPACE   HELD           SINCE       WHY\n\
                    shop        100 services   1m10s ago   the list of the apiserver is half empty\n";
        assert_eq!(table.text(Some(80)), wide);
        let broken = "NAMESPACE  HELD          SINCE      WHY\n\
                      shop       100 services  1m10s ago  the list of the\n\
                      \x20                                   apiserver is half empty\n";
        assert_eq!(table.text(Some(60)), broken);
        let narrow = "NAMESPACE  HELD          SINCE\n    WHY\nshop       100 services  1m10s ago\n    \
                      the list of the apiserver is half\n    empty\n";
        assert_eq!(table.text(Some(40)), narrow);
        assert!(table.text(Some(40)).lines().all(|line| line.len() <= 40));
        assert_eq!(table.text(Some(10)), table.text(None), "narrower than any terminal");
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
