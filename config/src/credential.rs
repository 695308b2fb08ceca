//! Options of passwords that rotate: how long old ones are accepted, and what is kept over a
//! restart.

use std::path::PathBuf;
use std::time::Duration;

use crate::reader::{Choice, Flag, Hidden, Maybe, OrOff, Path, Positive, Span};
use crate::secret::Secret;
use crate::table::settings;
use crate::words::HistoryPlace;

/// Limit of a user's accepted passwords in what replicas share and a restart keeps, the newest
/// included: 1,000 users then fit into a Kubernetes Secret or a secret of Vault, which hold about
/// 1 MB.
pub const MAX_SHARED_GENERATIONS: u32 = 3;

settings! {
    /// The options of passwords that rotate, at the top level of the file. A user's own
    /// `grace_generations` and `grace_age` win over these. A password that stands in the
    /// configuration (`password`) does not rotate.
    pub struct CredentialConfig {
        /// Directory for what a restart must not forget: the facts of the replicas (the file
        /// `store`, unless `[store]` says otherwise) and the password cache. Without it and
        /// without a store they are kept in memory only.
        "state_dir" state_dir: Option<PathBuf> as Maybe<Path> = "", restart,
            try "/var/lib/pgimbal";
        /// Key from which the salts of users are made. Several pgimbals with one key show a
        /// client the same salt. Not set: random, kept in the store or `state_dir`.
        "deployment_key" deployment_key: Option<Secret> as Maybe<Hidden> = "", restart,
            try "0f1e2d3c4b5a";
        /// The `deployment_key` before this one, while it is being replaced: replicas that still
        /// have it are peers too. Salts are made from the new one alone.
        "deployment_key_previous" deployment_key_previous: Option<Secret> as Maybe<Hidden> = "",
            restart, try "a5b4c3d2e1f0";
        /// How many passwords of a user are accepted, the newest included. 2: an application
        /// with the previous one goes on until the next rotation. At most 3 with a `[store]`, with
        /// `[peers]`, or where `credential_history` keeps them.
        "grace_generations" grace_generations: u32 as Positive = "2", applied, try "3";
        /// How long an old password is accepted after a newer one was seen. A week: the usual
        /// rotation period.
        "grace_age" grace_age: Option<Duration> as OrOff<Span> = "7d", applied, try "1h";
        /// Whether verifiers of accepted passwords, never the passwords, are kept in `state_dir`
        /// (`file`), so that an old password is accepted after a restart too, or in `memory`.
        /// With a `[store]` they are always kept in it.
        "credential_history" history: HistoryPlace as Choice<HistoryPlace> = "memory", restart,
            try "file";
        /// Keeps the newest password of each role in a file in `state_dir` (0600), so that
        /// pgimbal can start while Vault is away. Off: whoever reads the file has the passwords.
        "password_cache" password_cache: bool as Flag = "false", restart, try "true";
    }
}
