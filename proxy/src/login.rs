//! A client's way in: from an accepted socket to an authenticated session.
//!
//! Owns the order of the steps and what the client is told when one fails; what an answer is worth
//! is checked in `pgimbal-auth`. The caller bounds the time.

mod authenticate;
mod context;
mod error;
mod greeting;
mod proxied;
mod request;

use std::time::Duration;

use pgimbal_wire::authentication::AuthRequest;
use pgimbal_wire::startup::ProtocolVersion;
use tokio::time::timeout;

use crate::credentials::Counted;
use crate::lobby::Peer;
use crate::transport::{Conversation, Setting, Socket, Transport};

pub use authenticate::Authenticators;
use authenticate::Claim;
pub use context::{ConsoleRole, ContextError, InForce, LoginContext};
pub use error::LoginError;

/// Who came in.
#[derive(Debug)]
pub enum Arrival {
    /// A cancel request.
    Cancel {
        /// Process id that pgimbal gave to the session whose query is to be cancelled.
        process_id: u32,
        /// The secret key that it gave with it, 4 to 256 bytes.
        key: Box<[u8]>,
        /// The connection. Clients wait for its end, which says that the request was delivered.
        transport: Transport,
    },
    /// A session.
    Client(Box<Authenticated>),
}

/// A client that has proved who it is.
#[derive(Debug)]
pub struct Authenticated {
    /// The connection.
    pub transport: Transport,
    /// The user's name.
    pub user: Box<str>,
    /// The database's name as the client gave it; the user's name when it gave none.
    pub database: Box<str>,
    /// Settings asked for at startup, those of `options` first, so that the last one of a name
    /// counts, as in PostgreSQL. `user`, `database`, `options`, `replication` and protocol options
    /// are not among them.
    pub parameters: Vec<Setting>,
    /// The version agreed on.
    pub version: ProtocolVersion,
    /// Messages not yet sent, AuthenticationOk last: they leave in one write with what the session
    /// begins with (ParameterStatus, BackendKeyData, ReadyForQuery).
    pub pending_output: Vec<u8>,
    /// Bytes read beyond the last message of the login.
    pub residual: Vec<u8>,
    /// What the client may do on the console; `None` when the database is not the console's.
    pub console: Option<ConsoleRole>,
    /// Counts the client among those that have shown this generation of their password.
    pub generation: Option<Counted>,
}

/// Reads the header of the PROXY protocol from a load balancer's connection: for whom it speaks is
/// the peer from then on. As with [`accept`], whoever sent none has been told. It is waited for as
/// long as `patience` lasts.
///
/// # Errors
/// [`LoginError`] when there is none.
pub async fn unwrap(
    mut socket: Socket,
    peer: Peer,
    patience: Duration,
) -> Result<(Socket, Peer), LoginError> {
    let named = timeout(patience, proxied::read(&mut socket)).await;
    match named.unwrap_or(Err(LoginError::Silent)) {
        Ok(named) => Ok((socket, named.map_or(peer, Peer::Tcp))),
        Err(error) => {
            let conversation = Conversation::new(Transport::Plain(socket));
            Err(refuse(Some(conversation), error).await)
        }
    }
}

/// Takes one client from its first byte to a session. When this returns an error, the client has
/// been told and the connection is closed. The future is large: box it.
///
/// # Errors
/// [`LoginError`] when there is no session.
pub async fn accept(
    socket: Socket,
    peer: Peer,
    authenticators: Authenticators<'_>,
) -> Result<Arrival, LoginError> {
    let greeter = authenticators.in_force.now();
    let patience = greeter.config().clients.first_packet_timeout;
    let opened = timeout(patience, Box::pin(open(socket, peer, &greeter))).await;
    let (mut conversation, opening) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err((conversation, error))) => return Err(refuse(conversation, error).await),
        // Closed without a word, as PostgreSQL does.
        Err(_) => return Err(LoginError::Silent),
    };
    let admitted = match opening {
        request::Opening::Cancel { process_id, key } => Ok(Admitted::Cancel { process_id, key }),
        request::Opening::Startup(request) => {
            log_in(&mut conversation, request, peer, &greeter, authenticators).await
        }
    };
    let (process_id, key) = match admitted {
        Ok(Admitted::Client(client)) => {
            let Conversation { transport, inbox, outbox } = conversation;
            return Ok(Arrival::Client(Box::new(Authenticated {
                transport,
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
    Ok(Arrival::Cancel { process_id, key, transport: conversation.transport })
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

/// Settles encryption and reads what the client asks for.
async fn open(
    socket: Socket,
    peer: Peer,
    greeter: &LoginContext,
) -> Result<(Conversation, request::Opening), (Option<Conversation>, LoginError)> {
    let mut conversation = greeting::greet(socket, peer, greeter).await?;
    match request::read(&mut conversation).await {
        Ok(opening) => Ok((conversation, opening)),
        Err(error) => Err((Some(conversation), error)),
    }
}

/// Everything after the request is known: the proof, and only then what depends on
/// who it is, so that nobody learns from a refusal which users and databases exist.
/// `greeter` is the context that TLS was settled with.
async fn log_in(
    conversation: &mut Conversation,
    request: request::Request,
    peer: Peer,
    greeter: &LoginContext,
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
        authenticate::authenticate(conversation, claim, greeter, authenticators).await?;
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

/// Tells the client, closes the connection, and hands the error on.
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
