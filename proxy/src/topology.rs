//! Clusters: who asks the nodes what they are, and who is told.
//!
//! Owns sockets, time and files of this; what the answers mean is decided in
//! [`pgimbal_pooler::topology`].

pub(crate) mod probe;
