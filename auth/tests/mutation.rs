//! A short run of the fuzz targets' properties; see `tests/fuzz`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test a failed expectation is the point"
)]

#[path = "../../tests/fuzz/mutate.rs"]
mod mutate;
#[path = "../../tests/fuzz/properties/auth.rs"]
mod properties;

#[test]
fn behaviour_40_any_scram_message_is_checked_without_a_panic() {
    for one in properties::PROPERTIES {
        one.seeds.iter().for_each(|seed| (one.check)(seed));
        mutate::run(one.name, one.check, one.seeds, one.inputs);
    }
}
