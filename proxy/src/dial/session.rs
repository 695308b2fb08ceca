//! The login at a server, from StartupMessage to ReadyForQuery.

use pgimbal_auth::Channel;
use pgimbal_auth::scram::{MECHANISM_PLUS, NONCE_LEN};
use pgimbal_auth::server_login::{AllowedAuth, Reply, Request, ServerLogin};
use pgimbal_config::{ChannelBinding, Host};
use pgimbal_wire::authentication::{self, AuthRequest, MAX_AUTH_MESSAGE, SaslInitial};
use pgimbal_wire::encode;
use pgimbal_wire::startup::{CANCEL_KEY_LEN, ProtocolVersion};
use pgimbal_wire::tag::backend;
use rand::RngCore;

use super::{Address, CancelKey, DialFault, Dialed, Target};
use crate::tls::end_point;
use crate::transport::{Conversation, Setting, Transport};

/// Limit of reported settings; PostgreSQL 18 reports 15, and extensions add a few.
const MAX_PARAMETERS: usize = 256;

/// Limit of messages between AuthenticationOk and ReadyForQuery; login triggers may send notices.
const MAX_MESSAGES: usize = 10_000;

/// Logs in over a transport on which nothing was sent yet. The session begins with the database's
/// own `options` and no settings of a client, so that it suits every client.
pub(super) async fn start(
    target: &Target,
    address: Address,
    transport: Transport,
) -> Result<Dialed, DialFault> {
    let bound = match &transport {
        Transport::TlsClient(tls) if target.channel_binding != ChannelBinding::Disable => {
            let certificates = tls.get_ref().1.peer_certificates().unwrap_or_default();
            certificates.first().and_then(end_point)
        }
        _ => None,
    };
    let mut conversation = Conversation::new(transport);
    let mut parameters: Vec<(&[u8], &[u8])> =
        vec![(b"user", target.user.as_bytes()), (b"database", target.database.as_bytes())];
    parameters.extend(target.options.as_ref().map(|text| (&b"options"[..], text.as_bytes())));
    encode::startup(&mut conversation.outbox, ProtocolVersion::V3_0, parameters);
    prove(target, &mut conversation, bound.as_deref()).await?;
    let welcome = welcome(&mut conversation).await?;
    let Conversation { transport, inbox, .. } = conversation;
    Ok(Dialed {
        transport,
        cancel: welcome.cancel,
        parameters: welcome.parameters,
        address,
        tls_fallback: None,
        tls_check: None,
        // An idle connection holds no buffer.
        residual: if inbox.is_empty() { Vec::new() } else { inbox },
    })
}

/// Answers the server's authentication requests until AuthenticationOk.
async fn prove(
    target: &Target,
    conversation: &mut Conversation,
    end_point: Option<&[u8]>,
) -> Result<(), DialFault> {
    let channel = match conversation.transport {
        Transport::TlsClient(_) => Channel::Tls { end_point },
        _ => Channel::Plain,
    };
    let mut nonce = [0; NONCE_LEN];
    rand::rng().fill_bytes(&mut nonce);
    let password = target.password.as_ref();
    let mut is_bound = target.channel_binding != ChannelBinding::Require;
    let is_private = match conversation.transport {
        Transport::TlsClient(_) => target.tls.verifies(),
        _ => matches!(target.host, Host::Unix(_)),
    };
    let allowed = AllowedAuth { methods: target.require_auth, is_private };
    let mut login = ServerLogin::new(&target.user, password, channel, allowed, nonce);
    loop {
        if !conversation.outbox.is_empty() {
            conversation.send().await.map_err(DialFault::Io)?;
        }
        let (tag, total) = conversation.message(MAX_AUTH_MESSAGE).await?;
        let body = conversation.body(total);
        let reply = match tag {
            backend::AUTHENTICATION => {
                let request = AuthRequest::parse(body)
                    .map_err(|_| DialFault::Protocol("a malformed authentication request"))?;
                answer(&mut login, &request)?
            }
            backend::ERROR_RESPONSE => return Err(DialFault::refused(body)),
            backend::NOTICE_RESPONSE => Reply::Wait,
            backend::NEGOTIATE_PROTOCOL_VERSION => {
                return Err(DialFault::Protocol("protocol 3.0 is not accepted"));
            }
            _ => return Err(DialFault::Protocol("an unexpected message during authentication")),
        };
        conversation.consume(total);
        is_bound |=
            matches!(&reply, Reply::SaslInitial { mechanism, .. } if *mechanism == MECHANISM_PLUS);
        // Before anything is answered: what is in between must not get a password, or a session.
        if !is_bound && !matches!(reply, Reply::Wait) {
            return Err(DialFault::NoChannelBinding);
        }
        let reply = match reply {
            Reply::Prove(proof) => {
                let computed = target.derivations.run(proof.iterations(), || proof.run()).await;
                login.handle_proof(computed)?
            }
            reply => reply,
        };
        let out = &mut conversation.outbox;
        match reply {
            Reply::Done => return Ok(()),
            Reply::Wait | Reply::Prove(_) => {}
            Reply::Password(password) => authentication::password(out, &password),
            Reply::SaslInitial { mechanism, response } => {
                let mechanism = mechanism.as_bytes();
                SaslInitial { mechanism, response: Some(&response) }.encode(out);
            }
            Reply::SaslResponse(response) => authentication::sasl_response(out, &response),
        }
    }
}

fn answer(login: &mut ServerLogin<'_>, request: &AuthRequest<'_>) -> Result<Reply, DialFault> {
    let offered: Vec<&[u8]> = match request {
        AuthRequest::Sasl(mechanisms) => mechanisms.iter().collect(),
        _ => Vec::new(),
    };
    Ok(login.answer(match request {
        AuthRequest::Ok => Request::Ok,
        AuthRequest::CleartextPassword => Request::Cleartext,
        AuthRequest::Md5Password(salt) => Request::Md5(*salt),
        AuthRequest::Sasl(_) => Request::Sasl(&offered),
        AuthRequest::SaslContinue(challenge) => Request::SaslContinue(challenge),
        AuthRequest::SaslFinal(last) => Request::SaslFinal(last),
        AuthRequest::Unsupported(method) => Request::Unsupported(*method),
    })?)
}

/// The data that a server sends between AuthenticationOk and ReadyForQuery.
#[derive(Default)]
struct Welcome {
    cancel: Option<CancelKey>,
    parameters: Vec<Setting>,
}

async fn welcome(conversation: &mut Conversation) -> Result<Welcome, DialFault> {
    let mut welcome = Welcome::default();
    for _ in 0..MAX_MESSAGES {
        let (tag, total) = conversation.message(MAX_AUTH_MESSAGE).await?;
        let body = conversation.body(total);
        match tag {
            backend::PARAMETER_STATUS => welcome.remember(body)?,
            backend::BACKEND_KEY_DATA => welcome.cancel = Some(cancel_key(body)?),
            backend::NOTICE_RESPONSE => {}
            backend::ERROR_RESPONSE => return Err(DialFault::refused(body)),
            backend::READY_FOR_QUERY if body == b"I" => {
                conversation.consume(total);
                return Ok(welcome);
            }
            _ => return Err(DialFault::Protocol("an unexpected message after authentication")),
        }
        conversation.consume(total);
    }
    Err(DialFault::Protocol("too many messages before ReadyForQuery"))
}

impl Welcome {
    fn remember(&mut self, body: &[u8]) -> Result<(), DialFault> {
        const MALFORMED: DialFault = DialFault::Protocol("a malformed ParameterStatus");
        let mut parts = body.split(|byte| *byte == 0);
        let (Some(name), Some(value), Some(b""), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(MALFORMED);
        };
        match self.parameters.iter().position(|(known, _)| **known == *name) {
            Some(index) => self.parameters[index].1 = value.into(),
            None if self.parameters.len() == MAX_PARAMETERS => {
                return Err(DialFault::Protocol("too many settings reported"));
            }
            None => self.parameters.push((name.into(), value.into())),
        }
        Ok(())
    }
}

fn cancel_key(body: &[u8]) -> Result<CancelKey, DialFault> {
    let (process_id, key) = body
        .split_first_chunk::<4>()
        .filter(|(_, key)| CANCEL_KEY_LEN.contains(&key.len()))
        .ok_or(DialFault::Protocol("a malformed BackendKeyData"))?;
    Ok(CancelKey { process_id: u32::from_be_bytes(*process_id), key: key.into() })
}
