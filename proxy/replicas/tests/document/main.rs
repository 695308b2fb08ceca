//! The document that replicas share: single cases, and thousands of stories that a seed tells.
//! `PGIMBAL_SIM_SEED=s` replays one and tells it, `PGIMBAL_SIM_SEEDS=n` is a long run.
#![allow(missing_docs, reason = "a test's name is its documentation")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test a failed expectation is the point"
)]

mod cases;
mod edited;
#[path = "../../../pooler/tests/simulation/random.rs"]
mod random;
mod replica;
mod world;

use random::Random;
use world::World;

/// Enough to meet every pair of misfortunes many times; some seconds of a debug build.
const SEEDS: u64 = 2_000;

#[test]
fn replicas_agree_whatever_becomes_of_their_messages_their_store_and_themselves() {
    let number =
        |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    if let Some(seed) = number("PGIMBAL_SIM_SEED") {
        return tell(seed, true);
    }
    for seed in 0..number("PGIMBAL_SIM_SEEDS").unwrap_or(SEEDS) {
        tell(seed, false);
    }
}

fn tell(seed: u64, told: bool) {
    let mut random = Random::new(seed);
    let mut world = World::new(seed, &mut random, told);
    for _ in 0..60 + random.below(120) {
        world.happen(&mut random);
        world.check();
        if random.chance(5) {
            world.check_merges();
        }
    }
    world.heal(&mut random);
}
