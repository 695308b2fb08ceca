//! The reply of a server up to one ReadyForQuery.

use crate::message::{Message, ServerError};

/// The reply to one simple query, or to one sequence of extended messages up to a Sync.
#[derive(Debug, Clone)]
pub struct Reply {
    /// All messages, ReadyForQuery last.
    pub messages: Vec<Message>,
}

impl Reply {
    /// The rows of all statements in order, `None` for NULL.
    #[must_use]
    pub fn rows(&self) -> Vec<Vec<Option<Vec<u8>>>> {
        self.of(b'D').map(Message::columns).collect()
    }

    /// The rows of all statements as text, `NULL` for NULL.
    #[must_use]
    pub fn texts(&self) -> Vec<Vec<String>> {
        let text = |value: Option<Vec<u8>>| {
            value.map_or("NULL".to_owned(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        self.rows().into_iter().map(|row| row.into_iter().map(text).collect()).collect()
    }

    /// The first column of the only row, as text.
    ///
    /// # Panics
    /// When there is an error, or not exactly one row.
    #[must_use]
    pub fn value(&self) -> String {
        self.no_error();
        let rows = self.texts();
        assert_eq!(rows.len(), 1, "one row expected: {self:?}");
        rows[0][0].clone()
    }

    /// The column names of the first RowDescription; empty when there is none.
    #[must_use]
    pub fn columns(&self) -> Vec<String> {
        let Some(description) = self.of(b'T').next() else { return Vec::new() };
        let mut rest = &description.body[2..];
        let mut names = Vec::new();
        while let Some(end) = rest.iter().position(|byte| *byte == 0) {
            names.push(String::from_utf8_lossy(&rest[..end]).into_owned());
            rest = &rest[end + 1 + 18..];
        }
        names
    }

    /// The command tags, such as `SELECT 1`.
    #[must_use]
    pub fn commands(&self) -> Vec<String> {
        self.of(b'C').map(|message| message.strings()[0].clone()).collect()
    }

    /// The fields of every ErrorResponse.
    #[must_use]
    pub fn errors(&self) -> Vec<ServerError> {
        self.of(b'E').map(Message::error).collect()
    }

    /// The SQLSTATE of the only error.
    ///
    /// # Panics
    /// When there is not exactly one error.
    #[must_use]
    pub fn sqlstate(&self) -> String {
        let errors = self.errors();
        assert_eq!(errors.len(), 1, "one error expected: {self:?}");
        errors[0].code.clone()
    }

    /// Asserts that there is no error, and returns the reply.
    ///
    /// # Panics
    /// When there is an error.
    pub fn no_error(&self) -> &Self {
        assert_eq!(self.errors(), [], "unexpected error");
        self
    }

    /// The tags of all messages in order, without those that may come at any time (`S`, `N`, `A`).
    #[must_use]
    pub fn tags(&self) -> String {
        tags(&self.messages)
    }

    /// The transaction status: `I`, `T` or `E`.
    ///
    /// # Panics
    /// When the reply does not end with ReadyForQuery.
    #[must_use]
    pub fn status(&self) -> char {
        self.messages.last().expect("a message").status()
    }

    fn of(&self, tag: u8) -> impl Iterator<Item = &Message> {
        self.messages.iter().filter(move |message| message.tag == tag)
    }
}

/// The tags of `messages` in order, without those that may come at any time (`S`, `N`, `A`).
#[must_use]
pub fn tags(messages: &[Message]) -> String {
    let asynchronous = |tag: u8| matches!(tag, b'S' | b'N' | b'A');
    messages
        .iter()
        .filter(|message| !asynchronous(message.tag))
        .map(|message| char::from(message.tag))
        .collect()
}
