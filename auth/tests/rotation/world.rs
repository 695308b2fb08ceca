//! A Vault that rotates, lags and fails, nodes that replay late, and logins at random moments.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pgimbal_auth::SourcePassword;
use pgimbal_auth::rotation::{Jitter, Learned, LoginPlan, Moment, Rotation, Schedule};
use pgimbal_config::Secret;

const STEP: Duration = Duration::from_millis(50);
const POLL: Duration = Duration::from_secs(30);
/// Long enough for some rotations, then all trouble ends.
const TROUBLE: Duration = Duration::from_secs(600);
/// How soon everything must work once there is no more trouble.
const HEALED: Duration = Duration::from_secs(45);

/// The usual run, a dozen seconds of a debug build.
const SEEDS: u64 = 2_000;

/// The seeds to run: `PGIMBAL_SIM_SEED` for one of them, `PGIMBAL_SIM_SEEDS` for a long run.
pub(crate) fn seeds() -> Range<u64> {
    let number =
        |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    match number("PGIMBAL_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("PGIMBAL_SIM_SEEDS").unwrap_or(SEEDS),
    }
}

/// A node: which password it wants, and which it will want once it has replayed.
struct Server {
    wants: u32,
    replays: VecDeque<(Instant, u32)>,
    /// Passwords it has refused, by moment.
    refusals: Vec<Instant>,
}

pub(crate) struct World {
    seed: u64,
    chance: Jitter,
    start: Instant,
    now: Instant,
    rotation: Rotation,
    /// What the source says now and since when, by its own clock.
    said: (u32, SystemTime),
    says_until: Option<Instant>,
    current: u32,
    period: Duration,
    next_rotation: Instant,
    servers: BTreeMap<&'static str, Server>,
    out: Option<(Instant, Option<SourcePassword>)>,
    fetches: Vec<Instant>,
    clock_error: i64,
}

fn password(number: u32) -> Secret {
    Secret::new(format!("password-{number}"))
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut chance = Jitter::new(seed);
        let start = Instant::now();
        let period = Duration::from_secs([5, 20, 60, 300][(chance.fraction() * 4.0) as usize]);
        let server = || Server { wants: 0, replays: VecDeque::new(), refusals: Vec::new() };
        Self {
            seed,
            start,
            now: start,
            rotation: Rotation::new(Schedule::new(Some(POLL), seed, start, start), 1),
            said: (0, UNIX_EPOCH + Duration::from_secs(1_000_000)),
            says_until: None,
            current: 0,
            period,
            next_rotation: start + period,
            servers: [("primary", server()), ("replica", server())].into(),
            out: None,
            fetches: Vec::new(),
            clock_error: 0,
            chance,
        }
    }

    fn wall(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000) + (self.now - self.start)
    }

    fn moment(&self) -> Moment {
        Moment { instant: self.now, wall: self.wall() }
    }

    fn likely(&mut self, chance: f64) -> bool {
        self.chance.fraction() < chance
    }

    pub(crate) fn run(mut self) {
        while self.now < self.start + TROUBLE {
            self.happen();
            self.step();
        }
        // Peace: everything is replayed and said, and nothing rotates.
        for server in self.servers.values_mut() {
            server.replays.clear();
            server.wants = self.current;
        }
        self.clock_error = self.clock_error.max(0);
        self.says_until = None;
        self.said = (self.current, self.wall());
        self.next_rotation = self.now + 100 * TROUBLE;
        let end = self.now + HEALED;
        while self.now < end {
            self.step();
        }
        for node in ["primary", "replica"] {
            assert!(self.log_in(node), "seed {}: {node} does not heal", self.seed);
            assert!(self.log_in(node), "seed {}: {node} does not stay healed", self.seed);
        }
        assert_eq!(self.rotation.failing().count(), 0, "seed {}", self.seed);
        self.check_fetches();
    }

    /// Trouble, now and then.
    fn happen(&mut self) {
        if self.now >= self.next_rotation {
            self.rotate();
        }
        if self.likely(0.000_3) {
            // Somebody rotates by hand, or another system resets the password.
            self.rotate();
        }
        if self.likely(0.000_3) {
            // A failover loses the last change.
            let lost = self.current.saturating_sub(1);
            self.servers.values_mut().for_each(|server| server.wants = lost);
        }
        if self.likely(0.000_1) {
            self.clock_error = (self.chance.fraction() * 600.0) as i64 - 300;
        }
    }

    fn rotate(&mut self) {
        self.current += 1;
        let number = self.current;
        let lag = |world: &mut Self, longest: f64| {
            world.now + Duration::from_secs_f64(world.chance.fraction() * longest)
        };
        let replayed = if self.likely(0.2) { lag(self, 40.0) } else { self.now };
        for (name, server) in &mut self.servers {
            let at = if *name == "replica" { replayed } else { self.now };
            server.replays.push_back((at, number));
        }
        let late = self.likely(0.2);
        self.says_until = Some(if late { lag(self, 15.0) } else { self.now });
        self.next_rotation = self.now + self.period;
    }

    fn step(&mut self) {
        self.now += STEP;
        let now = self.now;
        for server in self.servers.values_mut() {
            while server.replays.front().is_some_and(|(at, _)| *at <= now) {
                server.wants = server.replays.pop_front().expect("one").1;
            }
        }
        if self.says_until.is_some_and(|until| until <= now) {
            let skewed = self.wall() + Duration::from_secs(300);
            let skewed = skewed - Duration::from_secs((300 - self.clock_error) as u64);
            self.said = (self.current, skewed);
            self.says_until = None;
        }
        self.fetch();
        for node in ["primary", "replica"] {
            if self.likely(0.05) {
                self.log_in(node);
            }
        }
    }

    fn fetch(&mut self) {
        if let Some((at, answer)) = self.out.take_if(|(at, _)| *at <= self.now) {
            let moment = self.moment();
            match answer {
                Some(answer) => self.learn(&answer, moment),
                None => self.rotation.schedule.handle_failure(at, None),
            }
        }
        if self.rotation.schedule.begin_fetch(self.now) {
            assert!(self.out.is_none(), "seed {}: two fetches at once", self.seed);
            self.fetches.push(self.now);
            let trouble = self.now < self.start + TROUBLE;
            let fails = trouble && self.likely(0.05);
            let answer = (!fails).then(|| self.answer());
            let took = Duration::from_secs_f64(self.chance.fraction() * 0.2);
            self.out = Some((self.now + took, answer));
        }
    }

    fn answer(&mut self) -> SourcePassword {
        let (number, rotated_at) = self.said;
        let ttl = self.next_rotation.saturating_duration_since(self.now).as_secs();
        let mut answer = SourcePassword::new("vault", password(number)).expect("a password");
        answer.rotated_at = Some(rotated_at);
        answer.ttl = Some(Duration::from_secs(ttl));
        answer
    }

    fn learn(&mut self, answer: &SourcePassword, moment: Moment) {
        let before = self.rotation.newest().map(|newest| newest.number);
        let learned = self.rotation.handle_answer(answer, moment);
        let after = self.rotation.newest().map(|newest| newest.number);
        match learned {
            Learned::Rotated(number) => assert_eq!(after, Some(number)),
            _ => assert_eq!(before, after, "seed {}", self.seed),
        }
    }

    /// One login, with as many passwords as it is given; whether it got in.
    fn log_in(&mut self, node: &'static str) -> bool {
        for _ in 0..12 {
            let LoginPlan::Try { generation, password: shown } =
                self.rotation.plan_login(node, self.now)
            else {
                return false;
            };
            let server = self.servers.get_mut(node).expect("a node");
            if shown == password(server.wants) {
                self.rotation.handle_accepted(node, generation);
                // What a node has just accepted is still known, and worth a try there.
                assert!(self.rotation.generation(generation).is_some(), "seed {}", self.seed);
                return true;
            }
            server.refusals.push(self.now);
            self.rotation.handle_refused(node, generation, self.now);
        }
        panic!("seed {}: a login never ends", self.seed);
    }

    /// Polls, questions near rotations, and those for refusals: nothing else.
    fn check_fetches(&self) {
        let seconds = (self.now - self.start).as_secs_f64();
        let rotations = f64::from(self.current) + 1.0;
        let near = (rotations * 10.0).min(seconds * 1.1);
        let refusals: usize = self.servers.values().map(|server| server.refusals.len()).sum();
        let most = seconds / 25.0 + near + refusals as f64 + 40.0;
        let count = self.fetches.len() as f64;
        assert!(count <= most, "seed {}: {count} fetches, {refusals} refusals", self.seed);
        for window in self.fetches.windows(20) {
            let span = window[19] - window[0];
            assert!(span > Duration::from_secs(5), "seed {}: 20 in {span:?}", self.seed);
        }
        for (name, server) in &self.servers {
            for window in server.refusals.windows(40) {
                let span = window[39] - window[0];
                assert!(
                    span > Duration::from_secs(10),
                    "seed {}: {name}: 40 in {span:?}",
                    self.seed
                );
            }
        }
    }
}
