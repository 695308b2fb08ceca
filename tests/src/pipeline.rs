//! Sequences of frontend messages, built byte by byte.

use crate::message::Message;

/// A sequence of frontend messages, in the order in which they were added.
#[derive(Debug, Clone, Default)]
pub struct Pipeline {
    bytes: Vec<u8>,
}

impl Pipeline {
    /// Makes an empty sequence.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a Parse of `sql` as statement `name`; the server chooses the parameter types.
    #[must_use]
    pub fn parse(self, name: &str, sql: &str) -> Self {
        self.parse_typed(name, sql, &[])
    }

    /// Adds a Parse whose text may be any bytes.
    #[must_use]
    pub fn parse_bytes(self, name: &str, sql: &[u8]) -> Self {
        self.message(b'P', &[&text(name), sql, b"\0", &count(0)].concat())
    }

    /// Adds a Parse with the type OIDs of the parameters.
    #[must_use]
    pub fn parse_typed(self, name: &str, sql: &str, oids: &[u32]) -> Self {
        let mut body = text(name);
        body.extend(text(sql));
        body.extend(count(oids.len()));
        body.extend(oids.iter().flat_map(|oid| oid.to_be_bytes()));
        self.message(b'P', &body)
    }

    /// Adds a Bind of statement `name` as portal `portal`, with parameters and results in text
    /// format.
    #[must_use]
    pub fn bind(self, portal: &str, name: &str, parameters: &[&str]) -> Self {
        let parameters: Vec<&[u8]> = parameters.iter().map(|value| value.as_bytes()).collect();
        self.bind_bytes(portal, name, &parameters)
    }

    /// Adds a Bind with parameters of any bytes, in text format.
    #[must_use]
    pub fn bind_bytes(self, portal: &str, name: &str, parameters: &[&[u8]]) -> Self {
        self.bind_formats(portal, name, &[], parameters, &[])
    }

    /// Adds a Bind with parameters and results in binary format.
    #[must_use]
    pub fn bind_binary(self, portal: &str, name: &str, parameters: &[&[u8]]) -> Self {
        self.bind_formats(portal, name, &[1], parameters, &[1])
    }

    fn bind_formats(
        self,
        portal: &str,
        name: &str,
        given: &[u16],
        parameters: &[&[u8]],
        wanted: &[u16],
    ) -> Self {
        let mut body = text(portal);
        body.extend(text(name));
        body.extend(count(given.len()));
        body.extend(given.iter().flat_map(|format| format.to_be_bytes()));
        body.extend(count(parameters.len()));
        for value in parameters {
            body.extend(u32::try_from(value.len()).expect("a length").to_be_bytes());
            body.extend(*value);
        }
        body.extend(count(wanted.len()));
        body.extend(wanted.iter().flat_map(|format| format.to_be_bytes()));
        self.message(b'B', &body)
    }

    /// Adds a Describe of statement `name`.
    #[must_use]
    pub fn describe_statement(self, name: &str) -> Self {
        self.kind_and_name(b'D', b'S', name)
    }

    /// Adds a Describe of portal `name`.
    #[must_use]
    pub fn describe_portal(self, name: &str) -> Self {
        self.kind_and_name(b'D', b'P', name)
    }

    /// Adds a Close of statement `name`.
    #[must_use]
    pub fn close_statement(self, name: &str) -> Self {
        self.kind_and_name(b'C', b'S', name)
    }

    /// Adds a Close of portal `name`.
    #[must_use]
    pub fn close_portal(self, name: &str) -> Self {
        self.kind_and_name(b'C', b'P', name)
    }

    /// Adds an Execute of portal `portal` for at most `rows` rows, 0 for all of them.
    #[must_use]
    pub fn execute(self, portal: &str, rows: u32) -> Self {
        let mut body = text(portal);
        body.extend(rows.to_be_bytes());
        self.message(b'E', &body)
    }

    /// Adds a Parse, Bind and Execute of `sql` with the unnamed statement and portal.
    #[must_use]
    pub fn run(self, sql: &str) -> Self {
        self.parse("", sql).bind("", "", &[]).execute("", 0)
    }

    /// Flush: the server sends what it has, and the transaction goes on.
    #[must_use]
    pub fn flush(self) -> Self {
        self.message(b'H', &[])
    }

    /// Sync: ends the segment, and is answered by ReadyForQuery.
    #[must_use]
    pub fn sync(self) -> Self {
        self.message(b'S', &[])
    }

    /// Adds a Query.
    #[must_use]
    pub fn query(self, sql: &str) -> Self {
        self.query_bytes(sql.as_bytes())
    }

    /// Adds a Query whose text may be any bytes.
    #[must_use]
    pub fn query_bytes(self, sql: &[u8]) -> Self {
        self.message(b'Q', &[sql, b"\0"].concat())
    }

    /// A message of any tag, its length made right.
    #[must_use]
    pub fn message(self, tag: u8, body: &[u8]) -> Self {
        self.raw(&Message::new(tag, body).encode())
    }

    /// Bytes as they are, be they a message or not.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self
    }

    /// The bytes of all messages.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn kind_and_name(self, tag: u8, kind: u8, name: &str) -> Self {
        let mut body = vec![kind];
        body.extend(text(name));
        self.message(tag, &body)
    }
}

fn text(value: &str) -> Vec<u8> {
    let mut bytes = value.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

fn count(value: usize) -> [u8; 2] {
    u16::try_from(value).expect("a count of 16 bits").to_be_bytes()
}
