//! The core under simulation: many clients, a model of PostgreSQL, and an order of events that a
//! seed decides. What each client sees is compared with what a PostgreSQL of its own would say.
//!
//! `PGIMBAL_SIM_SEEDS=n` runs n seeds instead of as many as fit in a few seconds;
//! `PGIMBAL_SIM_SEED=s` replays one and prints what is said.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test a failed expectation is the point"
)]

mod behaviours;
mod client;
mod message;
mod postgres;
mod random;
mod script;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use pgimbal_config::{ClusterConfig, PoolMode, ResolvedCluster};
use random::Random;
use world::{Shape, Troubles, World, pool};

/// Seeds that once failed.
const ONCE_FAILED: &[u64] = &[
    3, 20, 52, 56, 67, 68, 77, 85, 89, 92, 93, 96, 105, 110, 111, 115, 116, 143, 181, 194, 198,
    217, 226, 229, 328, 348, 489, 613, 648, 655, 726, 874, 968, 1016, 1160, 1268, 1420, 1692, 1859,
    2021, 2133, 2204, 2278, 2797, 3416, 4388, 5094, 5842, 5919, 7927, 9586, 10721,
];

/// How long the usual run may take.
const BUDGET: Duration = Duration::from_secs(15);

#[test]
fn every_client_sees_what_a_postgresql_of_its_own_would_say() {
    let number =
        |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    if let Some(seed) = number("PGIMBAL_SIM_SEED") {
        return run(seed);
    }
    ONCE_FAILED.iter().for_each(|seed| run(*seed));
    let start = Instant::now();
    let seeds = number("PGIMBAL_SIM_SEEDS");
    let mut ran = 0;
    for seed in 1..=seeds.unwrap_or(u64::MAX) {
        if seeds.is_none() && start.elapsed() > BUDGET {
            break;
        }
        run(seed);
        ran += 1;
    }
    println!("{ran} seeds");
}

fn run(seed: u64) {
    let result = catch_unwind(AssertUnwindSafe(|| {
        World::new(seed, shape(seed)).run();
    }));
    if let Err(panic) = result {
        eprintln!("seed {seed} failed: PGIMBAL_SIM_SEED={seed} replays it; {:?}", shape(seed));
        resume_unwind(panic);
    }
}

/// The shape of a run, from its seed.
fn shape(seed: u64) -> Shape {
    let mut random = Random::new(seed.wrapping_mul(7919));
    let mut pool = pool(random.pick(&[1, 2, 3, 5]));
    pool.max_prepared_statements = random.pick(&[1, 3, 50]);
    pool.server_lifetime = Duration::from_secs(random.pick(&[1, 5, 3600]));
    pool.reserve_size = random.pick(&[0, 1]);
    pool.reset_query_always = random.chance(10);
    pool.max_statement_bytes = random.pick(&[16_000, 1 << 18]);
    if random.chance(10) {
        pool.mode = PoolMode::Session;
    }
    let calm = random.chance(40);
    let mut trouble = || !calm && random.chance(50);
    let (kills, vanishings, cancels, dial_failures) = (trouble(), trouble(), trouble(), trouble());
    let workers = random.pick(&[1, 1, 2, 3]);
    let clients = random.pick(&[1, 2, 4, 8]);
    let steps = random.pick(&[5, 20, 60]);
    let chunk = random.pick(&[3, 200, 20_000, 100_000]);
    let failovers = random.chance(30);
    let balks = !calm && random.chance(50);
    let troubles = Troubles { kills, vanishings, cancels, dial_failures, balks, failovers };
    let cluster = troubles
        .failovers
        .then(|| ResolvedCluster { name: "main".into(), config: ClusterConfig::default().into() });
    Shape { workers, clients, steps, pool, max_pinned: 1000, chunk, troubles, cluster }
}
