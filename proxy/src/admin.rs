//! The operator's side of the process: the console, the HTTP endpoint with probes and metrics,
//! `pgimbal check`, `pgimbal route`, and the snapshots of the workers from which they are made.

pub mod check;
pub mod collect;
pub mod console;
pub mod http;
pub mod metrics;
pub mod page;
pub mod route;
