//! A pipeline for which there was no server connection: all of it has waited, all of it is told,
//! and what follows a BEGIN in it never runs without that.

use std::sync::Arc;

use crate::recovery::block::Block;

/// Statements of one segment that are remembered because they would begin a transaction block.
const NAMES_LIMIT: usize = 16;

/// A segment that could not be served, and those behind it.
#[derive(Debug)]
pub(crate) struct Unserved {
    /// The error for the segments behind it; `None` where each of them is another matter.
    error: Option<Arc<[u8]>>,
    /// Statements of this segment that would begin a transaction block.
    begins: Vec<Box<[u8]>>,
    /// What the segment would do to the block.
    block: Block,
}

impl Unserved {
    /// A segment of which nothing was read yet.
    pub(super) const fn new(error: Option<Arc<[u8]>>) -> Self {
        Self { error, begins: Vec::new(), block: Block::Same }
    }

    /// The error for the segments behind it; `None` where each of them is another matter.
    pub(super) fn error(self) -> Option<Arc<[u8]>> {
        self.error
    }

    /// Whether what follows in the pipeline belongs to a transaction block that has not begun.
    pub(super) fn begins_block(&self) -> bool {
        self.block == Block::Opens
    }

    /// A message of the segment would do this to the transaction block.
    pub(crate) fn note(&mut self, block: Block) {
        self.block = self.block.then(block);
    }

    /// A message of the segment would prepare a statement that does this.
    pub(crate) fn prepare(&mut self, name: &[u8], block: Block) {
        self.begins.retain(|known| **known != *name);
        if block == Block::Opens && self.begins.len() < NAMES_LIMIT {
            self.begins.push(name.into());
        }
    }

    /// Whether the statement of this name, prepared in the segment, would begin a transaction block.
    pub(crate) fn begins(&self, name: &[u8]) -> bool {
        self.begins.iter().any(|known| **known == *name)
    }
}
