//! The topology machine against a model of servers: single scenarios, and thousands that a seed
//! tells. `PGIMBAL_SIM_SEED=s` replays one, `PGIMBAL_SIM_SEEDS=n` is a long run.
#![allow(missing_docs, reason = "a test's name is its documentation")]

mod freshness;
#[path = "../simulation/random.rs"]
mod random;
mod scenarios;
mod stories_of_operators;
mod stories_of_replicas;
mod watch;
mod world;

use random::Random;
use watch::Watch;

/// Enough to meet every pair of misfortunes many times; a second or two.
const SEEDS: u64 = 2_000;

#[test]
fn failover_whatever_befalls_the_nodes_no_write_goes_to_a_node_that_may_not_have_it() {
    seeds(SEEDS, |seed| befall(seed, std::env::var_os("PGIMBAL_SIM_SEED").is_some()));
}

/// Runs the seed that the environment names, or as many as it says, or `usual` ones.
fn seeds(usual: u64, run: impl Fn(u64)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("PGIMBAL_SIM_SEED") {
        return run(seed);
    }
    for seed in 0..number("PGIMBAL_SIM_SEEDS").unwrap_or(usual) {
        run(seed);
    }
}

fn befall(seed: u64, told: bool) {
    let mut random = Random::new(seed);
    let mut watch = Watch::new(seed, random.below(4) + 1, told);
    if random.chance(30) {
        watch.drill(1);
    }
    for _ in 0..40 + random.below(60) {
        watch.misfortune(&mut random);
        watch.run(random.below(1500) as u64 + 1);
    }
    watch.heal();
}
