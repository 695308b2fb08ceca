//! Dialling: the connection to a server, from its host name to ReadyForQuery.
//!
//! This module owns the steps and the meaning of their failures; proofs of passwords are made in
//! `pgimbal-auth`.

mod cancel;
mod encryption;
mod error;
mod reach;
mod session;
mod target;
mod untried;

pub use cancel::send_cancel;
pub use error::{DialError, DialFault};
pub use target::{Address, CancelKey, Dialed, Target};

/// Connects and logs in, at each address of the host in turn until one accepts. An error of the
/// server ends the search, as in libpq, unless the server does not accept connections now (57P03).
/// Each address has the target's connect timeout. The future is large; box it.
///
/// # Errors
/// [`DialError`] of the last address, when no address led to ReadyForQuery.
pub async fn dial(target: &Target) -> Result<Dialed, DialError> {
    let mut last = None;
    for address in reach::addresses(target).await? {
        let attempt = encryption::log_in(target, &address);
        let error = match tokio::time::timeout(target.connect_timeout, attempt).await {
            Ok(Ok(dialed)) => return Ok(dialed),
            Ok(Err(fault)) => DialError::new(target, Some(&address), fault),
            Err(_) => {
                let fault = DialFault::Timeout(target.connect_timeout);
                DialError::new(target, Some(&address), fault)
            }
        };
        if error.is_final() {
            return Err(error);
        }
        last = Some(error);
    }
    Err(last.unwrap_or_else(|| DialError::new(target, None, DialFault::NoAddress)))
}
