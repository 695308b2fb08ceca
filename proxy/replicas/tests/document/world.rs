//! Some replicas, their store, the messages between them, a source of passwords, and misfortunes.

use std::collections::BTreeSet;

use pgimbal_replicas::InstanceId;
use pgimbal_replicas::document::{Document, Stamp};

use super::random::Random;
use super::replica::{CLUSTER, Keys, Password, Replica};

const HOUR: i64 = 3600;
/// A field that a later version has written into the store.
const LATER: &[u8] = br#"{"version": 1, "later": {"a": [1, {"b": 2}]},
    "clusters": {"main": {"later": true, "hold": {"counter": 0, "instance": "0", "value": false}}}}"#;

pub(crate) struct World {
    seed: u64,
    told: bool,
    time: u64,
    replicas: Vec<Replica>,
    /// Which part of a divided network each replica is in.
    parts: Vec<usize>,
    stored: Document,
    version: u64,
    is_store_away: bool,
    /// Messages under way: from, to, document.
    messages: Vec<(usize, usize, Document)>,
    passwords: Vec<Password>,
    is_dated: bool,
    /// Passwords that were revoked, once that stood in the store.
    revoked: BTreeSet<u32>,
    /// Passwords that a replica has revoked and not stored yet.
    revoking: Vec<BTreeSet<u32>>,
    /// Passwords that may be refused although nobody meant to revoke them.
    excused: BTreeSet<u32>,
    instances: u64,
    keys: Keys,
}

impl World {
    pub(crate) fn new(seed: u64, random: &mut Random, told: bool) -> Self {
        let count = 2 + random.below(3);
        let clock = |random: &mut Random| random.pick(&[0, 0, HOUR, -HOUR]);
        let replicas: Vec<_> =
            (0..count).map(|index| Replica::new(index as u64 + 1, clock(random))).collect();
        let is_dated = random.chance(60);
        let mut world = Self {
            seed,
            told,
            time: 0,
            parts: vec![0; count],
            revoking: vec![BTreeSet::new(); count],
            replicas,
            stored: Document::parse(if random.chance(30) { LATER } else { b"" })
                .expect("a document"),
            version: 0,
            is_store_away: random.chance(20),
            messages: Vec::new(),
            passwords: Vec::new(),
            is_dated,
            revoked: BTreeSet::new(),
            excused: BTreeSet::new(),
            instances: count as u64,
            keys: Keys::default(),
        };
        world.rotate();
        world
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.told {
            println!("{:4} {}", self.time, what());
        }
    }

    fn rotate(&mut self) {
        let number = self.passwords.len() as u32;
        let dated = self.is_dated.then_some(1_000_000_000 + self.time);
        self.passwords.push(Password { number, dated });
        self.say(|| format!("password {number}"));
    }

    pub(crate) fn happen(&mut self, random: &mut Random) {
        self.time += 1 + random.below(60) as u64;
        let at = random.below(self.replicas.len());
        match random.below(100) {
            0..4 => self.rotate(),
            4..24 => {
                // The source of a replica may lag by one rotation.
                let lag = usize::from(random.chance(30));
                let known = self.replicas[at].source.map_or(0, |known| known.number as usize);
                let seen = self.passwords.len().saturating_sub(1 + lag).max(known);
                self.fetch(at, seen);
            }
            24..29 => self.revoke(at),
            29..34 => {
                let is_held = random.chance(50);
                self.say(|| format!("{at}: hold {is_held}"));
                self.decide(at, |document, by| _ = document.set_hold(is_held, by));
            }
            34..37 => {
                let (system, timeline) = (random.below(2) as u64 + 1, random.below(5) as u32);
                let rejects = random.chance(50);
                self.say(|| format!("{at}: adopt {system} {timeline}"));
                self.decide(at, |document, by| {
                    document.adopt(system, timeline, [("a", false), ("b", rejects)], by);
                });
            }
            37..42 => {
                let timeline = random.below(6) as u32;
                self.decide(at, |document, _| {
                    let system = document.history().map_or(1, |history| history.system);
                    document.see(system, timeline);
                });
            }
            42..44 => self.decide(at, |document, by| _ = document.set_quarantined("b", false, by)),
            44..60 => self.send(at, random),
            60..76 => self.deliver(random),
            76..90 => self.step_store(at, random),
            90..93 => self.is_store_away = random.chance(40),
            93..96 => self.crash(at),
            _ => {
                let parts = 1 + random.below(2);
                self.parts.iter_mut().for_each(|part| *part = random.below(parts));
            }
        }
    }

    fn fetch(&mut self, at: usize, seen: usize) {
        self.replicas[at].fetch(self.passwords[seen], self.time, &mut self.keys);
        let count = self.passwords.len() as u32;
        let accepted = self.replicas[at].accepted(&mut self.keys, count);
        self.say(|| format!("{at}: fetches {seen}, accepts {accepted:?}"));
    }

    fn revoke(&mut self, at: usize) {
        let count = self.passwords.len() as u32;
        let numbers = self.replicas[at].revoke_old(&mut self.keys, count);
        self.say(|| format!("{at}: revokes {numbers:?}"));
        // Without dates, a replica whose source lags cannot tell that a password is newer than its
        // own: an operator who revokes there may end the newest one.
        let source = self.replicas[at].source.map_or(0, |source| source.number);
        if !self.is_dated && source + 1 < count {
            self.excused.extend(source + 1..count);
        }
        self.revoking[at].extend(numbers);
    }

    fn decide(
        &mut self,
        at: usize,
        decide: impl FnOnce(&mut pgimbal_replicas::document::ClusterFacts, InstanceId),
    ) {
        let replica = &mut self.replicas[at];
        decide(replica.document.cluster_mut(CLUSTER), replica.instance);
        replica.is_behind = true;
    }

    fn send(&mut self, from: usize, random: &mut Random) {
        let to = random.below(self.replicas.len());
        let sent = self.replicas[from].document.clone();
        for _ in 0..1 + usize::from(random.chance(20)) {
            self.messages.push((from, to, sent.clone()));
        }
    }

    fn deliver(&mut self, random: &mut Random) {
        if self.messages.is_empty() {
            return;
        }
        let (from, to, sent) = self.messages.swap_remove(random.below(self.messages.len()));
        if self.parts[from] != self.parts[to] || random.chance(10) {
            return;
        }
        self.replicas[to].merge(sent, self.time, &mut self.keys);
        self.say(|| format!("{to}: hears {from}"));
    }

    /// A replica reads the store, or sends the write that it has prepared: another one may have
    /// written in between.
    fn step_store(&mut self, at: usize, random: &mut Random) {
        if self.is_store_away {
            return;
        }
        match self.replicas[at].write.take() {
            Some((version, document)) if version == self.version => {
                self.stored = document;
                self.version += 1;
                self.say(|| format!("{at}: writes version {}", self.version));
                self.replicas[at].merge(self.stored.clone(), self.time, &mut self.keys);
                let (revoked, stored) = (std::mem::take(&mut self.revoking[at]), &self.stored);
                // What was added while the write was under way is still to be stored.
                if *stored == self.replicas[at].document {
                    self.revoked.extend(revoked);
                } else {
                    self.revoking[at] = revoked;
                }
            }
            Some(_) => self.say(|| format!("{at}: is late")),
            None => {
                let stored = self.stored.clone();
                let key: [u8; 32] = std::array::from_fn(|_| random.next() as u8);
                let wanted = self.replicas[at].prepare(&stored, key);
                self.replicas[at].merge(stored.clone(), self.time, &mut self.keys);
                self.replicas[at].document.follow(&stored);
                self.replicas[at].is_behind = wanted.is_some();
                self.replicas[at].write = wanted.map(|wanted| (self.version, wanted));
                self.say(|| format!("{at}: reads version {}", self.version));
            }
        }
    }

    /// A replica is killed, at any step, and starts again with what the store has, if it can be
    /// read.
    fn crash(&mut self, at: usize) {
        self.instances += 1;
        self.say(|| format!("{at}: starts anew"));
        let mut replica = Replica::new(self.instances, self.replicas[at].clock);
        self.revoking[at].clear();
        if !self.is_store_away {
            replica.merge(self.stored.clone(), self.time, &mut self.keys);
        }
        self.replicas[at] = replica;
    }

    /// What must hold at any time.
    pub(crate) fn check(&mut self) {
        let (seed, count) = (self.seed, self.passwords.len() as u32);
        for (replica, revoking) in self.replicas.iter().zip(&self.revoking) {
            if revoking.is_empty() {
                continue;
            }
            let accepted = replica.accepted(&mut self.keys, count);
            let wrong = revoking.iter().find(|number| accepted.contains(number));
            assert_eq!(wrong, None, "revoked and accepted at one replica, seed {seed}");
        }
    }

    /// What must hold of any three documents.
    pub(crate) fn check_merges(&self) {
        let seed = self.seed;
        let documents: Vec<&Document> = self.replicas.iter().map(|one| &one.document).collect();
        let merged = |one: &Document, other: &Document| {
            let mut merged = one.clone();
            merged.merge(other.clone());
            merged
        };
        let (a, b, c) = (documents[0], documents[1], documents[documents.len() - 1]);
        assert_eq!(merged(a, b), merged(b, a), "commutative, seed {seed}");
        assert_eq!(merged(&merged(a, b), c), merged(a, &merged(b, c)), "associative, seed {seed}");
        assert_eq!(merged(a, a), *a, "idempotent, seed {seed}");
        let mut pruned = a.clone();
        pruned.prune();
        assert_eq!(pruned, *a, "pruned once is pruned, seed {seed}");
        let again = Document::parse(&a.to_bytes()).expect("a document");
        assert_eq!(again, *a, "read back, seed {seed}");
    }

    /// All trouble ends: then all must agree, also when all start anew.
    pub(crate) fn heal(&mut self, random: &mut Random) {
        (self.is_store_away, self.messages) = (false, Vec::new());
        let decided = self.greatest_hold();
        self.check_merges();
        let newest = self.passwords.len() - 1;
        for at in 0..self.replicas.len() {
            self.settle(at, random);
            self.fetch(at, newest);
        }
        // Twice for what is known, once more for what a replica concludes from it.
        for _ in 0..3 {
            for at in 0..self.replicas.len() {
                self.settle(at, random);
                self.fetch(at, newest);
            }
        }
        (0..self.replicas.len()).for_each(|at| self.settle(at, random));
        assert_eq!(self.greatest_hold(), decided, "the last word, seed {}", self.seed);
        self.check_documents();
        self.check_agreement();
        let written = self.version;
        (0..self.replicas.len()).for_each(|at| self.settle(at, random));
        assert_eq!(self.version, written, "nobody undoes what another wrote, seed {}", self.seed);
        for at in 0..self.replicas.len() {
            self.crash(at);
        }
        self.check_documents();
        self.check_agreement();
        for at in 0..self.replicas.len() {
            // The first answer after a start comes from a standby that lags.
            self.fetch(at, newest.saturating_sub(usize::from(self.is_dated)));
        }
        self.check_agreement();
    }

    /// The greatest HOLD or RESUME that anybody still knows.
    fn greatest_hold(&self) -> Option<(Stamp, bool)> {
        let documents = self.replicas.iter().map(|one| &one.document).chain([&self.stored]);
        let clusters = documents.filter_map(|document| document.cluster(CLUSTER));
        clusters.map(|cluster| (cluster.hold_stamp(), cluster.is_held())).max()
    }

    /// A replica reads and writes until the store has what it knows.
    fn settle(&mut self, at: usize, random: &mut Random) {
        self.replicas[at].write = None;
        self.step_store(at, random);
        if self.replicas[at].write.is_some() {
            self.step_store(at, random);
        }
        self.time += 1;
    }

    fn check_agreement(&mut self) {
        let (seed, count) = (self.seed, self.passwords.len() as u32);
        let newest = count - 1;
        for at in 0..self.replicas.len() {
            let replica = &self.replicas[at];
            let accepted = replica.accepted(&mut self.keys, count);
            let first = self.replicas[0].accepted(&mut self.keys, count);
            assert_eq!(accepted, first, "replica {at} accepts others, seed {seed}");
            if !self.revoked.contains(&newest) && !self.excused.contains(&newest) {
                assert!(accepted.contains(&newest), "replica {at} refuses the newest, seed {seed}");
            }
            let wrong = self.revoked.iter().find(|number| accepted.contains(number));
            assert_eq!(wrong, None, "replica {at} accepts a revoked one, seed {seed}");
        }
    }

    fn check_documents(&self) {
        let (seed, stored) = (self.seed, &self.stored);
        for (at, replica) in self.replicas.iter().enumerate() {
            assert_eq!(replica.document, *stored, "replica {at} disagrees, seed {seed}");
        }
        let text = serde_json::to_string(stored).expect("JSON");
        assert_eq!(
            text.contains(r#""later":{"a":[1,{"b":2}]}"#),
            text.contains(r#""later":true"#),
            "unknown fields survive, seed {seed}"
        );
    }
}
