//! The SCRAM proof that a server asks for, as a computation apart from the login, so that it can
//! run on another thread.

use zeroize::Zeroizing;

use crate::scram::ScramError;
use crate::scram::client::{AwaitsServerProof, ScramClient};

/// A SCRAM proof to be computed. It takes as many PBKDF2 iterations as the server asks for, up to
/// about a second of a core, so it must not run in a worker's loop.
#[derive(PartialEq, Eq)]
pub struct ProofComputation {
    /// The exchange that waits for the challenge.
    pub(super) scram: ScramClient,
    /// The password in clear text, wiped when dropped.
    pub(super) password: Zeroizing<Vec<u8>>,
    /// The server's challenge, the data of AuthenticationSASLContinue.
    pub(super) challenge: Vec<u8>,
}

/// The outcome of a [`ProofComputation`], for
/// [`ServerLogin::handle_proof`](super::ServerLogin::handle_proof).
#[derive(Debug)]
pub struct ComputedProof(pub(super) Result<(AwaitsServerProof, Vec<u8>), ScramError>);

impl ProofComputation {
    /// Number of PBKDF2 iterations that the server's challenge asks for; 0 when the challenge does
    /// not say. The number is as the server says it and not checked; [`Self::run`] refuses one
    /// above 1,000,000.
    #[must_use]
    pub fn iterations(&self) -> u32 {
        let attributes = self.challenge.split(|byte| *byte == b',');
        let count = attributes.filter_map(|one| one.strip_prefix(b"i=")).next();
        count.and_then(|count| std::str::from_utf8(count).ok()?.parse().ok()).unwrap_or(0)
    }

    /// Computes the proof; blocks for up to about a second. A challenge that is malformed or asks
    /// for too many iterations gives its error from
    /// [`ServerLogin::handle_proof`](super::ServerLogin::handle_proof).
    #[must_use]
    pub fn run(self) -> ComputedProof {
        ComputedProof(self.scram.answer(&self.password, &self.challenge))
    }
}
