//! What operators see of the process: the console, the HTTP page with health and metrics,
//! `pgimbal check`, and the snapshots of the workers that they are made from.

pub mod check;
pub mod collect;
pub mod console;
pub mod http;
pub mod metrics;
