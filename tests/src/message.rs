//! A protocol message, parsed without pgimbal's own code.

use std::collections::BTreeMap;

/// A message with its tag and its body.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// The tag, such as `b'Z'`.
    pub tag: u8,
    /// The bytes after the length field.
    pub body: Vec<u8>,
}

/// The fields of an ErrorResponse or NoticeResponse that tests look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `NOTICE` and so on, never localised: field V, or S from a server without
    /// V.
    pub severity: String,
    /// The SQLSTATE, five characters.
    pub code: String,
    /// The primary message, field M.
    pub message: String,
    /// The text of every field by its letter.
    pub fields: BTreeMap<char, String>,
}

impl Message {
    /// Makes a message.
    #[must_use]
    pub fn new(tag: u8, body: &[u8]) -> Self {
        Self { tag, body: body.to_vec() }
    }

    /// The bytes of the message as sent.
    ///
    /// # Panics
    /// When the body is longer than 4 GiB.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.tag];
        bytes.extend(u32::try_from(self.body.len() + 4).expect("a length").to_be_bytes());
        bytes.extend(&self.body);
        bytes
    }

    /// The fields of an ErrorResponse or NoticeResponse.
    ///
    /// # Panics
    /// When this is another message.
    #[must_use]
    pub fn error(&self) -> ServerError {
        assert!(matches!(self.tag, b'E' | b'N'), "{self:?} is no error");
        let fields: BTreeMap<char, String> = self
            .body
            .split(|byte| *byte == 0)
            .filter(|field| !field.is_empty())
            .map(|field| (char::from(field[0]), String::from_utf8_lossy(&field[1..]).into_owned()))
            .collect();
        let field = |key: char| fields.get(&key).cloned().unwrap_or_default();
        let severity = if fields.contains_key(&'V') { field('V') } else { field('S') };
        ServerError { severity, code: field('C'), message: field('M'), fields }
    }

    /// The transaction status of a ReadyForQuery: `I`, `T` or `E`.
    ///
    /// # Panics
    /// When this is another message.
    #[must_use]
    pub fn status(&self) -> char {
        assert!(self.tag == b'Z' && self.body.len() == 1, "{self:?} is no ReadyForQuery");
        char::from(self.body[0])
    }

    /// The values of a DataRow, `None` for NULL.
    ///
    /// # Panics
    /// When this is another message, or its lengths are wrong.
    #[must_use]
    pub fn columns(&self) -> Vec<Option<Vec<u8>>> {
        assert_eq!(self.tag, b'D', "{self:?} is no DataRow");
        let count = u16::from_be_bytes([self.body[0], self.body[1]]);
        let mut rest = &self.body[2..];
        let mut columns = Vec::new();
        for _ in 0..count {
            let length = i32::from_be_bytes(rest[..4].try_into().expect("four bytes"));
            rest = &rest[4..];
            columns.push(usize::try_from(length).ok().map(|length| {
                let (value, after) = rest.split_at(length);
                rest = after;
                value.to_vec()
            }));
        }
        assert!(rest.is_empty(), "bytes after the last column");
        columns
    }

    /// The zero-terminated strings of the body, such as name and value of a ParameterStatus.
    #[must_use]
    pub fn strings(&self) -> Vec<String> {
        let end = self.body.len().saturating_sub(1);
        self.body[..end]
            .split(|byte| *byte == 0)
            .map(|text| String::from_utf8_lossy(text).into_owned())
            .collect()
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = &self.body[..self.body.len().min(120)];
        write!(f, "{}[{}] {}", char::from(self.tag), self.body.len(), shown.escape_ascii())
    }
}
