//! What a client has sent since its server connection was last idle: the evidence for what may
//! have become of it when the connection breaks, and the bytes for running it again elsewhere.

use std::collections::VecDeque;

use pgimbal_wire::tag::frontend;

use crate::plan::HOLD_LIMIT;
use crate::recovery::block::Block;
use crate::recovery::effects::SegmentEffects;

/// What the client has sent on one server connection since that was last idle: the bytes (16 KiB at
/// most) of the last segment (the messages up to a Sync, or a simple query), to run it again, and
/// the effects of its texts, to judge what may have become of it.
#[derive(Debug, Default)]
pub struct InFlight {
    /// The bytes of the last segment, as the client has sent them.
    bytes: Vec<u8>,
    kept: Kept,
    segments: Segments,
    progress: Progress,
    /// What each segment that was ended does to the transaction block, oldest first: as many as
    /// ReadyForQuery are pending.
    blocks: VecDeque<Block>,
    /// What the texts of the open segment do.
    open: SegmentEffects,
    /// What the texts of the last segment do that was ended.
    last: SegmentEffects,
    /// Whether the open segment does more than prepare statements.
    runs: bool,
}

/// Which segments are in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Segments {
    /// One segment, whose end was not sent yet; or none.
    #[default]
    Open,
    /// One segment, with its end.
    Ended,
    /// Several segments, of which the last is open.
    ManyOpen,
    /// Several segments, all with their ends.
    ManyEnded,
}

/// Whether the last segment is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kept {
    /// The last segment is kept, as the client has sent it.
    #[default]
    Whole,
    /// A part of the last segment streamed past, or was too long.
    Not,
}

/// How far the server has come, since its last ReadyForQuery, with the segment at the front of the
/// queue. Recovery uses it to judge whether the segment may be run again unseen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Progress {
    /// The client has got nothing of the answer, so that the segment may be run again unseen.
    #[default]
    Unanswered,
    /// The client has got a part of the answer, so that the segment cannot be run again.
    Answered,
    /// A statement has been completed (CommandComplete): in a simple query that may be after the
    /// commit, so that a rollback is not proven.
    Completed,
}

impl InFlight {
    /// A text of the segment that is open does this.
    #[inline]
    pub(crate) fn does(&mut self, effects: SegmentEffects) {
        self.open = self.open.then(effects);
    }

    /// As [`Self::does`], of a text with which its segment was ended.
    #[inline]
    pub(crate) fn did(&mut self, effects: SegmentEffects) {
        self.last = self.last.then(effects);
        if let Some(block) = self.blocks.back_mut() {
            *block = block.then(effects.block());
        }
    }

    /// The segment was ended: the server will say ReadyForQuery.
    #[inline]
    pub(crate) fn ended(&mut self) {
        self.last = std::mem::take(&mut self.open);
        self.blocks.push_back(self.last.block());
        self.runs = false;
    }

    /// A message of the client's was taken whose text does this; `passes` says that the rest of it
    /// is still to come.
    pub(crate) fn sent(&mut self, tag: u8, message: &[u8], passes: bool, effects: SegmentEffects) {
        match is_end(tag) {
            true => self.did(effects),
            false => self.does(effects),
        }
        let copies = matches!(tag, frontend::COPY_DATA | frontend::COPY_DONE | frontend::COPY_FAIL);
        if matches!(self.segments, Segments::Ended | Segments::ManyEnded) {
            self.segments = Segments::ManyOpen;
            self.kept = Kept::Whole;
            self.bytes.clear();
        }
        let fits = self.bytes.len() + message.len() <= HOLD_LIMIT;
        if passes || copies || !fits || tag == frontend::FUNCTION_CALL {
            self.bytes.clear();
            self.kept = Kept::Not;
        }
        if self.kept == Kept::Whole {
            self.bytes.extend_from_slice(message);
        }
        self.runs |= matches!(tag, frontend::BIND | frontend::EXECUTE) || copies;
        if is_end(tag) {
            self.runs = false;
            self.segments = match self.segments {
                Segments::Open | Segments::Ended => Segments::Ended,
                Segments::ManyOpen | Segments::ManyEnded => Segments::ManyEnded,
            };
        }
    }

    /// A part of the answer goes to the client.
    #[inline]
    pub(crate) fn answered(&mut self) {
        self.progress = self.progress.max(Progress::Answered);
    }

    /// A statement was completed.
    #[inline]
    pub(crate) fn completed(&mut self) {
        self.progress = Progress::Completed;
    }

    /// ReadyForQuery has come, for a segment of the client's or for something of the proxy's;
    /// `idle` says that no other reply is pending.
    #[inline]
    pub(crate) fn settled(&mut self, whose: Whose, idle: bool) {
        self.progress = Progress::Unanswered;
        if whose == Whose::Client {
            self.blocks.pop_front();
        }
        if idle {
            self.blocks.clear();
            self.open = SegmentEffects::NONE;
            self.last = SegmentEffects::NONE;
            self.runs = false;
            self.bytes.clear();
            self.segments = Segments::Open;
            self.kept = Kept::Whole;
        }
    }

    /// How far the server has come with the segment at the front of the queue;
    /// [`Progress::Unanswered`] after each ReadyForQuery.
    #[must_use]
    pub const fn progress(&self) -> Progress {
        self.progress
    }

    /// The bytes of all that is in flight; `None` unless that is one segment that is kept in full,
    /// and so `None` if nothing is in flight. Not kept is a segment that is longer than 16 KiB or
    /// streams, that has a COPY's data, or a function call.
    #[must_use]
    pub fn whole(&self) -> Option<&[u8]> {
        let alone = matches!(self.segments, Segments::Open | Segments::Ended);
        (alone && self.kept == Kept::Whole && !self.bytes.is_empty()).then_some(&self.bytes)
    }

    /// What the texts of the last segment do: of the open one, or else of the one that was ended
    /// last; [`SegmentEffects::NONE`] if nothing is in flight.
    #[must_use]
    pub const fn effects(&self) -> SegmentEffects {
        match self.segments {
            Segments::Open | Segments::ManyOpen => self.open,
            Segments::Ended | Segments::ManyEnded => self.last,
        }
    }

    /// The bytes of a segment without its Sync that stands behind others; `None` if there is no
    /// such one (also if it stands alone, see [`Self::whole`]) or it is not kept in full.
    #[must_use]
    pub fn open_behind_others(&self) -> Option<&[u8]> {
        let behind = self.segments == Segments::ManyOpen;
        (behind && self.kept == Kept::Whole && !self.bytes.is_empty()).then_some(&self.bytes)
    }

    /// Whether the end of a segment (Sync, simple query or function call) was sent since the
    /// connection was last idle.
    #[must_use]
    pub const fn has_end(&self) -> bool {
        !matches!(self.segments, Segments::Open)
    }

    /// Whether the client has sent nothing since the server connection was last idle, so that
    /// nothing can have taken effect when the connection breaks.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.segments == Segments::Open && self.kept == Kept::Whole && self.bytes.is_empty()
    }

    /// Whether a transaction block is open behind the segments that were ended and not answered,
    /// where one `was_open` before them; assumes that every statement succeeds. `was_open` if there
    /// are no such segments. The open segment does not count.
    #[must_use]
    pub fn leaves_open(&self, was_open: bool) -> bool {
        self.blocks.iter().fold(was_open, |open, block| block.leaves_open(open))
    }

    /// What each of the last `number` segments that were ended does to the transaction block. A
    /// Sync that the server did not answer, inside a COPY, is a part of the segment it stands in.
    pub(crate) fn take_blocks(&mut self, number: usize) -> VecDeque<Block> {
        let mut blocks = std::mem::take(&mut self.blocks);
        while blocks.len() > number.max(1) {
            if let Some(first) = blocks.pop_front()
                && let Some(second) = blocks.front_mut()
            {
                *second = first.then(*second);
            }
        }
        blocks
    }

    /// What the open segment (whose Sync was not sent) does to the transaction block; `Block::Same`
    /// if none is open.
    #[must_use]
    pub const fn open_block(&self) -> Block {
        self.open.block()
    }

    /// Whether the open segment only parses, describes and closes statements: it has no Bind,
    /// Execute or COPY data. True if it is empty.
    #[must_use]
    pub const fn only_prepares(&self) -> bool {
        !self.runs
    }

    /// Takes the bytes for running them again.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

/// Whose a ReadyForQuery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    Client,
    Proxy,
}

/// Whether the server answers a message with ReadyForQuery.
pub(crate) const fn is_end(tag: u8) -> bool {
    matches!(tag, frontend::QUERY | frontend::SYNC | frontend::FUNCTION_CALL)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: SegmentEffects = SegmentEffects::NONE;

    #[test]
    fn one_segment_is_kept_and_a_second_behind_it_is_not() {
        let mut flight = InFlight::default();
        flight.sent(frontend::PARSE, b"P...", false, NONE);
        flight.sent(frontend::SYNC, b"S", false, NONE);
        assert_eq!(flight.whole(), Some(&b"P...S"[..]));
        assert!(flight.has_end());
        flight.sent(frontend::PARSE, b"P", false, NONE);
        assert_eq!(flight.whole(), None);
        assert_eq!(flight.open_behind_others(), Some(&b"P"[..]));
        flight.sent(frontend::SYNC, b"S", false, NONE);
        assert_eq!((flight.whole(), flight.open_behind_others()), (None, None));
        flight.settled(Whose::Client, false);
        assert_eq!(flight.whole(), None, "the rest of the pipeline is still pending");
        flight.settled(Whose::Client, true);
        flight.sent(frontend::QUERY, b"Q", false, NONE);
        assert_eq!(flight.whole(), Some(&b"Q"[..]));
    }

    #[test]
    fn what_streams_is_long_or_is_copied_is_not_kept() {
        let long = vec![b'x'; HOLD_LIMIT + 1];
        for (tag, message, passes) in [
            (frontend::QUERY, &b"Q"[..], true),
            (frontend::QUERY, &long[..], false),
            (frontend::COPY_DATA, b"d", false),
            (frontend::FUNCTION_CALL, b"F", false),
        ] {
            let mut flight = InFlight::default();
            flight.sent(tag, message, passes, NONE);
            assert_eq!(flight.whole(), None);
        }
    }

    #[test]
    fn progress_only_grows_until_ready_for_query() {
        let mut flight = InFlight::default();
        flight.answered();
        flight.completed();
        flight.answered();
        assert_eq!(flight.progress(), Progress::Completed);
        flight.settled(Whose::Client, true);
        assert_eq!(flight.progress(), Progress::Unanswered);
    }
}
