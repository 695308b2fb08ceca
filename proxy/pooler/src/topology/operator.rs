//! What an operator may decide.

use std::time::Instant;

use thiserror::Error;

use super::event::Event;
use super::machine::Topology;
use super::view::NodeId;

/// Why a node cannot be adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AdoptError {
    /// There is none of that number.
    #[error("there is no such node")]
    Unknown,
    /// Its identifier and timeline are not known now.
    #[error("the node does not answer; it can be adopted once it does")]
    Silent,
}

impl Topology {
    /// Writes wait until [`Self::resume`], as before a planned switchover.
    pub fn hold(&mut self, now: Instant) {
        if !self.operator_hold {
            self.operator_hold = true;
            self.reassess(now);
        }
    }

    /// Ends a hold; whether there was one.
    pub fn resume(&mut self, now: Instant) -> bool {
        let held = std::mem::replace(&mut self.operator_hold, false);
        if held {
            self.events.push_back(Event::HoldEnded);
            self.expedite_all(now);
            self.reassess(now);
        }
        held
    }

    /// A node's identifier and timeline become the cluster's, as after a restore or pg_upgrade.
    /// Every other node, answering or not, must join that history before it counts again: it may
    /// have a higher timeline, or be a primary too.
    ///
    /// # Errors
    /// [`AdoptError`] when nothing is known of the node.
    pub fn adopt(&mut self, id: NodeId, now: Instant) -> Result<(), AdoptError> {
        let node = self.nodes.get(id.index()).ok_or(AdoptError::Unknown)?;
        let report = *node.current().ok_or(AdoptError::Silent)?;
        let name = node.spec.name.clone();
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let belongs = node.current().is_some_and(|other| {
                let same_server = other.started_at_micros == report.started_at_micros;
                let follows = !other.is_primary() && other.timeline == report.timeline;
                other.system == report.system && (same_server || follows)
            });
            node.rejected = index != id.index() && !belongs;
        }
        self.remembered.rejected.clear();
        self.remembered.system = Some(report.system);
        self.remembered.timeline = Some(report.timeline);
        self.samples.clear();
        let (system, timeline) = (report.system, report.timeline);
        self.events.push_back(Event::Adopted { node: name, system, timeline });
        self.take_sample_of(id);
        self.expedite_all(now);
        self.reassess(now);
        Ok(())
    }
}
