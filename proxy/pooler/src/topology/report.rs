//! The results of probes, and hints that a node should be probed.

use std::fmt;
use std::time::Instant;

use pgimbal_wire::error::SqlState;

use super::position::{Lsn, SystemId, TimelineId};
use super::view::NodeId;

/// A server's answer to one probe: what one query over its functions and settings returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The server's `system_identifier`, from `pg_control_system()`.
    pub system: SystemId,
    /// The timeline that the server writes (of `pg_walfile_name`) or, on a standby, follows: the
    /// highest that its receiver, its recovery or its last checkpoint knows.
    pub timeline: TimelineId,
    /// Whether the server is a primary or a standby, with its positions in the write-ahead log.
    pub role: Role,
    /// The server's `server_version_num`: 170002 is version 17.2.
    pub server_version: u32,
    /// When the server was started: `pg_postmaster_start_time()` in microseconds since 1970. Two
    /// nodes with one start time count as one server.
    pub started_at_micros: i64,
}

/// Whether a server is in recovery (`pg_is_in_recovery()`), with its positions in the write-ahead
/// log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The server is not in recovery: it accepts writes. Both positions are on its timeline.
    Primary {
        /// The insert position, made comparable by [`Lsn::reachable`]: every commit is before it.
        insert: Lsn,
        /// The flush position: a standby is sent nothing beyond it. What was inserted after the
        /// last commit may stay unflushed for as long as nobody writes.
        flush: Lsn,
    },
    /// The server is in recovery: it replays what a primary has written.
    Standby {
        /// Everything before this position is replayed.
        replay: Lsn,
        /// Whether replay is paused, as by `pg_wal_replay_pause()`.
        paused: bool,
    },
}

impl Report {
    /// Whether the server is not in recovery (`pg_is_in_recovery()`), so that it accepts writes.
    #[must_use]
    pub const fn is_primary(&self) -> bool {
        matches!(self.role, Role::Primary { .. })
    }

    /// Returns the server's position in the write-ahead log: insert on a primary, replay on a
    /// standby.
    #[must_use]
    pub const fn position(&self) -> Lsn {
        match self.role {
            Role::Primary { insert, .. } => insert,
            Role::Standby { replay, .. } => replay,
        }
    }
}

/// Why a probe has no report; its [`Display`](fmt::Display) is shown to people. A text in a variant
/// is the reason in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeFailure {
    /// The connection could not be made: refused, reset, no route, no address. The text says which.
    Unreachable(Box<str>),
    /// An open connection broke, as when the server is killed. The text says how. The node counts
    /// as down.
    Broke(Box<str>),
    /// No answer came within the time limit (`probe_timeout`). The node counts as down.
    TimedOut,
    /// The server accepts no connections now: it starts, stops or recovers (57P03, 57P01, 57P02).
    /// The node counts as down.
    NotAccepting(SqlState),
    /// The server answers, but with another error than those of [`Self::NotAccepting`] (28P01,
    /// 53300, 3D000 and the like), so that its role is not known. A report that was valid until
    /// then stays so.
    ProbeRefused(SqlState),
    /// The role changed while the server answered (55000): the node is probed again, after 10 ms at
    /// the earliest, and what is known of it stays.
    ChangedRole,
    /// The answer is not one that a PostgreSQL server gives. The text says why. The node counts as
    /// down.
    Malformed(Box<str>),
}

impl ProbeFailure {
    /// Whether no connection could be opened ([`Self::Unreachable`], [`Self::NotAccepting`]): while
    /// clients wait for a primary, the node is then probed each 250 ms, and one that breaks or
    /// times out each 100 ms (never less often than `probe_interval`).
    #[must_use]
    pub const fn is_dial(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::NotAccepting(_))
    }
}

impl fmt::Display for ProbeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) | Self::Broke(why) | Self::Malformed(why) => f.write_str(why),
            Self::TimedOut => f.write_str("no answer within probe_timeout"),
            Self::NotAccepting(code) => write!(f, "it accepts no connections ({code})"),
            Self::ProbeRefused(code) => write!(f, "it lives, but refuses the prober ({code})"),
            Self::ChangedRole => f.write_str("its role changed while it answered"),
        }
    }
}

/// What a worker has noticed that makes a probe due at once (`Topology::handle_probe_hint`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeHint {
    /// A server connection to this node broke, idle or in use: the server may be gone. The node is
    /// probed at once.
    ConnectionBroke(NodeId),
    /// The prober's own connection to this node broke while it was idle: as with
    /// [`Self::ConnectionBroke`], and until the node's next report it is not known what it has
    /// replayed.
    ProberDisconnected(NodeId),
    /// A server connection to this node could not be opened. The node is probed at once.
    DialFailed(NodeId),
    /// The node that was taken for the primary refused a write (25006): it may have become a
    /// standby.
    ReadOnly(NodeId),
    /// A server connection to the node reported another `in_hot_standby` than before
    /// (ParameterStatus), as it does when a standby is promoted.
    HotStandbyChanged(NodeId),
    /// A client waits for a primary: every node is probed, if there is none, and more often than
    /// usual for `failover_hold`.
    WaitersNeedPrimary,
    /// Somebody must read on a replica what was acknowledged up to this moment: the primary and the
    /// replicas are probed each 20 ms, for half a second at most, until all of them have it.
    FreshnessNeeded(Instant),
}
