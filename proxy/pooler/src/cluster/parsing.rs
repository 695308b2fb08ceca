//! What takes too long for a worker's turn: parsing a long text, and taking in the rows of a
//! catalog. Another thread does that, one thing of a worker after the other.

use std::collections::VecDeque;
use std::sync::Arc;

use pgimbal_reads::{Catalog, Decision, parse};

use super::reads::SharedCatalog;
use crate::ids::{PoolId, SessionId};
use crate::sql::Reading;

/// How many bytes of text wait to be parsed at most; the grammar needs some 100 ms for them. What
/// does not fit goes to the primary, and is parsed another time.
const LIMIT: usize = 128 << 10;

/// A database of which the catalog query gives more rows (40 MB) is too large: nothing is known of
/// it.
pub(crate) const MAX_ROWS: usize = 200_000;

/// One thing that another thread does for a worker.
#[derive(Debug)]
pub struct ParseJob(Job);

#[derive(Debug)]
enum Job {
    Text(UnparsedText),
    /// Rows of the catalog query, for the catalog that they are of; `None` if they cannot be used.
    Catalog(Arc<SharedCatalog>, Option<Vec<[String; 3]>>),
}

/// A text with all that decides what it does.
#[derive(Clone, Debug)]
pub(crate) struct UnparsedText {
    pool: PoolId,
    text: Box<[u8]>,
    reading: Reading,
    catalog: Arc<Catalog>,
}

impl ParseJob {
    /// Does it. A text takes 1 us or less for each of its bytes, and needs 1 MiB of stack; a
    /// catalog takes milliseconds.
    #[must_use]
    pub fn run(self) -> ParsedText {
        match self.0 {
            Job::Text(text) => ParsedText(Some(parse(&text.text, text.reading, &text.catalog))),
            Job::Catalog(catalog, rows) => {
                catalog.end_reading(rows.as_deref().filter(|rows| rows.len() <= MAX_ROWS));
                ParsedText(None)
            }
        }
    }
}

/// What a text was found to do; `None` of a catalog.
#[derive(Debug)]
pub struct ParsedText(Option<Decision>);

impl ParsedText {
    /// What the text does, if it was one.
    pub(crate) fn decision(self) -> Option<Decision> {
        self.0
    }
}

impl UnparsedText {
    /// The pool whose text it is.
    pub(crate) const fn pool(&self) -> PoolId {
        self.pool
    }

    /// The text, and how it is read.
    pub(crate) fn text(&self) -> (&[u8], Reading) {
        (&self.text, self.reading)
    }

    /// The catalog by which it is decided.
    pub(crate) const fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }
}

/// What another thread is to do for a worker.
#[derive(Debug, Default)]
pub(crate) struct Parsing {
    /// While a text is under way, it is the first one.
    texts: VecDeque<UnparsedText>,
    /// The bytes of the texts.
    bytes: usize,
    /// At most one of each database, since nobody else reads a catalog meanwhile.
    catalogs: VecDeque<ParseJob>,
    under_way: UnderWay,
    /// Whose segments wait for one of the texts.
    waiting: Vec<SessionId>,
}

/// What the driver has taken, and not yet answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum UnderWay {
    #[default]
    Nothing,
    Text,
    Catalog,
}

impl Parsing {
    /// Asks for the rows of a catalog to be taken in.
    pub(crate) fn ask_for_catalog(
        &mut self,
        catalog: Arc<SharedCatalog>,
        rows: Option<Vec<[String; 3]>>,
    ) {
        self.catalogs.push_back(ParseJob(Job::Catalog(catalog, rows)));
    }

    /// Asks for a text to be parsed, if it is not asked for already. Returns whether it will be.
    pub(crate) fn ask(
        &mut self,
        pool: PoolId,
        (text, reading): (&[u8], Reading),
        catalog: &Arc<Catalog>,
    ) -> bool {
        let is_known = |job: &UnparsedText| {
            (job.pool, job.reading) == (pool, reading)
                && Arc::ptr_eq(&job.catalog, catalog)
                && *job.text == *text
        };
        if self.texts.iter().any(is_known) {
            return true;
        }
        if self.bytes + text.len() > LIMIT {
            return false;
        }
        self.bytes += text.len();
        let (text, catalog) = (text.into(), Arc::clone(catalog));
        self.texts.push_back(UnparsedText { pool, text, reading, catalog });
        true
    }

    /// A session waits until one of the texts is parsed.
    pub(crate) fn add_waiting(&mut self, session: SessionId) {
        if !self.waiting.contains(&session) {
            self.waiting.push(session);
        }
    }

    /// Takes those that wait: they look again.
    pub(crate) fn take_waiting(&mut self) -> Vec<SessionId> {
        std::mem::take(&mut self.waiting)
    }

    /// Whether there is something that can be begun.
    #[inline]
    pub(crate) fn has_new(&self) -> bool {
        self.under_way == UnderWay::Nothing && !(self.texts.is_empty() && self.catalogs.is_empty())
    }

    /// The next thing to be done; `None` while another is under way.
    pub(crate) fn take(&mut self) -> Option<ParseJob> {
        if self.under_way != UnderWay::Nothing {
            return None;
        }
        if let Some(catalog) = self.catalogs.pop_front() {
            self.under_way = UnderWay::Catalog;
            return Some(catalog);
        }
        let text = self.texts.front()?.clone();
        self.under_way = UnderWay::Text;
        Some(ParseJob(Job::Text(text)))
    }

    /// What was taken is done, or is not going to be. Returns it if it was a text.
    pub(crate) fn end(&mut self) -> Option<UnparsedText> {
        if std::mem::take(&mut self.under_way) != UnderWay::Text {
            return None;
        }
        let text = self.texts.pop_front()?;
        self.bytes -= text.text.len();
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_is_parsed_at_a_time_and_what_waits_is_bounded() {
        let (catalog, reading) = (Arc::new(Catalog::unread([])), Reading::default());
        let mut parsing = Parsing::default();
        let pool = PoolId(0);
        let ask = |parsing: &mut Parsing, text: &[u8]| parsing.ask(pool, (text, reading), &catalog);
        assert!(parsing.take().is_none());
        assert!(ask(&mut parsing, b"select 1"));
        assert!(ask(&mut parsing, b"select 1"), "it is there already");
        assert!(ask(&mut parsing, b"select 2"));
        let job = parsing.take().expect("there are two");
        assert!(parsing.take().is_none(), "one at a time");
        assert_eq!(job.run().decision(), Some(Decision::Read));
        parsing.ask_for_catalog(Arc::default(), None);
        let ended = |parsing: &mut Parsing| parsing.end().map(|text| text.text);
        assert_eq!(ended(&mut parsing).as_deref(), Some(&b"select 1"[..]));
        assert!(parsing.take().is_some() && ended(&mut parsing).is_none(), "a catalog is first");
        assert!(parsing.take().is_some());
        assert_eq!(ended(&mut parsing).as_deref(), Some(&b"select 2"[..]));
        assert!(parsing.take().is_none());
        let half = vec![b' '; LIMIT / 2];
        let mut other = half.clone();
        other[0] = b'\n';
        assert!(ask(&mut parsing, &half) && ask(&mut parsing, &other));
        assert!(!ask(&mut parsing, b"select 1"), "no room");
        parsing.take();
        parsing.end();
        assert!(ask(&mut parsing, b"select 1"));
    }
}
