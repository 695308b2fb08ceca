//! What a login is judged by.

/// Everything a login needs, built once for each configuration.
#[derive(Debug)]
pub struct LoginContext {}
