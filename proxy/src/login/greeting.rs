//! The negotiation of encryption before anything else: GSSENCRequest, SSLRequest, or direct TLS.

use pgimbal_wire::startup::{self, StartupPacket};
use tokio_rustls::server::TlsStream;

use super::context::LoginContext;
use super::error::LoginError;
use crate::pending_logins::Peer;
use crate::tls::{ALPN, TlsAcceptor};
use crate::transport::{Broken, Conversation, Socket, Transport};

/// First byte of a TLS handshake record, which no startup packet begins with: it would be a length
/// far above the limit.
const TLS_HANDSHAKE: u8 = 0x16;

/// An error, and the connection on which to send it; `None` when a failed handshake has consumed
/// the connection.
type Refused = (Option<Conversation>, LoginError);

/// Answers SSLRequest and GSSENCRequest, each once: `S` and a TLS handshake when TLS is offered to
/// a TCP client, else `N`. A TLS handshake that comes without a request is accepted too (direct
/// TLS, with ALPN `postgresql`). The inbox of the result holds the start of the next packet, or is
/// empty.
pub(super) async fn greet(
    socket: Socket,
    peer: Peer,
    context: &LoginContext,
) -> Result<Conversation, Refused> {
    let mut conversation = Conversation::new(Transport::Plain(socket));
    match settle(&mut conversation, peer, context).await {
        Ok(Encryption::Plain) => Ok(conversation),
        Ok(Encryption::Tls(acceptor)) => encrypt(conversation, acceptor, false).await,
        Ok(Encryption::DirectTls(acceptor)) => encrypt(conversation, acceptor, true).await,
        Err(error) => Err((Some(conversation), error)),
    }
}

enum Encryption<'a> {
    /// None was asked for, or none can be had.
    Plain,
    /// Asked for and promised.
    Tls(&'a TlsAcceptor),
    /// Begun by the client; the inbox holds its first bytes.
    DirectTls(&'a TlsAcceptor),
}

async fn settle<'a>(
    conversation: &mut Conversation,
    peer: Peer,
    context: &'a LoginContext,
) -> Result<Encryption<'a>, LoginError> {
    let acceptor = context.tls().filter(|_| matches!(peer, Peer::Tcp(_)));
    let (mut ssl_answered, mut gss_answered) = (false, false);
    loop {
        let first = !ssl_answered && !gss_answered;
        if conversation.inbox.is_empty() {
            conversation.fill().await.map_err(|broken| match broken {
                // A probe ends with FIN or with RST.
                Broken::Closed | Broken::Io(_) if first => LoginError::ClosedAtOnce,
                broken => broken.into(),
            })?;
        }
        if let (Some(acceptor), true, Some(&TLS_HANDSHAKE)) =
            (acceptor, first, conversation.inbox.first())
        {
            return Ok(Encryption::DirectTls(acceptor));
        }
        let (name, used) = match startup::parse(&conversation.inbox)? {
            None => {
                conversation.fill().await?;
                continue;
            }
            Some((StartupPacket::Ssl, used)) if !ssl_answered => ("SSL", used),
            Some((StartupPacket::GssEnc, used)) if !gss_answered => ("GSSAPI encryption", used),
            // A second request is read again by who reads the startup packet, and refused there.
            Some(_) => return Ok(Encryption::Plain),
        };
        if conversation.inbox.len() > used {
            return Err(LoginError::UnencryptedData(name));
        }
        conversation.consume(used);
        let promised = acceptor.filter(|_| name == "SSL");
        conversation.outbox.push(if promised.is_some() { b'S' } else { b'N' });
        conversation.send().await?;
        if let Some(acceptor) = promised {
            return Ok(Encryption::Tls(acceptor));
        }
        if name == "SSL" { ssl_answered = true } else { gss_answered = true }
    }
}

async fn encrypt(
    conversation: Conversation,
    acceptor: &TlsAcceptor,
    direct: bool,
) -> Result<Conversation, Refused> {
    let Transport::Plain(socket) = conversation.transport else {
        return Ok(conversation);
    };
    let accepted = acceptor.accept(socket, &conversation.inbox).await;
    let tls: Box<TlsStream<Socket>> = accepted.map_err(|err| (None, LoginError::Tls(err)))?;
    let spoken = tls.get_ref().1.alpn_protocol();
    let named = spoken == Some(ALPN);
    let conversation = Conversation::new(Transport::TlsServer(tls));
    if direct && !named {
        return Err((Some(conversation), LoginError::NoAlpn));
    }
    Ok(conversation)
}
