//! A model of servers: what each would answer if it were asked now.

use pgimbal_pooler::topology::{Lsn, ProbeFailure, Report, Role, SystemId, TimelineId};
use pgimbal_wire::error::SqlState;

/// The cluster's own identifier.
pub(crate) const OURS: SystemId = SystemId(7_000);
/// Somebody else's.
pub(crate) const THEIRS: SystemId = SystemId(9_000);

/// How a server can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Fine,
    /// It has ended: connections are refused.
    Dead,
    /// It starts, and accepts nobody.
    Starting,
    /// Stopped, or behind a network that swallows everything.
    Silent,
    /// It lives but refuses the prober.
    Shut,
}

/// A server.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) system: SystemId,
    pub(crate) timeline: TimelineId,
    pub(crate) primary: bool,
    pub(crate) position: u64,
    pub(crate) reach: Reach,
    pub(crate) started: i64,
}

impl Server {
    pub(crate) fn standby(started: i64) -> Self {
        Self {
            system: OURS,
            timeline: TimelineId(1),
            primary: false,
            position: 1000,
            reach: Reach::Fine,
            started,
        }
    }

    pub(crate) fn primary(started: i64) -> Self {
        Self { primary: true, ..Self::standby(started) }
    }

    /// What a probe brings.
    pub(crate) fn answer(&self) -> Result<Report, ProbeFailure> {
        match self.reach {
            Reach::Fine => Ok(self.report()),
            Reach::Dead => Err(ProbeFailure::Unreachable("connection refused".into())),
            Reach::Starting => Err(ProbeFailure::NotAccepting(SqlState::CANNOT_CONNECT_NOW)),
            Reach::Silent => Err(ProbeFailure::TimedOut),
            Reach::Shut => Err(ProbeFailure::ProbeRefused(SqlState::TOO_MANY_CONNECTIONS)),
        }
    }

    pub(crate) fn report(&self) -> Report {
        let position = Lsn(self.position);
        Report {
            system: self.system,
            timeline: self.timeline,
            role: if self.primary {
                Role::Primary { insert: Lsn(self.position + 100), flush: position }
            } else {
                Role::Standby { replay: position, paused: false }
            },
            server_version: 150_018,
            started_at_micros: self.started,
        }
    }

    /// It comes back from a backup.
    pub(crate) fn restore(&mut self) {
        self.primary = true;
        self.timeline.0 = self.timeline.0.saturating_sub(1).max(1);
    }

    /// It becomes a primary of a timeline of its own.
    pub(crate) fn promote(&mut self) {
        if !self.primary && self.reach != Reach::Dead {
            self.primary = true;
            self.timeline.0 += 1;
        }
    }
}
