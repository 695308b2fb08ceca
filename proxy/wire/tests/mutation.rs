//! A short run of the fuzz targets' judges; see `tests/fuzz`.

use std::time::Duration;

#[path = "../../../tests/fuzz/judges/wire.rs"]
mod judges;
#[path = "../../../tests/fuzz/mutate.rs"]
mod mutate;

#[test]
fn behaviour_40_any_bytes_are_judged_without_a_panic() {
    for one in judges::JUDGES {
        one.seeds.iter().for_each(|seed| (one.judge)(seed));
        mutate::run(one.name, one.judge, one.seeds, Duration::from_millis(500));
    }
}
