//! A table that a console has answered with, and the harmless form of its texts.

use std::cmp::Ordering;
use std::fmt;

/// Greatest number of rows that are kept of an answer; the others are counted only. It bounds the
/// memory that a console with very many clients takes here.
pub(super) const MAX_ROWS: usize = 20_000;

/// Greatest number of characters of a value that are kept.
const MAX_TEXT: usize = 300;

/// The body of a message that is not one of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// A table: the names of its columns and its rows. All texts are harmless to a terminal: control
/// characters and marks that turn the direction of writing are shown as `\x1b` or `\u{202e}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
    dropped: usize,
}

impl Table {
    /// Takes the columns from the body of a RowDescription, which begins a table.
    ///
    /// # Errors
    /// [`Malformed`] when the body ends early.
    pub(super) fn describe(body: &[u8]) -> Result<Self, Malformed> {
        /// Bytes of a column behind its name: its table, type, sizes and format.
        const BEHIND_NAME: usize = 18;
        let (count, mut rest) = body.split_first_chunk::<2>().ok_or(Malformed)?;
        let mut columns = Vec::new();
        for _ in 0..u16::from_be_bytes(*count) {
            let end = rest.iter().position(|byte| *byte == 0).ok_or(Malformed)?;
            columns.push(harmless(&rest[..end]));
            rest = rest.get(end + 1 + BEHIND_NAME..).ok_or(Malformed)?;
        }
        Ok(Self { columns, ..Self::default() })
    }

    /// Adds the row of a DataRow with this body. Above 20,000 rows it is only counted.
    ///
    /// # Errors
    /// [`Malformed`] when it ends early or has another number of values than there are columns.
    pub(super) fn add(&mut self, body: &[u8]) -> Result<(), Malformed> {
        if self.rows.len() >= MAX_ROWS {
            self.dropped += 1;
            return Ok(());
        }
        let (count, mut rest) = body.split_first_chunk::<2>().ok_or(Malformed)?;
        if usize::from(u16::from_be_bytes(*count)) != self.columns.len() {
            return Err(Malformed);
        }
        let mut row = Vec::with_capacity(self.columns.len());
        for _ in &self.columns {
            let (length, after) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
            // A NULL has the length -1.
            let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
            row.push(harmless(after.get(..length).ok_or(Malformed)?));
            rest = &after[length..];
        }
        self.rows.push(row);
        Ok(())
    }

    /// Names of the columns.
    pub(super) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The rows; each has as many values as there are columns, and a NULL is an empty text.
    pub(super) fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    /// How many rows were dropped because there are more than 20,000.
    pub(super) const fn dropped(&self) -> usize {
        self.dropped
    }

    /// The place of the column of this name.
    pub(super) fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column == name)
    }

    /// The sum of a column's numbers; `None` without such a column. What is no number counts as 0.
    pub(super) fn sum(&self, name: &str) -> Option<u64> {
        let column = self.column(name)?;
        Some(self.rows.iter().filter_map(|row| row[column].parse::<u64>().ok()).sum())
    }

    /// The columns and rows of another order and choice: `keep` picks the rows.
    pub(super) fn filtered(&self, keep: impl Fn(&[String]) -> bool) -> Self {
        let rows = self.rows.iter().filter(|row| keep(row)).cloned().collect();
        Self { columns: self.columns.clone(), rows, dropped: self.dropped }
    }

    /// The table with the columns of `first` in front, in that order and where they exist.
    pub(super) fn with_first(&self, first: &[&str]) -> Self {
        let mut order: Vec<usize> = first.iter().filter_map(|name| self.column(name)).collect();
        order.extend((0..self.columns.len()).filter(|at| !order.contains(at)).collect::<Vec<_>>());
        let pick = |of: &[String]| order.iter().map(|at| of[*at].clone()).collect::<Vec<_>>();
        let rows = self.rows.iter().map(|row| pick(row)).collect();
        Self { columns: pick(&self.columns), rows, dropped: self.dropped }
    }

    /// Orders the rows by a column: numbers before texts, by their size. Rows that are equal keep
    /// their order. Nothing happens without such a column.
    pub(super) fn sort(&mut self, column: usize, descending: bool) {
        if column >= self.columns.len() {
            return;
        }
        self.rows.sort_by(|a, b| {
            let order = compare(&a[column], &b[column]);
            if descending { order.reverse() } else { order }
        });
    }

    /// Whether every value of the column is a number or empty, and one is a number.
    pub(super) fn is_numeric(&self, column: usize) -> bool {
        let mut values = self.rows.iter().map(|row| row[column].as_str()).filter(|v| !v.is_empty());
        let mut found = false;
        values.all(|value| {
            found = true;
            value.parse::<f64>().is_ok()
        }) && found
    }
}

/// Writes the table with a line of names and one line for each row, its columns under each other.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let of_row = |row: &Vec<String>| row[column].chars().count();
            let rows = self.rows.iter().map(of_row).max().unwrap_or(0);
            rows.max(self.columns[column].chars().count())
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let numeric: Vec<bool> = (0..self.columns.len()).map(|c| self.is_numeric(c)).collect();
        for row in std::iter::once(&self.columns).chain(&self.rows) {
            let mut line = String::new();
            for (value, (width, numeric)) in row.iter().zip(widths.iter().zip(&numeric)) {
                match numeric {
                    true => line.push_str(&format!("{value:>width$}  ")),
                    false => line.push_str(&format!("{value:<width$}  ")),
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        if self.dropped > 0 {
            writeln!(f, "and {} more", self.dropped)?;
        }
        Ok(())
    }
}

fn compare(a: &str, b: &str) -> Ordering {
    match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => a.total_cmp(&b),
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        (Err(_), Err(_)) => a.cmp(b),
    }
}

/// The text of `bytes` without anything that a terminal obeys, at most 300 characters of it.
pub(super) fn harmless(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (index, c) in String::from_utf8_lossy(bytes).chars().enumerate() {
        if index == MAX_TEXT {
            out.push('…');
            break;
        }
        match c {
            // Marks and overrides of the direction of writing, and characters without a width.
            '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}' => out.extend(c.escape_unicode()),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A table with these columns and rows.
    pub(in crate::top) fn table(columns: &[&str], rows: &[&[&str]]) -> Table {
        let mut table = Table::describe(&description(columns)).unwrap();
        for row in rows {
            table.add(&data_row(&row.iter().map(|v| Some(*v)).collect::<Vec<_>>())).unwrap();
        }
        table
    }

    fn description(columns: &[&str]) -> Vec<u8> {
        let mut body = (columns.len() as u16).to_be_bytes().to_vec();
        for column in columns {
            body.extend_from_slice(column.as_bytes());
            body.extend_from_slice(&[0; 19]);
        }
        body
    }

    fn data_row(values: &[Option<&str>]) -> Vec<u8> {
        let mut body = (values.len() as u16).to_be_bytes().to_vec();
        for value in values {
            let length = value.map_or(-1, |value| value.len() as i32);
            body.extend_from_slice(&length.to_be_bytes());
            body.extend_from_slice(value.unwrap_or("").as_bytes());
        }
        body
    }

    #[test]
    fn messages_become_rows_and_cut_ones_are_refused() {
        let whole = description(&["a", "b"]);
        let mut table = Table::describe(&whole).unwrap();
        assert_eq!(table.columns(), ["a", "b"]);
        let row = data_row(&[Some("1"), None]);
        table.add(&row).unwrap();
        assert_eq!(table.rows(), [vec!["1".to_owned(), String::new()]]);
        for end in 0..whole.len() {
            assert_eq!(Table::describe(&whole[..end]), Err(Malformed), "{end}");
        }
        for end in 0..row.len() {
            assert_eq!(table.add(&row[..end]), Err(Malformed), "{end}");
        }
        assert_eq!(table.add(&data_row(&[Some("1")])), Err(Malformed));
    }

    #[test]
    fn rows_above_the_limit_are_counted_only() {
        let mut table = table(&["a"], &[]);
        for _ in 0..MAX_ROWS + 3 {
            table.add(&data_row(&[Some("x")])).unwrap();
        }
        assert_eq!((table.rows().len(), table.dropped()), (MAX_ROWS, 3));
    }

    #[test]
    fn what_a_terminal_obeys_is_shown_and_not_sent() {
        let shown = harmless("a\x1b[2J\u{9b}b\n\u{202e}é\u{0}".as_bytes());
        assert_eq!(shown, "a\\x1b[2J\\x9bb\\x0a\\u{202e}é\\x00");
        assert_eq!(harmless(b"\xff"), "\u{fffd}");
        assert_eq!(harmless("é".repeat(1000).as_bytes()).chars().count(), MAX_TEXT + 1);
        let named = table(&["na\x1bme"], &[&["\x07"]]);
        assert_eq!(
            (named.columns()[0].as_str(), named.rows()[0][0].as_str()),
            ("na\\x1bme", "\\x07")
        );
    }

    #[test]
    fn numbers_are_sorted_by_size_and_texts_by_letter() {
        let mut table = table(&["n", "t"], &[&["9", "b"], &["10", "a"], &["", "c"]]);
        let first = |table: &Table, at: usize| {
            table.rows().iter().map(|row| row[at].clone()).collect::<Vec<_>>().join(",")
        };
        table.sort(0, false);
        assert_eq!(first(&table, 0), "9,10,");
        table.sort(0, true);
        assert_eq!(first(&table, 0), ",10,9");
        table.sort(1, false);
        assert_eq!(first(&table, 1), "a,b,c");
        table.sort(7, false);
        assert_eq!(first(&table, 1), "a,b,c");
        assert_eq!((table.is_numeric(0), table.is_numeric(1)), (true, false));
        assert_eq!(table.sum("n"), Some(19));
        assert_eq!(table.sum("none"), None);
    }

    #[test]
    fn columns_that_are_asked_for_come_first() {
        let table = table(&["a", "b", "c"], &[&["1", "2", "3"]]).with_first(&["c", "x", "b"]);
        assert_eq!(table.columns(), ["c", "b", "a"]);
        assert_eq!(table.rows()[0], ["3", "2", "1"]);
        assert_eq!(table.to_string(), "c  b  a\n3  2  1\n");
    }
}
