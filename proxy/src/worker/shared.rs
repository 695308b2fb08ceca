//! What the tasks of one worker share. They run on one thread, so it is borrowed, never locked.

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
use crate::topology::Clusters;

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

/// One worker, as its tasks see it. The state is never borrowed across an await.
#[derive(Debug)]
pub(super) struct Worker {
    id: WorkerId,
    state: RefCell<State>,
    /// Reused for what the core asks for.
    actions: RefCell<Vec<Action>>,
    clock: Clock,
    common: Common,
}

impl Worker {
    pub(super) fn new(id: WorkerId, common: Common) -> Self {
        let state =
            State::new(id, common.workers.len() as u16, common.key, Arc::clone(&common.directory));
        Self {
            id,
            state: RefCell::new(state),
            actions: RefCell::default(),
            clock: Clock::new(),
            common,
        }
    }

    /// Its number.
    pub(super) const fn id(&self) -> WorkerId {
        self.id
    }

    /// What all workers have.
    pub(super) const fn common(&self) -> &Common {
        &self.common
    }

    /// The pause of its timers.
    pub(super) const fn clock(&self) -> &Clock {
        &self.clock
    }

    #[inline]
    pub(super) fn state(&self) -> Ref<'_, State> {
        self.state.borrow()
    }

    #[inline]
    pub(super) fn state_mut(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    /// An empty list for the core's actions; `None` while somebody works through it.
    #[inline]
    pub(super) fn actions(&self) -> Option<RefMut<'_, Vec<Action>>> {
        self.actions.try_borrow_mut().ok()
    }

    /// Sends a message to another worker; one that has ended needs none.
    pub(super) fn send(&self, to: WorkerId, message: Message) {
        if let Some(worker) = self.common.workers.get(usize::from(to.0)) {
            let _ = worker.send(message);
        }
    }
}
