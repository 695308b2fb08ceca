//! What the tasks of one worker share. They run on one thread, so it is borrowed, never locked.

use std::sync::Arc;
use std::task::{Context, Waker};

use pgimbal_pooler::action::Action;
use pgimbal_pooler::ids::{PoolId, ServerId, SessionId};
use pgimbal_pooler::plan::Plan;
use pgimbal_pooler::pooler::Pooler;
use pgimbal_pooler::server::server_turn::IdleMessages;

use super::dead_peers::Rounds;
use super::inbox::ReadBuffer;
use super::message::Delivery;
use super::outbox::{FreeList, Source};
use super::servers::Servers;
use crate::dial::Target;
use crate::directory::PoolDirectory;

/// One worker's state.
#[derive(Debug)]
pub(super) struct State {
    pub(super) pooler: Pooler,
    pub(super) plan: Plan,
    /// Given to the turn that runs; a turn that panics loses it.
    pub(super) buffer: Option<ReadBuffer>,
    /// For looking at idle server connections while the other buffer is in use.
    probe: Option<ReadBuffer>,
    pub(super) free: FreeList,
    pub(super) servers: Servers,
    /// Where each pool's server connections lead, by pool.
    pub(super) targets: Vec<Arc<Target>>,
    pub(super) directory: Arc<PoolDirectory>,
    pub(super) panics: u64,
    /// Cancel requests on their way, and who waits for the end of each.
    pub(super) cancels: Vec<(ServerId, Delivery)>,
    /// Whose sockets are to be looked at.
    pub(super) rounds: Rounds,
    wakers: Vec<Option<Waker>>,
    /// Where each client comes from, by session slot.
    pub(super) addresses: Vec<Box<str>>,
    /// The generation of its password that each client has shown, by session slot.
    pub(super) generations: Vec<Option<u32>>,
}

impl State {
    pub(super) fn new(pooler: Pooler, directory: Arc<PoolDirectory>) -> Self {
        Self {
            pooler,
            plan: Plan::default(),
            buffer: None,
            probe: None,
            free: FreeList::default(),
            servers: Servers::default(),
            targets: Vec::new(),
            directory,
            panics: 0,
            cancels: Vec::new(),
            rounds: Rounds::default(),
            wakers: Vec::new(),
            addresses: Vec::new(),
            generations: Vec::new(),
        }
    }

    /// The read buffer; a new one if a panic has lost it.
    #[inline]
    pub(super) fn lend_buffer(&mut self) -> ReadBuffer {
        self.buffer.take().unwrap_or_else(ReadBuffer::new)
    }

    /// Remembers how to run the task of a session.
    #[inline]
    pub(super) fn watch(&mut self, session: SessionId, waker: &Waker) {
        let index = session.index();
        if self.wakers.len() <= index {
            self.wakers.resize(index + 1, None);
        }
        match &mut self.wakers[index] {
            Some(known) if known.will_wake(waker) => {}
            place => *place = Some(waker.clone()),
        }
    }

    /// Forgets the task of a session that is over.
    pub(super) fn unwatch(&mut self, session: SessionId) {
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

    /// Runs the task of a session.
    pub(super) fn wake(&self, session: SessionId) {
        if let Some(Some(waker)) = self.wakers.get(session.index()) {
            waker.wake_by_ref();
        }
    }

    /// Remembers where a client comes from.
    pub(super) fn set_address(&mut self, session: SessionId, address: Box<str>) {
        if self.addresses.len() <= session.index() {
            self.addresses.resize(session.index() + 1, Box::default());
        }
        self.addresses[session.index()] = address;
    }

    /// Remembers which generation of its password a client has shown.
    pub(super) fn set_generation(&mut self, session: SessionId, generation: Option<u32>) {
        // Most configurations have none, and need no table.
        if self.generations.len() <= session.index() && generation.is_some() {
            self.generations.resize(session.index() + 1, None);
        }
        if let Some(place) = self.generations.get_mut(session.index()) {
            *place = generation;
        }
    }

    /// Whether an idle server connection may be used: its end has not come, and nothing that it
    /// said speaks against it. Makes no system call unless something has come.
    pub(super) fn is_alive(&mut self, server: ServerId) -> bool {
        loop {
            let mut probe = self.probe.take().unwrap_or_else(ReadBuffer::new);
            let read = self.servers.try_read_cached(server, &mut probe);
            let alive = match &read {
                None => None,
                Some(Ok(Some(input))) => {
                    let bytes = input.bytes(&probe);
                    match self.pooler.handle_idle_bytes(server, bytes) {
                        IdleMessages::Harmless(taken) => {
                            self.servers.keep(server, &bytes[taken as usize..], &mut self.free);
                            // Its end may stand behind it.
                            Some(true)
                        }
                        IdleMessages::Dead => Some(false),
                    }
                }
                Some(Ok(None) | Err(_)) => Some(false),
            };
            self.probe = Some(probe);
            match alive {
                None => return true,
                Some(false) => return false,
                Some(true) => {}
            }
        }
    }

    /// Looks at every idle server connection, so that the count of those that live is true.
    pub(super) fn reap_idle(&mut self, now: std::time::Instant) {
        let idle: Vec<ServerId> = self.pooler.idle_servers().collect();
        for server in idle {
            if !self.is_alive(server) {
                self.plan.clear();
                // Nobody is linked to it, so nobody is told.
                let _ = self.pooler.handle_server_gone(server, now, &mut self.plan);
                self.servers.drop_io(server);
            }
        }
    }

    /// Writes what the plan has for a server connection, out of the buffer that was `processed`.
    /// One that takes nothing any more is noticed by the next read.
    #[inline]
    pub(super) fn send_to_server(
        &mut self,
        server: ServerId,
        cx: &mut Context<'_>,
        processed: &[u8],
    ) {
        let source = Source { processed, made: self.plan.made() };
        let _ = self.servers.send(server, &mut self.free, cx, source, self.plan.to_server());
    }

    /// Where the server connections of a pool lead.
    pub(super) fn target(&self, pool: PoolId) -> Option<Arc<Target>> {
        self.targets.get(pool.index()).cloned()
    }

    /// The actions that the core has asked for.
    pub(super) fn take_actions(&mut self, actions: &mut Vec<Action>) {
        self.pooler.poll_actions(actions);
    }
}
