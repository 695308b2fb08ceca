//! The login of a client, from an accepted socket to an authenticated session.
//!
//! This module owns the order of the steps and the errors that the client is sent; answers are
//! checked in `pgimbal-auth`. The caller limits the time as a whole.

mod authenticate;
mod context;
mod error;
mod greeting;
mod proxied;
mod request;

use std::time::{Duration, Instant};

use pgimbal_wire::authentication::AuthRequest;
use pgimbal_wire::startup::ProtocolVersion;
use tokio::time::timeout;

use crate::credentials::Counted;
use crate::pending_logins::Peer;
use crate::transport::{Conversation, Setting, Socket, Transport};

pub use authenticate::Authenticators;
use authenticate::Claim;
pub use context::{ConsoleRole, ContextError, CurrentLoginContext, LoginContext};
pub use error::LoginError;

/// The purpose of a client's connection.
#[derive(Debug)]
pub enum ClientPurpose {
    /// The client sent a CancelRequest.
    Cancel {
        /// Process id from the BackendKeyData of the session whose query is to be cancelled.
        process_id: u32,
        /// Secret key from that BackendKeyData, 4 to 256 bytes.
        key: Box<[u8]>,
        /// The connection. The client waits for its end, which says that the request was delivered.
        transport: Transport,
    },
    /// The client has logged in.
    Client(Box<Authenticated>),
}

/// A client that has logged in, before its session begins; AuthenticationOk is not sent yet.
#[derive(Debug)]
pub struct Authenticated {
    /// The connection to the client, plain or TLS.
    pub transport: Transport,
    /// When its startup packet had come: behind the negotiation of TLS.
    pub came_at: Instant,
    /// The user's name, 1 to 63 bytes in the startup packet; a name that is not UTF-8 is escaped.
    pub user: Box<str>,
    /// The database's name, 1 to 63 bytes in the startup packet; the user's name when the client
    /// gave none. A name that is not UTF-8 is escaped.
    pub database: Box<str>,
    /// The settings of the startup packet, those of `options` first, so that the last one of a name
    /// counts, as in PostgreSQL. `user`, `database`, `options`, `replication` and protocol options
    /// are left out.
    pub parameters: Vec<Setting>,
    /// The protocol version that was agreed on, 3.0 or 3.2.
    pub version: ProtocolVersion,
    /// Messages that were not sent yet, AuthenticationOk last. They are sent in one write with the
    /// first messages of the session (ParameterStatus, BackendKeyData, ReadyForQuery).
    pub pending_output: Vec<u8>,
    /// Bytes read beyond the last message of the login; empty in most cases.
    pub residual: Vec<u8>,
    /// The client's rights on the console; `None` when the database is not the console.
    pub console: Option<ConsoleRole>,
    /// The guard that counts the client among those that logged in with this generation of their
    /// password; `None` for a password that does not rotate.
    pub generation: Option<Counted>,
}

/// Reads the header of the PROXY protocol, version 1 or 2, from a load balancer's connection,
/// before [`accept`]. Returns the socket and the client that the header names; `peer`, the load
/// balancer's address, when the header names none (a health check). Waits for at most `patience`,
/// which is `client_first_packet_timeout`.
///
/// # Errors
/// [`LoginError`] when no valid header arrives in time. The peer has been sent the error, except
/// after the timeout, and the connection is closed.
pub async fn read_proxy_header(
    mut socket: Socket,
    peer: Peer,
    patience: Duration,
) -> Result<(Socket, Peer), LoginError> {
    let named = timeout(patience, proxied::read(&mut socket)).await;
    match named.unwrap_or(Err(LoginError::StartupTimeout)) {
        Ok(named) => Ok((socket, named.map_or(peer, Peer::Tcp))),
        Err(error) => {
            let conversation = Conversation::new(Transport::Plain(socket));
            Err(refuse(Some(conversation), error).await)
        }
    }
}

/// Serves one client from its first byte to the end of the login. When this returns an error, the
/// client has been sent it where the protocol allows, and the connection is closed. Encryption and
/// the startup packet are waited for as long as `client_first_packet_timeout` lasts; the caller
/// limits the whole (`client_login_timeout`). The future is large; box it.
///
/// # Errors
/// [`LoginError`] when no session begins.
pub async fn accept(
    socket: Socket,
    peer: Peer,
    authenticators: Authenticators<'_>,
) -> Result<ClientPurpose, LoginError> {
    let tls_context = authenticators.in_force.now();
    let patience = tls_context.config().clients.first_packet_timeout;
    let opened = timeout(patience, Box::pin(open(socket, peer, &tls_context))).await;
    let (mut conversation, opening) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err((conversation, error))) => return Err(refuse(conversation, error).await),
        // Closed without a word, as PostgreSQL does.
        Err(_) => return Err(LoginError::StartupTimeout),
    };
    let came_at = Instant::now();
    let admitted = match opening {
        request::Opening::Cancel { process_id, key } => Ok(Admitted::Cancel { process_id, key }),
        request::Opening::Startup(request) => {
            log_in(&mut conversation, request, peer, &tls_context, authenticators).await
        }
    };
    let (process_id, key) = match admitted {
        Ok(Admitted::Client(client)) => {
            let Conversation { transport, inbox, outbox } = conversation;
            return Ok(ClientPurpose::Client(Box::new(Authenticated {
                transport,
                came_at,
                user: client.user,
                database: client.database,
                parameters: client.parameters,
                version: client.version,
                pending_output: outbox,
                // An idle client holds no buffer.
                residual: if inbox.is_empty() { Vec::new() } else { inbox },
                console: client.console,
                generation: client.generation,
            })));
        }
        Ok(Admitted::Cancel { process_id, key }) => (process_id, key),
        Err(error) => return Err(refuse(Some(conversation), error).await),
    };
    Ok(ClientPurpose::Cancel { process_id, key, transport: conversation.transport })
}

enum Admitted {
    Client(Client),
    Cancel { process_id: u32, key: Box<[u8]> },
}

struct Client {
    user: Box<str>,
    database: Box<str>,
    parameters: Vec<Setting>,
    version: ProtocolVersion,
    console: Option<ConsoleRole>,
    generation: Option<Counted>,
}

/// Negotiates encryption and reads the startup packet.
async fn open(
    socket: Socket,
    peer: Peer,
    tls_context: &LoginContext,
) -> Result<(Conversation, request::Opening), (Option<Conversation>, LoginError)> {
    let mut conversation = greeting::greet(socket, peer, tls_context).await?;
    match request::read(&mut conversation).await {
        Ok(opening) => Ok((conversation, opening)),
        Err(error) => Err((Some(conversation), error)),
    }
}

/// Authenticates the client, and only then checks what depends on the user, so that a refusal does
/// not reveal which users and databases exist. `tls_context` is the context with which TLS was
/// negotiated.
async fn log_in(
    conversation: &mut Conversation,
    request: request::Request,
    peer: Peer,
    tls_context: &LoginContext,
    authenticators: Authenticators<'_>,
) -> Result<Admitted, LoginError> {
    let tls_required = authenticators.in_force.now().tls_required();
    if tls_required && matches!(peer, Peer::Tcp(_)) && !conversation.transport.is_tls() {
        return Err(LoginError::TlsRequired);
    }
    if request.replication {
        return Err(LoginError::Replication);
    }
    let claim = Claim { user: &request.user, database: &request.database, peer };
    let generation =
        authenticate::authenticate(conversation, claim, tls_context, authenticators).await?;
    let console = authenticators.in_force.now().admit(&request.user, &request.database)?;
    let parameters = request.settings()?;
    AuthRequest::Ok.encode(&mut conversation.outbox);
    Ok(Admitted::Client(Client {
        user: request.user,
        database: request.database,
        parameters,
        version: request.version,
        console,
        generation,
    }))
}

/// Sends the error to the client, closes the connection and returns the error.
async fn refuse(conversation: Option<Conversation>, error: LoginError) -> LoginError {
    if let Some(mut conversation) = conversation {
        if error.is_silent() {
            // As PostgreSQL: it may not be a client of ours at all.
            conversation.outbox.clear();
            conversation.close().await;
            return error;
        }
        // Half a step that was not sent must not precede the error, NegotiateProtocolVersion may.
        error.encode(&mut conversation.outbox);
        conversation.close().await;
    }
    error
}
