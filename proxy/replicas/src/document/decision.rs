//! What an operator, or a replica in his place, has decided: the last word wins, without clocks.

use std::cmp::Ordering;
use std::fmt;

use pgimbal_auth::rotation::UnknownFields;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The number of a process, 64 random bits; 16 hexadecimal digits as text, because numbers of JSON
/// lose the last ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub u64);

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for InstanceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for InstanceId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = u64::from_str_radix(&text, 16);
        number.map(Self).map_err(|_| D::Error::custom("not a hexadecimal number of 64 bits"))
    }
}

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
