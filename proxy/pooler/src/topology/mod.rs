//! Which node of a cluster is written to, which may be read from, and since when.
//!
//! Owns what the probes' answers mean; knows no socket, no SQL and no clock: answers come in with
//! their time, a [`View`] for the workers comes out.

mod position;
mod report;
mod view;

pub use position::{BadPosition, Lsn, SystemId, TimelineId};
pub use report::{Nudge, ProbeFailure, Report, Role};
pub use view::{Epoch, HoldReason, NodeId, NodeState, NodeView, View, Writes};
