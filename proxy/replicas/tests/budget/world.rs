//! Replicas, servers, the store and the network between them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pgimbal_replicas::budget::message::Message;
use pgimbal_replicas::budget::slots::Slots;
use pgimbal_replicas::budget::{BARE, Standing};

use crate::process::{Process, name};
use crate::random::Random;
use crate::server::Server;

/// Everything, with its time.
pub(crate) struct World {
    random: Random,
    now: Instant,
    of: u16,
    servers: Vec<Server>,
    processes: Vec<Process>,
    /// Who has died, with its part of the margin of each server.
    dead: BTreeMap<u64, Vec<u32>>,
    store: (Slots, u64),
    /// Messages under way: when they arrive, to whom, and the document that goes with them.
    messages: Vec<(Instant, u64, Message, Slots)>,
    /// Pairs of replicas between which no message goes.
    partitions: Vec<(u64, u64)>,
    next_id: u64,
    /// The longest time that a step takes, in milliseconds.
    pace: usize,
    /// Nothing goes wrong any more.
    healed: bool,
    /// Nothing goes wrong by chance.
    is_calm: bool,
    pub(crate) seen: Seen,
}

/// How often something has happened that a run is about.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    loans: u64,
    conflicts: u64,
    /// Writes to the store of which the writer does not know that they have succeeded.
    unanswered: u64,
    /// Processes that have given their slot back.
    left: u64,
    /// Sweeps while a server was down.
    partial: u64,
    sweeps: u64,
    crashes: u64,
    bare: u64,
    full: u64,
}

impl Seen {
    pub(crate) fn add(&mut self, other: Self) {
        self.loans += other.loans;
        self.conflicts += other.conflicts;
        self.unanswered += other.unanswered;
        self.left += other.left;
        self.partial += other.partial;
        self.sweeps += other.sweeps;
        self.crashes += other.crashes;
        self.bare += other.bare;
        self.full += other.full;
    }

    /// A simulation in which nothing happens holds nothing.
    pub(crate) fn assert_all_happened(&self) {
        let Self { loans, conflicts, sweeps, crashes, bare, full, .. } = *self;
        for count in [loans, conflicts, sweeps, crashes, bare, full] {
            assert!(count > 100, "{self:?}");
        }
        for count in [self.unanswered, self.left, self.partial] {
            assert!(count > 30, "{self:?}");
        }
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let of = 2 + random.below(3) as u16;
        let servers = (0..1 + random.below(2))
            .map(|_| {
                Server::new(u32::from(of) * (2 + random.below(8) as u32) + random.below(3) as u32)
            })
            .collect();
        let mut world = Self {
            random,
            now: Instant::now(),
            of,
            servers,
            processes: Vec::new(),
            dead: BTreeMap::new(),
            store: (Slots::default(), 0),
            messages: Vec::new(),
            partitions: Vec::new(),
            next_id: 1,
            pace: 0,
            healed: false,
            is_calm: false,
            seen: Seen::default(),
        };
        world.pace = world.random.pick(&[30, 100, 300]);
        for _ in 0..of {
            world.start();
        }
        world
    }

    fn start(&mut self) {
        let mut process = Process::new(self.next_id, self.of, &self.servers, self.now);
        for node in &mut process.nodes {
            node.demand = self.random.below(20) as u32;
        }
        self.processes.push(process);
        self.next_id += 1;
    }

    /// One step: a little time, one replica's turn, and now and then some trouble.
    pub(crate) fn step(&mut self) {
        self.now += Duration::from_millis(self.random.below(self.pace) as u64);
        for server in &mut self.servers {
            server.pass_time(self.now);
        }
        self.deliver();
        for process in &mut self.processes {
            process.return_from_isolation(self.now);
        }
        if !self.processes.is_empty() {
            let index = self.random.below(self.processes.len());
            if self.processes[index].runs(self.now) {
                self.turn(index);
            }
        }
        if !self.is_calm && self.random.chance(2) {
            self.trouble();
        }
        self.check();
    }

    fn turn(&mut self, index: usize) {
        for node in 0..self.servers.len() {
            let slow = !self.healed && self.random.chance(3);
            let longest = if slow { 15_000 } else { 50 };
            let dial_time = Duration::from_millis(self.random.below(longest) as u64);
            let process = &mut self.processes[index];
            let closes_idle = self.random.chance(2);
            process.serve(node, &mut self.servers[node], self.now, dial_time, closes_idle);
        }
        self.speak(index);
        self.use_store(index);
        let process = &self.processes[index];
        let empty = process.nodes.iter().all(|node| node.used() == 0);
        if process.leaves && empty && process.budget.slot().is_none() {
            self.seen.left += 1;
            self.processes.remove(index);
            if !self.healed && self.random.chance(60) {
                // The next one of a roll.
                self.start();
                let nodes = self.processes.last_mut().map(|process| &mut process.nodes);
                nodes.into_iter().flatten().for_each(|node| node.demand = 30);
            }
        }
    }

    fn speak(&mut self, index: usize) {
        let process = &mut self.processes[index];
        let nodes = &process.nodes;
        let pids = |of: &str| {
            let node = (0..nodes.len()).find(|node| name(*node) == of);
            node.map(|node| nodes[node].claims()).unwrap_or_default()
        };
        let Some(message) = process.budget.poll_message(self.now, pids) else { return };
        let (from, slots) = (process.id, process.budget.slots().clone());
        self.seen.loans += u64::from(
            message.nodes.values().flat_map(|node| &node.balances).any(|balance| balance.sent > 0),
        );
        if process.isolated.is_some() {
            return;
        }
        for to in self.processes.iter().map(|process| process.id).filter(|to| *to != from) {
            let copies = if self.healed { 1 } else { [0, 1, 1, 1, 1, 2][self.random.below(6)] };
            for _ in 0..copies {
                let longest = if self.random.chance(5) { 20_000 } else { 100 };
                let longest = if self.healed { 20 } else { longest };
                let arrives = self.now + Duration::from_millis(self.random.below(longest) as u64);
                self.messages.push((arrives, to, message.clone(), slots.clone()));
            }
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        let due: Vec<_> = self.messages.extract_if(.., |(at, ..)| *at <= now).collect();
        for (_, to, message, slots) in due {
            let pair = (to.min(message.from.0), to.max(message.from.0));
            if self.partitions.contains(&pair) {
                continue;
            }
            let process = self.processes.iter_mut().find(|process| process.id == to);
            let hears = |process: &&mut Process| process.runs(now) && process.isolated.is_none();
            if let Some(process) = process.filter(hears) {
                process.budget.handle_stored(&slots, now);
                process.budget.handle_message(message, now);
            }
        }
    }

    /// Reads the store, or decides about what was read a while ago, or writes what was decided.
    fn use_store(&mut self, index: usize) {
        let process = &mut self.processes[index];
        if process.wants_store(self.now) {
            process.read = Some(self.store.clone());
            return;
        }
        if let Some((read, version)) = process.read.take() {
            let change = process.budget.change(&read, self.now);
            process.decided = change.map(|change| (change, version));
            if process.leaves && process.decided.is_some() {
                // Its clients are with the others now.
                let nodes = self.processes.iter_mut().flat_map(|process| &mut process.nodes);
                nodes.for_each(|node| node.demand = 30);
            }
            return;
        }
        // Meanwhile it serves, speaks and listens.
        if !self.healed && !self.random.chance(20) {
            return;
        }
        let process = &mut self.processes[index];
        let Some((change, version)) = process.decided.take() else { return };
        if version != self.store.1 {
            self.seen.conflicts += 1;
            return;
        }
        let (before, after) = (self.store.0.holdings().count(), change.holdings().count());
        if process.store_away || (!self.healed && self.random.chance(10)) {
            // Nobody knows whether it was written.
            if self.random.chance(50) {
                self.seen.unanswered += 1;
                self.store = (change, version + 1);
            }
            return;
        }
        if after < before && !process.leaves {
            self.seen.sweeps += 1;
            self.seen.partial += u64::from(self.servers.iter().any(|server| server.is_down));
        }
        self.store = (change.clone(), version + 1);
        process.budget.handle_stored(&change, self.now);
    }

    fn trouble(&mut self) {
        let choice = self.random.below(18);
        if self.processes.is_empty() {
            return self.start();
        }
        let index = self.random.below(self.processes.len());
        let node = self.random.below(self.servers.len());
        let until = self.now + Duration::from_millis(self.random.below(15_000) as u64);
        match choice {
            0 if self.random.chance(30) => self.crash(index),
            1 if self.processes.len() < usize::from(self.of) + 1 => self.start(),
            2 if self.random.chance(30) => self.processes[index].leaves = true,
            3 => self.partition(),
            4 | 5 => self.partitions.clear(),
            6 if self.processes[index].isolated.is_none() => {
                self.processes[index].store_away ^= true;
            }
            7 if self.random.chance(30) => self.processes[index].nodes[node].cut_off ^= true,
            8 => self.processes[index].nodes[node].cut_off = false,
            9 if self.random.chance(20) => self.servers[node].restart(),
            10 if self.random.chance(20) => self.processes[index].stopped_until = Some(until),
            11 if self.random.chance(50) => self.isolate(index),
            12 if self.random.chance(10) => self.servers[node].turn_down(true),
            17 if self.random.chance(20) => self.strand(index, node),
            13 if self.servers[node].is_down => self.servers[node].turn_down(false),
            14 if self.random.chance(10) => {
                self.processes[index].turn_gone(node, &self.servers[node], self.now);
            }
            _ => {
                let demand = [0, 1, 3, 30][self.random.below(4)];
                self.processes[index].nodes[node].demand = demand;
            }
        }
    }

    fn crash(&mut self, index: usize) {
        let process = self.processes.remove(index);
        self.seen.crashes += 1;
        let margin = (0..self.servers.len()).map(|node| of_margin(&process, node)).collect();
        self.dead.insert(process.id, margin);
        let longest = [500, 5_000, 120_000][self.random.below(3)];
        for server in &mut self.servers {
            let random = &mut self.random;
            let now = self.now;
            server.orphan(process.id, || now + Duration::from_millis(random.below(longest) as u64));
        }
    }

    /// A replica loses everybody at once, and its connections. The servers come back first.
    fn isolate(&mut self, index: usize) {
        let process = &mut self.processes[index];
        process.store_away = true;
        let seconds = |random: &mut Random| Duration::from_secs(1 + random.below(120) as u64);
        let back = self.now + seconds(&mut self.random);
        process.isolated = Some((back, back + seconds(&mut self.random)));
        for (state, server) in process.nodes.iter_mut().zip(&mut self.servers) {
            state.cut_off = true;
            state.open.iter().chain(&state.dialing).for_each(|pid| server.close(*pid));
        }
    }

    /// One of three replicas has nobody but the second server, to which the others lose the way for
    /// a while, or, if it `is_heard`, one of the others as well. They take it for gone, and another
    /// one gets its slot; but what it has at that server stays its own until it ends.
    pub(crate) fn strand_one(seed: u64, is_heard: bool) -> Seen {
        let mut world = Self::new(seed);
        (world.is_calm, world.of, world.pace) = (true, 3, 100);
        world.servers = vec![Server::new(9 + world.random.below(12) as u32), Server::new(15)];
        world.processes.clear();
        let begin = |world: &mut Self| {
            world.start();
            let nodes = world.processes.last_mut().map(|process| &mut process.nodes);
            nodes.into_iter().flatten().for_each(|node| node.demand = 30);
        };
        (0..3).for_each(|_| begin(&mut world));
        world.pass(Duration::from_secs(90));
        let (ids, now) = ([1, 2].map(|at| world.processes[at].id), world.now);
        let stranded = world.processes[0].id;
        let (others_back, back) = (now + Duration::from_secs(100), now + Duration::from_secs(600));
        for (at, process) in world.processes.iter_mut().enumerate() {
            let (node, until) = if at == 0 { (0, back) } else { (1, others_back) };
            process.cut_off(node, &mut world.servers[node], until);
        }
        let one = &mut world.processes[0];
        (one.store_away, one.is_pinned) = (true, true);
        match is_heard {
            true => world.partitions.push((stranded.min(ids[0]), stranded.max(ids[0]))),
            false => one.isolated = Some((back, back)),
        }
        begin(&mut world);
        world.pass(Duration::from_secs(400));
        let has = world.servers[1].by_owner();
        assert!(has.get(&stranded).is_some_and(|has| *has > BARE), "{has:?}");
        let newest = |world: &Self| {
            let budget = world.processes.last().map(|process| &process.budget);
            budget.and_then(|budget| Some((budget.slot()?, budget.status(&name(1))?.standing)))
        };
        assert!(matches!(newest(&world), Some((_, Standing::Unproven))), "{:?}", newest(&world));
        world.crash(0);
        world.pass(Duration::from_secs(300));
        assert!(matches!(newest(&world), Some((_, Standing::Usable))), "{:?}", newest(&world));
        world.seen
    }

    /// A replica has nobody but one server, to which the others have lost the way.
    fn strand(&mut self, index: usize, node: usize) {
        let seconds = |random: &mut Random| Duration::from_secs(70 + random.below(60) as u64);
        let others_back = self.now + seconds(&mut self.random);
        let back = others_back + seconds(&mut self.random) * 2;
        for (at, process) in self.processes.iter_mut().enumerate() {
            process.nodes[node].demand = 30;
            if at != index {
                process.cut_off(node, &mut self.servers[node], others_back);
                continue;
            }
            process.store_away = true;
            process.isolated = Some((back, back));
            for (other, server) in self.servers.iter_mut().enumerate().filter(|it| it.0 != node) {
                process.cut_off(other, server, back);
            }
        }
    }

    fn partition(&mut self) {
        let ids: Vec<u64> = self.processes.iter().map(|process| process.id).collect();
        let (a, b) = (self.random.pick(&ids), self.random.pick(&ids));
        self.partitions.push((a.min(b), a.max(b)));
    }

    /// No server has more connections than its budget, and 2 for each replica that cannot use
    /// tokens.
    fn check(&mut self) {
        for (node, server) in self.servers.iter().enumerate() {
            let owners = server.by_owner();
            let mut limit = server.total;
            for owner in owners.keys() {
                let alive = self.processes.iter().find(|process| process.id == *owner);
                limit += match alive {
                    Some(process) => of_margin(process, node),
                    None => self.dead.get(owner).map_or(0, |of_margin| of_margin[node]),
                };
            }
            let count: u32 = owners.values().sum();
            assert!(
                count <= limit,
                "{node}: {owners:?}, {}, {limit}\n{}",
                server.total,
                self.told(node)
            );
            self.seen.bare += u64::from(count > server.total);
            self.seen.full += u64::from(count == server.total);
        }
    }

    /// Everything works again, but perhaps for a server that stays down or has left for good, and
    /// everybody wants a lot: everybody gets its share and no token is missing. Then one alone wants
    /// a lot, and gets what the others do not use.
    pub(crate) fn heal_and_check(&mut self) {
        (self.healed, self.is_calm) = (true, true);
        self.partitions.clear();
        self.processes.retain(|process| !process.leaves);
        while self.processes.len() < usize::from(self.of) {
            self.start();
        }
        for process in &mut self.processes {
            (process.store_away, process.stopped_until) = (false, None);
            process.isolated = None;
            process.decided = None;
            process.nodes.iter_mut().for_each(|node| node.cut_until = None);
            process.nodes.iter_mut().for_each(|node| (node.demand, node.cut_off) = (100, false));
        }
        self.processes.truncate(usize::from(self.of));
        let lost = (self.servers.len() > 1 && self.random.chance(50)).then(|| self.random.below(2));
        let has_left = self.random.chance(50);
        for (node, server) in self.servers.iter_mut().enumerate() {
            let is_lost = lost == Some(node);
            if is_lost || server.is_down {
                server.turn_down(is_lost);
            }
            for process in &mut self.processes {
                if process.nodes[node].is_gone != (is_lost && has_left) {
                    process.turn_gone(node, server, self.now);
                }
            }
        }
        let kept: Vec<u64> = self.processes.iter().map(|process| process.id).collect();
        let now = self.now;
        for server in &mut self.servers {
            let owners: Vec<u64> = server.by_owner().into_keys().collect();
            for gone in owners.into_iter().filter(|owner| !kept.contains(owner)) {
                server.orphan(gone, || now);
            }
        }
        self.pace = 60;
        self.pass(Duration::from_secs(240));
        for process in &self.processes {
            for (node, server) in self.servers.iter().enumerate().filter(|it| Some(it.0) != lost) {
                let status = process.budget.status(&name(node));
                let status = status.unwrap_or_else(|| panic!("no server {node}"));
                assert_eq!(status.standing, Standing::Usable, "{} {status:?}", process.id);
                assert_eq!((status.borrowed, status.lent), (0, 0), "{}", self.told(node));
                assert_eq!(process.nodes[node].used(), server.total / u32::from(self.of));
            }
        }
        for (index, process) in self.processes.iter_mut().enumerate() {
            process.nodes.iter_mut().for_each(|it| it.demand = if index == 0 { 100 } else { 1 });
        }
        self.pass(Duration::from_secs(60));
        for (node, server) in self.servers.iter().enumerate().filter(|it| Some(it.0) != lost) {
            let share = server.total / u32::from(self.of);
            // The others use one and keep one of what is left.
            let lent = (share - 1) - (share - 1).min(1);
            let wanted = (share + lent * u32::from(self.of - 1)).min(100);
            assert_eq!(self.processes[0].nodes[node].used(), wanted, "of {}", server.total);
        }
    }

    /// What the replicas know, for who reads a failure.
    fn told(&self, node: usize) -> String {
        let lines = self.processes.iter().map(|process| {
            let (status, slots) = (process.budget.status(&name(node)), process.budget.slots());
            let held: Vec<_> = slots.holdings().map(|holding| holding.tenure).collect();
            format!("{}: {status:?} {:?} {held:?}\n", process.id, process.nodes[node].allowance)
        });
        lines.chain([format!("store: {:?}", self.store.0)]).collect()
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }
}

/// How many connections beyond its tokens a replica may have: those that it was allowed before it
/// could use its tokens stay until they can be closed.
fn of_margin(process: &Process, node: usize) -> u32 {
    let Some(status) = process.budget.status(&name(node)) else { return BARE };
    if status.standing != Standing::Usable {
        return BARE;
    }
    let tokens = (status.share + status.borrowed).saturating_sub(status.lent);
    process.nodes[node].used().saturating_sub(tokens).min(BARE)
}
