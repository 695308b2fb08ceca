//! The state of one cluster: its owners, side by side.
//!
//! Each owner keeps its own invariants behind private fields. A step that touches several of them
//! is a function that takes the owners it names, or the whole [`State`].
//! [`Topology`](super::Topology) is the outside.

use std::sync::Arc;
use std::time::Instant;

use super::event::Events;
use super::freshness::Positions;
use super::history::FailoverHistory;
use super::identity::{Identity, Remembered};
use super::lag::Samples;
use super::nodes::Nodes;
use super::options::Options;
use super::sampling::Sampling;
use super::split_brain::SplitBrain;
use super::view::{Epoch, HoldReason, View, Writes};

/// The owners of a cluster's state.
#[derive(Debug)]
pub(super) struct State {
    pub(super) options: Options,
    pub(super) nodes: Nodes,
    pub(super) identity: Identity,
    pub(super) samples: Samples,
    pub(super) positions: Positions,
    pub(super) sampling: Sampling,
    pub(super) split_brain: SplitBrain,
    pub(super) history: FailoverHistory,
    pub(super) events: Events,
    /// An operator has said HOLD.
    pub(super) operator_hold: bool,
    /// The last epoch that was written to; `None` before the first.
    pub(super) epoch: Option<Epoch>,
    /// Some client waits for a primary until then at the latest; `None` if none ever did.
    pub(super) waiters_until: Option<Instant>,
    /// What was last published.
    pub(super) view: Arc<View>,
}

impl State {
    pub(super) fn new(options: Options, remembered: Remembered) -> Self {
        let writes = Writes::Held(HoldReason::Unknown);
        Self {
            options,
            nodes: Nodes::default(),
            identity: Identity::new(remembered),
            samples: Samples::default(),
            positions: Positions::default(),
            sampling: Sampling::default(),
            split_brain: SplitBrain::default(),
            history: FailoverHistory::default(),
            events: Events::default(),
            operator_hold: false,
            epoch: None,
            waiters_until: None,
            view: Arc::new(View { version: 0, nodes: Vec::new(), writes }),
        }
    }
}
