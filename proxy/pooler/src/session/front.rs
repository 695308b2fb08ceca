//! What is known of the message at the front of what a client has sent, while it waits: for a server
//! connection, for a place among the pinned sessions, for replies. It is classified once, before a
//! server connection is chosen for it.

use crate::sql::{self, Access, Calls, Classified, Readings};

/// What is known of the first message that a client has sent and that the session has not taken
/// yet, while it waits for a server connection, a place or replies. By it the server connection is
/// chosen. It is forgotten when the session takes a byte of the message, or when a lost connection
/// puts other bytes in front of it.
#[derive(Debug, Default)]
pub enum FrontMessage {
    /// Nothing: the message was not looked at, has no text and names no known statement, or its
    /// text is longer than what is held.
    #[default]
    Unread,
    /// The message is a Query or Parse, whose text was classified; the classification takes 4096
    /// bytes at most.
    Text(ReadText),
    /// Only whether the message reads or writes rows: it is a Bind or Describe of a prepared
    /// statement, or its classified text takes more memory (4096 bytes) than is kept for a client
    /// that waits.
    Known(Access),
}

/// The classification of a Query's or Parse's SQL text, with the way in which the text was read.
#[derive(Debug)]
pub struct ReadText {
    /// What the text does: its statements, its access to rows, the state that it may leave. By it
    /// the text is routed, admitted and followed.
    pub classified: Classified,
    readings: Readings,
    calls: Calls,
}

impl ReadText {
    /// Classifies a text (without its NUL), which may be read as `readings` say and whose function
    /// calls count as `calls` says (option `verify`). A text that cannot be read is classified as
    /// such and is no error.
    #[must_use]
    pub fn new(text: &[u8], readings: Readings, calls: Calls) -> Self {
        Self { classified: sql::classify(text, readings, calls), readings, calls }
    }
}

/// The most bytes that are kept of what is known of a waiting client's text. It is enough for any
/// text but one made to take many; a thousand clients may wait with one each.
const MOST_KEPT: usize = 4096;

impl From<ReadText> for FrontMessage {
    fn from(read: ReadText) -> Self {
        match read.classified.bytes() <= MOST_KEPT {
            true => Self::Text(read),
            false => Self::Known(read.classified.access),
        }
    }
}

impl FrontMessage {
    /// Whether the message reads or writes rows, by which its server connection (primary or
    /// replica) is chosen; [`Access::UNKNOWN`] for [`Self::Unread`].
    #[must_use]
    pub const fn access(&self) -> Access {
        match self {
            Self::Unread => Access::UNKNOWN,
            Self::Text(read) => read.classified.access,
            Self::Known(access) => *access,
        }
    }

    /// Takes the classification of the message's `text`: the one that is kept, if it was made with
    /// the same `readings` and `calls`, otherwise a new one. Afterwards this is [`Self::Unread`]; a
    /// caller whose message must still wait puts the classification back. `text` must be that of
    /// the message for which the kept one was made: it is not compared.
    #[must_use]
    pub fn take(&mut self, text: &[u8], readings: Readings, calls: Calls) -> ReadText {
        match std::mem::take(self) {
            Self::Text(read) if read.readings == readings && read.calls == calls => read,
            _ => ReadText::new(text, readings, calls),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{AccessKind, Encoding, Reading, StandardStrings};

    /// With a backslash that ends no literal, or does.
    const TEXT: &[u8] = br"select '\'; listen a --'";

    const ON: Readings =
        Readings::One(Reading { strings: StandardStrings::On, encoding: Encoding::AsciiSafe });
    const OFF: Readings =
        Readings::One(Reading { strings: StandardStrings::Off, encoding: Encoding::AsciiSafe });

    #[test]
    fn a_text_is_classified_once_unless_it_is_read_in_another_way() {
        let kept = || FrontMessage::Text(ReadText::new(b"show x", ON, Calls::Text));
        let mut front = kept();
        assert_eq!(front.access().kind, AccessKind::Reads);
        // What was kept, whatever the text is.
        let same = front.take(TEXT, ON, Calls::Text);
        assert_eq!(same.classified.access.kind, AccessKind::Reads);
        assert_eq!(front.access(), Access::UNKNOWN, "it is taken");
        for (readings, calls) in
            [(OFF, Calls::Text), (Readings::Any, Calls::Text), (ON, Calls::Functions)]
        {
            let anew = kept().take(TEXT, readings, calls);
            assert_eq!(anew.classified, sql::classify(TEXT, readings, calls));
        }
        let many = ReadText::new("listen a;".repeat(1000).as_bytes(), ON, Calls::Text);
        assert!(matches!(FrontMessage::from(many), FrontMessage::Known(_)));
        assert_ne!(
            sql::classify(TEXT, ON, Calls::Text),
            sql::classify(TEXT, Readings::Any, Calls::Text)
        );
    }
}
