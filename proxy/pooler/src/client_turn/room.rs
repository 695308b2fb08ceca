//! How much of what a client sends is held, and of its texts remembered.

use pgimbal_wire::frame::HEADER_LEN;

use super::{ClientTurn, Message};
use crate::plan::Stop;

/// The longest message that is held because of a name in it, of which 63 bytes count. PostgreSQL has
/// no limit but memory; here every client may have one held.
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

    /// Whether the client may have so many bytes of texts more remembered. Those in flight count until
    /// all of them are answered.
    ///
    /// # Errors
    /// [`Stop`] until they are, when they are too many.
    pub(super) fn has_room_for(&mut self, bytes: usize) -> Result<bool, Stop> {
        let limit = self.pool.config.pool.max_client_statement_bytes;
        let in_flight = match self.server.as_deref() {
            Some(server) if !server.owed.is_empty() => self.session.parsed_bytes,
            _ => 0,
        };
        if in_flight > 0 && in_flight + bytes > limit {
            self.await_owed()?;
        }
        self.session.parsed_bytes = in_flight + bytes;
        let known = self.session.statements.as_ref().map_or(0, |names| names.bytes());
        Ok(known + bytes <= limit)
    }
}
