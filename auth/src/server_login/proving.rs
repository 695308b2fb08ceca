//! The proof of SCRAM that a server asks for, apart from the login: it is computed elsewhere.

use zeroize::Zeroizing;

use crate::scram::ScramError;
use crate::scram::client::{AwaitsServerProof, ScramClient};

/// A proof to be computed, which costs as many SHA-256 rounds as the server asks for: up to seconds
/// of a core, so it must not stand in anybody's way.
#[derive(PartialEq, Eq)]
pub struct Proving {
    pub(super) scram: ScramClient,
    pub(super) password: Zeroizing<Vec<u8>>,
    pub(super) challenge: Vec<u8>,
}

/// A proof that was computed.
#[derive(Debug)]
pub struct Proved(pub(super) Result<(AwaitsServerProof, Vec<u8>), ScramError>);

impl Proving {
    /// How many rounds the server asks for; 0 when it does not say so.
    #[must_use]
    pub fn iterations(&self) -> u32 {
        let attributes = self.challenge.split(|byte| *byte == b',');
        let count = attributes.filter_map(|one| one.strip_prefix(b"i=")).next();
        count.and_then(|count| std::str::from_utf8(count).ok()?.parse().ok()).unwrap_or(0)
    }

    /// Computes it.
    #[must_use]
    pub fn run(self) -> Proved {
        Proved(self.scram.answer(&self.password, &self.challenge))
    }
}
