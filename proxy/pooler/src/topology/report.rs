//! What is said of a node: a probe's answer, a probe's failure, and a hint that something changed.

use std::fmt;

use pgimbal_wire::error::SqlState;

use super::position::{Lsn, SystemId, TimelineId};
use super::view::NodeId;

/// What a server said of itself in one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whose data it has.
    pub system: SystemId,
    /// The timeline that it writes or follows.
    pub timeline: TimelineId,
    /// Whether it can be written to.
    pub role: Role,
    /// `server_version_num`.
    pub server_version: u32,
    /// `pg_postmaster_start_time()` in microseconds since 1970.
    pub started_at_micros: i64,
}

/// Whether a server is in recovery, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Not in recovery.
    Primary {
        /// The insert position, as far as a standby can reach it: beyond every commit.
        insert: Lsn,
        /// The flush position, which is as far as a standby is sent anything. What is inserted
        /// and belongs to no commit may stay unflushed for as long as nobody writes.
        flush: Lsn,
    },
    /// In recovery.
    Standby {
        /// Everything before this is replayed.
        replay: Lsn,
        /// Replay is paused.
        paused: bool,
    },
}

impl Report {
    /// Whether the server accepts writes.
    #[must_use]
    pub const fn is_primary(&self) -> bool {
        matches!(self.role, Role::Primary { .. })
    }

    /// The position: insert on a primary, replay on a standby.
    #[must_use]
    pub const fn position(&self) -> Lsn {
        match self.role {
            Role::Primary { insert, .. } => insert,
            Role::Standby { replay, .. } => replay,
        }
    }
}

/// Why a probe has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeFailure {
    /// The connection could not be made: refused, reset, no route, no address.
    Unreachable(Box<str>),
    /// An open connection broke, as when the server is killed.
    Broke(Box<str>),
    /// No answer within the time limit.
    TimedOut,
    /// The server is there and accepts nobody: it starts, stops or recovers (57P03, 57P01).
    NotAccepting(SqlState),
    /// The server lives but does not let the prober look (28P01, 53300, 3D000 and the like), so
    /// that nothing is known of its role.
    ProbeRefused(SqlState),
    /// The role changed while the server answered (55000): it is asked again.
    ChangedRole,
    /// The answer is none that a PostgreSQL server gives.
    Malformed(Box<str>),
}

impl ProbeFailure {
    /// Whether no connection could be made.
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

/// A hint from a worker that a node is not what it was: it is probed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeHint {
    /// A server connection to the node broke.
    ConnectionBroke(NodeId),
    /// A server connection to the node could not be opened.
    DialFailed(NodeId),
    /// The node believed primary refused to write (25006).
    ReadOnly(NodeId),
    /// `in_hot_standby` changed on a server connection to the node.
    HotStandbyChanged(NodeId),
    /// Clients wait for a primary.
    WaitersNeedPrimary,
}
