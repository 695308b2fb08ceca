//! A transaction that is lost with its server connection, as its client goes on with it.

use std::sync::Arc;

use super::end::End;

/// Portals and statements that are remembered; a client that makes more has lost its way, the
/// oldest are forgotten.
const NAMES_LIMIT: usize = 16;

/// A lost transaction.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    statements: Names,
    portals: Names,
    /// The end was executed; ReadyForQuery will say so.
    ended: bool,
    /// It was lost in the middle of a segment, of which something was answered: that segment's end
    /// is not answered as if nothing had happened.
    cut: bool,
    /// What follows the end in the same pipeline gets this error.
    then: Option<Arc<[u8]>>,
}

/// What the client has prepared or bound that ends the transaction, oldest first.
#[derive(Debug, Default)]
struct Names(Vec<(Box<[u8]>, End)>);

impl Names {
    fn add(&mut self, name: &[u8], end: End) {
        if self.0.len() == NAMES_LIMIT {
            self.0.remove(0);
        }
        self.0.push((name.into(), end));
    }

    fn get(&self, name: &[u8]) -> Option<End> {
        self.0.iter().rev().find(|(known, _)| **known == *name).map(|(_, end)| *end)
    }
}

impl Lost {
    /// One that was lost in the middle of a segment.
    pub(super) fn cut() -> Self {
        Self { cut: true, ..Self::default() }
    }

    /// One behind whose end the pipeline gets this error.
    pub(super) fn followed_by(then: Option<Arc<[u8]>>) -> Self {
        Self { then, ..Self::default() }
    }

    /// The error for what follows its end in the same pipeline.
    pub(super) fn error_behind_end(self) -> Option<Arc<[u8]>> {
        self.then
    }

    /// The same in the next segment.
    pub(super) fn behind_segment(self) -> Self {
        Self { cut: false, ..self }
    }

    /// Whether the client has ended it.
    pub(super) const fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether it was lost in the middle of this segment, and has not ended since.
    pub(super) const fn is_cut(&self) -> bool {
        self.cut && !self.ended
    }

    /// The client ends it.
    pub(crate) const fn end(&mut self) {
        self.ended = true;
    }

    /// The client prepares a statement that does this.
    pub(crate) fn prepare(&mut self, name: &[u8], end: End) {
        self.statements.add(name, end);
    }

    /// What the client's statement of this name does, if it was prepared in this transaction.
    pub(crate) fn statement(&self, name: &[u8]) -> Option<End> {
        self.statements.get(name)
    }

    /// The client closes a statement.
    pub(crate) fn close(&mut self, name: &[u8]) {
        self.statements.0.retain(|(known, _)| **known != *name);
    }

    /// The client binds a portal to a statement that does this.
    pub(crate) fn bind(&mut self, portal: &[u8], end: End) {
        self.portals.add(portal, end);
    }

    /// What the client's portal of this name does.
    pub(crate) fn portal(&self, name: &[u8]) -> Option<End> {
        self.portals.get(name)
    }
}
