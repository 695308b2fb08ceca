//! What a replica tells the others about the budget: the same message to all of them.
//!
//! A message holds totals and not changes, so it may be lost, doubled or overtaken: the next one
//! says everything again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::slots::Tenure;
use crate::InstanceId;

/// A replica's heartbeat of the budget, sent once a second and after each loan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who says it.
    pub from: InstanceId,
    /// Grows with each message of this replica: an older one that arrives later is passed over.
    pub serial: u64,
    /// The possession of a slot that it speaks for; `None` if it holds none.
    pub tenure: Option<Tenure>,
    /// The possessions of slots that it knows of, but its own: so that saying nothing about a server
    /// is an answer to those, and only to those.
    #[serde(default)]
    pub knows: Vec<Tenure>,
    /// What it says of each server, by the name that all replicas give it: `host:port`.
    pub nodes: BTreeMap<Box<str>, NodeMessage>,
}

/// What a replica says of one server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeMessage {
    /// The process ids of its server connections there, all that it knows, and of those that have
    /// ended within [`CLAIM_WITHIN`](super::CLAIM_WITHIN).
    pub pids: BTreeSet<u32>,
    /// What it has lent to and borrowed from every other holder of a slot.
    pub balances: Vec<Balance>,
}

/// One side's totals of the loans between two replicas on one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// The possession of a slot that the writer speaks for.
    pub from: Tenure,
    /// The possession of a slot that it is about.
    pub to: Tenure,
    /// How many tokens the writer has ever sent to the reader: the number of the last one. They are
    /// no longer the writer's, whether the reader has them yet or not.
    pub sent: u64,
    /// The greatest `sent` of the reader that the writer has seen: its acknowledgement.
    pub received: u64,
    /// How many tokens the writer still held of the former holders of the reader's slot when it
    /// first saw the reader there; they count as sent by the reader.
    pub inherited: u32,
    /// How many more tokens the writer could use now.
    pub wants: u32,
}
