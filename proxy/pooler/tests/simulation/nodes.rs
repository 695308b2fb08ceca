//! What each node of a cluster has of what was committed.

use std::collections::BTreeMap;

use pgimbal_pooler::topology::{Lsn, Report, Role, SystemId, TimelineId};

/// How a standby replays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replay {
    /// What is flushed, at once.
    AtOnce,
    /// So many bytes in a millisecond.
    Slow(u64),
    Paused,
}

/// A server, running or not.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) timeline: u32,
    /// Older timelines, each with the position at which it was left.
    ancestors: Vec<(u32, u64)>,
    pub(crate) primary: bool,
    pub(crate) up: bool,
    /// Of a primary, the insert position; of a standby, what it has replayed.
    position: u64,
    flush: u64,
    /// Another one after each start.
    started: i64,
    pub(crate) replay: Replay,
}

impl Node {
    fn has(&self, timeline: u32, position: u64) -> bool {
        if timeline == self.timeline {
            return position <= self.position;
        }
        let left = self.ancestors.iter().find(|(ancestor, _)| *ancestor == timeline);
        left.is_some_and(|(_, end)| position <= self.position.min(*end))
    }
}

#[derive(Debug)]
pub(crate) struct Nodes {
    pub(crate) list: Vec<Node>,
    /// Timeline and position of each commit.
    commits: BTreeMap<String, (u32, u64)>,
    /// The nodes as reads have found them.
    seen: Vec<Node>,
    /// The primary of the newest timeline, as it was last.
    newest: Node,
    starts: i64,
}

impl Nodes {
    /// A primary and so many standbys.
    pub(crate) fn new(standbys: usize) -> Self {
        let node = |index: usize| Node {
            timeline: 1,
            ancestors: Vec::new(),
            primary: index == 0,
            up: true,
            position: 10_000,
            flush: 10_000,
            started: index as i64 + 1,
            replay: Replay::AtOnce,
        };
        let list: Vec<Node> = (0..=standbys).map(node).collect();
        let (newest, starts) = (list[0].clone(), list.len() as i64);
        Self { list, commits: BTreeMap::new(), seen: Vec::new(), newest, starts }
    }

    pub(crate) fn is_standby(&self, index: usize) -> bool {
        !self.list[index].primary
    }

    /// A transaction is committed that has inserted these.
    pub(crate) fn commit(&mut self, index: usize, inserted: &[String]) {
        let node = &mut self.list[index];
        if inserted.is_empty() {
            return;
        }
        node.position += 40;
        node.flush = node.position;
        for token in inserted {
            self.commits.insert(token.trim_end().to_owned(), (node.timeline, node.position));
        }
        self.note_newest(index);
    }

    /// A read finds a node as it is. Returns what [`Self::misses`] knows it by.
    pub(crate) fn see(&mut self, index: usize) -> String {
        self.seen.push(self.list[index].clone());
        format!("seen {}", self.seen.len() - 1)
    }

    /// Whether a replica has served a read.
    pub(crate) fn was_on_standby(&self, seen: usize) -> bool {
        !self.seen[seen].primary
    }

    /// Whether a read has missed what was committed. What was lost with its timeline is no miss.
    pub(crate) fn misses(&self, seen: usize, token: &str) -> bool {
        let (timeline, position) = self.commits[token];
        self.newest.has(timeline, position) && !self.seen[seen].has(timeline, position)
    }

    pub(crate) fn report(&self, index: usize) -> Report {
        let node = &self.list[index];
        let position = Lsn(node.position);
        let role = match node.primary {
            true => Role::Primary { insert: position, flush: Lsn(node.flush) },
            false => Role::Standby { replay: position, paused: node.replay == Replay::Paused },
        };
        Report {
            system: SystemId(7),
            timeline: TimelineId(node.timeline),
            role,
            server_version: 150_000,
            started_at_micros: node.started,
        }
    }

    /// A millisecond passes: standbys replay what the primary of their timeline has flushed.
    pub(crate) fn replicate(&mut self) {
        let primary = self.list.iter().find(|node| node.primary && node.up);
        let Some((timeline, flush)) = primary.map(|node| (node.timeline, node.flush)) else {
            return;
        };
        for node in self.list.iter_mut().filter(|node| node.up && !node.primary) {
            let reached = match node.replay {
                Replay::AtOnce => flush,
                Replay::Slow(bytes) => flush.min(node.position + bytes),
                Replay::Paused => node.position,
            };
            if node.timeline == timeline {
                node.position = node.position.max(reached);
            }
        }
    }

    /// The primary writes what is of no commit, and flushes it later.
    pub(crate) fn grow(&mut self, bytes: u64) {
        if let Some(index) = self.primary() {
            self.list[index].position += bytes;
            self.note_newest(index);
        }
    }

    pub(crate) fn primary(&self) -> Option<usize> {
        self.list.iter().position(|node| node.primary && node.up)
    }

    pub(crate) fn stop(&mut self, index: usize) {
        self.list[index].up = false;
    }

    /// A standby becomes the primary of a new timeline, when no other is up.
    pub(crate) fn promote(&mut self, index: usize) {
        let highest = self.list.iter().map(|node| node.timeline).max().unwrap_or(1);
        let node = &mut self.list[index];
        if !node.up || node.primary {
            return;
        }
        node.ancestors.push((node.timeline, node.position));
        for (_, end) in &mut node.ancestors {
            *end = node.position.min(*end);
        }
        node.timeline = highest + 1;
        node.primary = true;
        node.flush = node.position;
        self.note_newest(index);
    }

    /// A node starts as a standby of the primary, or goes over to its timeline, rewound by so many
    /// bytes at least.
    pub(crate) fn follow(&mut self, index: usize, back: u64) {
        let Some(primary) = self.primary().filter(|primary| *primary != index) else { return };
        let Node { timeline, ancestors, position, .. } = self.list[primary].clone();
        self.starts += 1;
        let node = &mut self.list[index];
        let fork = ancestors.iter().find(|(ancestor, _)| *ancestor == node.timeline);
        let shared = match node.timeline == timeline {
            true => position,
            false => fork.map_or(0, |(_, end)| *end),
        };
        node.position = node.position.min(shared).saturating_sub(back);
        (node.timeline, node.ancestors) = (timeline, ancestors);
        (node.primary, node.up, node.started) = (false, true, self.starts);
    }

    fn note_newest(&mut self, index: usize) {
        if self.list[index].timeline >= self.newest.timeline {
            self.newest = self.list[index].clone();
        }
    }
}
