//! A server that counts its connections.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// A server and who is connected to it.
#[derive(Debug, Default)]
pub(crate) struct Server {
    pub(crate) total: u32,
    /// Nobody can connect.
    pub(crate) is_down: bool,
    next_pid: u32,
    connections: BTreeMap<u32, Connection>,
}

/// One connection, from the moment at which somebody began to open it.
#[derive(Clone, Copy, Debug)]
struct Connection {
    owner: u64,
    /// When it is seen in the list of processes.
    visible_at: Instant,
    /// When it ends; `None` while its owner keeps it.
    ends_at: Option<Instant>,
}

impl Server {
    pub(crate) fn new(total: u32) -> Self {
        Self { total, ..Self::default() }
    }

    /// Somebody begins to connect.
    pub(crate) fn connect(&mut self, owner: u64, visible_at: Instant) -> u32 {
        self.next_pid += 1;
        let connection = Connection { owner, visible_at, ends_at: None };
        self.connections.insert(self.next_pid, connection);
        self.next_pid
    }

    pub(crate) fn is_visible(&self, pid: u32, now: Instant) -> bool {
        self.connections.get(&pid).is_some_and(|it| it.visible_at <= now)
    }

    pub(crate) fn has(&self, pid: u32) -> bool {
        self.connections.contains_key(&pid)
    }

    pub(crate) fn close(&mut self, pid: u32) {
        self.connections.remove(&pid);
    }

    /// The owner has died: its connections end by and by.
    pub(crate) fn orphan(&mut self, owner: u64, mut ends_at: impl FnMut() -> Instant) {
        for connection in self.connections.values_mut().filter(|it| it.owner == owner) {
            connection.ends_at = Some(ends_at());
        }
    }

    pub(crate) fn pass_time(&mut self, now: Instant) {
        self.connections.retain(|_, it| it.ends_at.is_none_or(|at| at > now));
    }

    pub(crate) fn restart(&mut self) {
        self.connections.clear();
    }

    /// It goes down, and its connections with it, or comes up again.
    pub(crate) fn turn_down(&mut self, is_down: bool) {
        self.is_down = is_down;
        self.connections.clear();
    }

    /// What pg_stat_activity shows.
    pub(crate) fn visible(&self, now: Instant) -> BTreeSet<u32> {
        let visible = self.connections.iter().filter(|(_, it)| it.visible_at <= now);
        visible.map(|(pid, _)| *pid).collect()
    }

    /// The connections of each owner, those being opened included.
    pub(crate) fn by_owner(&self) -> BTreeMap<u64, u32> {
        let mut counts = BTreeMap::new();
        for connection in self.connections.values() {
            *counts.entry(connection.owner).or_default() += 1;
        }
        counts
    }
}
