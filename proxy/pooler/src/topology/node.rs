//! One node: its configuration, its last report, and what it is taken for.

use std::time::{Duration, Instant};

use pgimbal_config::Host;
use pgimbal_wire::error::SqlState;

use super::event::{Event, Events};
use super::freshness::{Compared, Freshness};
use super::lag::Samples;
use super::position::{Lsn, TimelineId};
use super::report::{ProbeFailure, Report, Role};
use super::schedule::Schedule;
use super::view::{Epoch, NodeId, NodeState, NodeView, Placement};

/// A node as the configuration, or the cluster's DNS name, lists it. Name, host and port together
/// say which node it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// The node's name in the configuration, or its address when it comes from a DNS name.
    pub name: Box<str>,
    /// The host to connect to: a host name or IP address, or the directory of a Unix socket.
    pub host: Host,
    /// The TCP port, or the number in the name of a Unix socket.
    pub port: u16,
    /// Whether writes may go to the node when it is a primary (`candidate` in the configuration).
    pub candidate: bool,
    /// Its share of the reads, and where it stands.
    pub placement: Placement,
}

/// A node at one moment, as the console (SHOW NODES) and the metrics show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeDetail {
    /// The node's name, as in [`NodeSpec::name`].
    pub name: Box<str>,
    /// The node's host and port, with a colon between them; the host may be a directory.
    pub address: String,
    /// `primary` or `replica`, by the node's last report, also while it does not answer; `None`
    /// before the first.
    pub role: Option<&'static str>,
    /// The timeline of the node's last report, also while it does not answer; `None` before the
    /// first.
    pub timeline: Option<TimelineId>,
    /// The position in the write-ahead log in the node's last report: insert on a primary, replay
    /// on a standby; `None` before the first.
    pub lsn: Option<Lsn>,
    /// How many bytes of the write-ahead log a standby has still to replay, up to the newest known
    /// flush position of the primary; `None` for a primary, and while no position of a primary on
    /// the same timeline is known.
    pub lag_bytes: Option<u64>,
    /// The age of the oldest known position of the primary that a standby has not replayed; zero if
    /// it has replayed all, `None` as in [`Self::lag_bytes`].
    pub lag: Option<Duration>,
    /// How long ago the moment was up to which a standby shows every write that was acknowledged;
    /// `None` for a primary, and where it has replayed no known position.
    pub fresh: Option<Duration>,
    /// What the node is taken for, as in the view of the same moment.
    pub state: NodeState,
    /// How long ago the node's last report was received; `None` before the first.
    pub last_probe: Option<Duration>,
    /// The reason for the state, in English words, for people; empty when the state says it all.
    pub why: String,
}

/// The last report of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastReport {
    pub(super) report: Report,
    /// When the probe was sent.
    pub(super) sent_at: Instant,
    /// When the report was received.
    pub(super) received_at: Instant,
    /// Whether the server's recovery has only gone on since.
    recovery: Recovery,
}

/// Whether a server that was a standby has replayed at least what it had at its last report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recovery {
    /// It has.
    AsReported,
    /// The prober's connection has broken: the server may have begun its recovery anew.
    MayBeAnew,
}

/// The result of the last probe of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// No probe has ended yet.
    Unknown,
    /// It was answered with a report.
    Up,
    /// The server answered with an error of this code. `believed`: the last report was valid until
    /// then, and stays so.
    ProbeRefused { code: SqlState, believed: bool },
    /// It failed.
    Down(ProbeFailure),
}

impl Health {
    /// Whether the last report is still valid.
    const fn is_believed(&self) -> bool {
        matches!(self, Self::Up | Self::ProbeRefused { believed: true, .. })
    }
}

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    spec: NodeSpec,
    /// It is not listed any more.
    removed: bool,
    /// Kept while the node is down.
    last_report: Option<LastReport>,
    health: Health,
    /// It was the primary of an older timeline and has not joined the new one.
    outdated: bool,
    /// The operator has adopted another node's history, which this one has not joined yet.
    rejected: bool,
    schedule: Schedule,
    /// When it was last asked everything.
    asked_at: Option<Instant>,
    /// How fresh it is as a replica; `None` while that cannot be known.
    compared: Option<Compared>,
    state: NodeState,
    /// The reason for the state, in words; empty when the state says it all.
    why: String,
}

impl Node {
    /// A node that was never probed.
    pub(super) fn new(spec: NodeSpec, rejected: bool, now: Instant) -> Self {
        Self {
            spec,
            removed: false,
            last_report: None,
            health: Health::Unknown,
            outdated: false,
            rejected,
            schedule: Schedule::new(now),
            asked_at: None,
            compared: None,
            state: NodeState::Unknown,
            why: String::new(),
        }
    }

    // How it is listed.

    /// Its name.
    pub(super) fn name(&self) -> Box<str> {
        self.spec.name.clone()
    }

    /// Whether writes may go to it when it is a primary.
    pub(super) const fn is_candidate(&self) -> bool {
        self.spec.candidate
    }

    /// Whether it is not listed any more.
    pub(super) const fn is_removed(&self) -> bool {
        self.removed
    }

    /// Whether `spec` lists this node: the same name at the same address.
    pub(super) fn is_listed_by(&self, spec: &NodeSpec) -> bool {
        self.spec.name == spec.name && self.spec.host == spec.host && self.spec.port == spec.port
    }

    /// The node is listed by `spec`, or not any more (`None`). The event says whether that is new.
    /// A node that is listed again is unknown, for its report is too old.
    pub(super) fn set_listed(&mut self, spec: Option<&NodeSpec>, now: Instant) -> Option<Event> {
        let was_removed = std::mem::replace(&mut self.removed, spec.is_none());
        let Some(spec) = spec else {
            return (!was_removed).then(|| Event::Removed { node: self.name() });
        };
        self.spec.candidate = spec.candidate;
        self.spec.placement = spec.placement.clone();
        was_removed.then(|| {
            self.health = Health::Unknown;
            self.schedule = Schedule::new(now);
            Event::Added { node: self.name() }
        })
    }

    // What its probes have said.

    /// A probe that was sent at `sent_at` was answered.
    pub(super) fn handle_report(
        &mut self,
        report: Report,
        sent_at: Instant,
        now: Instant,
        events: &mut Events,
    ) {
        let report = self.with_highest_timeline(report);
        let before = self.last_report.replace(LastReport {
            report,
            sent_at,
            received_at: now,
            recovery: Recovery::AsReported,
        });
        if matches!(std::mem::replace(&mut self.health, Health::Up), Health::Down(_)) {
            events.push(Event::Answers { node: self.name() });
        }
        if report.is_primary() && before.is_some_and(|before| !before.report.is_primary()) {
            events.push(Event::Promoted { node: self.name(), timeline: report.timeline });
        }
    }

    /// A probe has failed.
    pub(super) fn handle_failure(&mut self, failure: &ProbeFailure, events: &mut Events) {
        match failure {
            ProbeFailure::ChangedRole => {}
            ProbeFailure::ProbeRefused(code) => {
                let known = matches!(
                    self.health,
                    Health::ProbeRefused { code: known, .. } if known == *code
                );
                if !known {
                    events.push(Event::ProbeRefused { node: self.name(), code: *code });
                }
                let believed = self.health.is_believed();
                self.health = Health::ProbeRefused { code: *code, believed };
            }
            failure => {
                if !matches!(self.health, Health::Down(_)) {
                    let why = failure.to_string().into();
                    events.push(Event::Silent { node: self.name(), why });
                }
                self.health = Health::Down(failure.clone());
            }
        }
    }

    /// The result of its last probe.
    pub(super) const fn health(&self) -> &Health {
        &self.health
    }

    /// Its last report, valid or not.
    pub(super) const fn last_report(&self) -> Option<&LastReport> {
        self.last_report.as_ref()
    }

    /// Its last report, if that is still valid and the node is listed.
    pub(super) fn current(&self) -> Option<&Report> {
        let believed = !self.removed && self.health.is_believed();
        self.last_report.as_ref().filter(|_| believed).map(|last_report| &last_report.report)
    }

    /// The epoch of its last report.
    pub(super) fn epoch(&self, id: NodeId) -> Option<Epoch> {
        let report = &self.last_report.as_ref()?.report;
        Some(Epoch { system: report.system, timeline: report.timeline, node: id })
    }

    /// `report` with the highest timeline that a standby has reported since its server was started:
    /// once its upstream is gone, a standby reports the timeline of its last restartpoint.
    fn with_highest_timeline(&self, report: Report) -> Report {
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

    // What it is taken for.

    /// Whether the operator has adopted a history that this node has not joined.
    pub(super) const fn is_rejected(&self) -> bool {
        self.rejected
    }

    /// Says whether the node must join the adopted history before it counts again.
    pub(super) const fn set_rejected(&mut self, rejected: bool) {
        self.rejected = rejected;
    }

    /// Whether it was the primary of an older timeline and has not joined the new one.
    pub(super) const fn is_outdated(&self) -> bool {
        self.outdated
    }

    /// The node was the primary of a timeline that has been left.
    pub(super) const fn mark_outdated(&mut self) {
        self.outdated = true;
    }

    /// The node follows the cluster's history; returns whether it was outdated or rejected.
    pub(super) const fn rejoin(&mut self) -> bool {
        let left = self.outdated || self.rejected;
        self.outdated = false;
        self.rejected = false;
        left
    }

    /// Its state.
    pub(super) const fn state(&self) -> NodeState {
        self.state
    }

    /// The reason for its state, in words; empty when the state says it all.
    pub(super) fn why(&self) -> &str {
        &self.why
    }

    /// Sets the state and its reason; returns the state before.
    pub(super) fn set_state(&mut self, state: NodeState, why: String) -> NodeState {
        self.outdated |= state == NodeState::Quarantined;
        self.why = why;
        std::mem::replace(&mut self.state, state)
    }

    /// The prober's connection has broken: the server may have begun its recovery anew, so that
    /// nothing is known of how far it is until its next report.
    pub(super) const fn doubt(&mut self) {
        if let Some(last_report) = &mut self.last_report {
            last_report.recovery = Recovery::MayBeAnew;
        }
    }

    /// Whether it may have begun its recovery anew since its last report.
    pub(super) fn is_doubted(&self) -> bool {
        self.last_report.as_ref().is_some_and(|last| last.recovery == Recovery::MayBeAnew)
    }

    /// Takes how fresh it is, and which servers that compares; [`Self::set_compared`] follows.
    pub(super) const fn take_compared(&mut self) -> Option<Compared> {
        self.compared.take()
    }

    /// Its freshness compares other servers, or cannot be known (`None`).
    pub(super) fn set_compared(&mut self, compared: Option<Compared>) {
        self.compared = compared;
    }

    /// Whether it is read from, and has not replayed all that was written up to `moment`.
    pub(super) fn is_behind(&self, moment: Instant) -> bool {
        let until = self.compared.as_ref().and_then(|compared| compared.freshness().until());
        self.state == NodeState::Replica && until.is_none_or(|until| until < moment)
    }

    // When it is probed.

    /// When its next probe is due; `None` while one is under way, and once it is not listed.
    pub(super) fn due(&self) -> Option<Instant> {
        self.schedule.due().filter(|_| !self.removed)
    }

    /// Whether it was asked everything within `interval`, and its last report is valid.
    pub(super) fn is_known_since(&self, now: Instant, interval: Duration) -> bool {
        let is_recent = |asked: Instant| now.saturating_duration_since(asked) < interval;
        self.asked_at.is_some_and(is_recent) && self.current().is_some()
    }

    /// It is asked everything now.
    pub(super) const fn note_asked(&mut self, now: Instant) {
        self.asked_at = Some(now);
    }

    /// Its probes.
    pub(super) const fn schedule_mut(&mut self) -> &mut Schedule {
        &mut self.schedule
    }

    // How it is shown.

    /// The node as the workers see it.
    pub(super) fn view(&self, id: NodeId) -> NodeView {
        NodeView {
            id,
            name: self.name(),
            host: self.spec.host.clone(),
            port: self.spec.port,
            state: self.state,
            epoch: self.epoch(id),
            candidate: self.spec.candidate,
            placement: self.spec.placement.clone(),
            freshness: self.freshness().cloned(),
        }
    }

    fn freshness(&self) -> Option<&Freshness> {
        self.compared.as_ref().map(Compared::freshness)
    }

    /// The node as the console shows it; `samples` are the positions of the primary.
    pub(super) fn detail(&self, samples: &Samples, now: Instant) -> NodeDetail {
        let report = self.last_report.as_ref().map(|last_report| last_report.report);
        let replay = report.and_then(|report| match report.role {
            Role::Standby { replay, .. } if samples.are_of(report.timeline) => Some(replay),
            _ => None,
        });
        let age = |last: &LastReport| now.saturating_duration_since(last.received_at);
        NodeDetail {
            name: self.name(),
            address: format!("{}:{}", self.spec.host, self.spec.port),
            role: report.map(|report| if report.is_primary() { "primary" } else { "replica" }),
            timeline: report.map(|report| report.timeline),
            lsn: report.map(|report| report.position()),
            lag_bytes: replay.and_then(|replay| samples.bytes_behind(replay)),
            lag: replay.and_then(|replay| samples.time_behind(replay, now)),
            fresh: self
                .freshness()
                .and_then(Freshness::until)
                .map(|until| now.saturating_duration_since(until)),
            state: self.state,
            last_probe: self.last_report.as_ref().map(age),
            why: self.why.clone(),
        }
    }
}
