//! Answers of the console: tables, notices and errors, and their messages.

use bytes::BytesMut;
use pgimbal_wire::encode;
use pgimbal_wire::error::{Report, Severity, SqlState};
use pgwire::messages::data::{DataRow, FieldDescription, RowDescription};
use serde::{Deserialize, Serialize};

/// A column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column {
    name: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Int,
}

impl Column {
    pub(super) const fn name(&self) -> &'static str {
        self.name
    }
}

/// Makes a column of type `text`.
pub(super) const fn text(name: &'static str) -> Column {
    Column { name, kind: Kind::Text }
}

/// Makes a column of type `bigint`.
pub(super) const fn int(name: &'static str) -> Column {
    Column { name, kind: Kind::Int }
}

/// A value of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Cell {
    Text(String),
    Int(i64),
    Null,
}

impl Cell {
    /// Bytes that it takes in an answer to another replica, at most, when its text is plain.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len() + 3,
            Self::Int(_) => 21,
            Self::Null => 5,
        }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Cell {
    fn from(number: u32) -> Self {
        Self::Int(number.into())
    }
}

impl From<usize> for Cell {
    fn from(number: usize) -> Self {
        Self::from(number as u64)
    }
}

impl From<Option<u32>> for Cell {
    fn from(number: Option<u32>) -> Self {
        number.map_or(Self::Null, Self::from)
    }
}

impl From<Option<&str>> for Cell {
    fn from(text: Option<&str>) -> Self {
        text.map_or(Self::Null, Self::from)
    }
}

/// A row of a table.
pub(super) type Row = Vec<Cell>;

/// The result formats that a client asks for in its Bind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Formats {
    /// All columns in text format, as always in a simple query.
    #[default]
    Text,
    /// All columns in binary format.
    Binary,
    /// The format of each column, `true` for binary.
    Each(Vec<bool>),
}

impl Formats {
    fn is_binary(&self, column: usize) -> bool {
        match self {
            Self::Text => false,
            Self::Binary => true,
            Self::Each(binary) => binary.get(column).copied().unwrap_or_default(),
        }
    }
}

/// Appends a RowDescription, with the type `text` (OID 25) or `bigint` (20) of each column. It is
/// sent ahead of the rows of a simple query, and in answer to a Describe.
pub(super) fn describe(out: &mut Vec<u8>, columns: &[Column], formats: &Formats) {
    let field = |(index, column): (usize, &Column)| {
        // OIDs and sizes from pg_type: text, and bigint.
        let (oid, size) = match column.kind {
            Kind::Text => (25, -1),
            Kind::Int => (20, 8),
        };
        let format = i16::from(formats.is_binary(index));
        FieldDescription::new(column.name.to_owned(), 0, 0, oid, size, -1, format)
    };
    let fields = columns.iter().enumerate().map(field).collect();
    encode::push(out, &RowDescription::new(fields));
}

/// Appends a DataRow with a value for each cell, in the order of the columns. Numbers are 8 bytes
/// in binary format and digits in text; text is the same in both.
pub(super) fn row(out: &mut Vec<u8>, cells: &[Cell], formats: &Formats) {
    let mut data = BytesMut::new();
    for (index, cell) in cells.iter().enumerate() {
        match cell {
            Cell::Int(number) if formats.is_binary(index) => {
                value(&mut data, &number.to_be_bytes());
            }
            Cell::Int(number) => value(&mut data, number.to_string().as_bytes()),
            // Text is the same in both formats.
            Cell::Text(text) => value(&mut data, text.as_bytes()),
            Cell::Null => data.extend_from_slice(&(-1_i32).to_be_bytes()),
        }
    }
    encode::push(out, &DataRow::new(data, cells.len() as i16));
}

fn value(data: &mut BytesMut, bytes: &[u8]) {
    data.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
    data.extend_from_slice(bytes);
}

/// The error of a command that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: SqlState,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Fault {
    pub(super) fn new(code: SqlState, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The text for the log. The text of an unknown command may hold a password, so it is not
    /// repeated.
    pub(super) fn log_text(&self) -> &str {
        match self.code {
            SqlState::SYNTAX_ERROR => "unknown command",
            _ => &self.message,
        }
    }

    /// Appends an ERROR, with which the command ends.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        self.report(Severity::Error).encode_error(out);
    }

    /// Appends a FATAL, with which the connection ends.
    pub(super) fn encode_fatal(&self, out: &mut Vec<u8>) {
        self.report(Severity::Fatal).encode_error(out);
    }

    fn report(&self, severity: Severity) -> Report<'_> {
        Report {
            severity,
            code: self.code,
            message: &self.message,
            detail: None,
            hint: self.hint.as_deref(),
        }
    }
}

/// What a command says beside its rows.
#[derive(Debug, Default)]
pub(super) struct Notices(Vec<(Severity, String)>);

impl Notices {
    /// Appends a NoticeResponse for each, which the client shows beside the result.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for (severity, message) in &self.0 {
            let code = match severity {
                Severity::Warning => SqlState::WARNING,
                _ => SqlState::SUCCESSFUL_COMPLETION,
            };
            let severity = *severity;
            Report { severity, code, message, detail: None, hint: None }.encode_notice(out);
        }
    }

    /// Whether there is a warning among them.
    pub(super) fn has_warning(&self) -> bool {
        self.0.iter().any(|(severity, _)| *severity == Severity::Warning)
    }

    /// The texts, those of warnings with that word.
    pub(super) fn texts(&self) -> String {
        let text = |(severity, text): &(Severity, String)| match severity {
            Severity::Warning => format!("WARNING: {text}"),
            _ => text.clone(),
        };
        self.0.iter().map(text).collect::<Vec<_>>().join("; ")
    }
}

/// Adds a notice.
pub(super) fn notice(out: &mut Notices, severity: Severity, message: &str) {
    out.0.push((severity, message.to_owned()));
}
