//! Texts that take too long to parse in a worker's turn: another thread does that, one text of a
//! worker after the other.

use std::collections::VecDeque;
use std::sync::Arc;

use pgimbal_reads::{Catalog, Decision, parse};

use crate::ids::{PoolId, SessionId};
use crate::sql::Reading;

/// How many bytes of text wait to be parsed at most; the grammar needs some 100 ms for them. What
/// does not fit goes to the primary, and is parsed another time.
const LIMIT: usize = 128 << 10;

/// A text to be parsed, with all that decides what it does.
#[derive(Clone, Debug)]
pub struct ParseJob {
    pool: PoolId,
    text: Box<[u8]>,
    reading: Reading,
    catalog: Arc<Catalog>,
}

impl ParseJob {
    /// Parses the text, for 1 us or less for each of its bytes; needs 1 MiB of stack.
    #[must_use]
    pub fn run(self) -> ParsedText {
        let decision = parse(&self.text, self.reading, &self.catalog);
        ParsedText { job: self, decision }
    }
}

/// What a text was found to do.
#[derive(Clone, Debug)]
pub struct ParsedText {
    job: ParseJob,
    decision: Decision,
}

impl ParsedText {
    /// The pool whose text it is, the text, the catalog by which it was decided, and what it does.
    pub(crate) fn parts(&self) -> (PoolId, (&[u8], Reading), &Arc<Catalog>, &Decision) {
        let ParseJob { pool, text, reading, catalog } = &self.job;
        (*pool, (text, *reading), catalog, &self.decision)
    }
}

/// The texts of a worker that are to be parsed.
#[derive(Debug, Default)]
pub(crate) struct Parsing {
    /// The first one is under way, if any is.
    jobs: VecDeque<ParseJob>,
    bytes: usize,
    state: Parser,
    /// Whose segments wait for one of them.
    waiting: Vec<SessionId>,
}

/// Whether the driver has a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Parser {
    #[default]
    Idle,
    /// It has the first one, or is about to take it.
    Busy,
}

impl Parsing {
    /// Asks for a text to be parsed, if it is not asked for already. Returns whether it will be.
    pub(crate) fn ask(
        &mut self,
        pool: PoolId,
        (text, reading): (&[u8], Reading),
        catalog: &Arc<Catalog>,
    ) -> bool {
        let is_known = |job: &ParseJob| {
            (job.pool, job.reading) == (pool, reading)
                && Arc::ptr_eq(&job.catalog, catalog)
                && *job.text == *text
        };
        if self.jobs.iter().any(is_known) {
            return true;
        }
        if self.bytes + text.len() > LIMIT {
            return false;
        }
        self.bytes += text.len();
        let (text, catalog) = (text.into(), Arc::clone(catalog));
        self.jobs.push_back(ParseJob { pool, text, reading, catalog });
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

    /// Whether there is a text that nobody parses.
    #[inline]
    pub(crate) fn has_new(&self) -> bool {
        self.state == Parser::Idle && !self.jobs.is_empty()
    }

    /// The next text to be parsed; `None` while another is under way.
    pub(crate) fn take(&mut self) -> Option<ParseJob> {
        if self.state == Parser::Busy {
            return None;
        }
        let job = self.jobs.front()?.clone();
        self.state = Parser::Busy;
        Some(job)
    }

    /// The text that was taken is parsed, or is not going to be.
    pub(crate) fn end(&mut self) {
        self.state = Parser::Idle;
        if let Some(job) = self.jobs.pop_front() {
            self.bytes -= job.text.len();
        }
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
        assert_eq!(job.run().decision, Decision::Read);
        parsing.end();
        assert_eq!(&*parsing.take().expect("the other").text, b"select 2");
        parsing.end();
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
