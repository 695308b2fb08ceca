//! The budget of one server, as one replica has it.

use std::collections::BTreeMap;
use std::time::Instant;

use super::account::Account;
use super::evidence::{Evidence, GRACE, Proof};
use super::message::Balance;
use super::slots::Tenure;
use super::{Allowance, BARE, Demand, Standing};
use crate::InstanceId;

/// What this replica owns, has lent and has borrowed on one server.
#[derive(Debug, Default)]
pub(super) struct NodeBudget {
    /// How many connections all replicas together may have.
    pub(super) total: u32,
    pub(super) demand: Demand,
    /// Since when the server is known here.
    pub(super) known_since: Option<Instant>,
    /// When a process of this replica was last known to be there, for others to see.
    alive_at: Option<Instant>,
    /// For too long no process of it was there: others may have freed its slot.
    lapsed: bool,
    /// Somebody may have the slot's tokens still: since when this server is looked at, and what it
    /// is to show.
    unproven: Option<(Proof, Instant)>,
    /// The configuration no longer has the server; what was lent and borrowed is still known.
    pub(super) is_gone: bool,
    pub(super) evidence: Evidence,
    accounts: BTreeMap<Tenure, Account>,
    /// Tokens of former holders, by slot, that nobody has asked back.
    orphaned: BTreeMap<u16, u32>,
    missing: Vec<Missing>,
}

/// What went with a possession that has ended: free again when no process of it can be there.
#[derive(Clone, Copy, Debug)]
struct Missing {
    tokens: i64,
    /// What its holder had of this replica's own slot was never told: nothing may be used before.
    blocks: bool,
    proof: Proof,
    since: Instant,
}

impl NodeBudget {
    /// A server that is known from now on.
    pub(super) fn new(now: Instant) -> Self {
        Self { known_since: Some(now), ..Self::default() }
    }

    /// Begins a possession of a slot: whatever was before is void. `unproven`: what the server is to
    /// show first. Of the `others` those that are `known` must first tell what they hold of former
    /// holders; of the known ones, `gone` have ended meanwhile.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        unproven: Option<Proof>,
        others: impl Iterator<Item = (Tenure, bool)>,
        gone: impl Iterator<Item = Proof>,
    ) {
        self.lapsed = false;
        self.unproven = unproven.map(|proof| (proof, now));
        self.orphaned.clear();
        let missing = gone.map(|proof| Missing { tokens: 0, blocks: true, proof, since: now });
        self.missing = missing.collect();
        self.accounts = others.map(|(who, known)| (who, Account::new(0, known))).collect();
    }

    /// Whether no other replica has tokens of this one, or of the former holders of its slot.
    pub(super) fn is_even(&self) -> bool {
        let even = |account: &Account| account.is_settled() && account.net() >= 0;
        self.missing.is_empty() && self.accounts.values().all(even)
    }

    /// The possession has ended.
    pub(super) fn end(&mut self) {
        self.accounts.clear();
        self.orphaned.clear();
        self.missing.clear();
        self.unproven = None;
    }

    /// Another possession has ended; when the server shows what is asked for, its replica has no
    /// connection any more.
    pub(super) fn close_account(&mut self, who: Tenure, proof: Proof, now: Instant) {
        let Some(account) = self.accounts.remove(&who) else { return };
        let (net, blocks) = (account.net(), !account.is_settled());
        if net > 0 {
            *self.orphaned.entry(who.slot).or_default() += u32::try_from(net).unwrap_or(u32::MAX);
        }
        if net < 0 || blocks {
            self.missing.push(Missing { tokens: net.min(0), blocks, proof, since: now });
        }
    }

    /// Another possession has begun.
    pub(super) fn open_account(&mut self, who: Tenure) {
        let inherited = self.orphaned.remove(&who.slot).unwrap_or(0);
        self.accounts.entry(who).or_insert_with(|| Account::new(inherited, false));
    }

    /// A process of this replica was there at `at`.
    pub(super) fn note_alive(&mut self, at: Instant) {
        self.alive_at = self.alive_at.max(Some(at));
    }

    /// A look at the server is over.
    pub(super) fn note_evidence(&mut self, now: Instant) {
        let evidence = &self.evidence;
        let is_open = |proof, since| !evidence.proves(proof, since, now);
        self.missing.retain(|missing| is_open(missing.proof, missing.since));
        self.unproven = self.unproven.filter(|(proof, since)| is_open(*proof, *since));
    }

    /// The slot was still this replica's at `at`.
    pub(super) fn confirm(&mut self, at: Instant) {
        self.note_alive(at);
        self.lapsed = false;
    }

    /// How many connections there may be without tokens: one for clients at the least.
    fn bare(&self) -> u32 {
        BARE.max(self.demand.reserved.saturating_add(1))
    }

    /// Whether the possession is to be confirmed by the store before tokens can be used (again):
    /// this replica needs more than it may have without, or others need its tokens.
    pub(super) fn wants_confirmation(&self, now: Instant) -> bool {
        let age = self.alive_at.map(|at| now.saturating_duration_since(at));
        let old = age.is_none_or(|age| age > GRACE / 2);
        let mut accounts = self.accounts.values();
        let needed = self.demand.used.saturating_add(self.demand.waiting) > self.bare()
            || accounts.any(|account| account.net() > 0 || account.wanted() > 0);
        if self.lapsed { needed || !old } else { needed && old }
    }

    /// Whether the node can be forgotten, and met again as if for the first time.
    pub(super) fn can_be_forgotten(&self) -> bool {
        let is_empty = self.orphaned.is_empty() && self.missing.is_empty();
        self.is_gone
            && self.demand.used == 0
            && is_empty
            && self.unproven.is_none_or(|(proof, _)| proof == Proof::Glance)
            && self.accounts.values().all(Account::is_untouched)
    }

    /// Whether nothing of it has to be told any more.
    pub(super) fn is_quiet(&self) -> bool {
        self.is_gone
            && self.demand.used == 0
            && self.orphaned.is_empty()
            && self.accounts.values().all(Account::is_quiet)
    }

    /// Why the tokens can or cannot be used, for a replica that owns `share`.
    pub(super) fn standing(&self, share: Option<u32>) -> Standing {
        if share.is_none() {
            Standing::NoSlot
        } else if self.lapsed {
            Standing::Unconfirmed
        } else if self.unproven.is_some() || self.missing.iter().any(|m| m.blocks) {
            Standing::Unproven
        } else if self.accounts.values().any(|account| !account.is_settled()) {
            Standing::Unsettled
        } else {
            Standing::Usable
        }
    }

    /// How many tokens this replica has beyond its share (positive), or short of it (negative).
    pub(super) fn loans(&self) -> i64 {
        let accounts: i64 = self.accounts.values().map(Account::net).sum();
        let orphaned: i64 = self.orphaned.values().map(|tokens| i64::from(*tokens)).sum();
        accounts + orphaned + self.missing.iter().map(|missing| missing.tokens).sum::<i64>()
    }

    /// How many tokens were borrowed of others, and how many were lent to them.
    pub(super) fn borrowed_and_lent(&self) -> (u32, u32) {
        let narrow = |tokens: i64| u32::try_from(tokens).unwrap_or(0);
        let orphaned: u32 = self.orphaned.values().sum();
        let missing: u32 = self.missing.iter().map(|missing| narrow(-missing.tokens)).sum();
        self.accounts.values().map(Account::net).fold((orphaned, missing), |(plus, minus), net| {
            (plus.saturating_add(narrow(net)), minus.saturating_add(narrow(-net)))
        })
    }

    /// Takes in the other side of an account.
    pub(super) fn read(&mut self, balance: &Balance) {
        if let Some(account) = self.accounts.get_mut(&balance.from) {
            account.read(balance);
        }
    }

    /// The holder of `other` does not know this server.
    pub(super) fn read_nothing(&mut self, other: Tenure) {
        if let Some(account) = self.accounts.get_mut(&other) {
            account.read_nothing();
        }
    }

    /// What it tells the others, as the holder of `mine`.
    pub(super) fn balances(&self, mine: Tenure, share: Option<u32>) -> Vec<Balance> {
        let wants = self.wants(share);
        self.accounts.iter().map(|(other, account)| account.balance(mine, *other, wants)).collect()
    }

    /// Returns and lends what is not needed here, and says how many connections may be open. A
    /// replica that `leaves` lends nothing: what it is about to write says who has its tokens. The
    /// flag says whether a token was sent.
    pub(super) fn settle(
        &mut self,
        share: Option<u32>,
        leaves: bool,
        now: Instant,
        is_heard: impl Fn(InstanceId) -> bool,
    ) -> (Allowance, bool) {
        let age = self.alive_at.map(|at| now.saturating_duration_since(at));
        self.lapsed |= age.is_none_or(|age| age > GRACE);
        let used = self.demand.used;
        let usable = share.filter(|share| self.standing(Some(*share)) == Standing::Usable);
        for (tenure, account) in &mut self.accounts {
            if !is_heard(tenure.holder) {
                account.forget_wish();
            }
        }
        let before = self.loans();
        let (limit, claimed_back) = match usable {
            Some(share) => {
                let claimed_back = self.give_back(share);
                if !leaves {
                    self.lend(share);
                }
                (self.limit(share), claimed_back)
            }
            None => (self.bare(), 0),
        };
        let sent = self.loans() != before;
        if leaves {
            return (Allowance { limit: 0, reclaim: used, lendable: 0 }, sent);
        }
        // With a slot whose tokens cannot be used, what is open beyond stays; without one it is
        // somebody else's.
        let over = if share.is_some() && usable.is_none() { 0 } else { used.saturating_sub(limit) };
        let lendable = if usable.is_some() && self.may_lend() { self.wanted() } else { 0 };
        (Allowance { limit, reclaim: over.max(claimed_back), lendable }, sent)
    }

    /// How many tokens others want.
    fn wanted(&self) -> u32 {
        self.accounts.values().fold(0, |sum, account| sum.saturating_add(account.wanted()))
    }

    fn rights(&self, share: u32) -> u32 {
        u32::try_from((i64::from(share) + self.loans()).max(0)).unwrap_or(u32::MAX)
    }

    /// How many connections may be open with its tokens. A share that is no more than what belongs
    /// to no pool would serve nobody, and the others have no more to lend: one is for clients then,
    /// from the margin that the budget leaves, as without a slot.
    fn limit(&self, share: u32) -> u32 {
        let least = self.demand.reserved.saturating_add(1);
        let rights = self.rights(share);
        if share < least && !self.is_gone { rights.max(least) } else { rights }
    }

    fn spare(&self, share: u32) -> u32 {
        self.rights(share).saturating_sub(self.demand.used)
    }

    /// How many more tokens could be used here.
    pub(super) fn wants(&self, share: Option<u32>) -> u32 {
        match share {
            Some(share) if self.standing(Some(share)) == Standing::Usable => {
                self.demand.waiting.saturating_sub(self.spare(share))
            }
            _ => 0,
        }
    }

    /// Sends borrowed tokens back: all that are spare if nobody waits here, and as soon as they are
    /// spare those that their owner wants. Returns how many of these are still in use.
    fn give_back(&mut self, share: u32) -> u32 {
        let mut spare = self.spare(share);
        let mut in_use = 0_u32;
        for account in self.accounts.values_mut() {
            let net = u32::try_from(account.net().max(0)).unwrap_or(u32::MAX);
            let due = if self.demand.waiting == 0 { net } else { net.min(account.wanted()) };
            let sent = due.min(spare);
            account.send(sent);
            spare -= sent;
            in_use = in_use.saturating_add((net - sent).min(account.wanted()));
        }
        if self.demand.waiting == 0 {
            self.orphaned.retain(|_, tokens| {
                let dropped = spare.min(*tokens);
                *tokens -= dropped;
                spare -= dropped;
                *tokens > 0
            });
        }
        in_use
    }

    /// Whether nobody waits here and nothing is borrowed.
    fn may_lend(&self) -> bool {
        let borrows = self.accounts.values().any(|a| a.net() > 0) || !self.orphaned.is_empty();
        self.demand.waiting == 0 && !borrows
    }

    /// Lends half of what is spare.
    fn lend(&mut self, share: u32) {
        if !self.may_lend() {
            return;
        }
        let mut spare = self.spare(share) / 2;
        for account in self.accounts.values_mut() {
            let sent = account.wanted().min(spare);
            account.send(sent);
            spare -= sent;
        }
    }
}
