//! The rotation machine on a model of Vault and of servers, by simulated time and seeds.
#![allow(missing_docs, reason = "a test's name is its documentation")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test a failed expectation is the point"
)]

mod history;
mod scenarios;
mod world;

use world::{World, seeds};

#[test]
fn whatever_happens_a_password_that_works_is_found_and_nobody_is_asked_too_often() {
    for seed in seeds() {
        World::new(seed).run();
    }
}
