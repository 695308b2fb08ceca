//! The rotation of passwords: which generations of a role's password there are, which one is shown
//! to which server, which are accepted from clients, and when the source is asked for the next one.
//!
//! No input, output or clock: times, seeds and answers are arguments. Nothing here knows where
//! answers come from or how a login is made.

mod accepted_passwords;
mod bucket;
mod generation;
mod history_file;
mod jitter;
mod machine;
mod node;
mod password_cache;
mod record;
mod revocations;
mod schedule;
mod secret_bytes;
mod unknown_fields;

pub use self::accepted_passwords::{AcceptedPasswords, Grace, SourceGeneration};
pub use self::bucket::Bucket;
pub use self::generation::{Generation, Moment};
pub use self::history_file::parse_history_file;
pub use self::jitter::Jitter;
pub use self::machine::{GiveUp, Learned, LoginPlan, Rotation};
pub use self::password_cache::{CachedPassword, PasswordCache};
pub use self::record::{HistoryRecord, MAX_WRITTEN, Unreadable};
pub use self::revocations::MAX_REVOKED;
pub use self::schedule::{FetchCause, MISMATCH_PAUSE, MISMATCHES, Schedule};
pub use self::secret_bytes::SecretBytes;
pub use self::unknown_fields::UnknownFields;
