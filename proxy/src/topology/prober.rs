//! The prober of one node: a task with one connection, which is kept open, and one probe at a time.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgimbal_pooler::topology::{NodeId, ProbeFailure, ProbeScope};
use pgimbal_wire::error::SqlState;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::probe::{self, ProbeFault, ProbeReply};
use crate::credentials::CredentialManager;
use crate::dial::{DialError, DialFault, Target};
use crate::transport::{Broken, Conversation};

/// An order to probe the node.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// The node, and how to log in there.
    pub(super) target: Arc<Target>,
    /// Time limit of the probe, a dial included.
    pub(super) limit: Duration,
    /// Time at which the watcher sent the order.
    pub(super) sent_at: Instant,
    /// What is asked.
    pub(super) scope: ProbeScope,
}

/// A connection that is kept open.
struct Open {
    conversation: Conversation,
    /// The last answer on it.
    known: Option<ProbeReply>,
}

/// A prober's message to the watcher.
#[derive(Debug)]
pub(super) enum ProberMessage {
    /// The answer to the order that was sent at this time.
    ProbeReply(NodeId, Instant, ProbeReply),
    /// A probe without an answer.
    Failure(NodeId, ProbeFailure),
    /// The idle connection broke.
    Broke(NodeId),
}

/// Probes a node as ordered, until the watcher has dropped the channel.
pub(super) async fn run(
    node: NodeId,
    credentials: CredentialManager,
    mut questions: mpsc::Receiver<Question>,
    said: mpsc::Sender<ProberMessage>,
) {
    let mut open: Option<Open> = None;
    loop {
        let question = tokio::select! {
            question = questions.recv() => question,
            () = broken(&mut open) => {
                open = None;
                let _ = said.send(ProberMessage::Broke(node)).await;
                continue;
            }
        };
        let Some(Question { target, limit, sent_at, scope }) = question else { return };
        let word = match timeout(limit, ask(&mut open, &target, &credentials, scope)).await {
            Ok(Ok(answer)) => ProberMessage::ProbeReply(node, sent_at, answer),
            Ok(Err(failure)) => ProberMessage::Failure(node, failure),
            Err(_) => {
                open = None;
                ProberMessage::Failure(node, ProbeFailure::TimedOut)
            }
        };
        if said.send(word).await.is_err() {
            return;
        }
    }
}

/// Waits for the end of an idle connection. Bytes that arrive meanwhile are kept for the next
/// probe.
async fn broken(open: &mut Option<Open>) {
    let Some(Open { conversation: Conversation { transport, inbox, .. }, .. }) = open else {
        return std::future::pending().await;
    };
    let mut bytes = [0; 512];
    loop {
        match poll_fn(|cx| transport.poll_read(cx, &mut bytes)).await {
            Ok(0) | Err(_) => return,
            Ok(count) => inbox.extend_from_slice(&bytes[..count]),
        }
    }
}

/// Probes over the open connection, or over a new one when that has broken, because the node itself
/// may be well.
async fn ask(
    open: &mut Option<Open>,
    target: &Target,
    credentials: &CredentialManager,
    scope: ProbeScope,
) -> Result<ProbeReply, ProbeFailure> {
    if let Some(Open { mut conversation, known }) = open.take() {
        match ask_again(&mut conversation, known.filter(|_| scope == ProbeScope::Position)).await {
            Ok(answer) => {
                *open = Some(Open { conversation, known: Some(answer) });
                return Ok(answer);
            }
            Err(fault) if fault.leaves_connection() => {
                *open = Some(Open { conversation, known: None });
                return Err(failure_of(fault));
            }
            Err(ProbeFault::Malformed(what)) => return Err(ProbeFailure::Malformed(what.into())),
            Err(_) => {}
        }
    }
    let mut conversation = dial(target, credentials).await?;
    match probe::ask_all(&mut conversation).await {
        Ok(answer) => {
            *open = Some(Open { conversation, known: Some(answer) });
            Ok(answer)
        }
        Err(fault) => {
            if fault.leaves_connection() {
                *open = Some(Open { conversation, known: None });
            }
            Err(failure_of(fault))
        }
    }
}

/// Asks what may have changed where the rest is known, or else everything.
async fn ask_again(
    conversation: &mut Conversation,
    known: Option<ProbeReply>,
) -> Result<ProbeReply, ProbeFault> {
    if let Some(known) = known
        && let Some(answer) = probe::ask_position(conversation, &known).await?
    {
        return Ok(answer);
    }
    probe::ask_all(conversation).await
}

async fn dial(
    target: &Target,
    credentials: &CredentialManager,
) -> Result<Conversation, ProbeFailure> {
    let place = format!("{}:{}", target.host, target.port);
    // A password that is waited for must not look like a node that is down.
    let patience = target.connect_timeout / 4;
    let dialed = Box::pin(credentials.dial_at_once(target, &place, patience)).await;
    let dialed = dialed.map_err(|error| dial_failure(&error))?;
    let mut conversation = Conversation::new(dialed.transport);
    conversation.inbox = dialed.residual;
    Ok(conversation)
}

fn failure_of(fault: ProbeFault) -> ProbeFailure {
    match fault {
        ProbeFault::Broken(Broken::Io(error)) => ProbeFailure::Broke(error.to_string().into()),
        ProbeFault::Broken(_) => ProbeFailure::Broke("the server closed the connection".into()),
        ProbeFault::Malformed(what) => ProbeFailure::Malformed(what.into()),
        ProbeFault::Server { code, .. } => server_failure(code),
    }
}

/// The meaning of a failed dial for the node's state: not accepting (57P03, 57P01, 57P02), refused
/// by a server that lives (a wrong or missing password, most other errors), timed out, or
/// unreachable for every other fault, those of TLS included.
pub(super) fn dial_failure(error: &DialError) -> ProbeFailure {
    match error.fault() {
        DialFault::Timeout(_) => ProbeFailure::TimedOut,
        DialFault::Server(_) => server_failure(error.sqlstate()),
        // It asked for a password that cannot be given: it lives.
        DialFault::Login(_)
        | DialFault::NoPasswordWorks { .. }
        | DialFault::UnknownPassword { .. } => ProbeFailure::ProbeRefused(error.sqlstate()),
        fault => ProbeFailure::Unreachable(fault.to_string().into()),
    }
}

fn server_failure(code: SqlState) -> ProbeFailure {
    match code {
        SqlState::CANNOT_CONNECT_NOW | SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN => {
            ProbeFailure::NotAccepting(code)
        }
        code if code.as_str() == "55000" => ProbeFailure::ChangedRole,
        code => ProbeFailure::ProbeRefused(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failover_what_a_server_says_when_it_refuses() {
        let state = |code: &[u8]| SqlState::new(code).expect("a code");
        for code in [b"57P03", b"57P01", b"57P02"] {
            assert_eq!(server_failure(state(code)), ProbeFailure::NotAccepting(state(code)));
        }
        for code in [b"28P01", b"53300", b"3D000", b"28000", b"42501"] {
            assert_eq!(server_failure(state(code)), ProbeFailure::ProbeRefused(state(code)));
        }
        assert_eq!(server_failure(state(b"55000")), ProbeFailure::ChangedRole);
    }
}
