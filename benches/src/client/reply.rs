//! What matters of the answer to a simple query.

/// An answer, as far as a program for people needs it.
#[derive(Debug, Default)]
pub struct Reply {
    /// The columns' names.
    pub columns: Vec<String>,
    /// The rows; NULL is empty.
    pub rows: Vec<Vec<String>>,
    /// The last command's tag, such as `INSERT 0 1`.
    pub tag: String,
    /// The error that ended it.
    pub error: Option<SqlError>,
    /// Whether a transaction block is open behind it.
    pub in_block: bool,
}

/// An ErrorResponse.
#[derive(Clone, Debug)]
pub struct SqlError {
    /// SQLSTATE.
    pub code: String,
    /// What it says.
    pub message: String,
    /// Whether it ends the connection.
    pub fatal: bool,
}

impl Reply {
    /// Takes one message of the answer.
    pub(super) fn take(&mut self, tag: u8, body: &[u8]) {
        match tag {
            b'T' => self.columns = column_names(body),
            b'D' => self.rows.push(values(body)),
            b'C' => self.tag = String::from_utf8_lossy(body).trim_end_matches('\0').to_owned(),
            b'E' => self.error = Some(SqlError::read(body)),
            _ => {}
        }
    }

    /// The field of `row` in the column of this name; empty when there is none.
    #[must_use]
    pub fn field<'a>(&self, row: &'a [String], column: &str) -> &'a str {
        let index = self.columns.iter().position(|name| name == column);
        index.and_then(|index| row.get(index)).map_or("", String::as_str)
    }

    /// The first field of the first row.
    #[must_use]
    pub fn first(&self) -> Option<&str> {
        self.rows.first()?.first().map(String::as_str)
    }
}

impl SqlError {
    fn read(body: &[u8]) -> Self {
        let field = |kind: u8| {
            let parts = body.split(|byte| *byte == 0);
            let found = parts.filter(|part| part.first() == Some(&kind)).map(|part| &part[1..]);
            found.map(|text| String::from_utf8_lossy(text).into_owned()).next().unwrap_or_default()
        };
        Self { code: field(b'C'), message: field(b'M'), fatal: field(b'V') != "ERROR" }
    }
}

/// The names in a RowDescription, each with 18 bytes behind it.
fn column_names(body: &[u8]) -> Vec<String> {
    let (mut names, mut rest) = (Vec::new(), body.get(2..).unwrap_or_default());
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        names.push(String::from_utf8_lossy(&rest[..end]).into_owned());
        rest = rest.get(end + 19..).unwrap_or_default();
    }
    names
}

/// The values in a DataRow.
fn values(body: &[u8]) -> Vec<String> {
    let (mut values, mut rest) = (Vec::new(), body.get(2..).unwrap_or_default());
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
        let (value, after) = after.split_at(length.min(after.len()));
        values.push(String::from_utf8_lossy(value).into_owned());
        rest = after;
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_columns_names() {
        let mut reply = Reply::default();
        let mut description = vec![0, 2];
        for name in ["node", "state"] {
            description.extend_from_slice(name.as_bytes());
            description.extend_from_slice(&[0; 19]);
        }
        reply.take(b'T', &description);
        reply.take(b'D', b"\0\x02\0\0\0\x01a\xff\xff\xff\xff");
        reply.take(b'C', b"SHOW\0");
        assert_eq!(reply.columns, ["node", "state"]);
        assert_eq!(reply.field(&reply.rows[0], "node"), "a");
        assert_eq!(reply.field(&reply.rows[0], "state"), "");
        assert_eq!((reply.first(), reply.tag.as_str()), (Some("a"), "SHOW"));
    }

    #[test]
    fn an_errors_fields_are_told_apart() {
        let mut reply = Reply::default();
        reply.take(b'E', b"SERROR\0VERROR\0C57P01\0Mits server went away\0\0");
        let error = reply.error.expect("an error");
        assert_eq!((error.code.as_str(), error.fatal), ("57P01", false));
        assert_eq!(error.message, "its server went away");
    }
}
