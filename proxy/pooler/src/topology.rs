//! Which node of a cluster is written to, which may be read from, and since when.
//!
//! Owns what the probes' answers mean; knows no socket, no SQL and no clock: answers come in with
//! their time, a [`View`] for the workers comes out.

mod decide;
mod evaluate;
mod event;
mod history;
mod lag;
mod machine;
mod node;
mod operator;
mod position;
mod report;
mod schedule;
mod system;
mod view;

pub use event::Event;
pub use history::Failover;
pub use machine::{NodeSpec, Options, Remembered, Topology};
pub use node::NodeDetail;
pub use operator::AdoptError;
pub use position::{BadPosition, Lsn, SystemId, TimelineId};
pub use report::{ProbeFailure, ProbeHint, Report, Role};
pub use schedule::ProbeOrder;
pub use view::{Epoch, HoldReason, NodeId, NodeState, NodeView, View, Writes};
