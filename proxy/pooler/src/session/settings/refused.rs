//! Settings that a server connection has refused.

use std::sync::Arc;

/// Settings of a client that a server connection refused when they were to be replayed.
#[derive(Debug)]
pub struct RefusedSettings {
    /// Their names.
    pub names: Vec<Box<[u8]>>,
    /// The body of the ErrorResponse for the first of them.
    pub error: Arc<[u8]>,
}
