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

/// Connects and logs in, at each address of the host in the resolver's order until one accepts. An
/// error of the server ends the search, as in libpq, unless the server does not accept connections
/// now (57P03); so does a failed authentication exchange. The look-up of the name and each address
/// have the target's connect timeout (`server_connect_timeout`). The future is large; box it.
///
/// # Errors
/// [`DialError`] of the address that ended the search, or else of the last one, when no address led
/// to ReadyForQuery; without an address, that of the look-up.
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
