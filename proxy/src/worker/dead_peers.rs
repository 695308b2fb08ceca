//! Looks now and then whether peers read, so that the dead-peer timer never hits a living one.

use std::time::{Duration, Instant};

use pgimbal_pooler::ids::SessionId;
use pgimbal_pooler::pool::timers::QUIET_TICK;

use crate::directory::PoolDirectory;
use crate::tcp::DeadPeerTimer;
use crate::transport::Transport;

/// Looks within `tcp_user_timeout`: a peer that has just stopped reading is noticed long before.
const LOOKS_WITHIN_LIMIT: u32 = 4;

/// How seldom it is looked at the most.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What is known of one client's reading.
#[derive(Debug, Default)]
pub(super) struct Reader {
    timer: DeadPeerTimer,
    /// The round in which it was put on the list of those to look at.
    listed: Option<u32>,
    /// Bytes were written to it since.
    written: bool,
}

/// Whom to look at in the next round.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    number: u32,
    next: Option<Instant>,
    /// Clients that bytes were written to, each once.
    clients: Vec<SessionId>,
}

/// `tcp_user_timeout` of clients, and of the server connections beside them.
pub(super) fn user_timeout(directory: &PoolDirectory) -> Duration {
    directory.config().clients.tcp.user_timeout
}

impl Rounds {
    /// Whether it is time for the next one.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }

    /// Begins one: whose tasks are to look.
    pub(super) fn begin(&mut self, now: Instant, user_timeout: Duration) -> Vec<SessionId> {
        let pause = (user_timeout / LOOKS_WITHIN_LIMIT).clamp(QUIET_TICK, LONGEST_PAUSE);
        self.next = Some(now + pause);
        self.number = self.number.wrapping_add(1);
        std::mem::take(&mut self.clients)
    }
}

impl Reader {
    /// Bytes were written to it.
    #[inline]
    pub(super) fn set_written(&mut self) {
        self.written = true;
    }

    /// Looks whether the client reads, in the round after bytes were written to it and in each that
    /// finds bytes waiting.
    pub(super) fn look(
        &mut self,
        session: SessionId,
        transport: &Transport,
        rounds: &mut Rounds,
        directory: &PoolDirectory,
    ) {
        let mut look_again = false;
        match self.listed {
            Some(round) if round == rounds.number => return,
            Some(_) => look_again = self.timer.look(transport.socket(), user_timeout(directory)),
            None if !self.written => return,
            None => {}
        }
        self.listed = None;
        if look_again || std::mem::take(&mut self.written) {
            self.listed = Some(rounds.number);
            rounds.clients.push(session);
        }
    }
}
