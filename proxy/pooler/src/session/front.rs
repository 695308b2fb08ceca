//! What is known of the message at the front of what a client has sent, while it waits: for a server
//! connection, for a place among the pinned sessions, for replies. It is classified once, before a
//! server connection is chosen for it.

use crate::sql::{self, Access, Calls, Classified, Readings};

/// The message at the front of what a client has sent. It leaves with the message: a turn that has
/// taken a byte of it forgets this, and so does a loss that puts other bytes in front.
#[derive(Debug, Default)]
pub enum FrontMessage {
    /// Nothing is known: nobody has looked, it has no text and names no statement that is known, or
    /// its text is longer than what is held.
    #[default]
    Unread,
    /// A Query or Parse whose text was read.
    Text(ReadText),
    /// It reads or writes so: a Bind or Describe of a prepared statement, or a text of which more
    /// is known than is kept for a client that waits.
    Known(Access),
}

/// A text that was classified, and how it was read for that.
#[derive(Debug)]
pub struct ReadText {
    /// What it is.
    pub classified: Classified,
    readings: Readings,
    calls: Calls,
}

impl ReadText {
    /// Classifies a text (without its NUL).
    #[must_use]
    pub fn new(text: &[u8], readings: Readings, calls: Calls) -> Self {
        Self { classified: sql::classify(text, readings, calls), readings, calls }
    }
}

/// How many bytes are kept of what is known of a text: enough for any but one that was made to take
/// many. A thousand clients may wait with one each.
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
    /// Whether the message reads or writes rows, as far as that is known.
    #[must_use]
    pub const fn access(&self) -> Access {
        match self {
            Self::Unread => Access::UNKNOWN,
            Self::Text(read) => read.classified.access,
            Self::Known(access) => *access,
        }
    }

    /// Takes what the message's `text` is: as it was classified before, unless it is to be read in
    /// another way now; classified here otherwise.
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
