//! The state that the tasks of one worker share. They run on one thread, so it is borrowed and
//! never locked.

use std::cell::{Ref, RefCell, RefMut};
use std::sync::Arc;

use pgimbal_config::TcpConfig;
use pgimbal_pooler::action::Action;
use pgimbal_pooler::ids::WorkerId;
use pgimbal_pooler::server::prepared::StatementKey;
use tokio::sync::mpsc;

use super::clock::Clock;
use super::message::Message;
use super::state::State;
use crate::admin::collect::ProcessStats;
use crate::admin::console::Console;
use crate::cancel_keys::WrongKeyLimiter;
use crate::credentials::CredentialManager;
use crate::directory::PoolDirectory;
use crate::login::CurrentLoginContext;
use crate::peers::Peers;
use crate::telemetry::Traces;
use crate::topology::Clusters;

/// Everything that all workers share; each gets a clone at its start.
#[derive(Clone, Debug)]
pub struct Common {
    /// The configuration in force at the start; [`Message::Reload`] replaces it in each worker.
    pub directory: Arc<PoolDirectory>,
    /// The context of client logins: accounts, TLS and limits. A reload replaces it for all
    /// workers.
    pub login: CurrentLoginContext,
    /// The channel to every worker, indexed by its number ([`WorkerId`], from 0).
    pub workers: Arc<[mpsc::UnboundedSender<Message>]>,
    /// The counters of the process, for metrics and limits.
    pub process: Arc<ProcessStats>,
    /// The console: the worker of the login serves its clients there, without a session or a pool.
    pub console: Arc<Console>,
    /// The handle to the watchers of all clusters; empty without clusters.
    pub clusters: Clusters,
    /// Passes over the cancel requests of an address (of IPv6, of a /64) that has shown 100 wrong
    /// keys within a minute.
    pub cancel_keys: Arc<WrongKeyLimiter>,
    /// The handle to the other replicas; off without `[peers]`.
    pub peers: Peers,
    /// The handle to the task that knows all passwords that rotate; idle when none does.
    pub credentials: CredentialManager,
    /// The way to the task that sends traces; it leads nowhere unless they are sent.
    pub traces: Traces,
    /// The TCP options that accepted sockets inherit from their listener, so that they need not be
    /// set.
    pub inherited_tcp: TcpConfig,
    /// The secret from which names of prepared statements on servers are made, the same for all
    /// workers.
    pub key: StatementKey,
}

/// One worker, as its tasks share it. The state must not be borrowed across an await.
#[derive(Debug)]
pub(super) struct Worker {
    id: WorkerId,
    state: RefCell<State>,
    /// A list that is used again and again for the actions of the core.
    actions: RefCell<Vec<Action>>,
    clock: Clock,
    common: Common,
}

impl Worker {
    /// Makes worker `id` with empty state.
    pub(super) fn new(id: WorkerId, common: Common) -> Self {
        let mut state =
            State::new(id, common.workers.len() as u16, common.key, Arc::clone(&common.directory));
        state.pooler.set_trace_ratio(common.traces.millionths());
        Self {
            id,
            state: RefCell::new(state),
            actions: RefCell::default(),
            clock: Clock::new(),
            common,
        }
    }

    /// The number of the worker.
    pub(super) const fn id(&self) -> WorkerId {
        self.id
    }

    /// Everything that all workers share.
    pub(super) const fn common(&self) -> &Common {
        &self.common
    }

    /// The pause of the worker's timers.
    pub(super) const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Borrows the state for reading. Panics when it is borrowed for writing.
    #[inline]
    pub(super) fn state(&self) -> Ref<'_, State> {
        self.state.borrow()
    }

    /// Borrows the state for writing. Panics when it is borrowed at all.
    #[inline]
    pub(super) fn state_mut(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    /// Borrows the empty list for actions; `None` while
    /// [`run_actions`](super::actions::run_actions) works through it.
    #[inline]
    pub(super) fn actions(&self) -> Option<RefMut<'_, Vec<Action>>> {
        self.actions.try_borrow_mut().ok()
    }

    /// Sends a message to worker `to`. It is dropped when that worker has ended or does not exist.
    pub(super) fn send(&self, to: WorkerId, message: Message) {
        if let Some(worker) = self.common.workers.get(usize::from(to.0)) {
            let _ = worker.send(message);
        }
    }
}
