//! Sessions that write and read with `route = "auto"`, before nodes that are late, die and are
//! promoted, with answers of probes that are late or lost and clocks that leap: no read misses what
//! its level promises.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgimbal_config::{ClusterConfig, Host, ReadConsistency, ResolvedCluster, Route};
use pgimbal_pooler::topology::{
    NodeId, NodeSpec, Options, Placement, ProbeFailure, Remembered, Report, Topology, View,
};

use crate::client::{Client, Stage};
use crate::message::query;
use crate::nodes::{Nodes, Replay};
use crate::random::Random;
use crate::world::{Shape, Troubles, World, pool};

/// How many seeds the usual run has: some seconds of a debug build.
const SEEDS: u64 = 1_200;

/// Milliseconds of a run.
const LENGTH: u64 = 120;

const LEVELS: [ReadConsistency; 3] =
    [ReadConsistency::Session, ReadConsistency::Pool, ReadConsistency::Strong];

#[test]
fn reads_show_what_their_level_promises_whatever_befalls_the_nodes() {
    let number =
        |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let run = |seed: u64| {
        let mut reads = Reads::new(seed);
        reads.run();
        reads.counts
    };
    if let Some(seed) = number("PGIMBAL_SIM_SEED") {
        run(seed);
        return;
    }
    let mut counts = [Counts::default(); LEVELS.len()];
    for seed in 1..=number("PGIMBAL_SIM_SEEDS").unwrap_or(SEEDS) {
        let level = &mut counts[seed as usize % LEVELS.len()];
        let more = run(seed);
        level.reads += more.reads;
        level.on_standbys += more.on_standbys;
    }
    println!("{counts:?}");
    for (level, counts) in LEVELS.iter().zip(counts) {
        let is_much = counts.on_standbys * 100 > counts.reads;
        assert!(is_much, "{level:?}: {counts:?} prove little");
    }
}

/// Reads that were answered.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    reads: usize,
    on_standbys: usize,
}

/// What a client has under way.
#[derive(Clone, Debug, Default)]
struct Doing {
    /// What it sends next, once all before that is answered.
    left: VecDeque<Step>,
    /// What was sent, in order.
    sent: VecDeque<Step>,
    /// What it has written and knows to be committed, in this session.
    own: Vec<String>,
    /// An error has come for what is under way.
    failed: bool,
    /// What its READ ONLY transaction must show, in which all reads are served by one node.
    block: Option<Vec<String>>,
}

#[derive(Clone, Debug)]
struct Step {
    text: String,
    /// What it, or the transaction that it ends, has inserted.
    inserts: Option<String>,
    /// What a read must show.
    must: Vec<String>,
}

/// A question to a node, and its answer.
struct Probe {
    node: NodeId,
    sent_at: Instant,
    /// Milliseconds of the world.
    asked_at: u64,
    answered_at: u64,
    answer: Option<Report>,
}

struct Reads {
    seed: u64,
    level: ReadConsistency,
    world: World,
    nodes: Rc<RefCell<Nodes>>,
    topology: Topology,
    probes: Vec<Probe>,
    /// For each worker the views on their way, each with the time of its arrival.
    views: Vec<VecDeque<(u64, Arc<View>)>>,
    published: u64,
    clients: Vec<Doing>,
    /// Known to be committed by anybody, through the proxy and past it, oldest first.
    by_all: Vec<String>,
    direct: usize,
    now: u64,
    counts: Counts,
}

impl Reads {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed.wrapping_mul(7919));
        let standbys = 1 + random.below(2);
        let level = LEVELS[seed as usize % LEVELS.len()];
        let mut world = World::desk_of(shape(&mut random));
        for number in 0..world.clients.len() {
            world.clients[number].worker = number % world.poolers.len();
            world.clients[number].disturb();
        }
        let nodes = Rc::new(RefCell::new(Nodes::new(standbys)));
        world.random = random;
        world.nodes = Some(Rc::clone(&nodes));
        world.add_pools((2..=standbys).map(|index| NodeId(index as u16)));
        world.set_reads(Route::Auto, level);
        let specs = (0..=standbys).map(spec).collect();
        let topology = Topology::new(options(), specs, Remembered::default(), world.now);
        Self {
            seed,
            level,
            views: vec![VecDeque::new(); world.poolers.len()],
            clients: vec![Doing::default(); world.clients.len()],
            world,
            nodes,
            topology,
            probes: Vec::new(),
            published: 0,
            by_all: Vec::new(),
            direct: 0,
            now: 0,
            counts: Counts::default(),
        }
    }

    fn run(&mut self) {
        while self.now < LENGTH {
            self.millisecond();
        }
    }

    fn millisecond(&mut self) {
        self.now += 1;
        self.world.now += Duration::from_millis(1);
        if self.world.random.chance(1) {
            // The machine has slept.
            self.world.now += Duration::from_millis(self.world.random.below(8_000) as u64);
        }
        self.nodes.borrow_mut().replicate();
        if self.world.random.chance(6) {
            self.event();
        }
        self.ask();
        self.time_passes();
        self.answer();
        self.publish();
        for worker in 0..self.world.poolers.len() {
            let (pooler, now) = (&mut self.world.poolers[worker], self.world.now);
            pooler.handle_timeout(now);
            self.world.take_actions(worker);
        }
        for number in 0..self.clients.len() {
            self.time_passes();
            self.act(number);
        }
        for _ in 0..self.world.random.below(14) {
            self.time_passes();
            self.world.one_step();
            self.listen();
        }
    }

    /// No two things happen at the same time.
    fn time_passes(&mut self) {
        self.world.now += Duration::from_micros(10);
    }

    // The clients.

    /// A client sends what it has to send next, if everything before it is answered.
    fn act(&mut self, number: usize) {
        match self.world.clients[number].stage {
            Stage::Gone => {
                let worker = self.world.clients[number].worker;
                let mut client = Client::new(number, worker, Vec::new(), 0);
                client.tokens = self.world.clients[number].tokens;
                client.ready_spare = usize::MAX / 2;
                client.disturb();
                self.world.clients[number] = client;
                self.clients[number] = Doing::default();
            }
            Stage::Away => self.world.client_logs_in(number),
            Stage::Open if self.clients[number].sent.is_empty() => {
                if self.clients[number].left.is_empty() && self.world.random.chance(15) {
                    self.begin(number);
                }
                self.send_next(number);
            }
            _ => {}
        }
    }

    /// A client decides what it does next.
    fn begin(&mut self, number: usize) {
        let token = self.world.clients[number].token();
        let step = |text: &str, inserts: Option<&String>| Step {
            text: text.to_owned(),
            inserts: inserts.cloned(),
            must: Vec::new(),
        };
        let insert = format!("insert '{token}'");
        let write = step(&insert, Some(&token));
        let read = step("select seen", None);
        let in_block = [step("begin", None), step(&insert, None), step("commit", Some(&token))];
        let begin_read_only = step("begin read only", None);
        let read_only = [begin_read_only.clone(), read.clone(), step("commit", None)];
        let behind_block = step(&format!("commit; {insert}"), Some(&token));
        let doing = &mut self.clients[number];
        match self.world.random.below(10) {
            0 => doing.left.extend([write]),
            1 => doing.left.extend(in_block),
            2 => doing.left.extend(read_only),
            3 => doing.left.extend([write, read]),
            4 => {
                // Sent at once.
                for step in [write, read] {
                    self.send(number, step);
                }
            }
            5 => doing.left.extend([begin_read_only, behind_block, read]),
            6 => {
                // The first begins nothing, which the proxy cannot know when the second comes.
                for step in [step(&format!("begin read only; bad '{token}'"), None), write] {
                    self.send(number, step);
                }
            }
            _ => doing.left.extend([read]),
        }
    }

    fn send_next(&mut self, number: usize) {
        if let Some(step) = self.clients[number].left.pop_front() {
            self.send(number, step);
        }
    }

    fn send(&mut self, number: usize, mut step: Step) {
        let doing = &mut self.clients[number];
        step.must = match self.level {
            ReadConsistency::Session => newest(doing.own.iter()),
            ReadConsistency::Pool => {
                newest(self.by_all.iter().filter(|token| !token.starts_with("direct")))
            }
            _ => newest(self.by_all.iter()),
        };
        match &step.text[..] {
            "begin read only" => doing.block = Some(step.must.clone()),
            "commit" | "rollback" => doing.block = None,
            text if text.starts_with("commit;") => doing.block = None,
            _ => step.must = doing.block.clone().unwrap_or(step.must),
        }
        // What it has sent just before is done before it.
        step.must.extend(doing.sent.iter().filter_map(|sent| sent.inserts.clone()));
        let bytes = query(&step.text);
        doing.sent.push_back(step);
        self.world.say_only(number, &bytes);
        self.listen();
    }

    /// Everybody takes what has come.
    fn listen(&mut self) {
        for number in 0..self.clients.len() {
            for line in self.world.heard(number) {
                self.hear(number, &line);
            }
            if self.world.clients[number].stage == Stage::Gone {
                self.clients[number].sent.clear();
            }
        }
    }

    fn hear(&mut self, number: usize, line: &str) {
        let doing = &mut self.clients[number];
        match line.split_at(1) {
            ("E", _) => doing.failed = true,
            ("D", seen) => {
                let seen = seen.trim_start().trim_start_matches("seen ").parse().expect("a number");
                self.check(number, seen);
            }
            ("Z", status) => {
                let Some(step) = doing.sent.pop_front() else { return };
                if std::mem::take(&mut doing.failed) {
                    doing.left.clear();
                    // What was sent behind it need not see it.
                    for sent in &mut doing.sent {
                        sent.must.retain(|token| Some(token) != step.inserts.as_ref());
                    }
                    if status.trim() == "E" {
                        let text = "rollback".to_owned();
                        let (inserts, must) = (None, Vec::new());
                        doing.left.push_back(Step { text, inserts, must });
                    }
                } else if let Some(token) = step.inserts {
                    doing.own.push(token.clone());
                    self.by_all.push(token);
                }
            }
            _ => {}
        }
    }

    /// What the first read that is under way must show.
    fn check(&mut self, number: usize, seen: usize) {
        let nodes = self.nodes.borrow();
        let sent = &self.clients[number].sent;
        let step = sent.front().expect("an answer to something");
        self.counts.reads += 1;
        self.counts.on_standbys += usize::from(nodes.was_on_standby(seen));
        let missed = step.must.iter().find(|token| nodes.misses(seen, token));
        assert!(
            missed.is_none(),
            "seed {}: client {number} has not seen {missed:?}, {:?}, on a standby: {}, at {} ms",
            self.seed,
            self.level,
            nodes.was_on_standby(seen),
            self.now,
        );
    }

    // The nodes.

    fn event(&mut self) {
        let mut nodes = self.nodes.borrow_mut();
        let random = &mut self.world.random;
        let index = random.below(nodes.list.len());
        let back = random.below(100) as u64;
        match random.below(20) {
            0 | 1 => {
                nodes.stop(index);
                drop(nodes);
                self.world.kill_node(NodeId(index as u16));
            }
            2 | 3 if nodes.primary().is_none() => nodes.promote(index),
            2..=5 if nodes.is_standby(index) || !nodes.list[index].up => {
                drop(nodes);
                // It is started again.
                self.world.kill_node(NodeId(index as u16));
                self.nodes.borrow_mut().follow(index, back);
                if self.nodes.borrow().list[index].up {
                    self.world.dead.retain(|dead| dead.index() != index);
                }
            }
            6..=12 => {
                let slow = Replay::Slow(random.below(6) as u64);
                nodes.list[index].replay =
                    random.pick(&[Replay::AtOnce, Replay::AtOnce, Replay::Paused, slow]);
            }
            13..=15 => nodes.grow(back),
            _ => {
                // Somebody writes past the proxy.
                if let Some(primary) = nodes.primary() {
                    self.direct += 1;
                    let token = format!("direct.{}", self.direct);
                    nodes.commit(primary, std::slice::from_ref(&token));
                    self.by_all.push(token);
                }
            }
        }
    }

    fn ask(&mut self) {
        for hint in std::mem::take(&mut self.world.probe_hints) {
            self.topology.handle_probe_hint(hint, self.world.now);
        }
        while let Some(order) = self.topology.poll_probe(self.world.now) {
            let (there, back) = (self.delay(), self.delay());
            let is_lost = self.world.random.chance(3);
            let asked_at = self.now + there;
            let answered_at = asked_at + if is_lost { 30 } else { back };
            let (node, sent_at) = (order.node, order.sent_at);
            let asked_at = if is_lost { u64::MAX } else { asked_at };
            self.probes.push(Probe { node, sent_at, asked_at, answered_at, answer: None });
        }
        for probe in self.probes.iter_mut().filter(|probe| probe.asked_at == self.now) {
            let nodes = self.nodes.borrow();
            let index = probe.node.index();
            probe.answer = nodes.list[index].up.then(|| nodes.report(index));
        }
    }

    fn delay(&mut self) -> u64 {
        match self.world.random.below(12) {
            0 => self.world.random.below(40) as u64,
            _ => self.world.random.below(4) as u64,
        }
    }

    fn answer(&mut self) {
        let now = self.now;
        let (come, under_way): (Vec<_>, Vec<_>) =
            self.probes.drain(..).partition(|probe| probe.answered_at <= now);
        self.probes = under_way;
        for probe in come {
            let now = self.world.now;
            match probe.answer {
                Some(report) => {
                    self.topology.handle_report(probe.node, probe.sent_at, now, report);
                }
                None => {
                    let failure = ProbeFailure::Unreachable("connection refused".into());
                    self.topology.handle_failure(probe.node, now, failure);
                }
            }
        }
        while self.topology.poll_event().is_some() {}
    }

    /// A view that has changed is on its way to the workers, which learn of it at other times.
    fn publish(&mut self) {
        let view = self.topology.view();
        if view.version != self.published {
            self.published = view.version;
            // Behind that of a world without such nodes.
            let version = view.version + 10;
            let (nodes, writes) = (view.nodes.clone(), view.writes.clone());
            let view = Arc::new(View { version, nodes, writes });
            for worker in 0..self.views.len() {
                let arrives = self.now + self.world.random.below(15) as u64;
                self.views[worker].push_back((arrives, Arc::clone(&view)));
            }
        }
        for worker in 0..self.views.len() {
            while let Some((_, view)) =
                self.views[worker].pop_front_if(|(arrives, _)| *arrives <= self.now)
            {
                self.world.see_at(worker, view);
            }
        }
    }
}

/// The newest of these: who has them has those before them, unless they are lost.
fn newest<'a>(tokens: impl DoubleEndedIterator<Item = &'a String>) -> Vec<String> {
    tokens.rev().take(8).cloned().collect()
}

fn shape(random: &mut Random) -> Shape {
    let troubles = Troubles {
        kills: false,
        vanishings: false,
        cancels: false,
        dial_failures: false,
        balks: false,
        failovers: false,
    };
    Shape {
        workers: 1 + random.below(2) as u16,
        clients: 2 + random.below(3),
        steps: 1,
        pool: pool(1 + random.below(3) as u32),
        max_pinned: 100,
        chunk: 100,
        troubles,
        cluster: Some(ResolvedCluster {
            name: "main".into(),
            config: ClusterConfig::default().into(),
        }),
    }
}

fn options() -> Options {
    Options {
        probe_interval: Duration::from_secs(1),
        failover_hold: Duration::from_secs(30),
        max_lag_bytes: None,
        max_lag: None,
    }
}

fn spec(index: usize) -> NodeSpec {
    NodeSpec {
        name: format!("n{index}").into(),
        host: Host::Tcp("localhost".into()),
        port: 1,
        candidate: true,
        placement: Placement::default(),
    }
}
