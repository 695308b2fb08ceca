//! One budget for a server, over all replicas.

pub mod slots;
