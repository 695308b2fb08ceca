//! Settings that a server connection has refused.

use std::sync::Arc;

/// Settings of a client that a server connection has refused when they were set anew for it, one by
/// one. Until the client mends them, its messages are answered with the error.
#[derive(Debug)]
pub struct RefusedSettings {
    /// The names of the refused settings, in lower case; at least one.
    pub names: Vec<Box<[u8]>>,
    /// The body of the ErrorResponse for the first of them, with which the client's messages are
    /// answered.
    pub error: Arc<[u8]>,
}
