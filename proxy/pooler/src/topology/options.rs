//! How a cluster is watched: the options of its configuration that the machine uses.

use std::time::Duration;

/// The options of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The time between the starts of two probes of a node while no client waits for a primary.
    pub probe_interval: Duration,
    /// How long a client waits for a primary before it gets an error. After
    /// [`ProbeHint::WaitersNeedPrimary`](super::ProbeHint::WaitersNeedPrimary), nodes are probed
    /// more often for this long.
    pub failover_hold: Duration,
    /// A standby that is more bytes of the write-ahead log behind is not read from; `None`: no
    /// limit.
    pub max_lag_bytes: Option<u64>,
    /// A standby that is further behind in time is not read from; `None`: no limit.
    pub max_lag: Option<Duration>,
}
