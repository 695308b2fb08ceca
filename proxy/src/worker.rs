//! A worker: one thread with a runtime of its own, its clients and its server connections.
//!
//! Owns tasks and timers; what they do to bytes is in [`turn`](self), what it means in the core.

mod client;
mod cluster;
mod dead_peers;
mod inbox;
mod lifecycle;
mod login;
mod message;
mod outbox;
mod server_task;
mod servers;
mod state;
mod timers;
mod turn;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use pgimbal_config::TcpConfig;
use pgimbal_pooler::action::Action;
use pgimbal_pooler::ids::{PoolId, WorkerId};
use pgimbal_pooler::pool::timers::QUIET_TICK;
use pgimbal_pooler::pooler::Pooler;
use pgimbal_pooler::server::prepared::StatementKey;
use pgimbal_pooler::session::sessions::SessionOptions;
use pgimbal_pooler::sql::Kinds;
use tokio::sync::{Notify, mpsc};

pub use message::{Accepted, Message, Origin};

use crate::admin::collect::{ProcessStats, SnapshotRequest};
use crate::admin::console::Console;
use crate::cancel_keys::WrongKeyLimiter;
use crate::credentials::CredentialManager;
use crate::directory::PoolDirectory;
use crate::login::CurrentLoginContext;
use crate::topology::Clusters;
use state::State;

/// What all workers are given at their start.
#[derive(Clone, Debug)]
pub struct Common {
    /// The configuration in force.
    pub directory: Arc<PoolDirectory>,
    /// What logins are checked by.
    pub login: CurrentLoginContext,
    /// The way to every worker, by number.
    pub workers: Arc<[mpsc::UnboundedSender<Message>]>,
    /// The process's counters.
    pub process: Arc<ProcessStats>,
    /// The console.
    pub console: Arc<Console>,
    /// The clusters' watchers.
    pub clusters: Clusters,
    /// Who has shown wrong cancel keys.
    pub cancel_keys: Arc<WrongKeyLimiter>,
    /// The passwords that rotate.
    pub credentials: CredentialManager,
    /// The TCP options that accepted sockets have from their listener.
    pub inherited_tcp: TcpConfig,
    /// The process's secret for statement names.
    pub key: StatementKey,
}

/// The ends of a worker's channels that the worker reads.
#[derive(Debug)]
pub struct Channels {
    /// What it is told.
    pub messages: mpsc::UnboundedReceiver<Message>,
    /// What it is asked.
    pub snapshots: mpsc::UnboundedReceiver<SnapshotRequest>,
}

/// Tasks that run before the kernel is asked for events although more are ready. Each takes about
/// 10 us, so a new event waits for a millisecond at most; tokio's 61 asks twice as often.
const POLLS_BETWEEN_EVENTS: u32 = 128;

/// Starts worker `id` on a thread of its own. It ends when its sessions have after
/// [`Message::Drain`], or at once on [`Message::Stop`].
///
/// # Errors
/// The thread or its runtime could not be made.
pub fn spawn(id: WorkerId, common: Common, channels: Channels) -> io::Result<JoinHandle<()>> {
    let (ready, started) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name(format!("worker-{}", id.0)).spawn(move || {
        // A runtime for tasks of one thread cannot leave the thread that made it.
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        match runtime
            .enable_all()
            .event_interval(POLLS_BETWEEN_EVENTS)
            .build_local(Default::default())
        {
            Ok(runtime) => {
                let _ = ready.send(Ok(()));
                runtime.block_on(Worker::run(id, common, channels));
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        }
    })?;
    match started.recv() {
        Ok(started) => started.map(|()| thread),
        Err(_) => Err(io::Error::other("the worker's thread has ended")),
    }
}

/// What the tasks of a worker share.
#[derive(Debug)]
struct Worker {
    id: WorkerId,
    state: RefCell<State>,
    /// Reused for what the core asks for.
    actions: RefCell<Vec<Action>>,
    housekeeping: Notify,
    /// How long the clock's current pause is.
    pause: Cell<Duration>,
    common: Common,
}

impl Worker {
    async fn run(id: WorkerId, common: Common, mut channels: Channels) {
        let count = common.workers.len() as u16;
        let options = options(&common.directory);
        let pooler = Pooler::new(id, count, common.key, options);
        let state = State::new(pooler, Arc::clone(&common.directory));
        let worker = Rc::new(Self {
            id,
            state: RefCell::new(state),
            actions: RefCell::default(),
            housekeeping: Notify::new(),
            pause: Cell::new(QUIET_TICK),
            common,
        });
        let clock = tokio::task::spawn_local(Rc::clone(&worker).run_timers());
        loop {
            tokio::select! {
                message = channels.messages.recv() => match message {
                    Some(Message::Stop) | None => break,
                    Some(message) => worker.receive(message),
                },
                Some(request) = channels.snapshots.recv() => worker.answer(request),
            }
        }
        clock.abort();
    }

    /// Does what the core has asked for.
    fn perform(self: &Rc<Self>) {
        let Ok(mut actions) = self.actions.try_borrow_mut() else { return };
        loop {
            self.state.borrow_mut().take_actions(&mut actions);
            if actions.is_empty() {
                break;
            }
            for action in actions.drain(..) {
                match action {
                    Action::Wake(session) => self.state.borrow().wake(session),
                    Action::Dial(server) => self.dial(server),
                    Action::Close(server) => self.close(server),
                    Action::Cancel(server) => self.send_cancel(server),
                    Action::Give(server, to) => self.give(server, to),
                    Action::Ask(pool, of) => self.ask(pool, of),
                    Action::Cut(server) => self.cut(server),
                    Action::ProbeHint(cluster, probe_hint) => self.probe_hint(cluster, probe_hint),
                    Action::QuestionDenied(pool, kinds) => self.log_denied(pool, kinds),
                    Action::ConnectionRejected(pool) => self.log_rejected(pool),
                    Action::Retired(pool) => self.forget(pool),
                }
            }
        }
        if self.state.borrow().pooler.timeout_interval() < self.pause.get() {
            self.wake_housekeeping();
        }
    }

    /// Once per pool and kind: who may have left such state keeps its server connection.
    fn log_denied(&self, pool: PoolId, kinds: Kinds) {
        let state = self.state.borrow();
        let key = state.pooler.pool_of(pool).key();
        tracing::warn!(
            database = &*key.database,
            user = &*key.user,
            kinds = kinds.names().collect::<Vec<_>>().join(", "),
            "the server does not say what sessions of this user have left (42501); they keep their \
             server connections until they leave"
        );
    }

    fn log_rejected(&self, pool: PoolId) {
        let state = self.state.borrow();
        let key = state.pooler.pool_of(pool).key();
        tracing::warn!(
            database = &*key.database,
            user = &*key.user,
            "a server connection refused to be reset and was closed"
        );
    }

    /// Lets the clock look at once whether somebody waits.
    fn wake_housekeeping(&self) {
        self.housekeeping.notify_one();
    }
}

/// What holds for all sessions.
fn options(directory: &PoolDirectory) -> SessionOptions {
    let clients = &directory.config().clients;
    SessionOptions {
        client_idle_timeout: clients.idle_timeout,
        client_stall_timeout: clients.stall_timeout,
    }
}

#[cfg(test)]
mod tests;
