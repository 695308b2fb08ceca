//! What a worker knows of its clients beside their sessions, by session slot.

use std::task::Waker;

use pgimbal_pooler::ids::SessionId;

#[derive(Debug, Default)]
pub(super) struct Clients {
    wakers: Vec<Option<Waker>>,
    /// Where each comes from.
    addresses: Vec<Box<str>>,
    /// The generation of its password that each has shown.
    generations: Vec<Option<u32>>,
}

impl Clients {
    /// Remembers how to run the task of a session.
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

    /// Runs the task of a session.
    pub(super) fn wake(&self, session: SessionId) {
        if let Some(Some(waker)) = self.wakers.get(session.index()) {
            waker.wake_by_ref();
        }
    }

    /// Remembers where a client comes from, and which generation of its password it has shown.
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

    /// Forgets a client whose session is over.
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

    /// Where the client in a slot comes from.
    pub(super) fn address(&self, slot: usize) -> Option<&str> {
        self.addresses.get(slot).map(|address| &**address)
    }

    /// The generation of its password that the client in a slot has shown.
    pub(super) fn generation(&self, slot: usize) -> Option<u32> {
        self.generations.get(slot).copied().flatten()
    }
}
