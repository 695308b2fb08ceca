//! How much is measured: the full comparison or a quick look.

use std::time::Duration;

/// The size of a comparison.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `full` or `quick`.
    pub name: &'static str,
    /// Interleaved rounds; every figure is the median over them.
    pub rounds: u32,
    /// Client counts of `pgbench -S`.
    pub clients: &'static [u32],
    /// How long each load runs.
    pub duration: Duration,
    /// How long each load runs whose system calls are counted, a run of its own.
    pub counted: Duration,
    /// Clients of the idle scenario.
    pub idle_clients: u32,
}

impl Plan {
    /// The full comparison, about 15 minutes with three contenders.
    #[must_use]
    pub fn full() -> Self {
        Self {
            name: "full",
            rounds: 3,
            clients: &[1, 16, 64, 256],
            duration: Duration::from_secs(5),
            counted: Duration::from_secs(2),
            idle_clients: 10_000,
        }
    }

    /// One short round, under 3 minutes with three contenders.
    #[must_use]
    pub fn quick() -> Self {
        Self {
            name: "quick",
            rounds: 1,
            clients: &[1, 64],
            duration: Duration::from_secs(3),
            counted: Duration::from_secs(1),
            idle_clients: 10_000,
        }
    }
}
