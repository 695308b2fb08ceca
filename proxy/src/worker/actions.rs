//! Performs the actions that the core ([`Pooler`](pgimbal_pooler::pooler::Pooler)) has ordered,
//! after each call that may have ordered some.

use std::rc::Rc;

use pgimbal_pooler::action::Action;
use pgimbal_pooler::ids::PoolId;
use pgimbal_pooler::sql::Kinds;

use super::shared::Worker;
use super::state::State;
use super::{idle_servers, listener_task, migration, pools, server_task};
use crate::telemetry::Event;

/// Performs every action that the core has ordered, also those that come up meanwhile, and then
/// shortens the timers' pause to what the core wants. Must be called without the state borrowed. A
/// call from within an action returns at once.
pub(super) fn run_actions(worker: &Rc<Worker>) {
    let Some(mut actions) = worker.actions() else { return };
    loop {
        worker.state_mut().pooler.poll_actions(&mut actions);
        if actions.is_empty() {
            break;
        }
        for action in actions.drain(..) {
            run(worker, action);
        }
    }
    worker.clock().shorten_to(worker.state().pooler.timeout_interval());
}

#[inline]
fn run(worker: &Rc<Worker>, action: Action) {
    match action {
        Action::Wake(session) => worker.state().clients.wake(session),
        Action::Dial(server) => server_task::dial(worker, server),
        Action::Drive(server) => listener_task::drive(worker, server),
        Action::Close(server) => server_task::close(worker, server),
        Action::Cancel(server) => server_task::send_cancel(worker, server),
        Action::Give(server, to) => migration::give(worker, server, to),
        Action::Ask(pool, of) => migration::ask(worker, pool, of),
        Action::AskForIdle(of) => migration::ask_for_idle(worker, of),
        Action::Cut(server) => idle_servers::cut(&mut worker.state_mut(), server),
        Action::ProbeHint(cluster, probe_hint) => {
            let state = worker.state();
            let name = state.pooler.cluster_name(cluster);
            worker.common().clusters.probe_hint(name, probe_hint);
        }
        Action::QuestionDenied(pool, kinds) => log_denied(&worker.state(), pool, kinds),
        Action::ConnectionRejected(pool) => log_rejected(&worker.state(), pool),
        Action::Parse => parse(worker),
        Action::Trace => trace(worker),
        Action::Retired(pool) => pools::forget(&worker.state(), pool),
    }
}

/// Has another thread parse the texts for which this one has no time, one after the other.
fn parse(worker: &Rc<Worker>) {
    let Some(job) = worker.state_mut().pooler.take_parse_job() else { return };
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        let mut next = Some(job);
        while let Some(job) = next {
            let parsed = tokio::task::spawn_blocking(move || job.run()).await;
            if let Err(error) = &parsed {
                tracing::error!(%error, "a text could not be parsed; the primary serves it");
            }
            worker.state_mut().pooler.handle_parsed(parsed.ok());
            next = worker.state_mut().pooler.take_parse_job();
            run_actions(&worker);
        }
    });
}

/// Sends the transactions and logins that the core has chosen to be traced.
fn trace(worker: &Worker) {
    let samples = worker.state_mut().pooler.take_samples();
    let state = worker.state();
    for sample in samples {
        let key = state.pooler.pool_of(sample.pool).key();
        let (database, user) = (key.database.clone(), key.user.clone());
        worker.common().traces.send(Event::Sampled { database, user, sample });
    }
}

/// Logs that a server refuses (42501) to say what sessions leave behind: once per pool and kind.
/// Such sessions keep their server connections.
fn log_denied(state: &State, pool: PoolId, kinds: Kinds) {
    let key = state.pooler.pool_of(pool).key();
    tracing::warn!(
        database = &*key.database,
        user = &*key.user,
        kinds = kinds.names().collect::<Vec<_>>().join(", "),
        "the server does not say what sessions of this user have left (42501); they keep their \
         server connections until they leave"
    );
}

fn log_rejected(state: &State, pool: PoolId) {
    let key = state.pooler.pool_of(pool).key();
    tracing::warn!(
        database = &*key.database,
        user = &*key.user,
        "a server connection refused to be reset and was closed"
    );
}
