//! Counters of what passes between replicas.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::request::Kind;

/// Why a connection of somebody else ended before it was a peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// The handshake failed: no key, another deployment's, or no TLS 1.3.
    Handshake,
    /// The handshake took too long.
    Timeout,
    /// There were too many that had not proved anything.
    CrowdedOut,
    /// There were too many in this second.
    Rate,
}

impl Stranger {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Handshake, Self::Timeout, Self::CrowdedOut, Self::Rate];

    /// The word in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Timeout => "timeout",
            Self::CrowdedOut => "crowded_out",
            Self::Rate => "rate",
        }
    }
}

/// What became of a request to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Answered,
    /// The peer said that it cannot.
    Refused,
    /// No answer came, or none that can be used.
    Failed,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Answered, Self::Refused, Self::Failed];

    /// The word in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

const KINDS: usize = Kind::ALL.len();
const OUTCOMES: usize = Outcome::ALL.len();

/// The counters, since the start.
#[derive(Debug, Default)]
pub(super) struct PeerStats {
    strangers: [AtomicU64; Stranger::ALL.len()],
    sent: [[AtomicU64; OUTCOMES]; KINDS],
    received: [AtomicU64; KINDS],
}

impl PeerStats {
    pub(super) fn stranger(&self, why: Stranger) {
        self.strangers[why as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn sent(&self, kind: Kind, outcome: Outcome) {
        self.sent[kind as usize][outcome as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn received(&self, kind: Kind) {
        self.received[kind as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn strangers(&self) -> Vec<(Stranger, u64)> {
        Stranger::ALL.map(|why| (why, self.strangers[why as usize].load(Relaxed))).into()
    }

    pub(super) fn requests_sent(&self) -> Vec<(Kind, Outcome, u64)> {
        let of = |kind: Kind| {
            Outcome::ALL.map(|outcome| {
                (kind, outcome, self.sent[kind as usize][outcome as usize].load(Relaxed))
            })
        };
        Kind::ALL.into_iter().flat_map(of).collect()
    }

    pub(super) fn requests_received(&self) -> Vec<(Kind, u64)> {
        Kind::ALL.map(|kind| (kind, self.received[kind as usize].load(Relaxed))).into()
    }
}
