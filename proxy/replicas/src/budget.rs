//! One budget of connections for a server, over all replicas.
//!
//! The budget of a server is divided into tokens: one token, one connection. A replica that holds a
//! slot ([`slots`]) owns an equal part of the tokens of every server. A replica that needs more
//! borrows: the lender sends tokens, which are no longer its own from that moment, and the borrower
//! has them when a message arrives that counts them ([`message`]). It sends them back when they are
//! idle, or when their owner wants them and one comes free; nobody takes them away.
//!
//! A replica that is silent may be dead, or on the other side of a partition and alive. Its slot,
//! and what it has borrowed, are free when the servers themselves show no process of it for
//! [`SWEEP_AFTER`]. A server that nobody could look at for as long does not delay that, but there
//! the tokens wait for the proof, and it is a stricter one. A living replica therefore uses tokens
//! only while the server shows one of its processes, or within [`GRACE`] after that; then it has
//! the store confirm that its slot is still its own.
//!
//! A token that is lost with a message, or in a replica that ends, is found again: the totals are
//! said again, or the possession ends and its accounts with it.

mod account;
mod evidence;
pub mod message;
mod node;
pub mod slots;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::InstanceId;
use evidence::Proof;
pub use evidence::{CLAIM_WITHIN, GRACE, SWEEP_AFTER};
use message::{Message, NodeMessage};
use node::NodeBudget;
use slots::{Holding, Proven, Slots, Tenure};

/// How many connections a replica may have to a server whose tokens it cannot use, from the margin
/// that the budget leaves: enough to serve somebody. It is one more than those that belong to no
/// pool, where these are more than one.
pub const BARE: u32 = 2;

/// A replica that was not heard for this long is silent; it speaks every second.
const SILENT_AFTER: Duration = Duration::from_secs(5);

/// How often a replica speaks.
const SPEAK_EVERY: Duration = Duration::from_secs(1);

/// How many replicas are listened to: all holders, and as many that have no slot.
const MAX_PEERS: usize = 2 * slots::MAX_SLOTS as usize;

/// How long a slot was held by whom has met every server that silent holders before may have used.
const LONG: Duration = evidence::DOUBTED_FOR;

/// How many servers are known. Others have no tokens: a replica has [`BARE`] connections there.
/// Those that are gone are kept only while it matters what was lent there.
const MAX_NODES: usize = 1024;

/// The budget as one replica sees it: which slot it holds, what it has lent and borrowed.
///
/// The driver tells what it knows with `handle_*`, asks [`Self::settle`] for each server whenever
/// connections are opened and closed, sends what [`Self::poll_message`] returns to all peers, and
/// when [`Self::wants_change`] says so reads the store and writes what [`Self::change`] returns.
#[derive(Debug)]
pub struct Budget {
    me: InstanceId,
    of: u16,
    slots: Slots,
    held: Option<Holding>,
    /// Since when the slot is held.
    held_since: Option<Instant>,
    course: Course,
    /// The document had no slots when this replica decided to take its own.
    found_empty: bool,
    /// The slot's counter that this replica has tried to write, and since when.
    writing: Option<(u64, Instant)>,
    /// When the slot was last known to be this replica's.
    confirmed_at: Option<Instant>,
    /// Since when each holder is known with its slot's counter.
    known: BTreeMap<Tenure, (u64, Instant)>,
    peers: BTreeMap<InstanceId, Peer>,
    nodes: BTreeMap<Box<str>, NodeBudget>,
    serial: u64,
    speak_at: Option<Instant>,
}

/// What a replica has in mind with its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// It has one, or wants one.
    Stays,
    /// It gives the slot back. Nothing leaves it any more that the store would not know of: from
    /// the decision what to write until the store has it, lost answers included, nothing is lent.
    Leaves,
}

/// Another replica that was heard.
#[derive(Debug)]
struct Peer {
    serial: u64,
    heard_at: Instant,
    tenure: Option<Tenure>,
    /// It has said something, or that there is nothing to say, of every server to this possession,
    /// and of none that is not known here.
    has_told: Option<Tenure>,
    pids: BTreeMap<Box<str>, BTreeSet<u32>>,
}

/// What this replica has at one server, and wants there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Its connections, those being opened included, and those that are only reserved.
    pub used: u32,
    /// Those of them that belong to no pool: they are neither lent nor closed for others.
    pub reserved: u32,
    /// How many more it could use.
    pub waiting: u32,
}

/// What this replica may do at one server now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// How many connections it may have, those being opened included. What is open beyond stays,
    /// unless it is to be closed.
    pub limit: u32,
    /// How many of its connections it is to close as soon as they are released or idle: another
    /// replica wants the tokens back, or there are fewer of them than there were.
    pub reclaim: u32,
    /// How many tokens others could use that have none of their own left: connections that nobody
    /// has used for a while are better closed.
    pub lendable: u32,
}

/// Why a replica can or cannot use tokens at a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It can.
    Usable,
    /// It holds no slot: the store cannot be reached, or all slots are taken.
    NoSlot,
    /// The server has shown no process of this replica for too long: the store is to confirm the
    /// slot.
    Unconfirmed,
    /// A silent replica had the slot, or tokens of it: the server is looked at.
    Unproven,
    /// Another holder of a slot has not said yet what it holds of this one's former holders.
    Unsettled,
}

/// The tokens of one server, for those who look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// How many connections all replicas together may have.
    pub total: u32,
    /// The part that goes with this replica's slot; 0 without one.
    pub share: u32,
    /// Tokens that it has of other replicas.
    pub borrowed: u32,
    /// Tokens that others have of it, those on their way included.
    pub lent: u32,
    /// Whether it can use them.
    pub standing: Standing,
}

impl Budget {
    /// Makes the budget of the replica `me`, which knows nothing yet, in a deployment of `of`
    /// slots (`max_replicas`).
    #[must_use]
    pub fn new(me: InstanceId, of: u16) -> Self {
        Self {
            me,
            of: of.clamp(1, slots::MAX_SLOTS),
            slots: Slots::default(),
            held: None,
            held_since: None,
            course: Course::Stays,
            found_empty: false,
            writing: None,
            confirmed_at: None,
            known: BTreeMap::new(),
            peers: BTreeMap::new(),
            nodes: BTreeMap::new(),
            serial: 0,
            speak_at: None,
        }
    }

    /// Takes in how many connections all replicas together may have to a server. A server that is
    /// not known yet is added, unless there are too many.
    pub fn handle_total(&mut self, node: &str, total: u32, now: Instant) {
        if !self.nodes.contains_key(node) {
            if self.nodes.len() >= MAX_NODES {
                return;
            }
            let mut budget = NodeBudget::new(now);
            if let Some(held) = self.held {
                let others = self.others().map(|holding| (holding.tenure, !held.even));
                // Those who had the slot before had nothing at a server that came later.
                let lately = |since| now.saturating_duration_since(since) < SWEEP_AFTER;
                let unproven = match self.held_since.is_some_and(lately) {
                    true => self.proof_of(held, node),
                    false => held.after_sweep.then_some(Proof::Usual),
                };
                budget.begin(now, unproven, others, std::iter::empty());
                self.confirmed_at.into_iter().for_each(|at| budget.note_alive(at));
            }
            self.nodes.insert(node.into(), budget);
        }
        if let Some(budget) = self.nodes.get_mut(node) {
            budget.total = total;
            if std::mem::take(&mut budget.is_gone) {
                budget.known_since = Some(now);
            }
        }
    }

    /// Notes that the configuration no longer has a server: nothing is lent there, what is borrowed
    /// goes back, and nobody waits for it to be looked at. It is forgotten when nothing is used
    /// there any more.
    pub fn handle_gone(&mut self, node: &str) {
        if let Some(budget) = self.nodes.get_mut(node).filter(|budget| !budget.is_gone) {
            budget.total = 0;
            budget.is_gone = true;
            budget.evidence = evidence::Evidence::default();
        }
    }

    /// What a server is to show before the tokens of a slot can be used there; `None` if nothing.
    fn proof_of(&self, held: Holding, node: &str) -> Option<Proof> {
        match (held.after_sweep, held.tenure.since) {
            (true, _) if self.slots.is_proven(held.tenure.slot, node) => None,
            (true, _) => Some(self.proof_of_end(held.tenure.slot, node)),
            // Or the document was lost.
            (false, 1) if self.found_empty => Some(Proof::Glance),
            (false, _) => None,
        }
    }

    /// What a server is to show of somebody who held a slot.
    fn proof_of_end(&self, slot: u16, node: &str) -> Proof {
        if self.slots.was_clean(slot, node) { Proof::Usual } else { Proof::Strict }
    }

    /// Takes in slots from the store: read from it, written to it, or told by a peer that has them
    /// from there. Older ones change nothing.
    pub fn handle_stored(&mut self, stored: &Slots, now: Instant) {
        let before: BTreeSet<Tenure> = self.others().map(|holding| holding.tenure).collect();
        self.slots.merge(stored);
        let holding = self.slots.holding_of(self.me).filter(|holding| !holding.contested);
        let after: BTreeSet<Tenure> = self.others().map(|holding| holding.tenure).collect();
        self.note_known(now);
        if !after.is_subset(&before) {
            self.nodes.values_mut().for_each(|node| node.evidence.forget_foreign());
        }
        let old = std::mem::replace(&mut self.held, holding);
        let mut nodes = std::mem::take(&mut self.nodes);
        match (old, holding) {
            (_, None) => {
                (self.confirmed_at, self.held_since) = (None, None);
                nodes.values_mut().for_each(NodeBudget::end);
            }
            (Some(old), Some(new)) if old.tenure == new.tenure => {
                for (name, node) in &mut nodes {
                    for gone in before.difference(&after) {
                        node.close_account(*gone, self.proof_of_end(gone.slot, name), now);
                    }
                    after.difference(&before).for_each(|new| node.open_account(*new));
                }
            }
            (_, Some(new)) => {
                self.held_since = Some(now);
                for (name, node) in &mut nodes {
                    let asks = |other: &Tenure| !new.even && before.contains(other);
                    let others = after.iter().map(|other| (*other, asks(other)));
                    let gone = before.difference(&after).filter(|_| !new.even);
                    let gone = gone.map(|gone| self.proof_of_end(gone.slot, name));
                    node.begin(now, self.proof_of(new, name), others, gone);
                }
            }
        }
        self.nodes = nodes;
        self.confirm();
        if before != after {
            self.speak_at = None;
        }
    }

    /// What this replica has written to its slot stands in the store: the slot was its own when it
    /// began to write.
    fn confirm(&mut self) {
        let Some((counter, begun)) = self.writing else { return };
        if self.held.is_some_and(|held| held.counter >= counter) {
            self.writing = None;
            self.confirmed_at = self.confirmed_at.max(Some(begun));
            self.nodes.values_mut().for_each(|node| node.confirm(begun));
        }
    }

    fn note_known(&mut self, now: Instant) {
        let holdings: Vec<Holding> = self.others().collect();
        self.known.retain(|tenure, _| holdings.iter().any(|holding| holding.tenure == *tenure));
        for holding in holdings {
            let known = self.known.entry(holding.tenure).or_insert((holding.counter, now));
            if known.0 != holding.counter {
                *known = (holding.counter, now);
            }
        }
    }

    /// The holders of slots but this replica.
    fn others(&self) -> impl Iterator<Item = Holding> {
        let me = self.me;
        self.slots.holdings().filter(move |holding| holding.tenure.holder != me)
    }

    /// Takes in what another replica has said, which was heard at `now` or before.
    pub fn handle_message(&mut self, message: Message, now: Instant) {
        let Message { from, serial, tenure, knows, nodes } = message;
        if from == self.me || self.peers.get(&from).is_some_and(|peer| peer.serial >= serial) {
            return;
        }
        if !self.peers.contains_key(&from) && self.peers.len() >= MAX_PEERS {
            // Those who went long ago make room.
            self.peers.retain(|_, peer| now.saturating_duration_since(peer.heard_at) < SWEEP_AFTER);
            if self.peers.len() >= MAX_PEERS {
                return;
            }
        }
        let mine = self.held.map(|held| held.tenure);
        let mut pids = BTreeMap::new();
        let knows_all = nodes.keys().all(|name| self.nodes.contains_key(name));
        let has_told = mine.filter(|mine| knows_all && knows.contains(mine));
        let unsaid = |name: &str| !nodes.contains_key(name);
        for (_, node) in self.nodes.iter_mut().filter(|(name, _)| unsaid(name)) {
            let knows_me = mine.is_some_and(|mine| knows.contains(&mine));
            tenure.filter(|_| knows_me).into_iter().for_each(|tenure| node.read_nothing(tenure));
        }
        for (name, said) in nodes {
            let Some(node) = self.nodes.get_mut(&name) else { continue };
            for balance in said.balances.iter().filter(|balance| Some(balance.to) == mine) {
                if Some(balance.from) == tenure {
                    node.read(balance);
                }
            }
            pids.insert(name, said.pids);
        }
        self.peers.insert(from, Peer { serial, heard_at: now, tenure, has_told, pids });
    }

    /// Takes in which processes of the deployment's roles a server shows, those of this replica,
    /// `mine` ([`Self::poll_message`]), and others; asked at `at` by a connection of this replica,
    /// which is therefore seen by the others as well.
    pub fn handle_look(
        &mut self,
        name: &str,
        at: Instant,
        pids: &BTreeSet<u32>,
        mine: &BTreeSet<u32>,
        now: Instant,
    ) {
        let all_heard = self.others().all(|holding| self.is_heard(holding.tenure.holder, now));
        let (mut claimed, mut overdrawn) = (mine.clone(), false);
        for peer in self.peers.values().filter(|peer| peer.is_heard(now)) {
            let Some(theirs) = peer.pids.get(name) else { continue };
            // One that has lost its slot may not know it yet.
            let holds = peer.tenure.is_some_and(|tenure| {
                self.others().any(|holding| holding.tenure == tenure && !holding.contested)
            });
            overdrawn |= !holds && theirs.intersection(pids).count() > BARE as usize;
            claimed.extend(theirs);
        }
        let Some(node) = self.nodes.get_mut(name) else { return };
        node.evidence.look(at, pids, &claimed, all_heard, overdrawn);
        node.note_alive(at);
        node.note_evidence(now);
    }

    /// Decides what this replica may do at a server, where it has and wants `demand`. Tokens that
    /// it does not need leave it here: until the limit is in force nobody may open a connection.
    pub fn settle(&mut self, name: &str, demand: Demand, now: Instant) -> Allowance {
        let heard: BTreeSet<InstanceId> = self
            .others()
            .map(|holding| holding.tenure.holder)
            .filter(|holder| self.is_heard(*holder, now))
            .collect();
        let leaves = self.course == Course::Leaves;
        let Some(node) = self.nodes.get_mut(name) else {
            return Allowance { limit: if leaves { 0 } else { BARE }, reclaim: 0, lendable: 0 };
        };
        let share = self.held.map(|held| node.total / u32::from(held.of));
        let wanted = node.wants(share) > 0;
        node.demand = Demand { waiting: if leaves { 0 } else { demand.waiting }, ..demand };
        let (allowance, sent) = node.settle(share, leaves, now, |who| heard.contains(&who));
        if sent || wanted != (node.wants(share) > 0) {
            self.speak_at = None;
        }
        allowance
    }

    fn is_heard(&self, who: InstanceId, now: Instant) -> bool {
        self.peers.get(&who).is_some_and(|peer| peer.is_heard(now))
    }

    /// Returns what all peers are to be told at `now`: once a second, and at once when something
    /// has changed. `pids` gives the process ids of this replica's connections to a server, and of
    /// those that have ended within [`CLAIM_WITHIN`].
    pub fn poll_message(
        &mut self,
        now: Instant,
        pids: impl Fn(&str) -> BTreeSet<u32>,
    ) -> Option<Message> {
        if self.speak_at.is_some_and(|at| now < at) {
            return None;
        }
        self.speak_at = Some(now + SPEAK_EVERY);
        self.serial += 1;
        self.nodes.retain(|_, node| !node.can_be_forgotten());
        let held = self.held;
        let nodes = self.nodes.iter().filter(|(_, node)| !node.is_quiet()).map(|(name, node)| {
            let balances = held.map_or_else(Vec::new, |held| {
                node.balances(held.tenure, Some(node.total / u32::from(held.of)))
            });
            (name.clone(), NodeMessage { pids: pids(name), balances })
        });
        let tenure = held.map(|held| held.tenure);
        let (nodes, knows) = (nodes.collect(), self.others().map(|it| it.tenure).collect());
        Some(Message { from: self.me, serial: self.serial, tenure, knows, nodes })
    }

    /// Begins to give the slot back, and everything that is borrowed. No connection of a pool is
    /// open any more, and none is opened from now on; [`Self::settle`] is told so.
    pub const fn leave(&mut self) {
        self.course = Course::Leaves;
        self.speak_at = None;
    }

    /// Whether the store is to be read, for [`Self::change`].
    #[must_use]
    pub fn wants_change(&self, now: Instant) -> bool {
        if self.course == Course::Leaves {
            return self.held.is_some();
        }
        let confirm = || self.nodes.values().any(|node| node.wants_confirmation(now));
        self.held.is_none() || confirm() || self.sweepable(now).next().is_some()
    }

    /// Returns what to write to the store by compare-and-set at the version at which `stored` was
    /// read, after that read; `None` if nothing is to be changed. If the write succeeds, or may
    /// have, [`Self::handle_stored`] follows with what then stands there. Time may pass before it
    /// does, and other methods may be called.
    #[must_use]
    pub fn change(&mut self, stored: &Slots, now: Instant) -> Option<Slots> {
        self.handle_stored(stored, now);
        if self.course == Course::Leaves {
            return self.release(now);
        }
        let mut slots = self.slots.clone();
        if self.held.is_none() {
            self.found_empty = slots.is_empty();
        }
        for (tenure, clean) in self.sweepable(now) {
            slots = slots.sweep(tenure, &clean).unwrap_or(slots);
        }
        if !slots.is_least_holder(self.me) {
            slots = slots.release(self.me, Proven::At(BTreeSet::new()), false).unwrap_or(slots);
        }
        let renews = self.nodes.values().any(|node| node.wants_confirmation(now));
        let mine = match self.held {
            None => slots.claim(self.me, self.of),
            Some(_) if renews => slots.renew(self.me),
            Some(_) => None,
        };
        if let Some(mine) = mine {
            slots = mine;
            let counter = slots.holding_of(self.me).map_or(0, |holding| holding.counter);
            if self.writing.is_none_or(|(written, _)| written != counter) {
                self.writing = Some((counter, now));
            }
        }
        (slots != self.slots).then_some(slots)
    }

    /// Returns the slots without this replica's; `None` if it holds none, or still has connections.
    fn release(&self, now: Instant) -> Option<Slots> {
        let mut nodes = self.nodes.values();
        if nodes.any(|node| node.demand.used > node.demand.reserved) {
            return None;
        }
        let share = self.held.map(|_| 0);
        let is_proven = |node: &NodeBudget| node.standing(share) != Standing::Unproven;
        let for_long = self.held_since.is_some_and(|at| now.saturating_duration_since(at) >= LONG);
        let proven = match for_long && self.nodes.values().all(is_proven) {
            true => Proven::Everywhere,
            false => {
                let proven = self.nodes.iter().filter(|(_, node)| is_proven(node));
                Proven::At(proven.map(|(name, _)| name.clone()).collect())
            }
        };
        // At a server that was not met here others may have tokens of the holders before.
        let mine = self.held.map(|held| held.tenure);
        let told = |other: InstanceId| {
            let peer = self.peers.get(&other).filter(|peer| peer.is_heard(now));
            peer.is_some_and(|peer| peer.has_told == mine)
        };
        let met = self.held.is_some_and(|held| held.even)
            || self.others().all(|holding| told(holding.tenure.holder));
        let is_even = met && self.nodes.values().all(NodeBudget::is_even);
        self.slots.release(self.me, proven, is_even)
    }

    /// The possessions that have ended, by what the servers show, each with the servers that do.
    /// One that cannot be looked at for as long, or is gone, does not count.
    fn sweepable(&self, now: Instant) -> impl Iterator<Item = (Tenure, BTreeSet<Box<str>>)> {
        self.known.iter().filter_map(move |(tenure, (_, since))| {
            let heard_at = self.peers.get(&tenure.holder).map(|peer| peer.heard_at);
            let since = heard_at.map_or(*since, |heard_at| heard_at.max(*since));
            let mut clean = BTreeSet::new();
            for (name, node) in self.nodes.iter().filter(|(_, node)| !node.is_gone) {
                let known = node.known_since.map_or(since, |known| known.max(since));
                if node.evidence.is_clean_since(since, now) {
                    clean.insert(name.clone());
                } else if !node.evidence.is_out_of_sight(known, now) {
                    return None;
                }
            }
            (!clean.is_empty()).then_some((*tenure, clean))
        })
    }

    /// Returns when [`Self::poll_message`] has the next message; at once with `None`.
    #[must_use]
    pub const fn next_timeout(&self) -> Option<Instant> {
        self.speak_at
    }

    /// Returns the newest slots that are known to stand in the store.
    #[must_use]
    pub const fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Returns the slot that this replica holds, contested ones aside; `None` if none.
    #[must_use]
    pub fn slot(&self) -> Option<u16> {
        self.held.map(|held| held.tenure.slot)
    }

    /// Returns the names of the servers that are known, those that are gone included.
    pub fn nodes(&self) -> impl Iterator<Item = Box<str>> {
        self.nodes.keys().cloned()
    }

    /// Whether the slot is being given back.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.course == Course::Leaves
    }

    /// Returns the tokens of a server as they are now; `None` for one that is not known.
    #[must_use]
    pub fn status(&self, name: &str) -> Option<NodeStatus> {
        let node = self.nodes.get(name)?;
        let share = self.held.map(|held| node.total / u32::from(held.of));
        let (borrowed, lent) = node.borrowed_and_lent();
        let standing = node.standing(share);
        Some(NodeStatus { total: node.total, share: share.unwrap_or(0), borrowed, lent, standing })
    }
}

impl Peer {
    fn is_heard(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.heard_at) < SILENT_AFTER
    }
}
