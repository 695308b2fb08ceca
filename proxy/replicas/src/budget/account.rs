//! The loans between this replica and one other, on one server.

use super::message::Balance;
use super::slots::Tenure;

/// The totals of the tokens that went to and fro between two possessions of slots. A token that is
/// sent leaves this side at once and reaches the other when a message arrives that counts it: in
/// between nobody has it, so it is never used twice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    sent: u64,
    received: u64,
    /// What this replica still held of the former holders of the other's slot.
    inherited: u32,
    /// What the other one still held of the former holders of this replica's slot; `None` until it
    /// has said so.
    bequeathed: Option<u32>,
    acknowledged: u64,
    wants: u32,
}

impl Account {
    /// Opens an account with the holder of a slot of whose former holders this replica has
    /// `inherited` tokens. One that held its slot already when this replica got its own is
    /// `earlier`: it must say what it holds of this slot's former holders.
    pub(super) fn new(inherited: u32, earlier: bool) -> Self {
        let bequeathed = (!earlier).then_some(0);
        Self { sent: 0, received: 0, inherited, bequeathed, acknowledged: 0, wants: 0 }
    }

    /// Takes in what the other side says.
    pub(super) fn read(&mut self, theirs: &Balance) {
        self.received = self.received.max(theirs.sent);
        self.acknowledged = self.acknowledged.max(theirs.received).min(self.sent);
        self.bequeathed.get_or_insert(theirs.inherited);
        self.wants = theirs.wants;
    }

    /// The other side does not know the server: it holds nothing of it.
    pub(super) fn read_nothing(&mut self) {
        self.bequeathed.get_or_insert(0);
        self.wants = 0;
    }

    /// What this side says to the other one; `wants` more tokens could be used here.
    pub(super) const fn balance(&self, from: Tenure, to: Tenure, wants: u32) -> Balance {
        let Self { sent, received, inherited, .. } = *self;
        Balance { from, to, sent, received, inherited, wants }
    }

    /// Sends tokens to the other side.
    pub(super) const fn send(&mut self, tokens: u32) {
        self.sent += tokens as u64;
    }

    /// The tokens that this side has of the other (positive), or the other of this (negative).
    pub(super) fn net(&self) -> i64 {
        let total = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let base = i64::from(self.inherited) - i64::from(self.bequeathed.unwrap_or(0));
        total(self.received) - total(self.sent) + base
    }

    /// Whether the other side has said what it holds of the former holders of this side's slot.
    pub(super) const fn is_settled(&self) -> bool {
        self.bequeathed.is_some()
    }

    /// Whether no token was ever moved, so that nothing is lost when the account is forgotten and
    /// opened again.
    pub(super) fn is_untouched(&self) -> bool {
        self.is_settled()
            && self.sent == 0
            && self.received == 0
            && self.net() == 0
            && self.inherited == 0
    }

    /// Whether the other side has all that was sent, and this side has nothing of it.
    pub(super) fn is_quiet(&self) -> bool {
        self.acknowledged == self.sent && self.net() <= 0
    }

    /// How many tokens the other side wants beyond those that are on their way to it.
    pub(super) fn wanted(&self) -> u32 {
        let under_way = u32::try_from(self.sent - self.acknowledged).unwrap_or(u32::MAX);
        self.wants.saturating_sub(under_way)
    }

    /// The other side is silent: what it wanted is no longer true.
    pub(super) const fn forget_wish(&mut self) {
        self.wants = 0;
    }
}
