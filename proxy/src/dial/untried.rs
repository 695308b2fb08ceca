//! Servers that sslmode `allow` uses in plain text without trying TLS, as libpq does. Whether such
//! a server offers TLS is found out in the background, once for each server.

use pgimbal_config::Host;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::encryption::{Way, open};
use super::{Address, DialFault, Target};
use crate::tls::PLAIN_FIRST;
use crate::transport::{Conversation, Transport};

/// Asks the server at `address`, which accepted plain text, on a connection of its own whether it
/// offers TLS; a server that does is logged. `None` when it was asked before, or the question does
/// not arise.
pub(super) fn ask(target: &Target, address: &Address) -> Option<JoinHandle<bool>> {
    let Host::Tcp(host) = &target.host else { return None };
    let server = format!("{host}:{}", target.port);
    if !target.tls.asks_of_untried(&server) {
        return None;
    }
    let (target, address) = (target.clone(), address.clone());
    Some(tokio::spawn(async move {
        let answer = timeout(target.connect_timeout, offers_tls(&target, &address)).await;
        let answer = answer.ok().flatten();
        match answer {
            Some(true) => tracing::warn!("server {server} {PLAIN_FIRST}"),
            Some(false) => {}
            // The next connection asks again.
            None => target.tls.forget_untried(&server),
        }
        answer == Some(true)
    }))
}

/// Whether the server offers TLS; `None` when it does not say. The handshake is completed, because
/// a connection that breaks off is a line in the server's log.
async fn offers_tls(target: &Target, address: &Address) -> Option<bool> {
    match open(target, address, Way::TlsOrPlain).await {
        Ok(transport) => {
            let offers = matches!(transport, Transport::TlsClient(_));
            Conversation::new(transport).close().await;
            Some(offers)
        }
        Err(DialFault::Tls(_)) => Some(true),
        Err(_) => None,
    }
}
