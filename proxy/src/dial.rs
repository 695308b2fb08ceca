//! A connection to a server: from a name to ReadyForQuery.
//!
//! Owns the steps and what a failure means; proofs are made in `pgimbal-auth`.

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

/// Connects and logs in: each address of the host in turn, until one answers. A server's refusal
/// ends the search, as in libpq: another address is the same server. The future is large: box it.
///
/// # Errors
/// [`DialError`] when no address led to ReadyForQuery; of several failures the last.
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
