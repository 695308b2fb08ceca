//! The budget of connections to each server, as the process sees it.

pub(crate) mod limits;
mod status;

pub use status::{ServerBudgets, ServerStatus};
