//! CancelRequests to servers.

use pgimbal_wire::encode;

use super::encryption::{Way, open, ways};
use super::{Address, CancelKey, DialError, DialFault, Target};
use crate::transport::{Broken, Conversation, Transport};

/// Sends a CancelRequest for `key` on a connection of its own, encrypted as `target` says, and
/// waits until the server closes it: by then the server has signalled its backend. A reset counts
/// as closing. The server does not say whether the key was right. `address` must be that of the
/// connection to be cancelled. It takes the target's connect timeout at most.
///
/// # Errors
/// [`DialError`] when the server could not be reached, or did not close the connection in time.
pub async fn send_cancel(
    target: &Target,
    address: &Address,
    key: &CancelKey,
) -> Result<(), DialError> {
    let attempt = deliver(target, address, key);
    let fault = match tokio::time::timeout(target.connect_timeout, attempt).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(fault)) => fault,
        Err(_) => DialFault::Timeout(target.connect_timeout),
    };
    Err(DialError::new(target, Some(address), fault))
}

async fn deliver(target: &Target, address: &Address, key: &CancelKey) -> Result<(), DialFault> {
    let mut conversation = Conversation::new(reach(target, address).await?);
    encode::cancel_request(&mut conversation.outbox, key.process_id, &key.key);
    conversation.send().await.map_err(DialFault::Io)?;
    loop {
        match conversation.fill().await {
            // A server says nothing here; whatever it says, its end is what counts.
            Ok(()) => conversation.inbox.clear(),
            // PostgreSQL may reset a connection that it has no more use for.
            Err(Broken::Closed | Broken::Io(_)) => return Ok(()),
            Err(broken) => return Err(broken.into()),
        }
    }
}

async fn reach(target: &Target, address: &Address) -> Result<Transport, DialFault> {
    let (first, second) = ways(target);
    match (open(target, address, first).await, second) {
        (Err(DialFault::Tls(_)), Some(Way::Plain)) => open(target, address, Way::Plain).await,
        (result, _) => result,
    }
}
