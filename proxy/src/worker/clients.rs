//! What a worker keeps of each client besides its session, in tables that the session's slot
//! indexes.

use std::task::Waker;

use pgimbal_pooler::ids::SessionId;

/// Wakers, addresses and password generations of a worker's clients, by slot of the session.
#[derive(Debug, Default)]
pub(super) struct Clients {
    wakers: Vec<Option<Waker>>,
    /// The address of each client as text.
    addresses: Vec<Box<str>>,
    /// The generation of its password that each client has logged in with.
    generations: Vec<Option<u32>>,
}

impl Clients {
    /// Remembers the waker of the session's task, at the beginning of each turn.
    #[inline]
    pub(super) fn set_waker(&mut self, session: SessionId, waker: &Waker) {
        let index = session.index();
        if self.wakers.len() <= index {
            self.wakers.resize(index + 1, None);
        }
        match &mut self.wakers[index] {
            Some(known) if known.will_wake(waker) => {}
            place => *place = Some(waker.clone()),
        }
    }

    /// Wakes the task of `session`, which takes a turn soon. No effect when it has no waker.
    pub(super) fn wake(&self, session: SessionId) {
        if let Some(Some(waker)) = self.wakers.get(session.index()) {
            waker.wake_by_ref();
        }
    }

    /// Adds a client that has logged in: its address as text, and the generation of the password it
    /// has shown, `None` when that does not rotate.
    pub(super) fn add(&mut self, session: SessionId, address: Box<str>, generation: Option<u32>) {
        let index = session.index();
        if self.addresses.len() <= index {
            self.addresses.resize(index + 1, Box::default());
        }
        self.addresses[index] = address;
        // Most configurations have none, and need no table.
        if self.generations.len() <= index && generation.is_some() {
            self.generations.resize(index + 1, None);
        }
        if let Some(place) = self.generations.get_mut(index) {
            *place = generation;
        }
    }

    /// Removes a client whose session is over, so that its slot can be used again.
    pub(super) fn remove(&mut self, session: SessionId) {
        if let Some(place) = self.wakers.get_mut(session.index()) {
            *place = None;
        }
        if let Some(address) = self.addresses.get_mut(session.index()) {
            *address = Box::default();
        }
        if let Some(generation) = self.generations.get_mut(session.index()) {
            *generation = None;
        }
    }

    /// The address of the client in slot `slot` as text; empty for a free slot, `None` beyond the
    /// table.
    pub(super) fn address(&self, slot: usize) -> Option<&str> {
        self.addresses.get(slot).map(|address| &**address)
    }

    /// The generation of the password with which the client in slot `slot` logged in; `None` when
    /// the password does not rotate or the slot is free.
    pub(super) fn generation(&self, slot: usize) -> Option<u32> {
        self.generations.get(slot).copied().flatten()
    }
}
