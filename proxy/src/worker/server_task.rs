//! Tasks for server connections that no client drives: opening, closing, cancelling.

use std::future::poll_fn;
use std::io::IoSlice;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use pgimbal_pooler::cluster::DialedNode;
use pgimbal_pooler::ids::ServerId;
use pgimbal_pooler::server::BackendKey;
use pgimbal_pooler::server::life::{DialFailure, Dialed};
use pgimbal_pooler::topology::NodeId;
use pgimbal_wire::encode;
use pgimbal_wire::error::Severity;
use pgimbal_wire::frame::HEADER_LEN;

use super::actions::run_actions;
use super::pools;
use super::servers::{ServerIo, ServerSocket};
use super::shared::Worker;
use crate::budget::limits;
use crate::credentials::Counted;
use crate::dial::{self, DialError};
use crate::topology::probe;
use crate::transport::{Conversation, Transport};

/// Limit of the time in which a backend ends after Terminate. One that is busy is sent a cancel
/// request first; one that still does not end is left to the server, and its place is given back.
const CLOSE_TIME: Duration = Duration::from_secs(10);

/// Opens server connection `id` as the core has ordered, in a task of its own: connects, logs in,
/// and asks a cluster's node for its role. The core is told the outcome; a failure is logged, and
/// its ErrorResponse goes to waiting clients.
pub(super) fn dial(worker: &Rc<Worker>, id: ServerId) {
    let state = worker.state();
    let pool = state.pooler.server(id).map(|server| server.pool());
    let Some(target) = pool.and_then(|pool| pools::target(&state, pool)) else { return };
    let node = state.pooler.destination(id).cloned();
    let budget = state.pooler.budget_of(id);
    drop(state);
    let target = match &node {
        Some(node) => Arc::new(target.at(node.host.clone(), node.port)),
        None => target,
    };
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        let place = format!("{}:{}", target.host, target.port);
        let result = Box::pin(worker.common().credentials.dial(&target, &place)).await;
        let result = match (result, node) {
            (Ok((dialed, generation)), Some(node)) => {
                let found = Box::pin(locate(&target, dialed, node.id)).await;
                found.map(|(dialed, found)| (dialed, found, generation))
            }
            (result, _) => result.map(|(dialed, generation)| (dialed, None, generation)),
        };
        let result = match (result, budget) {
            (Ok((dialed, found, generation)), Some(budget)) => {
                let dialed = Box::pin(limits::learn(&target, dialed, &budget)).await;
                dialed.map(|dialed| (dialed, found, generation))
            }
            (result, _) => result,
        };
        dial_ended(&worker, id, target, result);
    });
}

fn dial_ended(
    worker: &Rc<Worker>,
    id: ServerId,
    target: Arc<dial::Target>,
    result: Result<(dial::Dialed, Option<DialedNode>, Option<Counted>), DialError>,
) {
    let now = Instant::now();
    let mut state = worker.state_mut();
    match result {
        Ok((dialed, found, generation)) => {
            let dial::Dialed { transport, cancel, parameters, address, residual, .. } = dialed;
            let backend_key = cancel.as_ref().map_or_else(BackendKey::default, |cancel| {
                BackendKey { process_id: cancel.process_id, secret: cancel.key.clone() }
            });
            tracing::debug!(%address, process_id = backend_key.process_id, "server connection opened");
            let socket = ServerSocket { transport, address, target, cancel, generation };
            state.servers.insert(id, ServerIo::new(socket, residual));
            state.pooler.handle_dialed(id, Dialed { backend_key, parameters, found }, now);
        }
        Err(error) => {
            tracing::warn!(
                sqlstate = error.sqlstate().as_str(),
                "cannot open a server connection: {error}"
            );
            let mut message = Vec::new();
            error.encode(Severity::Error, &mut message);
            let body = message.get(HEADER_LEN..).unwrap_or_default();
            let failure = match error.is_unreachable() {
                true => DialFailure::Unreachable,
                false => DialFailure::Refused,
            };
            state.pooler.handle_dial_failed(id, body.into(), failure, now);
        }
    }
    drop(state);
    run_actions(worker);
}

/// Closes server connection `id` in a task of its own: sends Terminate, waits for the server's end
/// for at most 10 s, and then tells the core, which gives its place in the pool back.
pub(super) fn close(worker: &Rc<Worker>, id: ServerId) {
    let io = worker.state_mut().servers.take(id);
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        if let Some(io) = io {
            // In time or not, the place is given back.
            let _ = tokio::time::timeout(CLOSE_TIME, terminate(io.into_socket().transport)).await;
        }
        worker.state_mut().pooler.handle_closed(id, Instant::now());
        run_actions(&worker);
    });
}

/// Sends a CancelRequest for what server connection `id` runs, over a new connection in a task of
/// its own. Without a key nothing is sent. The core is told when it has ended; a failure is logged.
pub(super) fn send_cancel(worker: &Rc<Worker>, id: ServerId) {
    let request = worker.state_mut().servers.get(id).and_then(|io| io.cancel_request());
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        if let Some((target, address, key)) = request
            && let Err(error) = Box::pin(dial::send_cancel(&target, &address, &key)).await
        {
            tracing::warn!("a cancel request was not delivered: {error}");
        }
        {
            let mut state = worker.state_mut();
            state.cancels.sent(id);
            state.pooler.handle_cancel_ended(id, Instant::now());
        }
        run_actions(&worker);
    });
}

/// Asks a server connection that was opened for a cluster for its role, timeline and system
/// identifier: a name may lead to another node than expected. Takes at most the connect timeout.
async fn locate(
    target: &dial::Target,
    dialed: dial::Dialed,
    node: NodeId,
) -> Result<(dial::Dialed, Option<DialedNode>), DialError> {
    let dial::Dialed { transport, cancel, parameters, address, residual, .. } = dialed;
    let mut conversation = Conversation::new(transport);
    conversation.inbox = residual;
    let asked = tokio::time::timeout(target.connect_timeout, probe::ask(&mut conversation)).await;
    let report = match asked {
        Ok(Ok(report)) => report,
        Ok(Err(fault)) => return Err(DialError::wrong_node(target, &address, fault.to_string())),
        Err(_) => {
            return Err(DialError::wrong_node(target, &address, "no answer in time".to_owned()));
        }
    };
    let Conversation { transport, inbox, .. } = conversation;
    let residual = if inbox.is_empty() { Vec::new() } else { inbox };
    let dialed = dial::Dialed {
        transport,
        cancel,
        parameters,
        address,
        residual,
        tls_fallback: None,
        tls_check: None,
    };
    Ok((dialed, Some(DialedNode { node, report })))
}

/// Sends Terminate, closes pgimbal's direction, and reads until the server has closed its own.
///
/// A server that has got half a message waits for the rest and takes Terminate for it; it
/// understands only the end of the direction. A server that does not read now gets only that.
async fn terminate(mut transport: Transport) {
    let mut message = Vec::new();
    encode::terminate(&mut message);
    let sent = poll_fn(|cx| match transport.poll_write_vectored(cx, &[IoSlice::new(&message)]) {
        Poll::Pending => Poll::Ready(Ok(0)),
        ready => ready,
    });
    if sent.await.is_err() {
        return;
    }
    // TLS sends what it has encrypted, and its own last word, before the socket's.
    if poll_fn(|cx| transport.poll_shutdown(cx)).await.is_err() {
        return;
    }
    let mut ignored = vec![0; 16 * 1024];
    while let Ok(n) = poll_fn(|cx| transport.poll_read(cx, &mut ignored)).await {
        if n == 0 {
            return;
        }
    }
}
