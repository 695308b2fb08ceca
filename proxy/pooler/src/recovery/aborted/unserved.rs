//! A pipeline for which there was no server connection: all of it has waited, all of it is told,
//! and what follows a BEGIN in it never runs without that.

use std::sync::Arc;

use pgimbal_wire::extended::{Bind, Parse};
use pgimbal_wire::tag::frontend;

use super::{Aborted, Lost, NAMES_LIMIT, Scope, aborted};
use crate::recovery::block::Block;
use crate::session::client_turn::{ClientTurn, Message};
use crate::session::front::ReadText;
use crate::sql::StatementClass;

/// A segment that could not be served, and those behind it.
#[derive(Debug)]
pub(super) struct Unserved {
    /// The error for the segments behind it; `None` where each of them is another matter.
    error: Option<Arc<[u8]>>,
    /// Statements of this segment that would begin a transaction block.
    begins: Vec<Box<[u8]>>,
    /// What the segment would do to the block.
    block: Block,
}

impl Aborted {
    /// There is no server connection for what the client has sent: the next segment is answered
    /// with `first`, those that are pipelined behind it with `error`, if there is one.
    #[must_use]
    pub fn unserved(first: Arc<[u8]>, error: Option<Arc<[u8]>>) -> Self {
        let unserved = Unserved { error, begins: Vec::new(), block: Block::Same };
        Self { error: Some(first), scope: Scope::Pipeline(unserved) }
    }
}

impl Unserved {
    /// Whether what follows in the pipeline belongs to a transaction block that has not begun.
    pub(super) fn begins_block(&self) -> bool {
        self.block == Block::Opens
    }

    /// What the segments behind it are told.
    pub(super) fn behind_segment(self) -> Option<Aborted> {
        if self.begins_block() {
            // The error was told at its BEGIN.
            let lost = Lost { then: self.error, ..Lost::default() };
            return Some(Aborted { error: None, scope: Scope::Transaction(lost) });
        }
        let error = self.error?;
        Some(Aborted::unserved(Arc::clone(&error), Some(error)))
    }
}

/// Notes what a message of an unserved segment would do to the transaction block.
pub(super) fn note_block(turn: &mut ClientTurn<'_>, message: Message<'_>, read: Option<&ReadText>) {
    if unserved(turn).is_none() {
        return;
    }
    let (body, len) = (message.body, message.body_len());
    let block = match message.header.tag {
        frontend::QUERY => read.map_or(Block::Same, |read| Block::of(&read.classified)),
        frontend::PARSE => {
            if let (Ok(Some(parse)), Some(read)) = (Parse::view(body, len), read) {
                note_parsed(turn, parse, read);
            }
            Block::Same
        }
        frontend::BIND => match Bind::view(body, len) {
            Ok(Some(bind)) => bound_block(turn, bind.statement),
            _ => Block::Same,
        },
        _ => Block::Same,
    };
    if let Some(unserved) = unserved(turn) {
        unserved.block = unserved.block.then(block);
    }
}

fn note_parsed(turn: &mut ClientTurn<'_>, parse: Parse<'_>, read: &ReadText) {
    let begins = Block::of(&read.classified) == Block::Opens;
    let Some(unserved) = unserved(turn) else { return };
    unserved.begins.retain(|known| **known != *parse.name);
    if begins && unserved.begins.len() < NAMES_LIMIT {
        unserved.begins.push(parse.name.into());
    }
}

/// What a statement of this name does, whether it was parsed in the segment or before.
fn bound_block(turn: &mut ClientTurn<'_>, name: &[u8]) -> Block {
    let parsed =
        unserved(turn).is_some_and(|unserved| unserved.begins.iter().any(|known| **known == *name));
    if parsed {
        return Block::Opens;
    }
    let classified = turn.class_of(name).and_then(StatementClass::not_plain);
    classified.map_or(Block::Same, Block::of)
}

pub(super) fn unserved<'a>(turn: &'a mut ClientTurn<'_>) -> Option<&'a mut Unserved> {
    match aborted(turn) {
        Some(Aborted { scope: Scope::Pipeline(unserved), .. }) => Some(unserved),
        _ => None,
    }
}
