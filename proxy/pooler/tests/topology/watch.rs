//! The machine between a model of servers and what must always hold.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pgimbal_config::Host;
use pgimbal_pooler::topology::{
    Event, NodeId, NodeSpec, NodeState, Options, Placement, ProbeFailure, ProbeHint, Remembered,
    Report, SystemId, TimelineId, Topology, Writes,
};

use crate::random::Random;
use crate::world::{OURS, Reach, Server, THEIRS};

const LIMIT: u64 = 1500;
/// probe_interval and probe_timeout, and a little for the answers' way.
const NOTICED: u64 = 1000 + LIMIT + 100;

pub(crate) struct Watch {
    pub(crate) topology: Topology,
    pub(crate) servers: Vec<Server>,
    pub(crate) candidates: Vec<bool>,
    listed: Vec<bool>,
    /// An operator has adopted another node, and this one has not joined it.
    rejected: Vec<bool>,
    pub(crate) now: Instant,
    pub(crate) events: Vec<Event>,
    /// When the answers of what is under way come, in milliseconds from the start.
    under_way: BTreeMap<(u64, u16), (Instant, Result<Report, ProbeFailure>)>,
    began: Instant,
    /// What the machine was last told of each node.
    told: Vec<Option<Result<Report, ProbeFailure>>>,
    highest: TimelineId,
    /// Since when the server that is written to has been out of reach.
    unreachable: Option<u64>,
    starts: i64,
    random: Random,
    seed: u64,
    loud: bool,
}

pub(crate) fn options() -> Options {
    Options {
        probe_interval: Duration::from_secs(1),
        failover_hold: Duration::from_secs(30),
        max_lag_bytes: None,
        max_lag: None,
    }
}

pub(crate) fn spec(index: usize) -> NodeSpec {
    NodeSpec {
        name: format!("n{index}").into(),
        host: Host::Tcp(format!("n{index}.test")),
        port: 5432,
        candidate: true,
        placement: Placement::default(),
    }
}

impl Watch {
    /// A primary and `standbys`, as `n0`, `n1` and so on.
    pub(crate) fn new(seed: u64, standbys: usize, loud: bool) -> Self {
        let now = Instant::now();
        let mut servers = vec![Server::primary(1)];
        servers.extend((0..standbys).map(|index| Server::standby(index as i64 + 2)));
        Self::of(servers, seed, loud, now)
    }

    pub(crate) fn of(servers: Vec<Server>, seed: u64, loud: bool, now: Instant) -> Self {
        let specs = (0..servers.len()).map(spec).collect();
        Self {
            topology: Topology::new(options(), specs, Remembered::default(), now),
            told: vec![None; servers.len()],
            candidates: vec![true; servers.len()],
            listed: vec![true; servers.len()],
            rejected: vec![false; servers.len()],
            starts: servers.len() as i64 + 1,
            servers,
            now,
            events: Vec::new(),
            under_way: BTreeMap::new(),
            began: now,
            highest: TimelineId(0),
            unreachable: None,
            random: Random::new(seed.wrapping_add(77)),
            seed,
            loud,
        }
    }

    fn at(&self) -> u64 {
        (self.now - self.began).as_millis() as u64
    }

    fn say(&self, what: &dyn std::fmt::Display) {
        if self.loud {
            println!("{:>7} {what}", self.at());
        }
    }

    /// Lets `milliseconds` pass.
    pub(crate) fn run(&mut self, milliseconds: u64) {
        let end = self.now + Duration::from_millis(milliseconds);
        loop {
            self.step();
            let answer = self.under_way.keys().next().map(|(at, _)| *at);
            let answer = answer.map(|at| self.began + Duration::from_millis(at));
            let order = self.topology.next_timeout().map(|at| at.max(self.now));
            let Some(next) = answer.into_iter().chain(order).min().filter(|next| *next < end)
            else {
                break;
            };
            self.pass(next - self.now);
        }
        self.pass(end - self.now);
    }

    fn pass(&mut self, time: Duration) {
        for server in self.servers.iter_mut().filter(|server| server.primary) {
            server.position += 8 * time.as_millis() as u64;
        }
        self.now += time;
    }

    /// Lets time pass until `state` holds; fails after `milliseconds`.
    pub(crate) fn within(&mut self, milliseconds: u64, holds: impl Fn(&Self) -> bool) -> u64 {
        for passed in 0..=milliseconds {
            self.step();
            if holds(self) {
                return passed;
            }
            self.pass(Duration::from_millis(1));
        }
        panic!("not within {milliseconds} ms: {:#?}", self.topology.view());
    }

    fn step(&mut self) {
        let at = self.at();
        while let Some(entry) = self.under_way.first_entry() {
            if entry.key().0 > at {
                break;
            }
            let ((_, node), (sent_at, answer)) = entry.remove_entry();
            self.deliver(NodeId(node), sent_at, answer);
        }
        while let Some(order) = self.topology.poll_probe(self.now) {
            let answer = self.servers[order.node.index()].answer();
            let way = if matches!(answer, Err(ProbeFailure::TimedOut)) {
                LIMIT
            } else {
                self.random.below(20) as u64
            };
            self.under_way.insert((at + way, order.node.0), (order.sent_at, answer));
        }
        self.drain();
        self.check();
    }

    fn deliver(&mut self, id: NodeId, sent_at: Instant, answer: Result<Report, ProbeFailure>) {
        match &answer {
            Ok(report) => self.topology.handle_report(id, sent_at, self.now, *report),
            Err(failure) => self.topology.handle_failure(id, self.now, failure.clone()),
        }
        if !self.listed[id.index()] {
            return;
        }
        if let Ok(report) = &answer {
            let cluster = self.topology.remembered();
            let joined = cluster.system == Some(report.system)
                && cluster.timeline == Some(report.timeline)
                && !report.is_primary();
            self.rejected[id.index()] &= !joined;
        }
        let believed = matches!(self.told[id.index()], Some(Ok(_)));
        match answer {
            // It stays what it was taken for.
            Err(ProbeFailure::ProbeRefused(_)) if believed => {}
            answer => self.told[id.index()] = Some(answer),
        }
        let system = self.topology.remembered().system;
        let ours = self.believed().filter(|report| Some(report.system) == system);
        let highest = ours.map(|report| report.timeline).max();
        self.highest = highest.map_or(self.highest, |highest| highest.max(self.highest));
    }

    /// What candidates were last heard to say.
    fn believed(&self) -> impl Iterator<Item = &Report> {
        let counts = self.candidates.iter().zip(&self.rejected).map(|(c, d)| *c && !*d);
        let heard = self.told.iter().zip(counts);
        heard.filter(|(_, counts)| *counts).filter_map(|(told, _)| told.as_ref()?.as_ref().ok())
    }

    pub(crate) fn drain(&mut self) {
        while let Some(event) = self.topology.poll_event() {
            self.say(&event);
            self.events.push(event);
        }
    }

    /// What must hold after every step.
    fn check(&mut self) {
        let (seed, view) = (self.seed, self.topology.view());
        let Writes::To(epoch) = view.writes else {
            self.unreachable = None;
            return;
        };
        let Some(Ok(report)) = &self.told[epoch.node.index()] else {
            panic!("seed {seed}: writes go to a node that failed: {view:#?}");
        };
        assert!(self.candidates[epoch.node.index()], "seed {seed}: writes go to no candidate");
        assert!(!self.rejected[epoch.node.index()], "seed {seed}: writes go to what was given up");
        assert!(report.is_primary(), "seed {seed}: writes go to a standby");
        assert_eq!(Some(report.system), self.topology.remembered().system, "seed {seed}: foreign");
        assert_eq!(report.timeline, epoch.timeline, "seed {seed}: the epoch is another");
        assert!(epoch.timeline >= self.highest, "seed {seed}: writes go to an old timeline");
        let others = self.believed().filter(|other| {
            other.is_primary()
                && other.system == report.system
                && other.timeline == report.timeline
                && other.started_at_micros != report.started_at_micros
        });
        assert_eq!(others.count(), 0, "seed {seed}: writes go to one of two primaries");
        let reach = self.servers[epoch.node.index()].reach;
        let at = self.at();
        match reach {
            Reach::Fine | Reach::Shut => self.unreachable = None,
            _ => {
                let since = *self.unreachable.get_or_insert(at);
                assert!(at - since <= NOTICED, "seed {seed}: {reach:?} for {} ms", at - since);
            }
        }
    }

    /// Node `index` becomes one for drills.
    pub(crate) fn drill(&mut self, index: usize) {
        self.candidates[index] = false;
        self.list();
    }

    fn list(&mut self) {
        let specs = self.candidates.iter().zip(&self.listed).enumerate();
        let specs = specs
            .filter(|(_, (_, listed))| **listed)
            .map(|(index, (candidate, _))| NodeSpec { candidate: *candidate, ..spec(index) });
        self.topology.reconfigure(options(), specs.collect(), self.now);
    }

    /// A node leaves the configuration or comes back to it; one at least stays.
    fn relist(&mut self, index: usize) {
        self.listed[index] = !self.listed[index];
        if self.listed.contains(&true) {
            self.told[index] = None;
            self.list();
        } else {
            self.listed[index] = true;
        }
    }

    fn adopt(&mut self, index: usize) {
        if self.topology.adopt(NodeId(index as u16), self.now).is_err() {
            return;
        }
        let Some(Some(Ok(adopted))) = self.told.get(index).cloned() else {
            panic!("seed {}: what was adopted does not answer", self.seed);
        };
        self.highest = adopted.timeline;
        for (other, told) in self.told.iter().enumerate() {
            let belongs = matches!(told, Some(Ok(report)) if report.system == adopted.system
                && report.timeline == adopted.timeline && !report.is_primary());
            self.rejected[other] = other != index && !belongs;
        }
    }

    /// Something happens to one of the servers.
    pub(crate) fn misfortune(&mut self, random: &mut Random) {
        let index = random.below(self.servers.len());
        let now = self.now;
        let id = NodeId(index as u16);
        let server = &mut self.servers[index];
        let what = random.below(17);
        match what {
            0 => server.promote(),
            1 => server.reach = Reach::Dead,
            2 => server.reach = Reach::Silent,
            3 => server.reach = Reach::Starting,
            4 => server.reach = Reach::Shut,
            5 | 6 => self.start(index),
            7 => self.rejoin(index),
            8 => server.system = random.pick(&[OURS, OURS, OURS, OURS, THEIRS]),
            9 => self.topology.handle_probe_hint(ProbeHint::ConnectionBroke(id), now),
            10 => self.topology.handle_probe_hint(ProbeHint::WaitersNeedPrimary, now),
            11 if random.chance(30) => self.topology.hold(now),
            13 if random.chance(50) => self.adopt(index),
            14 if random.chance(50) => server.restore(),
            15 => self.relist(index),
            _ => {
                self.topology.resume(now);
            }
        }
        self.say(&format_args!("misfortune {what} of n{index}: {:?}", self.servers[index]));
        self.drain();
    }

    /// Brings a server back as it was.
    pub(crate) fn start(&mut self, index: usize) {
        let server = &mut self.servers[index];
        if matches!(server.reach, Reach::Dead | Reach::Starting) {
            self.starts += 1;
            server.started = self.starts;
        }
        server.reach = Reach::Fine;
    }

    /// Makes a server a standby of the primary with the highest timeline.
    pub(crate) fn rejoin(&mut self, index: usize) {
        let primaries = self.servers.iter().enumerate();
        let best = primaries
            .filter(|(other, _)| *other != index && self.candidates[*other])
            .filter(|(_, server)| server.primary && server.system == OURS)
            .max_by_key(|(_, server)| server.timeline);
        if let Some((best, _)) = best {
            self.join(index, best);
        }
    }

    /// Makes a server a standby of another.
    fn join(&mut self, index: usize, primary: usize) {
        let Server { system, timeline, position, .. } = self.servers[primary];
        self.starts += 1;
        let fresh = Server::standby(self.starts);
        self.servers[index] = Server { system, timeline, position, ..fresh };
    }

    /// The world becomes whole again; then the machine must see it so.
    pub(crate) fn heal(&mut self) {
        self.topology.resume(self.now);
        self.listed.fill(true);
        self.list();
        let highest = self.highest;
        for index in 0..self.servers.len() {
            self.servers[index].system = OURS;
            self.start(index);
        }
        let system = self.topology.remembered().system.unwrap_or(OURS);
        let best = (0..self.servers.len())
            .filter(|index| self.candidates[*index] && !self.rejected[*index])
            .max_by_key(|index| {
                let server = &self.servers[*index];
                (server.primary, server.timeline)
            });
        // All that may be written to was given up: an operator must take one back.
        let given_up = best.is_none();
        let best = best.unwrap_or(0);
        self.servers[best].primary = true;
        self.servers[best].timeline = self.servers[best].timeline.max(highest);
        for index in (0..self.servers.len()).filter(|index| *index != best) {
            self.join(index, best);
        }
        self.set_system(system);
        if given_up {
            self.run(3_000);
            self.adopt(best);
        }
        self.say(&format_args!("healed, n{best} is primary"));
        self.run(5_000);
        let view = self.topology.view();
        let seed = self.seed;
        let primary = view.primary().map(|epoch| epoch.node.index());
        assert_eq!(primary, Some(best), "seed {seed}: not healed: {view:#?}");
        for node in view.nodes.iter().filter(|node| node.id.index() != best) {
            assert_eq!(node.state, NodeState::Replica, "seed {seed}: not healed: {view:#?}");
        }
    }

    /// A cluster that began with the other identifier is that one.
    fn set_system(&mut self, system: SystemId) {
        for server in &mut self.servers {
            server.system = system;
        }
    }
}
