//! Messages for a client that were made in the turn of another session, or of none.
//!
//! They wait until the client's own task takes them: whole messages only, and only where no other
//! message to the client is half-way, so that two are never interleaved.

use pgimbal_wire::frame;

use crate::plan::HOLD_LIMIT;

/// The most bytes (256 KiB) that wait for one client from other sessions' turns: some thirty of the
/// longest notifications. A client for which more waits does not read: the bytes are dropped, and
/// the client is dismissed (08006).
pub const OUTPUT_LIMIT: usize = 16 * HOLD_LIMIT;

/// The messages that wait for one client. An empty queue takes 8 bytes.
#[derive(Debug, Default)]
pub(crate) struct OutputQueue(Option<Box<Queued>>);

#[derive(Debug, Default)]
struct Queued {
    bytes: Vec<u8>,
    /// How many of the bytes are whole messages; the rest is the beginning of one.
    whole: usize,
}

/// The error of a queue that would exceed [`OUTPUT_LIMIT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl OutputQueue {
    /// Adds what follows on what was added last. When it is full, everything is dropped.
    pub(super) fn add<'a>(&mut self, parts: impl Iterator<Item = &'a [u8]>) -> Result<(), Full> {
        let queued = self.0.get_or_insert_default();
        for part in parts {
            if queued.bytes.len() + part.len() > OUTPUT_LIMIT {
                self.0 = None;
                return Err(Full);
            }
            queued.bytes.extend_from_slice(part);
        }
        while let Ok(Some(header)) = frame::peek(&queued.bytes[queued.whole..])
            && queued.bytes.len() - queued.whole >= header.total as usize
        {
            queued.whole += header.total as usize;
        }
        Ok(())
    }

    /// Whether nothing waits.
    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Takes the messages that are whole; `None` if there are none.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        let queued = self.0.as_mut().filter(|queued| queued.whole > 0)?;
        let rest = queued.bytes.split_off(std::mem::take(&mut queued.whole));
        let whole = std::mem::replace(&mut queued.bytes, rest);
        if queued.bytes.is_empty() {
            self.0 = None;
        }
        Some(whole)
    }

    /// Drops the beginning of a message whose end will not come.
    pub(crate) fn drop_half(&mut self) {
        if let Some(queued) = &mut self.0 {
            queued.bytes.truncate(queued.whole);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(body: usize) -> Vec<u8> {
        let length = u32::try_from(body + 4).expect("a length");
        [&b"N"[..], &length.to_be_bytes(), &vec![b'x'; body]].concat()
    }

    #[test]
    fn only_whole_messages_leave_the_queue() {
        let (one, two) = (notice(10), notice(20));
        let mut queue = OutputQueue::default();
        let add = |queue: &mut OutputQueue, bytes: &[u8]| queue.add(std::iter::once(bytes));
        assert_eq!(add(&mut queue, &one[..3]), Ok(()));
        assert_eq!(queue.take(), None);
        let parts = [&one[3..], &two[..7]];
        assert_eq!(queue.add(parts.into_iter()), Ok(()));
        assert_eq!(queue.take().as_deref(), Some(&one[..]));
        assert_eq!(queue.take(), None, "half a message waits for its other half");
        assert_eq!(add(&mut queue, &two[7..]), Ok(()));
        assert_eq!(queue.take().as_deref(), Some(&two[..]));
        assert!(queue.0.is_none(), "an empty queue takes no memory");
    }

    #[test]
    fn a_full_queue_drops_everything() {
        let long = notice(OUTPUT_LIMIT / 2);
        let mut queue = OutputQueue::default();
        assert_eq!(queue.add(std::iter::once(&long[..])), Ok(()));
        assert_eq!(queue.add(std::iter::once(&long[..])), Err(Full));
        assert!(queue.0.is_none());
    }
}
