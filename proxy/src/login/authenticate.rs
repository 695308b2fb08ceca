//! The authentication exchange with a client.

use pgimbal_auth::Channel;
use pgimbal_auth::account::Account;
use pgimbal_auth::client_login::{
    Accepted, Answer, ClientLogin, ClientRequest, LoginRandomness, Step, UnmatchedProof,
};
use pgimbal_auth::scram::server::Offer;
use pgimbal_wire::authentication::{
    AuthRequest, MAX_AUTH_MESSAGE, MAX_SASL_MESSAGE, Mechanisms, SaslInitial, parse_password,
};
use pgimbal_wire::tag::frontend;
use rand::RngCore;

use super::context::{CurrentLoginContext, LoginContext};
use super::error::LoginError;
use crate::credentials::{Counted, CredentialManager, Unavailable, Unproven};
use crate::dial::Target;
use crate::pending_logins::Peer;
use crate::transport::{Conversation, Transport};

/// The configuration and passwords by which the logins of clients are checked. A worker makes one
/// for each login.
#[derive(Clone, Copy)]
pub struct Authenticators<'a> {
    /// The configuration in force.
    pub in_force: &'a CurrentLoginContext,
    /// The passwords that rotate; they are looked up before those of the configuration.
    pub credentials: &'a CredentialManager,
    /// Finds the server for a user (first) of a database (second): an older password that the
    /// client has proved to know is tried there. `None` when there is no such server; the client is
    /// then refused.
    pub server_of: &'a dyn Fn(&str, &str) -> Option<Target>,
}

impl std::fmt::Debug for Authenticators<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticators").field("in_force", self.in_force).finish_non_exhaustive()
    }
}

/// Who a client says it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim<'a> {
    pub(crate) user: &'a str,
    pub(crate) database: &'a str,
    pub(crate) peer: Peer,
}

/// Returns when the client is who it says. The last message of an exchange stays in the outbox.
/// `tls_context` has the certificate that the client has seen; what the client shows is checked by
/// the context that is in force when it comes.
pub(super) async fn authenticate(
    conversation: &mut Conversation,
    claim: Claim<'_>,
    tls_context: &LoginContext,
    authenticators: Authenticators<'_>,
) -> Result<Option<Counted>, LoginError> {
    let (user, Authenticators { in_force, credentials, .. }) = (claim.user, authenticators);
    let channel = match &conversation.transport {
        Transport::Plain(_) | Transport::TlsClient(_) => Channel::Plain,
        Transport::TlsServer(_) => {
            Channel::Tls { end_point: tls_context.tls().and_then(|tls| tls.end_point()) }
        }
    };
    let context = in_force.now();
    let rotating = credentials.account(user);
    let account = rotating.as_deref().or(context.fixed(user));
    let mut step = context.begin(user, account, credentials.rotates(), channel, login_randomness());
    drop((context, rotating));
    loop {
        let (login, request) = match step {
            Step::Accepted(accepted) => {
                return Ok(enter(accepted, user, conversation, credentials));
            }
            Step::Unmatched(unmatched) => {
                let accepted = Box::pin(check_again(claim, unmatched, authenticators)).await?;
                return Ok(enter(accepted, user, conversation, credentials));
            }
            Step::Request(login, request) => (login, request),
        };
        encode_request(&request, &mut conversation.outbox);
        conversation.send().await?;
        let (tag, total) = conversation.message(longest_answer(&request)).await?;
        if tag != frontend::PASSWORD {
            return Err(LoginError::UnexpectedMessage(tag));
        }
        let (context, rotating) = (in_force.now(), credentials.account(user));
        let account = rotating.as_deref().or(context.fixed(user));
        let login = derive(login, &request, conversation.body(total), account, credentials).await;
        step = check(login, &request, conversation.body(total), account)?;
        conversation.consume(total);
    }
}

/// A proof that fits no password is checked again by newer ones before the client is refused.
async fn check_again(
    claim: Claim<'_>,
    unmatched: UnmatchedProof,
    authenticators: Authenticators<'_>,
) -> Result<Accepted, LoginError> {
    let (user, Authenticators { in_force, credentials, server_of }) = (claim.user, authenticators);
    if !credentials.rotates() {
        return Err(unmatched.error().into());
    }
    let server = || server_of(user, claim.database);
    let address = claim.peer.subnet();
    let unproven = match credentials.check_again(user, address, &unmatched, server).await {
        Ok(accepted) => return Ok(accepted),
        Err(Unproven::Unavailable(Unavailable { cause })) => {
            return Err(LoginError::Unavailable { user: user.into(), cause });
        }
        Err(unproven) => unproven,
    };
    let (context, rotating) = (in_force.now(), credentials.account(user));
    let account = rotating.as_deref().or(context.fixed(user));
    match unmatched.retry(account) {
        Err(_) if unproven == Unproven::NotFetched => Err(LoginError::SourceLimited(user.into())),
        checked => Ok(checked?),
    }
}

/// The client is who it says; it is counted as one of the generation that it has shown.
fn enter(
    accepted: Accepted,
    user: &str,
    conversation: &mut Conversation,
    credentials: &CredentialManager,
) -> Option<Counted> {
    if let Some(last) = accepted.message {
        AuthRequest::SaslFinal(last.as_bytes()).encode(&mut conversation.outbox);
    }
    credentials.logged_in(user, accepted.matched?)
}

fn encode_request(request: &ClientRequest, out: &mut Vec<u8>) {
    let request = match request {
        ClientRequest::Cleartext => AuthRequest::CleartextPassword,
        ClientRequest::Md5(salt) => AuthRequest::Md5Password(*salt),
        ClientRequest::Sasl(Offer::Scram) => AuthRequest::Sasl(Mechanisms::SCRAM),
        ClientRequest::Sasl(Offer::ScramAndPlus) => AuthRequest::Sasl(Mechanisms::SCRAM_AND_PLUS),
        ClientRequest::SaslContinue(challenge) => AuthRequest::SaslContinue(challenge.as_bytes()),
    };
    request.encode(out);
}

/// Limit of the client's next message in bytes, because clients that are not logged in choose its
/// length.
const fn longest_answer(request: &ClientRequest) -> usize {
    match request {
        ClientRequest::Cleartext | ClientRequest::Md5(_) => MAX_AUTH_MESSAGE,
        ClientRequest::Sasl(_) | ClientRequest::SaslContinue(_) => MAX_SASL_MESSAGE,
    }
}

/// Runs the key derivation that checking a password needs, on a blocking thread.
async fn derive<'a>(
    login: ClientLogin<'a>,
    request: &ClientRequest,
    body: &[u8],
    account: Option<&Account>,
    credentials: &CredentialManager,
) -> ClientLogin<'a> {
    let password =
        (*request == ClientRequest::Cleartext).then(|| parse_password(body).ok()).flatten();
    match password.and_then(|password| login.derivation(password, account)) {
        Some(due) => {
            let derivations = credentials.derivations();
            login.derived(derivations.run(due.iterations(), || due.run()).await)
        }
        None => login,
    }
}

fn check<'a>(
    login: ClientLogin<'a>,
    request: &ClientRequest,
    body: &[u8],
    account: Option<&Account>,
) -> Result<Step<'a>, LoginError> {
    let malformed = |_| LoginError::MalformedAnswer;
    let answer = match request {
        ClientRequest::Cleartext | ClientRequest::Md5(_) => {
            Answer::Password(parse_password(body).map_err(malformed)?)
        }
        ClientRequest::Sasl(_) => {
            let initial = SaslInitial::parse(body).map_err(malformed)?;
            let response = initial.response.ok_or(LoginError::MalformedAnswer)?;
            Answer::SaslInitial { mechanism: initial.mechanism, response }
        }
        ClientRequest::SaslContinue(_) => Answer::SaslResponse(body),
    };
    Ok(login.answer(answer, account)?)
}

/// Random bytes of the thread's cryptographic generator, which seldom asks the kernel.
fn login_randomness() -> LoginRandomness {
    let mut randomness = LoginRandomness { nonce: [0; _], md5_salt: [0; _] };
    let mut random = rand::rng();
    random.fill_bytes(&mut randomness.nonce);
    random.fill_bytes(&mut randomness.md5_salt);
    randomness
}
