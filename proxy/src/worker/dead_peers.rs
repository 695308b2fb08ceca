//! Checks at intervals whether peers read what they are sent, so that the kernel's dead-peer timer
//! (TCP_USER_TIMEOUT) never ends a connection whose peer lives.

use std::time::{Duration, Instant};

use pgimbal_pooler::ids::SessionId;
use pgimbal_pooler::pool::timers::QUIET_TICK;

use crate::directory::PoolDirectory;
use crate::tcp::DeadPeerTimer;
use crate::transport::Transport;

/// Number of rounds within `tcp_user_timeout`: a peer that has just stopped reading is noticed long
/// before.
const LOOKS_WITHIN_LIMIT: u32 = 4;

/// The longest pause between two rounds.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What a worker knows of one client's reading.
#[derive(Debug, Default)]
pub(super) struct Reader {
    timer: DeadPeerTimer,
    /// The number of the round in which the client was put on the list; `None` when it is not on
    /// it.
    listed: Option<u32>,
    /// Whether bytes were written to the client since.
    written: bool,
}

/// The clients to be checked in the next round, and when that is due.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    number: u32,
    next: Option<Instant>,
    /// Clients to which bytes were written, each once.
    clients: Vec<SessionId>,
}

/// The option `tcp_user_timeout` of clients, which holds for server connections too.
pub(super) fn user_timeout(directory: &PoolDirectory) -> Duration {
    directory.config().clients.tcp.user_timeout
}

impl Rounds {
    /// Whether the next round is due at `now`; true before the first.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }

    /// Begins a round at `now`, and returns the clients whose tasks must be woken to check their
    /// sockets. The next one is due after a quarter of `user_timeout`, at most 30 s.
    pub(super) fn begin(&mut self, now: Instant, user_timeout: Duration) -> Vec<SessionId> {
        let pause = (user_timeout / LOOKS_WITHIN_LIMIT).clamp(QUIET_TICK, LONGEST_PAUSE);
        self.next = Some(now + pause);
        self.number = self.number.wrapping_add(1);
        std::mem::take(&mut self.clients)
    }
}

impl Reader {
    /// Records that bytes were written to the client, so that the next turn puts it on the list.
    #[inline]
    pub(super) fn set_written(&mut self) {
        self.written = true;
    }

    /// Checks whether the client reads, at the end of each turn: once per round, first in the round
    /// after bytes were written to it, then in each that finds bytes waiting. Sets or takes off the
    /// socket's dead-peer timer.
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
