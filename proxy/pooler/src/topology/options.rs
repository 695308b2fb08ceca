//! How a cluster is watched: the options of its configuration that the machine uses.

use std::time::Duration;

/// How a cluster is watched: the options of its configuration that decide about probes and lag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The time between the starts of two probes of a node while no client waits for a primary.
    /// While one waits, nodes are probed each 100 ms (250 ms where no connection can be opened), if
    /// that is less.
    pub probe_interval: Duration,
    /// How long a client waits for a primary before it gets an error. After
    /// [`ProbeHint::WaitersNeedPrimary`](super::ProbeHint::WaitersNeedPrimary), nodes are probed
    /// more often for this long.
    pub failover_hold: Duration,
    /// A standby that is more bytes of the write-ahead log behind the primary is not read from
    /// (`replica_max_lag_bytes`), nor is one while the primary's position is not known; one that is
    /// exactly so far behind is. `None`: no limit.
    pub max_lag_bytes: Option<u64>,
    /// A standby that is further behind the primary in time is not read from (`replica_max_lag`),
    /// nor is one while the primary's position is not known; one that is exactly so far behind is.
    /// `None`: no limit.
    pub max_lag: Option<Duration>,
}
