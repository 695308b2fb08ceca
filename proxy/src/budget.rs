//! The budget of connections to each server, as the process sees it.

pub(crate) mod limits;
mod looker;
mod presence;
mod replicas;
mod status;

pub(crate) use presence::follow;
pub use replicas::{ReplicaBudget, Tokens};
pub use status::{ServerBudgets, ServerStatus};
