//! Looks now and then whether peers read, so that the dead-peer timer never hits a living one.

use std::rc::Rc;
use std::time::{Duration, Instant};

use pgimbal_pooler::pool::timers::QUIET_TICK;

use super::Worker;
use super::client::Client;
use super::state::State;
use crate::tcp::DeadPeerTimer;

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
    pub(super) wrote: bool,
}

/// Whom to look at in the next round.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    number: u32,
    next: Option<Instant>,
    /// Clients that bytes were written to, each once.
    clients: Vec<pgimbal_pooler::ids::SessionId>,
}

impl Worker {
    /// Begins a round when it is time: looks at the servers, and has the clients' tasks look at
    /// theirs.
    pub(super) fn look_for_readers(self: &Rc<Self>, now: Instant) {
        let mut state = self.state.borrow_mut();
        if state.rounds.next.is_some_and(|next| now < next) {
            return;
        }
        let limit = state.user_timeout();
        let pause = (limit / LOOKS_WITHIN_LIMIT).clamp(QUIET_TICK, LONGEST_PAUSE);
        state.rounds.next = Some(now + pause);
        state.rounds.number = state.rounds.number.wrapping_add(1);
        state.servers.look_for_readers(limit);
        for client in std::mem::take(&mut state.rounds.clients) {
            state.wake(client);
        }
    }
}

impl State {
    fn user_timeout(&self) -> Duration {
        self.directory.config().clients.tcp.user_timeout
    }
}

impl Client {
    /// At the end of each turn: looks whether the client reads, in the round after bytes were
    /// written to it and in each that finds bytes waiting.
    pub(super) fn mind_reading(&mut self, state: &mut State) {
        let Some(transport) = &self.transport else { return };
        let reader = &mut self.reader;
        let mut look_again = false;
        match reader.listed {
            Some(round) if round == state.rounds.number => return,
            Some(_) => look_again = reader.timer.look(transport.socket(), state.user_timeout()),
            None if !reader.wrote => return,
            None => {}
        }
        reader.listed = None;
        if look_again || std::mem::take(&mut reader.wrote) {
            reader.listed = Some(state.rounds.number);
            state.rounds.clients.push(self.session);
        }
    }
}
