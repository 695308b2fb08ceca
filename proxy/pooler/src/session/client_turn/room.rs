//! How much of what a client sends is held, and of its texts remembered.

use pgimbal_wire::frame::HEADER_LEN;

use super::{ClientTurn, Message, Step};
use crate::plan::Stop;
use crate::server::prepared::CLIENT_STATEMENTS_LIMIT;
use crate::sql::Classified;

/// The longest message that is held because of a name in it, of which 63 bytes count. PostgreSQL
/// has no limit but memory; here every client may have one held.
const LONGEST_HELD: usize = 64 * 1024;

impl ClientTurn<'_> {
    /// Holds more of a message whose names are not complete in what was held so far.
    pub(crate) fn hold_more(&mut self, message: Message<'_>) -> Stop {
        let have = HEADER_LEN + message.body.len();
        if have >= LONGEST_HELD {
            return self.violation("a name in a message is longer than 64 KiB");
        }
        Stop::Need((have * 2).min(message.header.total as usize) as u32)
    }

    /// Whether the client may have so many bytes more remembered: of a text, and of what is known
    /// of it. Those in flight count until all of them are answered.
    ///
    /// # Errors
    /// [`Stop`] until they are, when they are too many.
    pub(super) fn has_room_for(&mut self, bytes: usize) -> Result<bool, Stop> {
        let in_flight = self.bytes_in_flight();
        if in_flight > 0 && in_flight + bytes > self.pool.config.pool.max_client_statement_bytes {
            self.await_replies()?;
        }
        Ok(self.may_keep(bytes))
    }

    fn may_keep(&self, bytes: usize) -> bool {
        let known = self.session.statements.as_ref().map_or(0, |names| names.bytes());
        known + bytes <= self.pool.config.pool.max_client_statement_bytes
    }

    /// Whether a statement may be kept that was answered without a server.
    pub(super) fn may_keep_unsent(&self, bytes: usize) -> bool {
        self.may_keep(bytes) && !self.has_too_many_names()
    }

    fn has_too_many_names(&self) -> bool {
        let names = self.session.statements.as_ref();
        names.is_some_and(|names| names.len() >= CLIENT_STATEMENTS_LIMIT)
    }

    /// So many bytes more are in flight.
    pub(super) fn note_in_flight(&mut self, bytes: usize) {
        self.session.parsed_bytes = self.bytes_in_flight() + bytes;
    }

    fn bytes_in_flight(&self) -> usize {
        match self.server.as_deref() {
            Some(server) if !server.pending.is_empty() => self.session.parsed_bytes,
            _ => 0,
        }
    }

    /// Whether there is room for what is known of the text of a Parse, besides the `total` bytes of
    /// the message.
    ///
    /// # Errors
    /// [`Stop`] until there is, when too much is in flight.
    pub(super) fn has_room_to_know(
        &mut self,
        total: usize,
        classified: &Classified,
    ) -> Result<bool, Stop> {
        match classified.is_plain() {
            true => Ok(true),
            false => self.has_room_for(total + classified.bytes()),
        }
    }

    /// Refuses a name more when the client has too many.
    ///
    /// # Errors
    /// [`Stop`], which ends the session.
    pub(super) fn may_name_another(&mut self) -> Step {
        match self.has_too_many_names() {
            true => Err(self.violation("too many prepared statements")),
            false => Ok(()),
        }
    }
}
