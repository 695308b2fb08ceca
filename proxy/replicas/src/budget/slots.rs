//! The slots of a deployment: who may use which part of every server's budget.
//!
//! A slot changes in one way only: a replica reads the document from the store, changes its slots
//! by [`Slots::claim`], [`Slots::renew`], [`Slots::release`] or [`Slots::sweep`], and writes it by
//! compare-and-set at the version that it has read. A document whose compare-and-set has not
//! succeeded is given to nobody, so every [`Slots`] that two replicas merge comes from one chain of
//! writes, and the greater counter of a slot is the later state. Somebody who edits the store by
//! hand can break the chain: then a merge finds two states with one counter, keeps the holders of
//! both, and the slot is nobody's until all but one of them have left it.

use std::collections::{BTreeMap, BTreeSet};

use pgimbal_auth::rotation::UnknownFields;
use serde::{Deserialize, Serialize};

use crate::InstanceId;

/// The most slots that a deployment has: the peer id of a cancel key is slot + 1, and nobody runs
/// more replicas of a proxy than this. It also bounds what a broken document costs.
pub const MAX_SLOTS: u16 = 64;

/// How many servers a slot names, of each kind. Those beyond are looked at more strictly by the next
/// holder; the document stays small.
const MAX_NAMES: usize = 256;

/// One replica's possession of one slot, from its claim to its end. A replica that loses a slot and
/// claims it again has another tenure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tenure {
    /// The slot's number, from 0.
    pub slot: u16,
    /// The slot's counter when it was claimed.
    pub since: u64,
    /// Who has claimed it.
    pub holder: InstanceId,
}

/// The slots of a deployment, as they stand in the document of shared facts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slots {
    states: BTreeMap<u16, SlotState>,
}

/// The state of one slot. Fields of a later version survive a rewrite by this one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct SlotState {
    /// Grows by one with every change of the slot.
    counter: u64,
    /// The value of `counter` at which the holder has claimed it.
    #[serde(default)]
    since: u64,
    /// Who holds it: nobody, one replica, or, after an edit by hand, several, so that it is
    /// nobody's.
    #[serde(default)]
    holders: BTreeSet<InstanceId>,
    /// The holder may use one part of every budget of this many (its `max_replicas`).
    #[serde(default)]
    of: u16,
    /// Whether it was freed because its holder was silent, and not by the holder.
    #[serde(default)]
    swept: bool,
    /// The servers that showed no process of that holder when it was freed, by name; without a
    /// meaning unless `swept`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    clean: BTreeSet<Box<str>>,
    /// The servers of which a later holder has had the proof that nobody of before is there.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    proven: BTreeSet<Box<str>>,
    /// Whether no other replica has tokens of a former holder.
    #[serde(default)]
    even: bool,
    #[serde(flatten)]
    unknown: UnknownFields,
}

/// A slot that has one holder, or is contested by several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Which possession this is.
    pub tenure: Tenure,
    /// The slot's counter: it changes with every renewal.
    pub counter: u64,
    /// The holder may use one part of every budget of this many.
    pub of: u16,
    /// Whether other holders stand beside it, so that none of them may use the slot.
    pub contested: bool,
    /// Whether the slot was free when it was claimed because its former holder had been silent.
    pub after_sweep: bool,
    /// Whether no other replica had tokens of a former holder when the slot was claimed.
    pub even: bool,
}

/// What a holder that gives its slot back knows of silent holders before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proven {
    /// They are gone from every server.
    Everywhere,
    /// They are gone from these; the holder has not met any other.
    At(BTreeSet<Box<str>>),
}

impl Slots {
    /// Whether no slot was ever taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// Returns every holder of every slot, by slot.
    pub fn holdings(&self) -> impl Iterator<Item = Holding> {
        // What a broken document says beyond is nobody's.
        self.states.range(..MAX_SLOTS).flat_map(|(slot, state)| {
            state.holders.iter().take(MAX_SLOTS.into()).map(|holder| Holding {
                tenure: Tenure { slot: *slot, since: state.since, holder: *holder },
                counter: state.counter,
                of: state.of.clamp(1, MAX_SLOTS),
                contested: state.holders.len() > 1,
                after_sweep: state.swept,
                even: state.even,
            })
        })
    }

    /// Whether a server has shown no process of a former holder of the slot that was silent, when
    /// the slot was freed or later; true if there is no such holder.
    #[must_use]
    pub(super) fn was_clean(&self, slot: u16, server: &str) -> bool {
        self.states.get(&slot).is_none_or(|it| !it.swept || it.clean.contains(server))
            || self.is_proven(slot, server)
    }

    /// Whether a former holder of the slot has had the proof that nobody of before is at a server.
    #[must_use]
    pub(super) fn is_proven(&self, slot: u16, server: &str) -> bool {
        self.states.get(&slot).is_some_and(|state| state.proven.contains(server))
    }

    /// Returns what a replica holds; `None` if it holds nothing. A contested slot is returned as
    /// well ([`Holding::contested`]), an uncontested one first.
    #[must_use]
    pub fn holding_of(&self, who: InstanceId) -> Option<Holding> {
        let mine = self.holdings().filter(|holding| holding.tenure.holder == who);
        mine.min_by_key(|holding| (holding.contested, holding.tenure.slot))
    }

    /// Whether `who` holds nothing, a slot alone, or a contested one of whose holders it is the
    /// least: the others leave it.
    #[must_use]
    pub(super) fn is_least_holder(&self, who: InstanceId) -> bool {
        let Some(mine) = self.holding_of(who) else { return true };
        let slot = mine.tenure.slot;
        self.holdings().filter(|h| h.tenure.slot == slot).all(|h| h.tenure.holder >= who)
    }

    /// Returns the slots with one for `who` added: the lowest free one below `of`, of which one
    /// part in `of` of every budget goes with it. `None` if `who` has one, none is free, or the
    /// parts of all holders together would be more than the whole.
    #[must_use]
    pub fn claim(&self, who: InstanceId, of: u16) -> Option<Self> {
        let of = of.clamp(1, MAX_SLOTS);
        let parts = self.states.values().filter(|state| !state.holders.is_empty());
        let parts = parts.map(|state| state.of.clamp(1, MAX_SLOTS)).chain([of]);
        if self.holding_of(who).is_some() || !fit_in_whole(parts) {
            return None;
        }
        let is_free = |slot: &u16| self.states.get(slot).is_none_or(|s| s.holders.is_empty());
        let slot = (0..of).find(is_free)?;
        let mut slots = self.clone();
        let new = SlotState { even: true, ..SlotState::default() };
        let state = slots.states.entry(slot).or_insert(new);
        state.counter = state.counter.checked_add(1)?;
        state.since = state.counter;
        state.holders.insert(who);
        state.of = of;
        Some(slots)
    }

    /// Returns the slots with the counter of `who`'s slot raised, which proves that nobody has
    /// taken it meanwhile. `None` if `who` holds none of its own.
    #[must_use]
    pub fn renew(&self, who: InstanceId) -> Option<Self> {
        let holding = self.holding_of(who).filter(|holding| !holding.contested)?;
        self.changed(holding.tenure.slot, |_| {})
    }

    /// Returns the slots without `who`, which must have no server connection any more. `None` if it
    /// holds nothing. `even`: no other replica has tokens of this one or of a holder before it.
    #[must_use]
    pub fn release(&self, who: InstanceId, proven: Proven, even: bool) -> Option<Self> {
        let slot = self.holding_of(who)?.tenure.slot;
        self.changed(slot, |state| {
            state.holders.remove(&who);
            match proven {
                Proven::Everywhere => {
                    state.swept = false;
                    state.clean.clear();
                    state.proven.clear();
                }
                Proven::At(servers) if state.swept => {
                    let room = MAX_NAMES.saturating_sub(state.proven.len());
                    state.proven.extend(servers.into_iter().take(room));
                }
                Proven::At(_) => {}
            }
            state.even = even && state.holders.is_empty();
        })
    }

    /// Returns the slots without the holder of `tenure`, which was silent and has no connection to
    /// the servers `clean`; about others nothing is known. `None` if that possession has ended.
    #[must_use]
    pub fn sweep(&self, tenure: Tenure, clean: &BTreeSet<Box<str>>) -> Option<Self> {
        self.holdings().find(|holding| holding.tenure == tenure)?;
        self.changed(tenure.slot, |state| {
            state.holders.remove(&tenure.holder);
            // What the holder before has left at a server may be there still.
            let is_clean =
                |it: &str| !state.swept || state.clean.contains(it) || state.proven.contains(it);
            let clean = clean.iter().filter(|it| is_clean(it));
            state.clean = clean.take(MAX_NAMES).cloned().collect();
            state.proven.clear();
            (state.swept, state.even) = (true, false);
        })
    }

    fn changed(&self, slot: u16, change: impl FnOnce(&mut SlotState)) -> Option<Self> {
        let mut slots = self.clone();
        let state = slots.states.get_mut(&slot)?;
        state.counter = state.counter.checked_add(1)?;
        change(state);
        Some(slots)
    }

    /// Merges what another document says: of each slot the state with the greater counter. It is
    /// commutative, associative and idempotent. Of two states with one counter, which only an edit
    /// by hand makes, the holders of both remain.
    pub fn merge(&mut self, other: &Self) {
        for (slot, theirs) in &other.states {
            let ours = self.states.entry(*slot).or_default();
            match ours.counter.cmp(&theirs.counter) {
                std::cmp::Ordering::Greater => {}
                std::cmp::Ordering::Less => *ours = theirs.clone(),
                std::cmp::Ordering::Equal => ours.unite(theirs),
            }
        }
    }
}

impl SlotState {
    fn unite(&mut self, other: &Self) {
        self.since = self.since.max(other.since);
        self.holders.extend(other.holders.iter().copied());
        // The greater part of the budget, so that the parts never look smaller than they are.
        self.of = match (self.of, other.of) {
            (0, of) | (of, 0) => of,
            (a, b) => a.min(b),
        };
        match (self.swept, other.swept) {
            (true, true) => {
                self.clean.retain(|it| other.clean.contains(it));
                self.proven.retain(|it| other.proven.contains(it));
            }
            (false, true) => {
                self.clean.clone_from(&other.clean);
                self.proven.clone_from(&other.proven);
            }
            (_, false) => {}
        }
        self.swept |= other.swept;
        self.even &= other.even;
        self.unknown.merge(other.unknown.clone());
    }
}

/// Whether the sum of 1/n over all parts is at most 1. Numbers are at most [`MAX_SLOTS`], so that
/// their least common multiple fits.
fn fit_in_whole(parts: impl Iterator<Item = u16>) -> bool {
    let parts: Vec<u128> = parts.map(u128::from).collect();
    let whole = parts.iter().fold(1, |whole, part| whole / gcd(whole, *part) * part);
    parts.iter().map(|part| whole / part).sum::<u128>() <= whole
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: InstanceId = InstanceId(1);
    const B: InstanceId = InstanceId(2);
    const C: InstanceId = InstanceId(3);

    #[test]
    fn a_slot_is_claimed_renewed_released_and_swept() {
        let slots = Slots::default().claim(A, 2).unwrap();
        assert_eq!(slots.claim(A, 2), None, "one each");
        let slots = slots.claim(B, 2).unwrap();
        assert_eq!(slots.claim(C, 2), None, "none is free");
        let a = slots.holding_of(A).unwrap();
        assert_eq!((a.tenure.slot, a.of, a.contested), (0, 2, false));
        let renewed = slots.renew(A).unwrap();
        assert_eq!(renewed.holding_of(A).unwrap().tenure, a.tenure);
        assert!(renewed.holding_of(A).unwrap().counter > a.counter);
        let clean = BTreeSet::from(["one:5432".into(), "two:5432".into()]);
        let swept = renewed.sweep(a.tenure, &clean).unwrap();
        assert_eq!(swept.sweep(a.tenure, &clean), None);
        assert!(swept.was_clean(0, "one:5432") && !swept.was_clean(0, "three:5432"));
        let c = swept.claim(C, 2).unwrap().holding_of(C).unwrap();
        assert!((c.tenure.slot, c.after_sweep) == (0, true) && c.tenure.since > a.tenure.since);
        let again = swept.claim(C, 2).unwrap();
        let again = again.sweep(c.tenure, &BTreeSet::from(["two:5432".into(), "four:5432".into()]));
        let again = again.unwrap();
        assert!(again.was_clean(0, "two:5432") && again.was_clean(1, "four:5432"));
        assert!(!again.was_clean(0, "one:5432") && !again.was_clean(0, "four:5432"));
        let some = Proven::At(BTreeSet::from(["three:5432".into()]));
        let passed_on = swept.claim(C, 2).unwrap().release(C, some, true).unwrap();
        assert!(passed_on.is_proven(0, "three:5432") && !passed_on.is_proven(0, "one:5432"));
        let swept = passed_on.claim(A, 2).unwrap();
        let swept = swept.sweep(swept.holding_of(A).unwrap().tenure, &BTreeSet::new()).unwrap();
        assert!(!swept.was_clean(0, "three:5432"), "the last one may be there");
        let left = slots.release(B, Proven::Everywhere, true).unwrap().claim(C, 2).unwrap();
        assert!(!left.holding_of(C).unwrap().after_sweep);
    }

    #[test]
    fn parts_of_different_sizes_are_never_more_than_the_whole() {
        let three = Slots::default().claim(A, 3).unwrap().claim(B, 3).unwrap();
        assert_eq!(three.claim(C, 2), None, "1/3 + 1/3 + 1/2");
        let four = three.claim(C, 4).unwrap();
        assert_eq!(four.claim(InstanceId(4), 4), None, "2/3 + 1/4 + 1/4");
        assert!(fit_in_whole((0..64).map(|_| 64)) && !fit_in_whole((0..65).map(|_| 64)));
        assert!(!fit_in_whole(1..=64));
    }

    #[test]
    fn what_two_writers_said_with_one_counter_is_nobodys() {
        let (a, b) = (Slots::default().claim(A, 2).unwrap(), Slots::default().claim(B, 2).unwrap());
        let (mut ab, mut ba) = (a.clone(), b.clone());
        ab.merge(&b);
        ba.merge(&a);
        assert_eq!(ab, ba);
        assert!(ab.holding_of(A).unwrap().contested && ab.holding_of(B).unwrap().contested);
        assert_eq!(ab.renew(A), None);
        let left = ab.release(B, Proven::Everywhere, true).unwrap();
        assert!(!left.holding_of(A).unwrap().contested);
        ab.merge(&left);
        assert_eq!(ab, left, "the later state of a chain wins");
    }

    #[test]
    fn fields_of_a_later_version_survive() {
        let state =
            r#"{"counter":3,"since":2,"holders":["0000000000000007"],"of":4,"color":"red"}"#;
        let text = format!("{{\"0\":{state}}}");
        let slots: Slots = serde_json::from_str(&text).unwrap();
        let slots = slots.renew(InstanceId(7)).unwrap();
        let text = serde_json::to_string(&slots).unwrap();
        assert!(text.contains("\"color\":\"red\"") && text.contains("\"counter\":4"), "{text}");
    }
}
