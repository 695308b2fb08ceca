//! Where writes go.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::Event;
use super::history::Interruption;
use super::machine::Topology;
use super::node::{Health, Node};
use super::report::Report;
use super::view::{Epoch, HoldReason, NodeId, Writes};

/// Two servers seem to accept writes on the same timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SuspectedSplitBrain {
    /// Answers to questions from before may be of two moments: both are asked again.
    since: Instant,
    /// Both have confirmed it, and it was told.
    certain: bool,
}

impl Topology {
    /// Whether writes may go to a node, as far as it alone is concerned.
    pub(super) fn may_write(&self, id: NodeId) -> bool {
        let Some(node) = self.nodes.get(id.index()) else { return false };
        let Some(report) = node.current() else { return false };
        report.is_primary()
            && node.spec.candidate
            && !node.rejected
            && Some(report.system) == self.remembered.system
            && Some(report.timeline) >= self.remembered.timeline
    }

    /// The nodes that writes may go to, each server once: two names of one server are one node.
    pub(super) fn writers(&self) -> Vec<NodeId> {
        let mut writers: Vec<(NodeId, i64)> = Vec::new();
        let ids = (0..self.nodes.len()).map(|index| NodeId(index as u16));
        for id in ids.filter(|id| self.may_write(*id)) {
            let Some(report) = self.nodes[id.index()].current() else { continue };
            let started = report.started_at_micros;
            match writers.iter_mut().find(|(_, known)| *known == started) {
                // The name in use stays in use.
                Some(known) if self.epoch.is_some_and(|epoch| epoch.node == id) => known.0 = id,
                Some(_) => {}
                None => writers.push((id, started)),
            }
        }
        writers.into_iter().map(|(id, _)| id).collect()
    }

    /// Whether some node may be written to.
    pub(super) fn has_writer(&self) -> bool {
        (0..self.nodes.len()).any(|index| self.may_write(NodeId(index as u16)))
    }

    pub(super) fn decide(&mut self, now: Instant) -> Writes {
        let writers = self.writers();
        self.detect_split_brain(&writers, now);
        let writes = if self.operator_hold {
            Writes::Held(HoldReason::Operator)
        } else if !self.settled {
            Writes::Held(HoldReason::Unknown)
        } else if self.is_ambiguous() {
            Writes::Refused(self.ambiguous_text())
        } else {
            match (writers.as_slice(), &self.suspected) {
                ([], _) => Writes::Held(self.why_none()),
                ([one], _) => match self.nodes[one.index()].epoch(*one) {
                    Some(epoch) => Writes::To(epoch),
                    None => Writes::Held(HoldReason::NoPrimary),
                },
                (several, Some(SuspectedSplitBrain { certain: true, .. })) => {
                    Writes::Refused(self.split_text(several))
                }
                _ => Writes::Held(HoldReason::Doubtful),
            }
        };
        self.switch_to(&writes, now);
        writes
    }

    /// Notes that several servers accept writes, has all of them asked again, and is certain once
    /// they have confirmed it.
    fn detect_split_brain(&mut self, writers: &[NodeId], now: Instant) {
        if writers.len() < 2 {
            if self.suspected.take().is_some_and(|suspected| suspected.certain) {
                self.events.push_back(Event::SplitBrainOver);
            }
            return;
        }
        if self.suspected.is_none() {
            self.suspected = Some(SuspectedSplitBrain { since: now, certain: false });
            for id in writers {
                self.expedite(*id, now);
            }
        }
        let nodes = &self.nodes;
        let Some(suspected) = self.suspected.as_mut().filter(|suspected| !suspected.certain) else {
            return;
        };
        let confirmed = writers.iter().all(|id| {
            nodes[id.index()]
                .last_report
                .is_some_and(|last_report| last_report.sent_at >= suspected.since)
        });
        if confirmed {
            suspected.certain = true;
            let names = writers.iter().map(|id| nodes[id.index()].spec.name.clone()).collect();
            let timeline = nodes[writers[0].index()].current().map(|report| report.timeline);
            self.events.push_back(Event::SplitBrain { nodes: names, timeline });
        }
    }

    /// Why no node may be written to.
    fn why_none(&self) -> HoldReason {
        if let Some(outsider) = self.outsider() {
            return outsider;
        }
        let last = self.epoch.and_then(|epoch| self.nodes.get(epoch.node.index()));
        match last {
            Some(node) if node.removed => HoldReason::NoPrimary,
            Some(node) if matches!(node.health, Health::Down(_)) => HoldReason::Unreachable,
            Some(node) if node.current().is_some_and(|report| !report.is_primary()) => {
                HoldReason::Demoted
            }
            _ => HoldReason::NoPrimary,
        }
    }

    /// A primary that only an operator can let in, where no node is known to have the history that
    /// was seen before.
    fn outsider(&self) -> Option<HoldReason> {
        let system = self.remembered.system?;
        let listed = || self.nodes.iter().filter(|node| !node.removed);
        let ours = |node: &&Node| {
            node.last_report.is_some_and(|last_report| last_report.report.system == system)
        };
        let primaries = (0..).zip(&self.nodes).filter(|(_, node)| {
            let is_primary = node.current().is_some_and(Report::is_primary);
            is_primary && node.spec.candidate && !node.rejected
        });
        let (id, primary) = primaries.map(|(id, node)| (NodeId(id), node)).next()?;
        if !listed().any(|node| ours(&node)) {
            return Some(HoldReason::OtherCluster(id));
        }
        let has_newest = |node: &Node| {
            node.last_report.is_some_and(|last_report| {
                Some(last_report.report.timeline) >= self.remembered.timeline
            })
        };
        let lost = !listed().filter(ours).any(has_newest);
        (ours(&primary) && lost).then_some(HoldReason::OlderTimeline(id))
    }

    /// Whether a node's history, older than was seen or another cluster's, is the only one there
    /// is.
    pub(super) fn is_only_history(&self, id: NodeId) -> bool {
        matches!(
            self.outsider(),
            Some(HoldReason::OlderTimeline(only) | HoldReason::OtherCluster(only)) if only == id
        )
    }

    /// Tells the story from one decision to the next.
    fn switch_to(&mut self, writes: &Writes, now: Instant) {
        if *writes == self.view.writes {
            return;
        }
        match writes {
            Writes::To(epoch) => self.turn_to_epoch(*epoch, now),
            Writes::Held(reason) => {
                if let Some(epoch) = self.view.primary() {
                    self.interrupt(epoch, *reason, now);
                }
                self.events.push_back(Event::Holding { reason: *reason });
                if *reason != HoldReason::Operator {
                    self.expedite_all(now);
                }
            }
            Writes::Refused(text) => {
                if let Some(epoch) = self.view.primary() {
                    let node = self.name(epoch.node);
                    let interruption = Interruption::new(node, now, text.as_ref().into());
                    self.interruption.get_or_insert(interruption);
                }
            }
        }
    }

    fn interrupt(&mut self, epoch: Epoch, reason: HoldReason, now: Instant) {
        let node = self.name(epoch.node);
        let why: Box<str> = match self.nodes.get(epoch.node.index()).map(|node| &node.health) {
            Some(Health::Down(failure)) => failure.to_string().into(),
            _ => reason.text().into(),
        };
        if reason != HoldReason::Operator {
            self.events.push_back(Event::Lost { node: node.clone(), why: why.clone() });
        }
        self.interruption.get_or_insert(Interruption::new(node, now, why));
    }

    fn turn_to_epoch(&mut self, epoch: Epoch, now: Instant) {
        let to = self.name(epoch.node);
        let interruption = self.interruption.take();
        let lasted = interruption.as_ref().map_or(Duration::ZERO, |one| one.lasted(now));
        let Some(old) = self.epoch.replace(epoch) else {
            self.events.push_back(Event::Found { node: to, timeline: epoch.timeline });
            return;
        };
        if old == epoch {
            self.events.push_back(Event::Resumed { node: to, lasted });
            return;
        }
        let from = self.name(old.node);
        if old.node != epoch.node
            && let Some(node) = self.nodes.get_mut(old.node.index())
            && old.system == epoch.system
            && old.timeline < epoch.timeline
        {
            node.outdated = true;
        }
        if old.timeline != epoch.timeline || old.system != epoch.system {
            self.samples.clear();
            self.take_sample_of(epoch.node);
        }
        let interruption = interruption
            .unwrap_or_else(|| Interruption::new(from.clone(), now, "a newer primary".into()));
        self.record(interruption, to.clone(), epoch.timeline, now);
        self.events.push_back(Event::Switched { from, to, timeline: epoch.timeline, lasted });
        self.expedite_all(now);
    }

    pub(super) fn name(&self, id: NodeId) -> Box<str> {
        self.nodes.get(id.index()).map(|node| node.spec.name.clone()).unwrap_or_default()
    }

    fn split_text(&self, writers: &[NodeId]) -> Arc<str> {
        let names: Vec<String> = writers.iter().map(|id| self.name(*id).into()).collect();
        format!(
            "nodes {} are both primary on timeline {}: writes stop until one of them goes away",
            names.join(" and "),
            self.remembered.timeline.map_or(0, |timeline| timeline.0)
        )
        .into()
    }

    fn ambiguous_text(&self) -> Arc<str> {
        let known = self
            .nodes
            .iter()
            .filter_map(|node| Some(format!("{} ({})", node.spec.name, node.current()?.system)));
        let nodes: Vec<String> = known.collect();
        format!(
            "nodes {} are of different clusters (system_identifier): an operator must say which \
             with ADOPT NODE",
            nodes.join(" and ")
        )
        .into()
    }
}
