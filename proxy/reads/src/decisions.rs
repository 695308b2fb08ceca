//! The decisions of one pool, by normalised text.

use std::mem;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use pgimbal_lexer::Reading;

use crate::normal::{may_begin_as_read, normalise};
use crate::{Catalog, Decision, Reason, parse};

/// What bounds the memory and the time of [`Decisions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many bytes the cached texts may have together, each with what keeping it costs.
    pub cache_bytes: usize,
    /// A longer text is not looked at: `max_statement_bytes`.
    pub text_bytes: usize,
}

impl Default for Limits {
    /// 4 MiB of texts of at most 64 KiB.
    fn default() -> Self {
        Self { cache_bytes: 4 << 20, text_bytes: 64 << 10 }
    }
}

/// What keeping a text costs beside its bytes: its place in the table, and the allocation.
const ENTRY_BYTES: usize = 96;

type Table = HashMap<Box<[u8]>, Decision, RandomState>;

/// A cache of decisions by normalised text: two texts that differ only in literals, comments and
/// white space have one entry. It has two generations. When the young one has half of the bytes, it
/// becomes the old one, whose entries that nobody has looked up since are forgotten.
#[derive(Debug)]
pub struct Decisions {
    limits: Limits,
    young: Table,
    old: Table,
    young_bytes: usize,
    old_bytes: usize,
    /// The normalised text of the look-up, kept so that none allocates.
    scratch: Vec<u8>,
}

impl Decisions {
    /// Makes an empty cache.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            young: Table::default(),
            old: Table::default(),
            young_bytes: 0,
            old_bytes: 0,
            scratch: Vec::new(),
        }
    }

    /// Returns the decision of this text if it is known, or if it is clear without the grammar.
    /// `None`: [`parse`] has to decide, whose result is for [`Self::remember`].
    pub fn lookup(&mut self, text: &[u8], reading: Reading) -> Option<Decision> {
        if let Err(reason) = self.normalise(text, reading) {
            return Some(Decision::NotRead(reason));
        }
        if let Some(decision) = self.young.get(&self.scratch[..]) {
            return Some(decision.clone());
        }
        let (text, decision) = self.old.remove_entry(&self.scratch[..])?;
        self.old_bytes -= cost(&text);
        self.insert(text, decision.clone());
        Some(decision)
    }

    /// Keeps what [`parse`] has decided of this text. A refusal by a replica that came in between
    /// stays.
    pub fn remember(&mut self, text: &[u8], reading: Reading, decision: Decision) {
        let is_refused = Decision::NotRead(Reason::Refused);
        if self.lookup(text, reading).is_none_or(|known| known != is_refused) {
            self.keep(text, reading, decision);
        }
    }

    /// A standby has refused this text, or it lost a conflict with recovery: it is no read as long
    /// as it is in the cache, whatever the catalog says.
    pub fn remember_refused(&mut self, text: &[u8], reading: Reading) {
        self.keep(text, reading, Decision::NotRead(Reason::Refused));
    }

    /// Returns the decision of a text, which is parsed here unless it is known. Only for who may
    /// wait: a long text takes milliseconds.
    pub fn decide(&mut self, text: &[u8], reading: Reading, catalog: &Catalog) -> Decision {
        if let Some(known) = self.lookup(text, reading) {
            return known;
        }
        let decision = parse(text, reading, catalog);
        self.keep(text, reading, decision.clone());
        decision
    }

    /// Forgets what was decided by a catalog that has been read anew; what a replica has refused
    /// stays.
    pub fn catalog_changed(&mut self) {
        let refused = Decision::NotRead(Reason::Refused);
        for (table, bytes) in
            [(&mut self.young, &mut self.young_bytes), (&mut self.old, &mut self.old_bytes)]
        {
            table.retain(|_, decision| *decision == refused);
            *bytes = table.keys().map(|text| cost(text)).sum();
        }
    }

    /// How many texts are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether no text is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes the kept texts have, with what keeping them costs; never more than
    /// [`Limits::cache_bytes`].
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.young_bytes + self.old_bytes
    }

    fn normalise(&mut self, text: &[u8], reading: Reading) -> Result<(), Reason> {
        if text.len() > self.limits.text_bytes {
            return Err(Reason::TooLong);
        }
        if !may_begin_as_read(text) {
            return Err(Reason::Statement);
        }
        normalise(text, reading, &mut self.scratch)
    }

    fn keep(&mut self, text: &[u8], reading: Reading, decision: Decision) {
        if self.normalise(text, reading).is_err() {
            return;
        }
        if let Some(known) = self.young.get_mut(&self.scratch[..]) {
            *known = decision;
            return;
        }
        if let Some((text, _)) = self.old.remove_entry(&self.scratch[..]) {
            self.old_bytes -= cost(&text);
        }
        self.insert(self.scratch.as_slice().into(), decision);
    }

    fn insert(&mut self, text: Box<[u8]>, decision: Decision) {
        let half = self.limits.cache_bytes / 2;
        let cost = cost(&text);
        if cost > half {
            return;
        }
        if self.young_bytes + cost > half {
            self.old = mem::take(&mut self.young);
            self.old_bytes = mem::take(&mut self.young_bytes);
        }
        self.young_bytes += cost;
        self.young.insert(text, decision);
    }
}

fn cost(text: &[u8]) -> usize {
    text.len() + ENTRY_BYTES
}

#[cfg(test)]
mod tests;
