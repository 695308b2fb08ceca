//! The decisions of one pool, by normalised text.

use std::mem;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use pgimbal_lexer::{Encoding, Reading, StandardStrings};

use crate::normal::{Normalised, may_begin_as_read, normalise};
use crate::shapes::Shapes;
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
const ENTRY_BYTES: usize = 104;

/// Shapes have a quarter of the cache's bytes.
const SHARE_OF_SHAPES: usize = 4;

/// A worker may parse a text of at most so many tokens and bytes in its turn: none then takes more
/// than 200 us. The grammar needs 0.5 to 1 us for a token; the benchmark `reads` measures it.
const TOKENS_AT_ONCE: usize = 96;
const BYTES_AT_ONCE: usize = 4096;

/// What [`Decisions::lookup`] knows of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Its decision.
    Known(Decision),
    /// [`parse`] has to decide, which takes at most 200 us.
    Short,
    /// [`parse`] has to decide, which may take longer: a worker has another thread do that.
    Long,
}

/// How the bytes of nearly every session are read.
const USUAL: Reading = Reading { strings: StandardStrings::On, encoding: Encoding::Utf8 };

#[derive(Clone, Debug)]
struct Entry {
    decision: Decision,
    /// The catalog by which it was decided. Once there is another, it counts only if it is a
    /// refusal.
    catalog: u64,
    /// How many refusals were remembered when it was made. An entry by exact text or by shape counts
    /// only as long as there is no other.
    refusals: u64,
}

type Table = HashMap<Box<[u8]>, Entry, RandomState>;

/// A cache of decisions by normalised text: two texts that differ only in literals, comments and
/// white space have one entry. Beside it a text that comes again has one by its exact bytes, or by
/// its shape if it has constants, so that it need not be normalised.
///
/// The cache has two generations. When the young one has half of the bytes that shapes do not have,
/// it becomes the old one, and what nobody has looked up since is forgotten.
#[derive(Debug)]
pub struct Decisions {
    limits: Limits,
    young: Table,
    old: Table,
    young_bytes: usize,
    old_bytes: usize,
    /// The normalised text of the look-up, kept so that none allocates.
    scratch: Normalised,
    shapes: Shapes<Entry>,
    /// How many catalogs there were before this one.
    catalog: u64,
    /// How many refusals were remembered.
    refusals: u64,
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
            scratch: Normalised::default(),
            shapes: Shapes::new(limits.cache_bytes / SHARE_OF_SHAPES),
            catalog: 0,
            refusals: 0,
        }
    }

    /// Returns the decision of this text if it is known, or if it is clear without the grammar, and
    /// else how long [`parse`] may take, whose result is for [`Self::remember`].
    pub fn lookup(&mut self, text: &[u8], reading: Reading) -> Lookup {
        if let Err(reason) = self.look_at_beginning(text) {
            return Lookup::Known(Decision::NotRead(reason));
        }
        // A normalised text begins with a NUL.
        let may_be_exact = reading == USUAL && text.first() != Some(&0);
        if may_be_exact && let Some(decision) = self.find_as_it_is(text) {
            return Lookup::Known(decision);
        }
        if let Err(reason) = normalise(text, reading, &mut self.scratch) {
            return Lookup::Known(Decision::NotRead(reason));
        }
        let Some(decision) = self.find_normalised() else {
            let is_short = self.scratch.tokens() <= TOKENS_AT_ONCE && text.len() <= BYTES_AT_ONCE;
            return if is_short { Lookup::Short } else { Lookup::Long };
        };
        if may_be_exact {
            self.keep_as_it_is(text, decision.clone());
        }
        Lookup::Known(decision)
    }

    /// Keeps what [`parse`] has decided of this text. A refusal by a replica that came in between
    /// stays.
    pub fn remember(&mut self, text: &[u8], reading: Reading, decision: Decision) {
        let is_refused = Decision::NotRead(Reason::Refused);
        if self.lookup(text, reading) != Lookup::Known(is_refused) {
            self.keep(text, reading, decision);
        }
    }

    /// A standby has refused this text, or it lost a conflict with recovery: it is no read as long
    /// as it is in the cache, whatever the catalog says.
    pub fn remember_refused(&mut self, text: &[u8], reading: Reading) {
        self.refusals += 1;
        self.keep(text, reading, Decision::NotRead(Reason::Refused));
    }

    /// How many refusals were remembered: what was decided before another one may be no read now.
    #[must_use]
    pub const fn refusals(&self) -> u64 {
        self.refusals
    }

    /// Returns the decision of a text, which is parsed here unless it is known. Only for who may
    /// wait: a long text takes milliseconds.
    pub fn decide(&mut self, text: &[u8], reading: Reading, catalog: &Catalog) -> Decision {
        if let Lookup::Known(known) = self.lookup(text, reading) {
            return known;
        }
        let decision = parse(text, reading, catalog);
        self.keep(text, reading, decision.clone());
        decision
    }

    /// Forgets what was decided by a catalog that has been read anew; what a replica has refused
    /// stays. It takes no time: what is forgotten makes room later.
    pub fn catalog_changed(&mut self) {
        self.catalog += 1;
    }

    /// Forgets all texts, also what a replica has refused: it will refuse it again.
    pub fn clear(&mut self) {
        self.young = Table::default();
        self.old = Table::default();
        self.shapes.clear();
        self.young_bytes = 0;
        self.old_bytes = 0;
    }

    /// How many texts are kept, exact ones and shapes too.
    #[must_use]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len() + self.shapes.len()
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
        self.young_bytes + self.old_bytes + self.shapes.bytes()
    }

    /// # Errors
    /// Why the text is no read, where its beginning or its length says so.
    fn look_at_beginning(&self, text: &[u8]) -> Result<(), Reason> {
        if text.len() > self.limits.text_bytes {
            return Err(Reason::TooLong);
        }
        if !may_begin_as_read(text) {
            return Err(Reason::Statement);
        }
        Ok(())
    }

    /// The decision of the text, by its bytes or by its shape.
    fn find_as_it_is(&mut self, text: &[u8]) -> Option<Decision> {
        let now = (self.catalog, self.refusals);
        let entry = self.young.get(text).or_else(|| self.shapes.find(text))?;
        ((entry.catalog, entry.refusals) == now).then(|| entry.decision.clone())
    }

    /// Keeps the decision of the text that was just normalised by its bytes or its shape.
    fn keep_as_it_is(&mut self, text: &[u8], decision: Decision) {
        match self.scratch.constants() {
            Some([]) => self.keep_under(text.into(), decision),
            Some(constants) => {
                let (catalog, refusals) = (self.catalog, self.refusals);
                self.shapes.keep(text, constants, Entry { decision, catalog, refusals });
            }
            None => {}
        }
    }

    /// The decision of the normalised text in `scratch`, which becomes a young one.
    fn find_normalised(&mut self) -> Option<Decision> {
        if let Some(entry) = self.young.get(self.scratch.text()) {
            return self.counts(entry).then(|| entry.decision.clone());
        }
        let (text, entry) = self.old.remove_entry(self.scratch.text())?;
        self.old_bytes -= cost(&text);
        if !self.counts(&entry) {
            return None;
        }
        let decision = entry.decision.clone();
        self.insert(text, entry);
        Some(decision)
    }

    /// Whether an entry by normalised text still counts.
    fn counts(&self, entry: &Entry) -> bool {
        entry.catalog == self.catalog || entry.decision == Decision::NotRead(Reason::Refused)
    }

    fn keep(&mut self, text: &[u8], reading: Reading, decision: Decision) {
        if self.look_at_beginning(text).is_err()
            || normalise(text, reading, &mut self.scratch).is_err()
        {
            return;
        }
        self.keep_under(self.scratch.text().into(), decision);
    }

    fn keep_under(&mut self, key: Box<[u8]>, decision: Decision) {
        let entry = Entry { decision, catalog: self.catalog, refusals: self.refusals };
        if let Some(known) = self.young.get_mut(&key) {
            *known = entry;
            return;
        }
        if let Some((text, _)) = self.old.remove_entry(&key) {
            self.old_bytes -= cost(&text);
        }
        self.insert(key, entry);
    }

    fn insert(&mut self, text: Box<[u8]>, entry: Entry) {
        let half = (self.limits.cache_bytes - self.limits.cache_bytes / SHARE_OF_SHAPES) / 2;
        let cost = cost(&text);
        if cost > half {
            return;
        }
        if self.young_bytes + cost > half {
            self.old = mem::take(&mut self.young);
            self.old_bytes = mem::take(&mut self.young_bytes);
        }
        self.young_bytes += cost;
        self.young.insert(text, entry);
    }
}

fn cost(text: &[u8]) -> usize {
    text.len() + ENTRY_BYTES
}

#[cfg(test)]
mod tests;
