//! The core under simulation: many clients, a model of PostgreSQL, and an order of events that a
//! seed decides. What each client sees is compared with what a PostgreSQL of its own would say.
//!
//! `PGIMBAL_SIM_SEEDS=n` is a long run, of the seeds up to n;
//! `PGIMBAL_SIM_SEED=s` replays one and prints what is said.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test a failed expectation is the point"
)]

mod behaviours;
mod client;
mod message;
mod nodes;
mod postgres;
mod random;
mod reads;
mod script;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use pgimbal_config::{ClusterConfig, ListenMode, PoolMode, ResolvedCluster};
use random::Random;
use world::{Shape, Troubles, World, pool};

/// Seeds that once failed, by what the commit was about that kept them. A seed stands for another
/// run as soon as the clients' scripts have changed.
const ONCE_FAILED: &[(&str, &[u64])] = &[
    (
        "a prepared statement whose name SQL deallocates",
        &[67, 77, 89, 93, 96, 110, 115, 116, 194, 198, 613, 1016, 1692, 2133, 4388, 5094, 5842],
    ),
    ("a cluster's primary is replaced: a hold, a re-run, a cut connection", &[20, 68, 1420]),
    ("a segment behind others in flight when the primary is replaced", &[2278]),
    (
        "a client leaves, cancels or pipelines on, or the server refuses or breaks, in the middle \
         of a question about session state, a trial of settings or a replay",
        &[
            3, 52, 56, 85, 92, 105, 111, 143, 181, 217, 226, 229, 328, 348, 489, 648, 655, 726,
            874, 968, 1160, 1268, 1859, 2021, 2204, 2797, 3416, 5919,
        ],
    ),
    (
        "a temporary name that was deallocated and parsed again in one segment, or a custom \
         setting that a question was not answered about",
        &[7927, 9586, 10721],
    ),
];

/// How many seeds the usual run has: 15 seconds of a debug build.
const SEEDS: u64 = 1_600;

#[test]
fn every_client_sees_what_a_postgresql_of_its_own_would_say() {
    let number =
        |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    if let Some(seed) = number("PGIMBAL_SIM_SEED") {
        return run(seed);
    }
    for seed in ONCE_FAILED.iter().flat_map(|(_, seeds)| *seeds) {
        run(*seed);
    }
    (1..=number("PGIMBAL_SIM_SEEDS").unwrap_or(SEEDS)).for_each(run);
}

fn run(seed: u64) {
    let result = catch_unwind(AssertUnwindSafe(|| {
        World::new(seed, shape(seed)).run();
    }));
    if let Err(panic) = result {
        eprintln!("seed {seed} failed: PGIMBAL_SIM_SEED={seed} replays it; {:?}", shape(seed));
        if let Some((what, _)) = ONCE_FAILED.iter().find(|(_, seeds)| seeds.contains(&seed)) {
            eprintln!("it failed before: {what}");
        }
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
    pool.listen_mode = match seed % 4 {
        0 | 1 => ListenMode::Share,
        2 => ListenMode::Close,
        _ => ListenMode::Pin,
    };
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
