//! The authentication exchange with a client.

use pgimbal_auth::Channel;
use pgimbal_auth::account::Account;
use pgimbal_auth::client_login::{Accepted, Answer, Ask, ClientLogin, Fresh, Step};
use pgimbal_auth::scram::server::Offer;
use pgimbal_wire::authentication::{
    AuthRequest, MAX_AUTH_MESSAGE, MAX_SASL_MESSAGE, Mechanisms, SaslInitial, parse_password,
};
use pgimbal_wire::tag::frontend;
use rand::RngCore;

use super::{Authenticators, Claim, LoginContext, LoginError};
use crate::credentials::{Counted, CredentialManager};
use crate::transport::{Conversation, Transport};

/// Runs the exchange until the client is authenticated. Its last message stays in the outbox.
/// `greeter` holds the certificate that the client has seen; answers are checked by the context in
/// force when they arrive.
pub(super) async fn authenticate(
    conversation: &mut Conversation,
    claim: Claim<'_>,
    greeter: &LoginContext,
    authenticators: Authenticators<'_>,
) -> Result<Option<Counted>, LoginError> {
    let (user, Authenticators { in_force, keeper, .. }) = (claim.user, authenticators);
    let channel = match &conversation.transport {
        Transport::Plain(_) | Transport::TlsClient(_) => Channel::Plain,
        Transport::TlsServer(_) => {
            Channel::Tls { end_point: greeter.tls().and_then(|tls| tls.end_point()) }
        }
    };
    let context = in_force.now();
    let rotating = keeper.account(user);
    let account = rotating.as_deref().or(context.fixed(user));
    let mut step = context.begin(user, account, keeper.rotates(), channel, fresh());
    drop((context, rotating));
    loop {
        let (login, ask) = match step {
            Step::Accepted(accepted) => return Ok(enter(accepted, user, conversation, keeper)),
            Step::Mismatch(mismatch) => {
                let accepted =
                    Box::pin(keeper.check_again(claim, mismatch, authenticators)).await?;
                return Ok(enter(accepted, user, conversation, keeper));
            }
            Step::Ask(login, ask) => (login, ask),
        };
        encode_ask(&ask, &mut conversation.outbox);
        conversation.send().await?;
        let (tag, total) = conversation.message(longest_answer(&ask)).await?;
        if tag != frontend::PASSWORD {
            return Err(LoginError::UnexpectedMessage(tag));
        }
        let (context, rotating) = (in_force.now(), keeper.account(user));
        let account = rotating.as_deref().or(context.fixed(user));
        let login = derive(login, &ask, conversation.body(total), account, keeper).await;
        step = check(login, &ask, conversation.body(total), account)?;
        conversation.consume(total);
    }
}

/// Queues the last message of the exchange, and counts the client for the generation of the
/// password that it has shown.
fn enter(
    accepted: Accepted,
    user: &str,
    conversation: &mut Conversation,
    keeper: &CredentialManager,
) -> Option<Counted> {
    if let Some(last) = accepted.message {
        AuthRequest::SaslFinal(last.as_bytes()).encode(&mut conversation.outbox);
    }
    keeper.logged_in(user, accepted.matched?)
}

fn encode_ask(ask: &Ask, out: &mut Vec<u8>) {
    let request = match ask {
        Ask::Cleartext => AuthRequest::CleartextPassword,
        Ask::Md5(salt) => AuthRequest::Md5Password(*salt),
        Ask::Sasl(Offer::Scram) => AuthRequest::Sasl(Mechanisms::SCRAM),
        Ask::Sasl(Offer::ScramAndPlus) => AuthRequest::Sasl(Mechanisms::SCRAM_AND_PLUS),
        Ask::SaslContinue(challenge) => AuthRequest::SaslContinue(challenge.as_bytes()),
    };
    request.encode(out);
}

/// Limit of the client's next message in bytes, because clients that are not logged in choose its
/// length.
const fn longest_answer(ask: &Ask) -> usize {
    match ask {
        Ask::Cleartext | Ask::Md5(_) => MAX_AUTH_MESSAGE,
        Ask::Sasl(_) | Ask::SaslContinue(_) => MAX_SASL_MESSAGE,
    }
}

/// Runs the key derivation that checking a password needs, on a blocking thread.
async fn derive<'a>(
    login: ClientLogin<'a>,
    ask: &Ask,
    body: &[u8],
    account: Option<&Account>,
    keeper: &CredentialManager,
) -> ClientLogin<'a> {
    let password = (*ask == Ask::Cleartext).then(|| parse_password(body).ok()).flatten();
    match password.and_then(|password| login.derivation(password, account)) {
        Some(due) => {
            let derivations = keeper.derivations();
            login.derived(derivations.run(due.iterations(), || due.run()).await)
        }
        None => login,
    }
}

fn check<'a>(
    login: ClientLogin<'a>,
    ask: &Ask,
    body: &[u8],
    account: Option<&Account>,
) -> Result<Step<'a>, LoginError> {
    let malformed = |_| LoginError::MalformedAnswer;
    let answer = match ask {
        Ask::Cleartext | Ask::Md5(_) => Answer::Password(parse_password(body).map_err(malformed)?),
        Ask::Sasl(_) => {
            let initial = SaslInitial::parse(body).map_err(malformed)?;
            let response = initial.response.ok_or(LoginError::MalformedAnswer)?;
            Answer::SaslInitial { mechanism: initial.mechanism, response }
        }
        Ask::SaslContinue(_) => Answer::SaslResponse(body),
    };
    Ok(login.answer(answer, account)?)
}

/// Random bytes of the thread's cryptographic generator, which seldom asks the kernel.
fn fresh() -> Fresh {
    let mut fresh = Fresh { nonce: [0; _], md5_salt: [0; _] };
    let mut random = rand::rng();
    random.fill_bytes(&mut fresh.nonce);
    random.fill_bytes(&mut fresh.md5_salt);
    fresh
}
