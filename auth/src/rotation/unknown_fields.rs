//! Fields of a document that this version does not know, and that must survive its rewrite.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The fields of one JSON object that this version does not know, by name; flattened into the
/// object when it is written. A later version has written them, and they mean nothing here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnknownFields(BTreeMap<String, Value>);

impl UnknownFields {
    /// Merges the fields of another copy of the object: all of both, and of two values for one
    /// name the greater in an order that is the same everywhere. Which of them is newer only the
    /// version that knows the field can tell.
    pub fn merge(&mut self, other: Self) {
        for (name, theirs) in other.0 {
            match self.0.get_mut(&name) {
                Some(own) if compare(own, &theirs) == Ordering::Less => *own = theirs,
                Some(_) => {}
                None => {
                    self.0.insert(name, theirs);
                }
            }
        }
    }

    /// Takes the values of the copy in the store for the names that it has: who knows the fields
    /// has written them there, and a copy in memory may be older.
    pub fn follow(&mut self, stored: &Self) {
        self.0.extend(stored.0.iter().map(|(name, value)| (name.clone(), value.clone())));
    }

    /// Whether there is no such field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Compares two values: by kind, then by content; objects by their names in order.
pub(super) fn compare(one: &Value, other: &Value) -> Ordering {
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            let differs = one.iter().zip(other).map(|(one, other)| compare(one, other));
            differs.fold(Ordering::Equal, Ordering::then).then(one.len().cmp(&other.len()))
        }
        (Value::Object(one), Value::Object(other)) => {
            let sorted = |object: &serde_json::Map<String, Value>| -> Vec<(String, Value)> {
                let pairs: BTreeMap<_, _> = object.clone().into_iter().collect();
                pairs.into_iter().collect()
            };
            let (one, other) = (sorted(one), sorted(other));
            let differs = one.iter().zip(&other).map(|((name, value), (name2, value2))| {
                name.cmp(name2).then_with(|| compare(value, value2))
            });
            differs.fold(Ordering::Equal, Ordering::then).then(one.len().cmp(&other.len()))
        }
        (Value::String(one), Value::String(other)) => one.cmp(other),
        _ => kind(one).cmp(&kind(other)).then_with(|| one.to_string().cmp(&other.to_string())),
    }
}

const fn kind(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    }
}
