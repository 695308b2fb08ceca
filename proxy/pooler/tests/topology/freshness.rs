//! How fresh replicas are said to be, against a model of what each server really has: no write that
//! was acknowledged by the moment that is given may be missing on the replica.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgimbal_pooler::topology::{
    Lsn, NodeId, NodeState, ProbeFailure, ProbeHint, Remembered, Report, Role, TimelineId,
    Topology, View,
};

use crate::random::Random;
use crate::seeds;
use crate::watch::{options, spec};
use crate::world::OURS;

/// A second and a half of the world for each.
const SEEDS: u64 = 1_000;
/// Views that workers may still act on.
const VIEWS: usize = 4;
/// Writes that are looked for.
const WRITES: usize = 300;

/// How a standby replays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replay {
    /// What is flushed, at once.
    AtOnce,
    /// So many bytes in a millisecond.
    Slow(u64),
    Paused,
}

#[derive(Clone, Debug)]
struct Server {
    timeline: u32,
    /// Older timelines, each with the position at which it was left.
    ancestors: Vec<(u32, u64)>,
    primary: bool,
    up: bool,
    /// Of a primary, the insert position; of a standby, what it has replayed.
    position: u64,
    flush: u64,
    started: i64,
    replay: Replay,
    /// When it last began its recovery anew under the same postmaster.
    crashed_at: u64,
}

impl Server {
    fn has(&self, write: &Write) -> bool {
        if write.timeline == self.timeline {
            return write.position <= self.position;
        }
        let left = self.ancestors.iter().find(|(timeline, _)| *timeline == write.timeline);
        left.is_some_and(|(_, end)| write.position <= self.position.min(*end))
    }

    fn report(&self) -> Report {
        let position = Lsn(self.position);
        let role = match self.primary {
            true => Role::Primary { insert: position, flush: Lsn(self.flush) },
            false => Role::Standby { replay: position, paused: self.replay == Replay::Paused },
        };
        Report {
            system: OURS,
            timeline: TimelineId(self.timeline),
            role,
            server_version: 170_002,
            started_at_micros: self.started,
        }
    }
}

/// A write that was committed, and when its client's worker has heard so.
#[derive(Clone, Copy, Debug)]
struct Write {
    timeline: u32,
    position: u64,
    acknowledged: u64,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    node: NodeId,
    sent_at: u64,
    asked_at: u64,
    answered_at: u64,
    answer: Option<Result<Report, Lost>>,
}

#[derive(Clone, Copy, Debug)]
struct Lost;

struct World {
    topology: Topology,
    servers: Vec<Server>,
    /// The primary of each timeline, as it was last.
    primaries: BTreeMap<u32, Server>,
    began: Instant,
    /// Milliseconds since then.
    now: u64,
    probes: Vec<Probe>,
    orders: u64,
    writes: VecDeque<Write>,
    views: VecDeque<(u64, Arc<View>)>,
    starts: i64,
    random: Random,
    seed: u64,
}

impl World {
    fn new(seed: u64, standbys: usize) -> Self {
        let began = Instant::now();
        let specs = (0..=standbys).map(spec).collect();
        let topology = Topology::new(options(), specs, Remembered::default(), began);
        let server = |index: usize| Server {
            timeline: 1,
            ancestors: Vec::new(),
            primary: index == 0,
            up: true,
            position: 10_000,
            flush: 10_000,
            started: index as i64 + 1,
            replay: Replay::AtOnce,
            crashed_at: 0,
        };
        Self {
            views: VecDeque::from([(0, topology.view())]),
            topology,
            servers: (0..=standbys).map(server).collect(),
            primaries: BTreeMap::from([(1, server(0))]),
            began,
            now: 1,
            probes: Vec::new(),
            orders: 0,
            writes: VecDeque::new(),
            starts: standbys as i64 + 2,
            random: Random::new(seed),
            seed,
        }
    }

    fn at(&self, millisecond: u64) -> Instant {
        self.began + Duration::from_millis(millisecond)
    }

    fn hint(&mut self, hint: ProbeHint) {
        let now = self.at(self.now);
        self.topology.handle_probe_hint(hint, now);
    }

    /// A millisecond passes.
    fn step(&mut self) {
        self.replicate();
        self.ask();
        self.answer();
        self.publish();
        for primary in self.servers.iter().filter(|server| server.primary) {
            self.primaries.insert(primary.timeline, primary.clone());
        }
        if self.now.is_multiple_of(3) {
            self.check();
        }
        self.now += 1;
    }

    fn run(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds {
            self.step();
        }
    }

    /// Standbys replay what the primary of their timeline has flushed.
    fn replicate(&mut self) {
        let flushed: Vec<(u32, u64)> = self.servers.iter().filter_map(Self::source).collect();
        for server in self.servers.iter_mut().filter(|server| server.up && !server.primary) {
            let upstream = flushed.iter().find(|(timeline, _)| *timeline == server.timeline);
            let Some((_, flush)) = upstream else { continue };
            let reached = match server.replay {
                Replay::AtOnce => *flush,
                Replay::Slow(bytes) => server.position + bytes,
                Replay::Paused => server.position,
            };
            server.position = server.position.max(reached.min(*flush));
        }
    }

    fn source(server: &Server) -> Option<(u32, u64)> {
        (server.up && server.primary).then_some((server.timeline, server.flush))
    }

    fn ask(&mut self) {
        while let Some(order) = self.topology.poll_probe(self.at(self.now)) {
            self.orders += 1;
            let (there, back) = (self.delay(), self.delay());
            let lost = self.random.chance(2);
            let asked_at = self.now + if lost { u64::MAX / 2 } else { there };
            let answered_at = if lost { self.now + 1_500 } else { asked_at + back };
            let sent_at = (order.sent_at - self.began).as_millis() as u64;
            let node = order.node;
            self.probes.push(Probe { node, sent_at, asked_at, answered_at, answer: None });
        }
        for probe in self.probes.iter_mut().filter(|probe| probe.asked_at == self.now) {
            let server = &self.servers[probe.node.index()];
            probe.answer = Some(if server.up { Ok(server.report()) } else { Err(Lost) });
        }
    }

    fn delay(&mut self) -> u64 {
        match self.random.below(20) {
            0 => self.random.below(300) as u64,
            _ => self.random.below(8) as u64,
        }
    }

    fn answer(&mut self) {
        let now = self.at(self.now);
        let (come, under_way) =
            self.probes.drain(..).partition(|probe: &Probe| probe.answered_at <= self.now);
        self.probes = under_way;
        let come: Vec<Probe> = come;
        for probe in come {
            match probe.answer {
                Some(Ok(report)) => {
                    let sent_at = self.began + Duration::from_millis(probe.sent_at);
                    self.topology.handle_report(probe.node, sent_at, now, report);
                }
                Some(Err(Lost)) => {
                    let failure = ProbeFailure::Unreachable("connection refused".into());
                    self.topology.handle_failure(probe.node, now, failure);
                }
                None => self.topology.handle_failure(probe.node, now, ProbeFailure::TimedOut),
            }
        }
        while self.topology.poll_event().is_some() {}
    }

    fn publish(&mut self) {
        let view = self.topology.view();
        if self.views.back().is_some_and(|(_, known)| known.version == view.version) {
            return;
        }
        self.views.push_back((self.now, view));
        if self.views.len() > VIEWS {
            self.views.pop_front();
        }
    }

    /// What must hold, for workers that have the newest view and for those that have not yet.
    fn check(&self) {
        let Some(newest) = self.primaries.values().next_back() else { return };
        for (published, view) in &self.views {
            for node in view.nodes.iter().filter(|node| node.state == NodeState::Replica) {
                let server = &self.servers[node.id.index()];
                let Some(freshness) = &node.freshness else { continue };
                let is_served = server.up
                    && freshness.started_at_micros() == server.started
                    && *published >= server.crashed_at;
                // What was lost with its timeline is missing on its primary too.
                let followed = node.epoch.and_then(|epoch| self.primaries.get(&epoch.timeline.0));
                let Some(followed) = followed else { continue };
                let Some(until) = freshness.until().filter(|_| is_served) else { continue };
                let must_show = |write: &&Write| {
                    let is_old_enough = self.at(write.acknowledged) <= until;
                    is_old_enough && newest.has(write) && followed.has(write)
                };
                // Who has the newest ones has those before them.
                for write in self.writes.iter().rev().filter(must_show).take(5) {
                    assert!(
                        server.has(write),
                        "seed {}: at {} ms {} is said to be fresh until {:?}, without {write:?}: \
                         {server:?}, {followed:?}",
                        self.seed,
                        self.now,
                        node.name,
                        until - self.began,
                    );
                }
            }
        }
    }

    /// A client writes where the view says, if that still takes it.
    fn write(&mut self) {
        let Some(epoch) = self.topology.view().primary() else { return };
        let bytes = self.random.below(200) as u64 + 8;
        let way = self.random.below(6) as u64;
        let server = &mut self.servers[epoch.node.index()];
        if !server.up || !server.primary {
            return;
        }
        server.position += bytes;
        server.flush = server.position;
        let (timeline, position) = (server.timeline, server.position);
        self.writes.push_back(Write { timeline, position, acknowledged: self.now + way });
        if self.writes.len() > WRITES {
            self.writes.pop_front();
        }
    }

    fn newest_primary(&self) -> Option<usize> {
        let primaries = (0..self.servers.len()).filter(|index| self.servers[*index].primary);
        primaries.max_by_key(|index| self.servers[*index].timeline)
    }

    /// Something happens.
    fn event(&mut self) {
        let index = self.random.below(self.servers.len());
        match self.random.below(40) {
            0 => self.promote(index),
            1 => self.servers[index].up = false,
            2 | 3 => self.rejoin(index),
            4 => self.restart(index),
            5 => self.crash(index),
            6 => self.follow(index),
            7..=10 => {
                let slow = Replay::Slow(self.random.below(30) as u64);
                let replay = [Replay::AtOnce, Replay::AtOnce, Replay::Paused, slow];
                self.servers[index].replay = self.random.pick(&replay);
            }
            11..=16 => {
                // What is not of a commit: it is flushed some time later.
                let bytes = self.random.below(500) as u64;
                let server = &mut self.servers[index];
                if server.up && server.primary {
                    server.position += bytes;
                }
            }
            17..=19 => {
                let server = &mut self.servers[index];
                if server.up && server.primary {
                    server.flush = server.position;
                }
            }
            20 => self.hint(ProbeHint::ConnectionBroke(NodeId(index as u16))),
            21..=25 => {
                let moment = self.at(self.now);
                self.hint(ProbeHint::FreshnessNeeded(moment));
            }
            _ => self.write(),
        }
    }

    /// A standby becomes a primary; the old one may live on.
    fn promote(&mut self, index: usize) {
        let highest = self.primaries.keys().next_back().copied().unwrap_or(1);
        let lives_on = self.random.chance(40);
        let server = &mut self.servers[index];
        if !server.up || server.primary {
            return;
        }
        server.ancestors.push((server.timeline, server.position));
        // It may have been behind where earlier ones were left.
        for (_, end) in &mut server.ancestors {
            *end = server.position.min(*end);
        }
        server.timeline = highest + 1;
        server.primary = true;
        server.flush = server.position;
        for (other, server) in self.servers.iter_mut().enumerate() {
            if other != index && server.primary && !lives_on {
                server.up = false;
            }
        }
    }

    /// A standby goes over to the newest timeline, if it is not beyond the point where that began.
    fn follow(&mut self, index: usize) {
        let Some(primary) = self.newest_primary().filter(|primary| *primary != index) else {
            return;
        };
        let Server { timeline, ancestors, .. } = self.servers[primary].clone();
        let server = &mut self.servers[index];
        let fork = ancestors.iter().find(|(ancestor, _)| *ancestor == server.timeline);
        if server.up && !server.primary && fork.is_some_and(|(_, end)| server.position <= *end) {
            server.timeline = timeline;
            server.ancestors = ancestors;
        }
    }

    /// A server comes back as a standby of the newest primary, rewound as far as it must.
    fn rejoin(&mut self, index: usize) {
        let Some(primary) = self.newest_primary().filter(|primary| *primary != index) else {
            return self.restart(index);
        };
        let Server { timeline, ancestors, .. } = self.servers[primary].clone();
        self.starts += 1;
        let back = self.random.below(2_000) as u64;
        let server = &mut self.servers[index];
        let own = server.timeline;
        let fork = ancestors.iter().find(|(ancestor, _)| *ancestor == own).map(|(_, end)| *end);
        let shared = if own == timeline { server.position } else { fork.unwrap_or(0) };
        server.position = server.position.min(shared).saturating_sub(back);
        server.timeline = timeline;
        server.ancestors = ancestors;
        server.primary = false;
        server.up = true;
        server.started = self.starts;
    }

    /// A server is started again; what it had not flushed is gone, and a standby is a bit behind.
    fn restart(&mut self, index: usize) {
        self.starts += 1;
        self.lose(index);
        let server = &mut self.servers[index];
        server.up = true;
        server.started = self.starts;
    }

    /// All processes but the postmaster end and begin anew.
    fn crash(&mut self, index: usize) {
        if !self.servers[index].up {
            return;
        }
        self.lose(index);
        self.servers[index].crashed_at = self.now;
        // An answer that was on its way is lost with the prober's connection.
        let under_way = self.probes.iter_mut().filter(|probe| probe.node.index() == index);
        let mut was_idle = true;
        for probe in under_way {
            probe.answered_at = self.now;
            probe.answer = Some(Err(Lost));
            was_idle = false;
        }
        if was_idle {
            self.hint(ProbeHint::ProberDisconnected(NodeId(index as u16)));
        }
        self.answer();
        self.publish();
    }

    fn lose(&mut self, index: usize) {
        let back = self.random.below(1_000) as u64;
        let server = &mut self.servers[index];
        match server.primary {
            true => server.position = server.flush,
            false => server.position = server.position.saturating_sub(back),
        }
    }

    /// How long ago the least fresh replica was fresh; `None` if there is none.
    fn staleness(&self) -> Option<Duration> {
        let view = self.topology.view();
        let replicas = view.nodes.iter().filter(|node| node.state == NodeState::Replica);
        let until = replicas.map(|node| node.freshness.as_ref().and_then(|f| f.until()));
        until.min().flatten().map(|until| self.at(self.now) - until)
    }
}

#[test]
fn reads_whatever_befalls_the_nodes_no_replica_is_called_fresh_without_a_write() {
    seeds(SEEDS, |seed| {
        let standbys = Random::new(seed).below(3) + 1;
        let mut world = World::new(seed, standbys);
        world.run(30);
        for _ in 0..1_500 {
            if world.random.chance(50) {
                world.event();
            }
            world.step();
        }
    });
}

#[test]
fn reads_replicas_are_sampled_while_they_are_needed_and_no_longer() {
    let mut world = World::new(3, 2);
    world.run(2_600);
    let before = world.orders;
    world.run(1_000);
    assert!(world.orders - before <= 6, "{} orders in a calm second", world.orders - before);
    // Somebody has written.
    world.write();
    world.run(10);
    let moment = world.at(world.now);
    world.hint(ProbeHint::FreshnessNeeded(moment));
    world.run(100);
    let fresh = world.staleness().expect("there are replicas");
    assert!(fresh < Duration::from_millis(100), "{fresh:?}");
    // A replica that stays behind is not asked for ever.
    world.servers[1].replay = Replay::Paused;
    world.write();
    let moment = world.at(world.now);
    world.hint(ProbeHint::FreshnessNeeded(moment));
    let before = world.orders;
    world.run(500);
    let sampled = world.orders - before;
    assert!((30..=3 * 26).contains(&sampled), "{sampled} orders in half a second");
    world.run(600);
    let before = world.orders;
    world.run(1_000);
    assert!(world.orders - before <= 6, "{} orders in a calm second", world.orders - before);
}
