//! Which node of a cluster is written to, which may be read from, and since when.
//!
//! [`Topology`] knows no socket, no SQL and no clock: results of probes come in with their time, a
//! [`View`] for the workers comes out.

mod compare;
mod decide;
mod evaluate;
mod event;
mod freshness;
mod history;
mod identity;
mod lag;
mod machine;
mod moment;
mod node;
mod nodes;
mod operator;
mod options;
mod position;
mod probes;
mod reassess;
mod report;
mod sampling;
mod schedule;
mod split_brain;
mod state;
mod view;
mod writers;

pub use event::Event;
pub use freshness::Freshness;
pub use history::Failover;
pub use identity::Remembered;
pub use machine::Topology;
pub use moment::LatestMoment;
pub use node::{NodeDetail, NodeSpec};
pub use operator::AdoptError;
pub use options::Options;
pub use position::{BadPosition, Lsn, SystemId, TimelineId};
pub use probes::{ProbeOrder, ProbeScope};
pub use report::{ProbeFailure, ProbeHint, Report, Role};
pub use view::{Epoch, HoldReason, NodeId, NodeState, NodeView, Placement, View, Writes};
