//! The budget of a deployment in simulation: replicas that come and go, a store that is away, a
//! network that loses, doubles and reorders, and servers that count their connections.
//!
//! `PGIMBAL_SEED` runs one seed, `PGIMBAL_STEPS` changes the number of steps in all.
#![allow(clippy::expect_used, reason = "in a test a failed expectation is the point")]

mod cases;
mod process;
#[path = "../../../pooler/tests/simulation/random.rs"]
mod random;
mod server;
mod world;

use world::World;

/// The steps of one run, before everything heals.
const STEPS_OF_A_RUN: usize = 5_000;

#[test]
fn budget_is_never_exceeded_and_no_token_is_lost() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
    if let Some(seed) = number("PGIMBAL_SEED") {
        run(seed as u64);
        return;
    }
    let steps = number("PGIMBAL_STEPS").unwrap_or(1_000_000);
    let mut seen = world::Seen::default();
    for seed in 0..steps.div_ceil(STEPS_OF_A_RUN) {
        seen.add(run(seed as u64));
    }
    println!("{seen:?}");
    seen.assert_all_happened();
}

#[test]
fn budget_of_a_replica_that_only_one_server_sees_stays_its_own() {
    for seed in 0..20 {
        println!("seed {seed}");
        for is_heard in [false, true] {
            World::strand_one(seed, is_heard);
        }
    }
}

fn run(seed: u64) -> world::Seen {
    println!("PGIMBAL_SEED={seed}");
    let mut world = World::new(seed);
    for _ in 0..STEPS_OF_A_RUN {
        world.step();
    }
    world.heal_and_check();
    world.seen
}
