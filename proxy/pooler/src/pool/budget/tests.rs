//! Pools that share a small budget, in simulated time: the budget holds, and nobody starves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgimbal_config::{Host, ServerBudget, ServerLimit};

use super::{Budgets, ConnectionBudget, Grant, LearnedLimits, Offered, Token, UNKNOWN_LIMIT, Wish};
use crate::ids::WorkerId;

const STEP: Duration = Duration::from_millis(2);

/// Numbers from a seed (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound.max(1)
    }
}

enum State {
    Dialing(Instant),
    Busy(Instant),
    Idle(Instant),
    Closing(Instant),
}

/// A pool, on one worker, and what its clients want: as many connections as they are.
struct Pool {
    worker: WorkerId,
    role: String,
    clients: usize,
    longest_query: u64,
    connections: Vec<(Token, State)>,
    /// Since when a client waits and the pool has no connection.
    starves_since: Option<Instant>,
    served: u64,
}

fn budget(limit: ServerLimit) -> Arc<ConnectionBudget> {
    let config = ServerBudget { limit, ..ServerBudget::default() };
    Budgets::default().of(&Host::Tcp("test".to_owned()), 5432, config)
}

struct World {
    random: Random,
    budget: Arc<ConnectionBudget>,
    limit: u32,
    workers: u16,
    pools: Vec<Pool>,
    now: Instant,
    longest_famine: Duration,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let limit = 1 + random.below(12) as u32;
        let workers = 1 + random.below(3) as u16;
        let pools = (0..2 + random.below(24))
            .map(|number| Pool {
                worker: WorkerId(random.below(workers.into()) as u16),
                role: format!("r{}", number % 7),
                clients: random.below(9) as usize,
                longest_query: [3, 20, 100][random.below(3) as usize],
                connections: Vec::new(),
                starves_since: None,
                served: 0,
            })
            .collect();
        let budget = budget(ServerLimit::Connections(limit));
        let now = Instant::now();
        Self { random, budget, limit, workers, pools, now, longest_famine: Duration::ZERO }
    }

    fn after(&mut self, least: u64, most: u64) -> Instant {
        self.now + Duration::from_millis(least + self.random.below(most - least + 1))
    }

    fn step(&mut self) {
        self.now += STEP;
        for pool in 0..self.pools.len() {
            self.end_what_is_due(pool);
            self.serve(pool);
            if self.random.below(400) == 0 {
                self.pools[pool].clients = self.random.below(9) as usize;
            }
            let pool = &mut self.pools[pool];
            let starves = pool.clients > 0 && pool.connections.is_empty();
            let since = starves.then(|| pool.starves_since.unwrap_or(self.now));
            pool.starves_since = since;
            if let Some(since) = since {
                self.longest_famine = self.longest_famine.max(self.now - since);
            }
        }
        (0..self.workers).for_each(|worker| self.offer_idle(WorkerId(worker)));
        let taken: usize = self.pools.iter().map(|pool| pool.connections.len()).sum();
        assert!(taken <= self.limit as usize, "{taken} of {}", self.limit);
    }

    fn end_what_is_due(&mut self, number: usize) {
        let now = self.now;
        let closed = self.after(2, 8);
        let pool = &mut self.pools[number];
        pool.connections
            .retain(|(_, state)| !matches!(state, State::Closing(until) if *until <= now));
        let busy = pool.connections.iter().filter(|(_, s)| matches!(s, State::Busy(_))).count();
        let mut waiting = pool.clients.saturating_sub(busy);
        for (token, state) in &mut pool.connections {
            let (State::Dialing(until) | State::Busy(until)) = state else { continue };
            if *until > now {
                continue;
            }
            if matches!(state, State::Busy(_)) {
                pool.served += 1;
                waiting += 1;
            }
            let gives = token.budget().is_contended() && token.gives_way(waiting > 0, now);
            *state = if gives { State::Closing(closed) } else { State::Idle(now) };
        }
    }

    fn serve(&mut self, number: usize) {
        let dialed = self.after(5, 25);
        let (longest, now) = (self.pools[number].longest_query, self.now);
        let ends = self.after(1, longest);
        let (budget, name) = (Arc::clone(&self.budget), self.pools[number].role.clone());
        let pool = &mut self.pools[number];
        let busy = pool.connections.iter().filter(|(_, s)| matches!(s, State::Busy(_))).count();
        let mut waiting = pool.clients.saturating_sub(busy);
        for (_, state) in &mut pool.connections {
            if waiting > 0 && matches!(state, State::Idle(_)) {
                *state = State::Busy(ends);
                waiting -= 1;
            }
        }
        let dialing = pool.connections.iter().filter(|(_, s)| matches!(s, State::Dialing(_)));
        if waiting > dialing.count() {
            let wish = Wish { budget: &budget, role: &name, database: "app", is_awaited: true };
            if let Some(token) = budget.take(number + 1, pool.worker, &wish, now) {
                pool.connections.push((token, State::Dialing(dialed)));
            }
        }
    }

    fn offer_idle(&mut self, worker: WorkerId) {
        if !self.budget.is_contended() {
            return;
        }
        let closed = self.after(2, 8);
        let idle = self
            .pools
            .iter_mut()
            .filter(|pool| pool.worker == worker)
            .flat_map(|pool| &mut pool.connections)
            .filter_map(|(token, state)| match *state {
                State::Idle(since) => Some((since, token, state)),
                _ => None,
            })
            .min_by_key(|(since, ..)| *since);
        match idle {
            None => self.budget.offer_none(worker, self.workers, self.now),
            Some((since, token, state)) => {
                if self.budget.offer(token, worker, self.workers, since, self.now) == Offered::Close
                {
                    *state = State::Closing(closed);
                }
            }
        }
    }
}

#[test]
fn budget_of_many_pools_is_kept_and_none_of_them_starves() {
    for seed in 0..40 {
        let mut world = World::new(seed);
        for _ in 0..4_000 {
            world.step();
        }
        // In turn: everybody has one for 200 ms and a query, and takes 40 ms to close and open it.
        let turns = world.pools.len().div_ceil(world.limit as usize) as u32;
        let bound = (Duration::from_millis(200 + 100 + 40) * turns) * 2;
        assert!(
            world.longest_famine <= bound,
            "PGIMBAL_SEED={seed}: {:?} without a connection, {} pools of {}",
            world.longest_famine,
            world.pools.len(),
            world.limit
        );
        drop(world.pools);
        let status = world.budget.status(world.now + Duration::from_secs(1));
        assert_eq!((status.used, status.pools, status.waiting), (0, 0, 0), "{seed}: {status:?}");
    }
}

#[test]
fn budget_of_pools_that_all_want_is_shared_evenly() {
    let mut world = World::new(1);
    (world.limit, world.workers) = (12, 1);
    world.budget = budget(ServerLimit::Connections(12));
    world.pools.truncate(4);
    assert_eq!(world.pools.len(), 4);
    for pool in &mut world.pools {
        (pool.clients, pool.longest_query, pool.worker) = (20, 5, WorkerId(0));
    }
    // The first comes alone and takes everything.
    let others = world.pools.split_off(1);
    (0..200).for_each(|_| world.step());
    world.pools[0].clients = 20;
    (0..200).for_each(|_| world.step());
    assert_eq!(world.pools[0].connections.len(), 12);
    world.pools.extend(others);
    (0..400).for_each(|_| {
        world.pools.iter_mut().for_each(|pool| pool.clients = 20);
        world.step();
    });
    let open: Vec<usize> = world.pools.iter().map(|pool| pool.connections.len()).collect();
    assert!(open.iter().all(|open| (2..=4).contains(open)), "{open:?}");
    let given_up = world.budget.status(world.now).given_up;
    (0..400).for_each(|_| {
        world.pools.iter_mut().for_each(|pool| pool.clients = 20);
        world.step();
    });
    assert_eq!(world.budget.status(world.now).given_up, given_up, "they do not turn round");
}

#[test]
fn budget_of_a_server_that_has_not_answered_is_small() {
    let (budget, now) = (budget(ServerLimit::Auto), Instant::now());
    let wish = Wish { budget: &budget, role: "r", database: "d", is_awaited: true };
    let take = |pool| budget.take(pool, WorkerId(0), &wish, now);
    let tokens: Vec<Token> = (1..9).filter_map(take).collect();
    assert_eq!(tokens.len() as u32, UNKNOWN_LIMIT);
    assert!(budget.wants_limits("r", "d", now) && budget.is_contended());
    let limits = LearnedLimits { max_connections: 100, reserved: 3, role: Some(3), database: None };
    budget.learn("r", "d", limits, now);
    assert!(!budget.wants_limits("r", "d", now) && budget.wants_limits("other", "d", now));
    assert_eq!(budget.status(now).budget, Some(92));
    let third = take(3);
    assert!(third.is_some() && take(4).is_none(), "the role has three");
    // A minute later it is asked again.
    let later = now + super::LIMITS_LIFETIME;
    let fourth = budget.take(4, WorkerId(0), &wish, later);
    assert!(fourth.is_some() && budget.take(5, WorkerId(0), &wish, later).is_none());
}

/// A budget of this process alone, with `count` connections of one pool.
fn taken(limit: ServerLimit, count: usize, now: Instant) -> (Arc<ConnectionBudget>, Vec<Token>) {
    let budget = budget(limit);
    let wish = Wish { budget: &budget, role: "r", database: "d", is_awaited: true };
    let take = |_| budget.take(1, WorkerId(0), &wish, now).expect("there is room");
    let tokens = (0..count).map(take).collect();
    (budget, tokens)
}

#[test]
fn budget_of_a_replica_may_be_nothing() {
    let now = Instant::now();
    let (budget, tokens) = taken(ServerLimit::Connections(10), 0, now);
    let wish = Wish { budget: &budget, role: "r", database: "d", is_awaited: true };
    let grant = |limit, reclaim| budget.settle(|_| Grant { limit, reclaim, lendable: 0 }, now);
    grant(0, 0);
    assert!(tokens.is_empty() && budget.take(1, WorkerId(0), &wish, now).is_none());
    grant(1, 0);
    let one = budget.take(1, WorkerId(0), &wish, now);
    assert!(one.is_some() && budget.take(1, WorkerId(0), &wish, now).is_none());
}

#[test]
fn budget_closes_as_many_as_another_replica_wants_and_no_more() {
    let now = Instant::now();
    let (budget, mut tokens) = taken(ServerLimit::Connections(10), 8, now);
    // What is open beyond the limit stays, unless it is asked for.
    budget.settle(|_| Grant { limit: 2, reclaim: 0, lendable: 0 }, now);
    assert!(!budget.is_contended() && !tokens[0].gives_way(false, now));
    budget.settle(|_| Grant { limit: 5, reclaim: 3, lendable: 0 }, now);
    let mut closed = 0;
    for token in &mut tokens {
        closed += u32::from(budget.is_contended() && token.gives_way(false, now));
    }
    assert_eq!(closed, 3);
}

#[test]
fn budget_lends_as_many_idle_connections_as_others_want() {
    let now = Instant::now();
    let (budget, mut tokens) = taken(ServerLimit::Connections(10), 4, now);
    assert!(!budget.is_lendable() && !tokens[0].lend());
    budget.settle(|_| Grant { limit: 4, reclaim: 0, lendable: 2 }, now);
    assert!(budget.is_lendable());
    assert_eq!(tokens.iter_mut().filter_map(|token| token.lend().then_some(())).count(), 2);
    assert_eq!((budget.is_lendable(), budget.status(now).given_up), (false, 2));
    assert!(!budget.is_contended(), "nobody is asked when one is released");
    drop(tokens);
    assert_eq!(budget.status(now).used, 0);
}

#[test]
fn budget_forgets_the_names_of_roles_that_have_no_connection() {
    let start = Instant::now();
    let (budget, _one) = taken(ServerLimit::Connections(10), 1, start);
    let names = || budget.state().names();
    let limits = LearnedLimits { max_connections: 100, reserved: 3, role: Some(1), database: None };
    for number in 0..20_000 {
        let (role, now) = (format!("r{number}"), start + Duration::from_millis(number * 10));
        let wish = Wish { budget: &budget, role: &role, database: &role, is_awaited: false };
        let token = budget.take(2, WorkerId(0), &wish, now).expect("there is room");
        if number % 2 == 0 {
            budget.learn(&role, &role, limits, now);
        }
        if number % 5 == 0 {
            let full = budget.take(2, WorkerId(0), &wish, now).is_none();
            assert_eq!(full, number % 2 == 0, "its limit is known");
        }
        drop(token);
        // 50 names a second are learned, and believed for 60 s.
        assert!(names() <= 2 * (3_000 + 65), "{} names after {number}", names());
    }
}
