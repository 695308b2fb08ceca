//! Passwords that rotate: which generations there are, which to show to which server, which to
//! accept from clients, and when to ask for the next one.
//!
//! Pure: time, seeds and answers are arguments. Knows neither where answers come from nor how a
//! login is made.

mod accepted_passwords;
mod bucket;
mod generation;
mod jitter;
mod machine;
mod node;
mod password_cache;
mod record;
mod schedule;

pub use self::accepted_passwords::{AcceptedPasswords, Grace};
pub use self::bucket::Bucket;
pub use self::generation::{Generation, Moment};
pub use self::jitter::Jitter;
pub use self::machine::{GiveUp, Learned, LoginPlan, Rotation};
pub use self::password_cache::{CachedPassword, PasswordCache};
pub use self::record::{HistoryDocument, HistoryRecord, Unreadable};
pub use self::schedule::{FetchCause, MISMATCH_PAUSE, MISMATCHES, Schedule};
