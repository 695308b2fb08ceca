//! TLS towards servers: libpq's `sslmode`, and what is tried after a refusal.

use pgimbal_config::Host;
use pgimbal_wire::encode;
use pgimbal_wire::error::{ErrorFields, SqlState};

use super::{Address, DialFault, Dialed, Target, reach, session, untried};
use crate::tls::TlsMode;
use crate::transport::{Conversation, Socket, Transport};

/// Connects to one address and logs in, first in the preferred way and then, where `sslmode` allows
/// two, in the other.
pub(super) async fn log_in(target: &Target, address: &Address) -> Result<Dialed, DialFault> {
    let (first, second) = ways(target);
    let fault = match attempt(target, address, first).await {
        Err(fault) if worth_another(&fault) => fault,
        Ok(dialed) if first == Way::Plain => {
            return Ok(Dialed { tls_check: untried::ask(target, address), ..dialed });
        }
        result => return result,
    };
    let Some(second) = second else { return Err(fault) };
    let dialed = match attempt(target, address, second).await {
        Ok(dialed) => dialed,
        Err(other) => return Err(both(fault, other)),
    };
    // Whoever has come in by plain text after a failed handshake, or after a refusal of TLS in
    // pg_hba.conf, would have had TLS otherwise.
    if second != Way::Plain {
        return Ok(dialed);
    }
    let cause = fault.to_string();
    target.tls.warn_fallback(&format!("{}:{}", target.host, target.port), &cause);
    Ok(Dialed { tls_fallback: Some(cause.into()), ..dialed })
}

/// The error to report when both ways failed. A failed handshake is reported together with the
/// refusal of plain text, which alone would hide it.
fn both(first: DialFault, second: DialFault) -> DialFault {
    let is_refusal = worth_another(&first) && worth_another(&second);
    match (first, second) {
        (DialFault::Tls(error), refusal @ DialFault::Server(_))
        | (refusal @ DialFault::Server(_), DialFault::Tls(error))
            if is_refusal =>
        {
            let text = format!("{error}; and without TLS the server says: {refusal}");
            DialFault::Tls(std::io::Error::new(error.kind(), text))
        }
        // The server has no TLS at all, so its refusal of plain text is what there is to mend.
        (refusal @ DialFault::Server(_), DialFault::TlsRefused) => refusal,
        (_, second) => second,
    }
}

async fn attempt(target: &Target, address: &Address, way: Way) -> Result<Dialed, DialFault> {
    let transport = open(target, address, way).await?;
    session::start(target, address.clone(), transport).await
}

/// The way in which a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Plain,
    /// The server is asked for TLS by an SSLRequest; if it has none, the connection goes on
    /// without.
    TlsOrPlain,
    /// The server is asked for TLS and must have it.
    Tls,
    /// TLS from the first byte.
    DirectTls,
}

/// The way to try first by `sslmode`, and the way to try after the server has refused the first;
/// `None` when there is no second. Unix sockets never use TLS.
pub(super) fn ways(target: &Target) -> (Way, Option<Way>) {
    match (&target.host, target.tls.mode()) {
        (Host::Unix(_), _) | (_, TlsMode::Never) => (Way::Plain, None),
        (_, TlsMode::Allow) => (Way::Plain, Some(Way::Tls)),
        (_, TlsMode::Preferred) => (Way::TlsOrPlain, Some(Way::Plain)),
        (_, TlsMode::Required) => (Way::Tls, None),
        (_, TlsMode::Direct) => (Way::DirectTls, None),
    }
}

/// Whether the other way may succeed: the handshake failed, or pg_hba.conf refuses this kind of
/// connection. Never after a wrong password, which must reach the server once.
fn worth_another(fault: &DialFault) -> bool {
    match fault {
        DialFault::Tls(_) => true,
        DialFault::Server(body) => ErrorFields::parse(body)
            .is_ok_and(|fields| fields.code == SqlState::INVALID_AUTHORIZATION),
        _ => false,
    }
}

/// Connects, and negotiates TLS if the way asks for it. No startup packet has been sent on the
/// result yet. The caller limits the time.
pub(super) async fn open(
    target: &Target,
    address: &Address,
    way: Way,
) -> Result<Transport, DialFault> {
    let socket = reach::connect(target, address).await?;
    match way {
        Way::Plain => Ok(Transport::Plain(socket)),
        Way::DirectTls => encrypt(target, socket).await,
        Way::Tls | Way::TlsOrPlain => {
            let (transport, promised) = ask(socket).await?;
            match (transport, promised) {
                (Transport::Plain(socket), true) => encrypt(target, socket).await,
                (transport, _) if way == Way::TlsOrPlain => Ok(transport),
                _ => Err(DialFault::TlsRefused),
            }
        }
    }
}

/// Sends an SSLRequest and returns whether the server accepts TLS. The answer is one byte: more
/// bytes would be taken for encrypted ones later.
async fn ask(socket: Socket) -> Result<(Transport, bool), DialFault> {
    let mut conversation = Conversation::new(Transport::Plain(socket));
    encode::ssl_request(&mut conversation.outbox);
    conversation.send().await.map_err(DialFault::Io)?;
    conversation.fill().await?;
    match *conversation.inbox {
        [b'S'] => Ok((conversation.transport, true)),
        [b'N'] => Ok((conversation.transport, false)),
        // Its postmaster has died while it waited for the startup packet: it takes its leave. The
        // text could be anybody's.
        [b'N', b'E', ..] => Err(DialFault::Closed),
        [b'S' | b'N', ..] => Err(DialFault::UnencryptedData),
        // The text of an error that comes before TLS could be anybody's (CVE-2024-10977).
        [b'E', ..] => Err(DialFault::Protocol("an error in answer to an SSL request")),
        _ => Err(DialFault::Protocol("no answer to an SSL request")),
    }
}

async fn encrypt(target: &Target, socket: Socket) -> Result<Transport, DialFault> {
    let Host::Tcp(host) = &target.host else { return Ok(Transport::Plain(socket)) };
    let name = target.tls_name.as_deref().unwrap_or(host);
    let tls = target.tls.connect(name, socket).await.map_err(DialFault::Tls)?;
    Ok(Transport::TlsClient(tls))
}
