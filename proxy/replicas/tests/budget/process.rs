//! A replica: the machine, and a driver that does what the program's does.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use pgimbal_replicas::InstanceId;
use pgimbal_replicas::budget::slots::Slots;
use pgimbal_replicas::budget::{Allowance, Budget, CLAIM_WITHIN, Demand};

use crate::server::Server;

/// A replica of the simulated deployment.
pub(crate) struct Process {
    pub(crate) budget: Budget,
    pub(crate) id: u64,
    pub(crate) nodes: Vec<NodeState>,
    /// What it has read from the store and not yet answered with a write.
    pub(crate) read: Option<(Slots, u64)>,
    /// What it has decided to write to the store, at which version, and not yet written.
    pub(crate) decided: Option<(Slots, u64)>,
    pub(crate) store_away: bool,
    pub(crate) leaves: bool,
    /// Its connections are in use and cannot be closed.
    pub(crate) is_pinned: bool,
    pub(crate) stopped_until: Option<Instant>,
    /// Until when it has no server, and until when neither peers nor the store.
    pub(crate) isolated: Option<(Instant, Instant)>,
    next_store: Option<Instant>,
}

/// A replica's connections to one server.
#[derive(Default)]
pub(crate) struct NodeState {
    pub(crate) open: BTreeSet<u32>,
    pub(crate) dialing: Vec<u32>,
    pub(crate) demand: u32,
    pub(crate) cut_off: bool,
    /// When it is cut off no longer, if that is known.
    pub(crate) cut_until: Option<Instant>,
    /// Whether the replica has had to do with the server.
    pub(crate) is_met: bool,
    /// Whether its configuration no longer has the server.
    pub(crate) is_gone: bool,
    pub(crate) allowance: Option<Allowance>,
    last_look: Option<Instant>,
    ended: Vec<(u32, Instant)>,
}

impl NodeState {
    /// The processes that it claims: those that have just ended as well.
    pub(crate) fn claims(&self) -> BTreeSet<u32> {
        self.open.iter().copied().chain(self.ended.iter().map(|(pid, _)| *pid)).collect()
    }

    pub(crate) fn used(&self) -> u32 {
        (self.open.len() + self.dialing.len()) as u32
    }
}

pub(crate) fn name(node: usize) -> String {
    format!("node-{node}:5432")
}

impl Process {
    pub(crate) fn new(id: u64, of: u16, servers: &[Server], now: Instant) -> Self {
        let mut budget = Budget::new(InstanceId(id), of);
        // The others are met later.
        budget.handle_total(&name(0), servers[0].total, now);
        let nodes = servers.iter().enumerate();
        let met = |node| NodeState { is_met: node == 0, ..NodeState::default() };
        let nodes = nodes.map(|(node, _)| met(node)).collect();
        Self {
            budget,
            id,
            nodes,
            read: None,
            decided: None,
            store_away: false,
            leaves: false,
            is_pinned: false,
            stopped_until: None,
            isolated: None,
            next_store: None,
        }
    }

    pub(crate) fn return_from_isolation(&mut self, now: Instant) {
        for node in &mut self.nodes {
            if node.cut_until.is_some_and(|until| until <= now) {
                (node.cut_off, node.cut_until) = (false, None);
            }
        }
        let Some((servers, all)) = self.isolated else { return };
        if now >= servers {
            self.nodes.iter_mut().for_each(|node| node.cut_off = false);
        }
        if now >= all {
            self.isolated = None;
            self.store_away = false;
        }
    }

    pub(crate) fn runs(&self, now: Instant) -> bool {
        self.stopped_until.is_none_or(|until| until <= now)
    }

    /// Notes what became of its connections, looks, opens and closes.
    pub(crate) fn serve(
        &mut self,
        node: usize,
        server: &mut Server,
        now: Instant,
        dial_time: Duration,
        closes_idle: bool,
    ) {
        let state = &mut self.nodes[node];
        if !state.is_met {
            if state.demand < 3 {
                return;
            }
            state.is_met = true;
            self.budget.handle_total(&name(node), server.total, now);
        }
        if state.is_gone && state.used() == 0 && !self.leaves {
            // As the program does: nobody asks about it any more.
            return;
        }
        if !state.cut_off {
            let gone: Vec<u32> = state.open.extract_if(.., |pid| !server.has(*pid)).collect();
            state.ended.extend(gone.into_iter().map(|pid| (pid, now)));
            state.ended.retain(|(_, at)| now - *at <= CLAIM_WITHIN);
            let (ready, pending): (Vec<u32>, Vec<u32>) =
                state.dialing.iter().partition(|pid| server.is_visible(**pid, now));
            state.dialing = pending;
            state.dialing.retain(|pid| server.has(*pid));
            state.open.extend(ready);
            let due = state.last_look.is_none_or(|at| now - at >= Duration::from_secs(1));
            if due && !state.open.is_empty() && !server.is_down {
                state.last_look = Some(now);
                let (visible, open) = (server.visible(now), state.claims());
                self.budget.handle_look(&name(node), now, &visible, &open, now);
            }
        }
        if self.leaves && self.nodes.iter().all(|node| node.used() == 0) {
            self.budget.leave();
        }
        let state = &mut self.nodes[node];
        let used = state.used();
        let wanted = match self.leaves || state.is_gone {
            true => 0,
            false => state.demand.max(1),
        };
        let waiting = wanted.saturating_sub(used);
        let demand = Demand { used, reserved: 0, waiting };
        let allowance = self.budget.settle(&name(node), demand, now);
        state.allowance = Some(allowance);
        let ends = self.leaves || state.is_gone;
        let is_lent = used > wanted && (ends || allowance.lendable > 0 || closes_idle);
        if used < wanted.min(allowance.limit) && !state.cut_off && !server.is_down {
            state.dialing.push(server.connect(self.id, now + dial_time));
        } else if (is_lent || allowance.reclaim > 0) && !state.cut_off {
            // One is kept, for others to see.
            let last = (used == 1 && !ends) || self.is_pinned;
            if let Some(pid) = state.open.last().copied().filter(|_| !last) {
                state.open.remove(&pid);
                state.ended.push((pid, now));
                server.close(pid);
            }
        }
    }

    /// Its configuration no longer has a server, or has it again.
    pub(crate) fn turn_gone(&mut self, node: usize, server: &Server, now: Instant) {
        let state = &mut self.nodes[node];
        if !state.is_met {
            return;
        }
        state.is_gone ^= true;
        match state.is_gone {
            true => self.budget.handle_gone(&name(node)),
            false => self.budget.handle_total(&name(node), server.total, now),
        }
    }

    /// It can no longer reach a server until then, and its connections there end.
    pub(crate) fn cut_off(&mut self, node: usize, server: &mut Server, until: Instant) {
        let state = &mut self.nodes[node];
        (state.cut_off, state.cut_until) = (true, Some(until));
        state.open.iter().chain(&state.dialing).for_each(|pid| server.close(*pid));
    }

    /// Whether it is to read the store now.
    pub(crate) fn wants_store(&mut self, now: Instant) -> bool {
        let wants = !self.store_away
            && self.read.is_none()
            && self.decided.is_none()
            && self.next_store.is_none_or(|at| at <= now)
            && self.budget.wants_change(now);
        if wants {
            self.next_store = Some(now + Duration::from_secs(1));
        }
        wants
    }
}
