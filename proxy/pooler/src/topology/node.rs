//! What is known of one node.

use std::time::{Duration, Instant};

use pgimbal_wire::error::SqlState;

use super::lag::Samples;
use super::machine::NodeSpec;
use super::position::{Lsn, TimelineId};
use super::report::{ProbeFailure, Report, Role};
use super::schedule::Schedule;
use super::view::{Epoch, NodeId, NodeState, NodeView};

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) spec: NodeSpec,
    pub(super) removed: bool,
    /// The last answer, kept while the node is down.
    pub(super) last_report: Option<LastReport>,
    pub(super) health: Health,
    /// It was the primary of an older timeline and has not joined the new one.
    pub(super) outdated: bool,
    /// The operator has adopted another node's history, which this one has not joined yet.
    pub(super) rejected: bool,
    pub(super) schedule: Schedule,
    pub(super) state: NodeState,
    /// Why it is in that state, when that is not plain.
    pub(super) why: String,
}

/// An answer with its times.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastReport {
    pub(super) report: Report,
    pub(super) sent_at: Instant,
    pub(super) at: Instant,
}

/// What came of the last probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// None has ended yet.
    Unknown,
    /// It was answered.
    Up,
    /// The node lives; it is taken for what it was if it was evaluated just before.
    ProbeRefused { code: SqlState, believed: bool },
    /// It failed.
    Down(ProbeFailure),
}

impl Health {
    /// Whether the last answer still holds.
    pub(super) const fn is_believed(&self) -> bool {
        matches!(self, Self::Up | Self::ProbeRefused { believed: true, .. })
    }
}

/// A node as the console and the metrics show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeDetail {
    /// Its name.
    pub name: Box<str>,
    /// Host and port.
    pub address: String,
    /// `primary` or `replica`, as it last said itself.
    pub role: Option<&'static str>,
    /// The timeline it last said.
    pub timeline: Option<TimelineId>,
    /// Its position: insert on a primary, replay on a standby.
    pub lsn: Option<Lsn>,
    /// A standby's distance to the primary.
    pub lag_bytes: Option<u64>,
    /// The age of the oldest known position of the primary that it has not replayed.
    pub lag: Option<Duration>,
    /// What it is.
    pub state: NodeState,
    /// The age of its last answer.
    pub last_probe: Option<Duration>,
    /// Why it is in that state, when that is not plain.
    pub why: String,
}

impl Node {
    pub(super) fn new(spec: NodeSpec, now: Instant) -> Self {
        Self {
            spec,
            removed: false,
            last_report: None,
            health: Health::Unknown,
            outdated: false,
            rejected: false,
            schedule: Schedule::new(now),
            state: NodeState::Unknown,
            why: String::new(),
        }
    }

    /// Whatever was known is too old after a removal.
    pub(super) fn come_back(&mut self, now: Instant) {
        self.health = Health::Unknown;
        self.schedule = Schedule::new(now);
    }

    /// What a standby says, on the highest timeline that it has said since its server was started:
    /// once its upstream is gone, it tells that of its last restartpoint.
    pub(super) fn with_highest_timeline(&self, report: Report) -> Report {
        let before =
            self.last_report.as_ref().map(|last_report| last_report.report).filter(|before| {
                let same_server = before.started_at_micros == report.started_at_micros;
                same_server && before.system == report.system && !before.is_primary()
            });
        let highest = before.map_or(report.timeline, |before| before.timeline.max(report.timeline));
        match report.role {
            Role::Standby { .. } => Report { timeline: highest, ..report },
            Role::Primary { .. } => report,
        }
    }

    /// The last answer, if it still holds.
    pub(super) fn current(&self) -> Option<&Report> {
        let believed = !self.removed && self.health.is_believed();
        self.last_report.as_ref().filter(|_| believed).map(|last_report| &last_report.report)
    }

    pub(super) fn epoch(&self, id: NodeId) -> Option<Epoch> {
        let report = &self.last_report.as_ref()?.report;
        Some(Epoch { system: report.system, timeline: report.timeline, node: id })
    }

    pub(super) fn view(&self, id: NodeId) -> NodeView {
        NodeView {
            id,
            name: self.spec.name.clone(),
            host: self.spec.host.clone(),
            port: self.spec.port,
            state: self.state,
            epoch: self.epoch(id),
            candidate: self.spec.candidate,
        }
    }

    pub(super) fn detail(&self, samples: &Samples, now: Instant) -> NodeDetail {
        let report = self.last_report.as_ref().map(|last_report| last_report.report);
        let replay = report.and_then(|report| match report.role {
            Role::Standby { replay, .. } if samples.are_of(report.timeline) => Some(replay),
            _ => None,
        });
        NodeDetail {
            name: self.spec.name.clone(),
            address: format!("{}:{}", self.spec.host, self.spec.port),
            role: report.map(|report| if report.is_primary() { "primary" } else { "replica" }),
            timeline: report.map(|report| report.timeline),
            lsn: report.map(|report| report.position()),
            lag_bytes: replay.and_then(|replay| samples.bytes_behind(replay)),
            lag: replay.and_then(|replay| samples.time_behind(replay, now)),
            state: self.state,
            last_probe: self
                .last_report
                .as_ref()
                .map(|last_report| now.saturating_duration_since(last_report.at)),
            why: self.why.clone(),
        }
    }
}
