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
    pub(crate) seen: Seen,
}

/// How often something has happened that a run is about.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    loans: u64,
    conflicts: u64,
    sweeps: u64,
    crashes: u64,
    bare: u64,
    full: u64,
}

impl Seen {
    pub(crate) fn add(&mut self, other: Self) {
        self.loans += other.loans;
        self.conflicts += other.conflicts;
        self.sweeps += other.sweeps;
        self.crashes += other.crashes;
        self.bare += other.bare;
        self.full += other.full;
    }

    /// A simulation in which nothing happens holds nothing.
    pub(crate) fn assert_all_happened(&self) {
        let Self { loans, conflicts, sweeps, crashes, bare, full } = *self;
        for count in [loans, conflicts, sweeps, crashes, bare, full] {
            assert!(count > 100, "{self:?}");
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
        if !self.healed && self.random.chance(2) {
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
            process.serve(node, &mut self.servers[node], self.now, dial_time);
        }
        self.speak(index);
        self.use_store(index);
        let process = &self.processes[index];
        let empty = process.nodes.iter().all(|node| node.used() == 0);
        if process.leaves && empty && process.budget.slot().is_none() {
            self.processes.remove(index);
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

    /// Reads the store, or writes what was read a while ago.
    fn use_store(&mut self, index: usize) {
        let process = &mut self.processes[index];
        if process.wants_store(self.now) {
            process.read = Some(self.store.clone());
            return;
        }
        let Some((read, version)) = process.read.take() else { return };
        let leaves = process.leaves && process.nodes.iter().all(|node| node.used() == 0);
        let before = self.store.0.holdings().count();
        let change = match leaves {
            true => process.budget.release(&read, self.now),
            false => process.budget.change(&read, self.now),
        };
        let Some(change) = change else { return };
        if version != self.store.1 {
            self.seen.conflicts += 1;
            return;
        }
        if process.store_away {
            // Nobody knows whether it was written.
            if self.random.chance(50) {
                self.store = (change, version + 1);
            }
            return;
        }
        let after = change.holdings().count();
        self.seen.sweeps += u64::from(after < before && !leaves);
        self.store = (change.clone(), version + 1);
        process.budget.handle_stored(&change, self.now);
    }

    fn trouble(&mut self) {
        let choice = self.random.below(14);
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

    /// Everything works again and everybody wants a lot: everybody gets its share and no token is
    /// missing. Then one alone wants a lot, and gets what the others do not use.
    pub(crate) fn heal_and_check(&mut self) {
        self.healed = true;
        self.partitions.clear();
        while self.processes.len() < usize::from(self.of) {
            self.start();
        }
        for process in &mut self.processes {
            (process.store_away, process.leaves, process.stopped_until) = (false, false, None);
            process.isolated = None;
            process.nodes.iter_mut().for_each(|node| (node.demand, node.cut_off) = (100, false));
        }
        self.processes.truncate(usize::from(self.of));
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
            for (node, server) in self.servers.iter().enumerate() {
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
        for (node, server) in self.servers.iter().enumerate() {
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
