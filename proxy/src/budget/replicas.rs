//! The budget over all replicas: the task that tells the machine
//! ([`pgimbal_replicas::budget::Budget`]) what happens, and does what it decides.
//!
//! Slots are kept in the store by [`Facts`]; what replicas tell each other goes with their
//! heartbeats; each server is looked at by a connection of its own (`looker`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pgimbal_config::{Config, StoreKind};
use pgimbal_pooler::pool::budget::Budgets;
use pgimbal_replicas::budget::message::Message;
use pgimbal_replicas::budget::slots::Slots;
use pgimbal_replicas::budget::{Allowance, BARE, Budget, CLAIM_WITHIN, NodeStatus};
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

/// How long a process without a slot looks for a replica that drains: names are looked up, and
/// every address is asked, within a second or two.
const MEETING_TIME: Duration = Duration::from_secs(3);

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
    leaves: bool,
    next_read: Option<Instant>,
}

/// What is known of a server beside its numbers.
#[derive(Debug, Default)]
struct Server {
    looker: Option<JoinHandle<()>>,
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
        let state = State { machine, servers: BTreeMap::new(), leaves: false, next_read: None };
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
    /// it ends after [`MEETING_TIME`], in which a replica that drains would have been met.
    pub async fn await_slot(&self, limit: Duration) {
        let begun = Instant::now();
        let mut is_told = false;
        let mut tick = interval(TICK);
        loop {
            tick.tick().await;
            let waited = begun.elapsed();
            if self.0.state().machine.slot().is_some() || waited >= limit {
                return;
            }
            if self.0.slot_may_come() {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::info!(
                        "a replica that drains has the slot of the budget that this one waits for"
                    );
                }
            } else if waited >= MEETING_TIME {
                return;
            }
        }
    }

    /// Gives the slot back, when no connection of this process is left: waits for the store, for
    /// 2 s at most.
    pub async fn leave(&self) {
        {
            let mut state = self.0.state();
            state.leaves = true;
            for server in state.servers.values_mut() {
                server.looks_as = None;
                if let Some(looker) = server.looker.take() {
                    looker.abort();
                }
            }
        }
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

async fn run(inner: Arc<Inner>, looker: Looker) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let now = Instant::now();
        inner.take_in_slots(now);
        inner.hear(now);
        inner.settle(now);
        inner.look(&looker);
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
        let (mut state, now) = (self.state(), Instant::now());
        if state.leaves {
            return state.machine.release(stored, now);
        }
        state.machine.change(stored, now)
    }

    /// The slots that the store has, as far as this replica knows.
    fn take_in_slots(&self, now: Instant) {
        let document = Arc::clone(&self.facts.document().borrow());
        let mut state = self.state();
        let before = state.machine.slot();
        state.machine.handle_stored(document.slots(), now);
        let slot = state.machine.slot();
        drop(state);
        if slot != before {
            match slot {
                Some(slot) => tracing::info!(slot, "this replica holds a slot of the budget"),
                None => tracing::warn!("this replica holds no slot of the budget any more"),
            }
            self.peers.set_peer_id(slot.map(|slot| slot + 1));
        }
    }

    /// Whether a replica with a slot drains.
    fn slot_may_come(&self) -> bool {
        let drains = |peer: &PeerStatus| peer.is_alive() && !peer.ready && peer.peer_id.is_some();
        self.peers.members().iter().any(drains)
    }

    /// Reads what the peers have said last.
    fn hear(&self, now: Instant) {
        for peer in self.peers.members() {
            let Ok(heartbeat) = serde_json::from_slice::<Heartbeat>(&peer.heartbeat) else {
                continue;
            };
            let mut state = self.state();
            state.machine.handle_stored(&heartbeat.slots, now);
            state.machine.handle_message(heartbeat.budget, now);
        }
    }

    /// Brings the limit of each server in line with the tokens.
    fn settle(&self, now: Instant) {
        for (name, budget) in self.budgets.all() {
            let mut state = self.state();
            let State { machine, servers, .. } = &mut *state;
            let server = servers.entry(name.clone()).or_default();
            let (_, ended) = budget.process_ids();
            server.ended.extend(ended.into_iter().map(|pid| (pid, now)));
            server.ended.retain(|(_, at)| now.saturating_duration_since(*at) <= CLAIM_WITHIN);
            let own = u32::from(server.looks_as.is_some());
            budget.settle(
                |total, used, waiting| {
                    let Some(total) = total else { return (BARE, 0) };
                    machine.handle_total(&name, total, now);
                    let Allowance { limit, reclaim } =
                        machine.settle(&name, used + own, waiting, now);
                    (limit.saturating_sub(own), reclaim)
                },
                now,
            );
        }
    }

    /// Has each server looked at while this replica holds a slot.
    fn look(self: &Arc<Self>, looker: &Looker) {
        for (name, budget) in self.budgets.all() {
            let mut state = self.state();
            let holds = state.machine.slot().is_some() && !state.leaves;
            let Some(server) = state.servers.get(&name) else { continue };
            let runs = server.looker.as_ref().is_some_and(|task| !task.is_finished());
            let is_limited = state.machine.status(&name).is_some();
            let Some(server) = state.servers.get_mut(&name) else { continue };
            if holds && is_limited && !runs {
                let task = looker::run(looker.clone(), Arc::clone(self), name, budget);
                server.looker = Some(tokio::spawn(task));
            }
        }
    }

    /// Tells the peers.
    fn speak(&self, now: Instant) {
        let mut state = self.state();
        let claims: BTreeMap<Box<str>, BTreeSet<u32>> = self
            .budgets
            .all()
            .into_iter()
            .map(|(name, budget)| {
                let claims = state.claims(&name, budget.process_ids().0);
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
        let State { servers, leaves, .. } = &mut *state;
        let Some(server) = servers.get_mut(server).filter(|_| !*leaves) else { return };
        if let Some(ended) = std::mem::replace(&mut server.looks_as, process_id) {
            server.ended.push((ended, Instant::now()));
        }
    }

    /// The looker of a server has seen these processes, asked at `at`.
    pub(super) fn looked(&self, server: &str, at: Instant, seen: &BTreeSet<u32>) {
        let own = self.budgets.all().into_iter().find(|(name, _)| **name == *server);
        let own = own.map(|(_, budget)| budget.process_ids());
        let mut state = self.state();
        let (own, ended) = own.unwrap_or_default();
        let now = Instant::now();
        if let Some(server) = state.servers.get_mut(server) {
            server.ended.extend(ended.into_iter().map(|pid| (pid, now)));
        }
        let claims = state.claims(server, own);
        state.machine.handle_look(server, at, seen, &claims, now);
    }
}

impl State {
    /// The processes that this replica claims at a server, where its pools have `own`.
    fn claims(&self, server: &str, mut own: BTreeSet<u32>) -> BTreeSet<u32> {
        if let Some(server) = self.servers.get(server) {
            own.extend(server.looks_as);
            own.extend(server.ended.iter().map(|(pid, _)| *pid));
        }
        own
    }
}
