//! What a text does, as far as it decides whether a replica may serve it, and until when that holds.

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use pgimbal_reads::Catalog;

use crate::ids::PoolId;
use crate::session::routing::Why;
use crate::sql::{BlockMode, Readings};

/// What one text does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    Reads,
    /// It begins a READ ONLY transaction block, which stays open.
    Begins,
    /// It is a whole READ ONLY transaction block.
    Block,
    /// It ends a transaction block.
    Ends,
    Not(Why),
}

/// By what a pool decides: as long as it is the same, so are the decisions.
#[derive(Clone, Debug)]
pub(crate) struct Basis {
    pool: PoolId,
    /// Two catalogs are the same if they are the same allocation, which this keeps, but not what is
    /// in it.
    catalog: Weak<Catalog>,
    /// How many refusals by replicas are remembered.
    refusals: u64,
}

impl Basis {
    pub(crate) fn new(pool: PoolId, catalog: &Arc<Catalog>, refusals: u64) -> Self {
        Self { pool, catalog: Arc::downgrade(catalog), refusals }
    }

    /// Whether it is of this pool, by this catalog, after so many refusals.
    pub(crate) fn is(&self, pool: PoolId, catalog: &Arc<Catalog>, refusals: u64) -> bool {
        self.pool == pool
            && self.refusals == refusals
            && std::ptr::eq(self.catalog.as_ptr(), Arc::as_ptr(catalog))
    }
}

/// How a session's texts are read, and how its transactions begin.
pub(crate) type Manner = (Readings, BlockMode);

/// What the text of a prepared statement does, as it was decided last.
#[derive(Debug, Default)]
pub struct LastDecided(RefCell<Option<(Basis, Manner, Text)>>);

impl LastDecided {
    /// What it does in this manner, if that was decided by what `is_current` says yes to.
    pub(crate) fn get(
        &self,
        manner: Manner,
        is_current: impl FnOnce(&Basis) -> bool,
    ) -> Option<Text> {
        let last = self.0.borrow();
        let (basis, then, does) = last.as_ref()?;
        (*then == manner && is_current(basis)).then_some(*does)
    }

    /// Notes what it does.
    pub(crate) fn set(&self, basis: Basis, manner: Manner, does: Text) {
        *self.0.borrow_mut() = Some((basis, manner, does));
    }
}
