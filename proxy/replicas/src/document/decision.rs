//! What an operator, or a replica in his place, has decided: the last word wins, without clocks.

use std::cmp::Ordering;

use pgimbal_auth::rotation::UnknownFields;
use serde::{Deserialize, Serialize};

use crate::InstanceId;

/// The place of a decision among others: by counter, then by the process that decided. A process
/// counts on from the greatest counter that it has seen, so that what is decided with knowledge of
/// another decision comes after it; of two that did not know of each other, all replicas choose the
/// same.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Stamp {
    /// Greater than every counter that the process had seen; 0 before the first decision.
    pub counter: u64,
    /// The process that decided.
    pub instance: InstanceId,
}

/// A decision: a value with its place among other decisions about the same thing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision<T> {
    /// Its place.
    #[serde(flatten)]
    pub stamp: Stamp,
    /// What was decided.
    pub value: T,
    /// What a later version says of this decision.
    #[serde(flatten)]
    unknown: UnknownFields,
}

impl<T: Copy + Ord> Decision<T> {
    /// A decision of this place.
    pub(super) fn new(stamp: Stamp, value: T) -> Self {
        Self { stamp, value, unknown: UnknownFields::default() }
    }

    /// Keeps the greater of both. Two of one place are the same, unless somebody has changed a
    /// document by hand; then it is the greater value.
    pub(super) fn merge(&mut self, other: Self) {
        match (self.stamp, self.value).cmp(&(other.stamp, other.value)) {
            Ordering::Less => *self = other,
            Ordering::Equal => self.unknown.merge(other.unknown),
            Ordering::Greater => {}
        }
    }

    /// Takes the unknown fields of the copy in the store, if it is of the same decision.
    pub(super) fn follow(&mut self, stored: &Self) {
        if self.stamp == stored.stamp {
            self.unknown.follow(&stored.unknown);
        }
    }
}
