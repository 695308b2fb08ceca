//! The budget over all replicas: the task that tells the machine
//! ([`pgimbal_replicas::budget::Budget`]) what happens, and does what it decides.
//!
//! Slots are kept in the store by [`Facts`]; what replicas tell each other goes with their
//! heartbeats; each server is looked at by a connection of its own (`looker`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use pgimbal_config::{Config, StoreKind};
use pgimbal_pooler::pool::budget::{Budgets, ConnectionBudget, Grant, Usage};
use pgimbal_replicas::InstanceId;
use pgimbal_replicas::budget::message::Message;
use pgimbal_replicas::budget::slots::Slots;
use pgimbal_replicas::budget::{Allowance, BARE, Budget, CLAIM_WITHIN, Demand, NodeStatus};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::looker::{self, Looker};
use crate::credentials::CredentialManager;
use crate::directory::PoolDirectory;
use crate::facts::Facts;
use crate::peers::{PeerStatus, Peers};

/// How often the servers' numbers are told to the machine: so long a loan waits at either end.
const TICK: Duration = Duration::from_millis(50);

/// How often the store is read while the machine wants to change something there.
const READ_EVERY: Duration = Duration::from_secs(1);

/// How long a process without a slot looks for a replica that drains, at the least: within a second
/// or two names are looked up, and every address is asked.
const MEETING_TIME: Duration = Duration::from_secs(3);

/// How long it looks while nobody has answered at one of the addresses, which may be that of a
/// replica that drains on a busy host: some seven requests, of 2 s each.
const LONGEST_MEETING: Duration = Duration::from_secs(15);

/// How long a replica that drains may say nothing until it no longer counts as one that leaves its
/// slot: on a busy host more than five hellos are late at times.
const DRAINS_UNHEARD: Duration = Duration::from_secs(15);

/// How long a replica has no slot before it looks at the servers nevertheless: where all that have
/// slots have died, somebody must see that their connections are gone.
const SLOTLESS_LOOK_AFTER: Duration = Duration::from_secs(5);

/// How long the end of the process waits until the store has taken the slot back.
const LEAVE_TIME: Duration = Duration::from_secs(2);

/// The handle to the budget over all replicas. Clones are cheap and share it.
#[derive(Clone, Debug)]
pub struct ReplicaBudget(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    state: Mutex<State>,
    budgets: Arc<Budgets>,
    facts: Facts,
    peers: Peers,
}

#[derive(Debug)]
struct State {
    machine: Budget,
    servers: BTreeMap<Box<str>, Server>,
    next_read: Option<Instant>,
    /// The slot that the log and the peers have been told.
    followed_slot: Option<u16>,
    /// Since when there is no slot.
    slotless_since: Option<Instant>,
    /// The last heartbeat of each peer that was read.
    heard: BTreeMap<InstanceId, Bytes>,
}

/// The looker's part of a server's budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// None: nobody is to look.
    #[default]
    None,
    /// A token, whether it is connected or not.
    Kept,
    /// None: the configuration has no role that could look.
    NoRole,
}

/// What is known of a server beside its numbers.
#[derive(Debug, Default)]
struct Server {
    looker: Option<JoinHandle<()>>,
    place: Place,
    /// The configuration leads there, or connections of pools are there.
    is_there: bool,
    /// There is room for the looker's connection.
    has_room: bool,
    /// The share of the budget is too small for clients, and the log has it.
    is_told_small: bool,
    /// The process of the looker's connection, while there is one.
    looks_as: Option<u32>,
    /// Processes of pools that have ended, with the time when that was seen.
    ended: Vec<(u32, Instant)>,
}

/// What a heartbeat carries.
#[derive(Serialize, Deserialize)]
struct Heartbeat {
    budget: Message,
    /// The newest slots that are known to stand in the store.
    slots: Slots,
}

/// What the machine knows of a server, for those who look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// The replica's slot; `None` without one.
    pub slot: Option<u16>,
    /// Its tokens.
    pub node: NodeStatus,
}

impl ReplicaBudget {
    /// Begins to share the budgets of all servers with the other replicas, if `max_replicas` says
    /// that there are any. `config` and `directory` say who looks at the servers. Called on a
    /// runtime.
    #[must_use]
    pub fn start(
        config: &watch::Receiver<Arc<Config>>,
        directory: &Arc<PoolDirectory>,
        credentials: &CredentialManager,
        facts: &Facts,
        peers: &Peers,
    ) -> Option<Self> {
        let (replicas, kind) = {
            let config = config.borrow();
            (config.max_replicas, config.store.kind)
        };
        if replicas <= 1 || kind == StoreKind::Memory {
            return None;
        }
        let machine = Budget::new(facts.instance(), u16::try_from(replicas).unwrap_or(u16::MAX));
        let state = State {
            machine,
            servers: BTreeMap::new(),
            next_read: None,
            followed_slot: None,
            slotless_since: Some(Instant::now()),
            heard: BTreeMap::new(),
        };
        let budgets = Arc::clone(directory.budgets());
        budgets.share();
        let (facts, peers) = (facts.clone(), peers.clone());
        let inner = Arc::new(Inner { state: Mutex::new(state), budgets, facts, peers });
        let kept = Arc::clone(&inner);
        inner.facts.keep_slots(move |stored| kept.decide(stored));
        let looker = Looker::new(config.clone(), Arc::clone(directory), credentials.clone());
        tokio::spawn(run(Arc::clone(&inner), looker));
        Some(Self(inner))
    }

    /// What this replica has of a server; `None` before it has opened a connection there.
    #[must_use]
    pub fn tokens(&self, server: &str) -> Option<Tokens> {
        let state = self.0.state();
        Some(Tokens { slot: state.machine.slot(), node: state.machine.status(server)? })
    }

    /// Waits for a slot while a replica that drains still has it, for `limit` at most: a replica
    /// without one has two connections to each server, too few for clients that come at once.
    ///
    /// With slots to spare it takes less than a second. Where all are taken, and no replica drains,
    /// it ends after 3 s, in which a replica that drains would have been met; after 15 s if nobody
    /// has answered at one of the addresses.
    pub async fn await_slot(&self, limit: Duration) {
        let begun = Instant::now();
        let mut is_told = false;
        let mut tick = interval(TICK);
        loop {
            tick.tick().await;
            let waited = begun.elapsed();
            if self.0.state().followed_slot.is_some() || waited >= limit {
                return;
            }
            if self.0.slot_may_come() {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::info!(
                        "a replica that drains has the slot of the budget that this one waits for"
                    );
                }
            } else if is_met(waited, self.0.peers.may_be_more()) {
                return;
            }
        }
    }

    /// Gives the slot back, when no connection of this process is left: waits for the store, for
    /// 2 s at most.
    pub async fn leave(&self) {
        {
            let (mut state, now) = (self.0.state(), Instant::now());
            state.machine.leave();
            state.servers.values_mut().for_each(|server| server.stop_looking(now));
        }
        // What is borrowed goes back first.
        self.0.settle(Instant::now());
        self.0.speak(Instant::now());
        self.0.facts.read_soon();
        let gone = async {
            let mut tick = interval(TICK);
            while self.0.state().machine.slot().is_some() {
                tick.tick().await;
                self.0.take_in_slots(Instant::now());
            }
        };
        if tokio::time::timeout(LEAVE_TIME, gone).await.is_err() {
            tracing::warn!(
                "the slot of the budget was not given back: it is free when the servers have shown \
                 no connection of this replica for a minute"
            );
        }
    }
}

/// Whether a process that has waited so long has met the others; `may_be_more` says whether one of
/// the addresses has given no answer.
const fn is_met(waited: Duration, may_be_more: bool) -> bool {
    let least = if may_be_more { LONGEST_MEETING } else { MEETING_TIME };
    waited.as_millis() >= least.as_millis()
}

/// Whether a peer that holds a slot is about to leave it.
fn is_leaving(peer: &PeerStatus) -> bool {
    !peer.ready && peer.heard.is_some_and(|heard| heard <= DRAINS_UNHEARD)
}

async fn run(inner: Arc<Inner>, looker: Looker) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let now = Instant::now();
        inner.take_in_slots(now);
        inner.hear(now);
        inner.settle(now);
        inner.look(&looker, now);
        inner.speak(now);
        inner.read_if_wanted(now);
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the slots of the store, which were just read, are to become.
    fn decide(&self, stored: &Slots) -> Option<Slots> {
        self.state().machine.change(stored, Instant::now())
    }

    /// The slots that the store has, as far as this replica knows.
    fn take_in_slots(&self, now: Instant) {
        let document = Arc::clone(&self.facts.document().borrow());
        self.state().machine.handle_stored(document.slots(), now);
        self.follow_slot(now);
    }

    /// What follows from the slot that this replica has now, if that is another than before: it may
    /// be learned from the store or from a peer's word.
    fn follow_slot(&self, now: Instant) {
        let mut state = self.state();
        let slot = state.machine.slot();
        let before = std::mem::replace(&mut state.followed_slot, slot);
        state.slotless_since = match slot {
            Some(_) => None,
            None => Some(state.slotless_since.unwrap_or(now)),
        };
        drop(state);
        if slot != before {
            match slot {
                Some(slot) => tracing::info!(slot, "this replica holds a slot of the budget"),
                None => tracing::warn!("this replica holds no slot of the budget any more"),
            }
            self.peers.set_peer_id(slot.map(|slot| slot + 1));
        }
    }

    /// Whether a replica with a slot drains. One that starts is not ready either, and its peer id
    /// may be one of the configuration, so that only the slot tells the two apart.
    fn slot_may_come(&self) -> bool {
        let members = self.peers.members();
        let state = self.state();
        let holds = |who| state.machine.slots().holding_of(who).is_some();
        members.iter().any(|peer| is_leaving(peer) && peer.instance.is_some_and(holds))
    }

    /// Reads what the peers have said last, where that is something new. It counts as heard when
    /// it was, also when it is read again because the machine has forgotten the peer.
    fn hear(&self, now: Instant) {
        let members = self.peers.members();
        let mut state = self.state();
        state.heard.retain(|id, _| members.iter().any(|peer| peer.instance == Some(*id)));
        for peer in members {
            let (Some(id), Some(ago)) = (peer.instance, peer.heard) else { continue };
            if state.heard.get(&id).is_some_and(|known| *known == peer.heartbeat) {
                continue;
            }
            let read = serde_json::from_slice::<Heartbeat>(&peer.heartbeat);
            state.heard.insert(id, peer.heartbeat);
            let (Ok(heartbeat), Some(heard_at)) = (read, now.checked_sub(ago)) else { continue };
            state.machine.handle_stored(&heartbeat.slots, now);
            state.machine.handle_message(heartbeat.budget, heard_at);
        }
        drop(state);
        self.follow_slot(now);
    }

    /// Brings the limit of each server in line with the tokens.
    fn settle(&self, now: Instant) {
        let all = self.budgets.all();
        for (name, budget) in &all {
            let mut state = self.state();
            let State { machine, servers, .. } = &mut *state;
            let server = servers.entry(name.clone()).or_default();
            let (_, ended) = budget.process_ids();
            server.note_ended(ended, now);
            let (own, leads_there) = (server.own(), !budget.is_gone());
            let decide = |usage: Usage| {
                let Usage { budget: total, used, reserved, waiting } = usage;
                // What is in use of a server that has left the configuration is shared until it
                // ends.
                server.is_there = leads_there || used > reserved || waiting > 0;
                let demand = Demand { used: used + own, reserved: reserved + own, waiting };
                let allowance = match total {
                    Some(total) => {
                        match server.is_there {
                            true => machine.handle_total(name, total, now),
                            false => machine.handle_gone(name),
                        }
                        let allowance = machine.settle(name, demand, now);
                        server.warn_of_share(name, machine, demand.reserved);
                        allowance
                    }
                    None => {
                        // Not known yet, or without a limit from now on.
                        server.is_there = false;
                        machine.handle_gone(name);
                        let _ = machine.settle(name, Demand::default(), now);
                        let limit = BARE.max(demand.reserved + 1);
                        Allowance { limit, reclaim: 0, lendable: 0 }
                    }
                };
                let Allowance { limit, reclaim, lendable } = allowance;
                server.has_room = machine.slot().is_some() || demand.used <= limit;
                Grant { limit: limit.saturating_sub(own), reclaim, lendable }
            };
            budget.settle(decide, now);
        }
        self.forget(&all, now);
    }

    /// Forgets the servers that have no budget any more.
    fn forget(&self, all: &[(Box<str>, Arc<ConnectionBudget>)], now: Instant) {
        let mut state = self.state();
        let State { machine, servers, .. } = &mut *state;
        let is_known = |name: &str| all.iter().any(|(known, _)| **known == *name);
        for name in machine.nodes().filter(|name| !is_known(name)).collect::<Vec<_>>() {
            machine.handle_gone(&name);
            let _ = machine.settle(&name, Demand::default(), now);
        }
        servers.retain(|name, server| {
            let is_known = is_known(name);
            if !is_known {
                server.stop_looking(now);
                server.note_ended(Vec::new(), now);
            }
            is_known || !server.ended.is_empty()
        });
    }

    /// Has each server looked at while this replica holds a slot, or has waited for one for long.
    fn look(self: &Arc<Self>, looker: &Looker, now: Instant) {
        for (name, budget) in self.budgets.all() {
            let mut state = self.state();
            let waits =
                |since: Instant| now.saturating_duration_since(since) >= SLOTLESS_LOOK_AFTER;
            let wants = !state.machine.is_leaving()
                && state.servers.get(&name).is_some_and(|server| server.is_there)
                && state.slotless_since.is_none_or(waits)
                && state.machine.status(&name).is_some();
            let Some(server) = state.servers.get_mut(&name) else { continue };
            if !wants {
                server.stop_looking(now);
                continue;
            }
            // Its token is kept first.
            let has_place = server.place != Place::None;
            if !has_place {
                server.place = Place::Kept;
            }
            let runs = server.looker.as_ref().is_some_and(|task| !task.is_finished());
            if has_place && server.has_room && !runs {
                let task = looker::run(looker.clone(), Arc::clone(self), name, budget);
                server.looker = Some(tokio::spawn(task));
            }
        }
    }

    /// Tells the peers.
    fn speak(&self, now: Instant) {
        let mut state = self.state();
        if state.machine.next_timeout().is_some_and(|at| now < at) {
            return;
        }
        let claims: BTreeMap<Box<str>, BTreeSet<u32>> = self
            .budgets
            .all()
            .into_iter()
            .map(|(name, budget)| {
                let claims = state.claims(&name, budget.process_ids(), now);
                (name, claims)
            })
            .collect();
        let pids = |name: &str| claims.get(name).cloned().unwrap_or_default();
        let Some(message) = state.machine.poll_message(now, pids) else { return };
        let heartbeat = Heartbeat { budget: message, slots: state.machine.slots().clone() };
        drop(state);
        // Numbers and names: it cannot fail.
        if let Ok(bytes) = serde_json::to_vec(&heartbeat) {
            self.peers.set_heartbeat(bytes);
        }
    }

    fn read_if_wanted(&self, now: Instant) {
        let mut state = self.state();
        if state.machine.wants_change(now) && state.next_read.is_none_or(|at| at <= now) {
            state.next_read = Some(now + READ_EVERY);
            drop(state);
            self.facts.read_soon();
        }
    }

    /// The looker of a server has connected as this process, or is connected no more.
    pub(super) fn looks_as(&self, server: &str, process_id: Option<u32>) {
        let mut state = self.state();
        let Some(server) = state.servers.get_mut(server) else { return };
        if server.place != Place::None {
            server.set_looks_as(process_id, Instant::now());
        }
    }

    /// Notes whether the configuration has a role that can look at a server. Returns whether it may
    /// connect: its token is kept from then on.
    pub(super) fn note_can_look(&self, server: &str, can_look: bool) -> bool {
        let mut state = self.state();
        let Some(server) = state.servers.get_mut(server) else { return false };
        let place = match (server.place, can_look) {
            (Place::None, _) => Place::None,
            (_, true) => Place::Kept,
            (_, false) => Place::NoRole,
        };
        std::mem::replace(&mut server.place, place) == Place::Kept && can_look
    }

    /// The looker of a server has seen these processes, asked at `at`.
    pub(super) fn looked(&self, server: &str, at: Instant, seen: &BTreeSet<u32>) {
        let own = self.budgets.all().into_iter().find(|(name, _)| **name == *server);
        let Some((_, budget)) = own else { return };
        let (mut state, now) = (self.state(), Instant::now());
        let claims = state.claims(server, budget.process_ids(), now);
        state.machine.handle_look(server, at, seen, &claims, now);
    }
}

impl State {
    /// The processes that this replica claims at a server, where its pools have `own`, and some
    /// have ended.
    fn claims(
        &mut self,
        server: &str,
        (mut own, ended): (BTreeSet<u32>, Vec<u32>),
        now: Instant,
    ) -> BTreeSet<u32> {
        if let Some(server) = self.servers.get_mut(server) {
            server.note_ended(ended, now);
            own.extend(server.looks_as);
            own.extend(server.ended.iter().map(|(pid, _)| *pid));
        }
        own
    }
}

impl Server {
    /// How many connections count for the looker.
    fn own(&self) -> u32 {
        u32::from(self.looks_as.is_some() || self.place == Place::Kept)
    }

    /// Warns once of a share that leaves nothing for clients beside what belongs to no pool.
    fn warn_of_share(&mut self, name: &str, machine: &Budget, reserved: u32) {
        let Some(status) = machine.status(name) else { return };
        let is_small = self.is_there && machine.slot().is_some() && status.share <= reserved;
        if is_small && !std::mem::replace(&mut self.is_told_small, true) {
            tracing::warn!(
                server = name,
                share = status.share,
                total = status.total,
                own = reserved,
                "the share of the server's budget leaves clients nothing beside pgimbal's own \
                 connections, and they get one: raise max_connections there, or lower max_replicas"
            );
        }
    }

    /// Notes processes that have ended, and forgets those that everybody has seen to.
    fn note_ended(&mut self, ended: Vec<u32>, now: Instant) {
        self.ended.extend(ended.into_iter().map(|pid| (pid, now)));
        self.ended.retain(|(_, at)| now.saturating_duration_since(*at) <= CLAIM_WITHIN);
    }

    fn set_looks_as(&mut self, process_id: Option<u32>, now: Instant) {
        if let Some(ended) = std::mem::replace(&mut self.looks_as, process_id) {
            self.ended.push((ended, now));
        }
    }

    fn stop_looking(&mut self, now: Instant) {
        self.place = Place::None;
        self.set_looks_as(None, now);
        if let Some(looker) = self.looker.take() {
            looker.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_others_are_met_when_every_address_has_answered() {
        let after = |seconds, may_be_more| is_met(Duration::from_secs(seconds), may_be_more);
        assert!(!after(2, false) && after(3, false));
        assert!(!after(3, true) && !after(14, true) && after(15, true));
    }

    #[test]
    fn a_replica_that_drains_is_waited_for_while_its_hellos_are_late() {
        let peer = |ready, heard: Option<u64>| PeerStatus {
            instance: Some(InstanceId(1)),
            name: "r1".to_owned(),
            version: String::new(),
            address: std::net::SocketAddr::from(([127, 0, 0, 1], 1)),
            peer_id: None,
            former: Vec::new(),
            ready,
            heard: heard.map(Duration::from_secs),
            heartbeat: Bytes::new(),
            why: String::new(),
        };
        assert!(is_leaving(&peer(false, Some(0))) && is_leaving(&peer(false, Some(14))));
        assert!(!is_leaving(&peer(false, Some(16))), "it is gone");
        assert!(!is_leaving(&peer(true, Some(0))), "it stays");
        assert!(!is_leaving(&peer(false, None)), "nobody has answered there");
    }
}
