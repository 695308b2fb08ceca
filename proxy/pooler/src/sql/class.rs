//! A classification as it is kept with a prepared statement.

use super::access::Access;
use super::classified::Classified;

/// What a prepared statement's text is, as far as it matters when the statement is run. It takes
/// the least memory: most texts are plain, and need no allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatementClass {
    /// A plain text ([`Classified::is_plain`]): it leaves nothing in its session when it is run,
    /// and only whether it reads or writes rows is kept of it.
    Plain(Access),
    /// Any other text, with its whole classification: what its statements leave is followed or
    /// asked about when it is run.
    Other(Box<Classified>),
}

impl StatementClass {
    /// The class of a statement whose text nobody has looked at, or that is looked at elsewhere,
    /// such as one too large to be kept: plain, of unknown access. It does not say that the
    /// statement leaves nothing.
    pub const UNREAD: StatementClass = StatementClass::Plain(Access::UNKNOWN);

    /// Returns the classification, which says what executing the statement means to the session;
    /// `None` if it is plain.
    #[must_use]
    pub fn not_plain(&self) -> Option<&Classified> {
        match self {
            StatementClass::Plain(_) => None,
            StatementClass::Other(classified) => Some(classified),
        }
    }

    /// Returns whether the statement reads or writes rows, as far as its words say;
    /// [`Access::UNKNOWN`] for [`Self::UNREAD`].
    #[must_use]
    pub fn access(&self) -> Access {
        match self {
            StatementClass::Plain(access) => *access,
            StatementClass::Other(classified) => classified.access,
        }
    }

    /// Returns the memory that the class takes besides its own size, in bytes; 0 if it is plain.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.not_plain().map_or(0, Classified::bytes)
    }
}

impl From<Classified> for StatementClass {
    fn from(classified: Classified) -> StatementClass {
        match classified.is_plain() {
            true => StatementClass::Plain(classified.access),
            false => StatementClass::Other(Box::new(classified)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AccessKind, Calls, Readings, classify};
    use super::*;

    #[test]
    fn a_plain_statement_takes_no_allocation_and_still_says_whether_it_reads() {
        let class = |text: &str| {
            StatementClass::from(classify(text.as_bytes(), Readings::Any, Calls::Text))
        };
        assert!(size_of::<StatementClass>() <= 16);
        for (text, kind) in [("select 1", AccessKind::BeginsAsRead), ("show a", AccessKind::Reads)]
        {
            let class = class(text);
            assert_eq!((class.bytes(), class.access().kind), (0, kind), "{text}");
        }
        assert!(class("select lo_create(0)").access().escapes);
        assert!(class("begin").not_plain().is_some());
    }
}
