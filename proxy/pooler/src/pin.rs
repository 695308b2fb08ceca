//! Why a session keeps its server connection beyond the end of a transaction.

use crate::effect::Effect;
use crate::shared::PinSlot;
use crate::text::{Taint, Taints};

/// The reasons, and the place among the pool's pinned sessions.
#[derive(Debug, Default)]
pub struct Pin {
    taints: Taints,
    statements: StatementPins,
    slot: Option<PinSlot>,
}

/// Reasons that lie in prepared statements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatementPins {
    /// A statement's text is above the limit, so that it lives on one server only.
    pub unkept: bool,
    /// Named statements were parsed under settings that have changed since.
    pub older_settings: bool,
}

impl Pin {
    /// Whether the session keeps its server connection.
    #[inline]
    #[must_use]
    pub fn is_set(&self) -> bool {
        !self.taints.is_empty() || self.statements != StatementPins::default()
    }

    /// Whether a place is held already, so that further reasons cost nothing.
    #[must_use]
    pub const fn has_slot(&self) -> bool {
        self.slot.is_some()
    }

    /// Adds reasons that were found in a text; `slot` is the place taken for them.
    pub fn taint(&mut self, taints: Taints, slot: Option<PinSlot>) {
        self.taints = self.taints.union(taints);
        self.slot = self.slot.take().or(slot);
    }

    /// Changes the reasons that lie in prepared statements.
    pub fn set_statements(&mut self, pins: StatementPins, slot: Option<PinSlot>) {
        self.statements = pins;
        self.slot = self.slot.take().or(slot);
        self.give_back_if_free();
    }

    /// The reasons that lie in prepared statements.
    #[must_use]
    pub const fn statements(&self) -> StatementPins {
        self.statements
    }

    /// A statement has succeeded that takes state away, and no rollback can bring it back.
    pub fn lift(&mut self, effect: &Effect) {
        let lifted: &[Taint] = match effect {
            Effect::DiscardAll => &Taint::ALL,
            // Not what may have been the role, which RESET ALL leaves alone.
            Effect::ResetAll => &[Taint::SetInLongerText, Taint::SetUnread],
            Effect::DiscardTemp => &[Taint::TemporaryTable],
            Effect::UnlistenAll => &[Taint::Listen],
            Effect::UnlockAll => &[Taint::AdvisoryLock],
            Effect::CloseAll => &[Taint::HoldCursor],
            Effect::DeallocateAll => &[Taint::SqlPrepare, Taint::DeallocateInLongerText],
            _ => return,
        };
        for taint in lifted {
            self.taints.remove(*taint);
        }
        if matches!(effect, Effect::DiscardAll | Effect::DeallocateAll) {
            self.statements = StatementPins::default();
        }
        self.give_back_if_free();
    }

    /// Every reason, as SHOW CLIENTS and metric labels say it.
    pub fn reasons(&self) -> impl Iterator<Item = &'static str> {
        self.taints
            .iter()
            .map(Taint::as_str)
            .chain(self.statements.unkept.then_some("large_statement"))
            .chain(self.statements.older_settings.then_some("statement_under_older_settings"))
    }

    fn give_back_if_free(&mut self) {
        if !self.is_set() {
            self.slot = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discard_all_lifts_every_reason_and_others_their_own() {
        let mut pin = Pin::default();
        pin.taint(Taint::Listen.into(), None);
        pin.taint(Taint::TemporaryTable.into(), None);
        pin.set_statements(StatementPins { unkept: true, older_settings: false }, None);
        assert!(pin.reasons().eq(["listen", "temporary_table", "large_statement"]));
        pin.lift(&Effect::UnlistenAll);
        assert!(pin.reasons().eq(["temporary_table", "large_statement"]));
        pin.lift(&Effect::DiscardAll);
        assert!(!pin.is_set());
    }
}
