//! The budget of connections to one server, over all pools and workers.
//!
//! One token is one connection. A pool that gets none leaves a claim; the pool with the fewest
//! connections is served first, and of equal ones the one that has waited for longest. For a claim
//! a connection of another pool is closed: the one that has been idle for longest, or else the next
//! one that the pool with most of them releases. A worker looks
//! at one flag when it releases a connection; everything else is for the moments at which
//! connections are opened and closed, and a mutex keeps it.

mod claims;
mod limits;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pgimbal_config::{Host, ServerBudget};

pub use limits::{LIMITS_LIFETIME, LearnedLimits};
pub use state::{BudgetStatus, Grant, UNKNOWN_LIMIT, Usage};

use crate::ids::WorkerId;
use claims::Claimant;
use state::State;

/// The budgets of all servers, by the name `host:port`. All workers share them.
#[derive(Debug, Default)]
pub struct Budgets {
    by_server: Mutex<HashMap<Box<str>, Arc<ConnectionBudget>>>,
    is_shared: AtomicBool,
}

/// The connections to one server: how many there may be, who has them, who waits for one.
#[derive(Debug)]
pub struct ConnectionBudget {
    /// Somebody wants connections that others have. Read without the mutex.
    contended: AtomicBool,
    /// How many more connections other replicas could use that have no tokens left; each one that
    /// is closed for them takes one away. Read without the mutex.
    lendable: AtomicU32,
    state: Mutex<State>,
}

/// A connection that is to be opened: whose it is.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// The budget of the server that it leads to.
    pub budget: &'a Arc<ConnectionBudget>,
    /// The role that it logs in as.
    pub role: &'a str,
    /// The database's name on the server.
    pub database: &'a str,
    /// Whether a client waits for it; otherwise it leaves no claim.
    pub is_awaited: bool,
}

/// One connection's part of a server's budget. It is given back when it is dropped.
#[derive(Debug)]
pub struct Token {
    budget: Arc<ConnectionBudget>,
    pool: usize,
    role: Box<str>,
    database: Box<str>,
    taken_at: Instant,
    /// The server's process; 0 before it has said which.
    process_id: u32,
    /// The connection is being closed for somebody else.
    leaves: bool,
}

/// What a worker is to do after it has offered its idle connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offered {
    /// Close it.
    Close,
    /// Keep it: another worker has one that has been idle for longer, and is to be told.
    Tell(WorkerId),
    /// Keep it.
    Keep,
}

impl Budgets {
    /// Returns the budget of a server, made at the first call. `config` is what the configuration
    /// says of it; a later call, after a reload, may change it.
    pub fn of(&self, host: &Host, port: u16, config: ServerBudget) -> Arc<ConnectionBudget> {
        let name = format!("{host}:{port}");
        let mut budgets = self.by_server.lock().unwrap_or_else(PoisonError::into_inner);
        let budget = budgets.entry(name.into()).or_insert_with(|| {
            let state = Mutex::new(State::new(config, self.is_shared.load(Relaxed)));
            let (contended, lendable) = Default::default();
            Arc::new(ConnectionBudget { contended, lendable, state })
        });
        budget.state().configure(config);
        Arc::clone(budget)
    }

    /// Has budgets that are made from now on begin as those of a replica that has no slot:
    /// [`ConnectionBudget::settle`] says more.
    pub fn share(&self) {
        self.is_shared.store(true, Relaxed);
    }

    /// Takes in which servers the configuration and its clusters lead to. The others are forgotten
    /// when they have no connection any more: the nodes of a cluster by DNS come and go.
    pub fn keep(&self, is_there: impl Fn(&str) -> bool) {
        let mut budgets = self.by_server.lock().unwrap_or_else(PoisonError::into_inner);
        budgets.retain(|name, budget| {
            let is_gone = !is_there(name);
            budget.with(|state| state.set_gone(is_gone));
            // A connection has a share in it, and so has a pool that is about to open one.
            !is_gone || Arc::strong_count(budget) > 1
        });
    }

    /// Returns all budgets with the names of their servers, sorted by name.
    #[must_use]
    pub fn all(&self) -> Vec<(Box<str>, Arc<ConnectionBudget>)> {
        let budgets = self.by_server.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> =
            budgets.iter().map(|(name, budget)| (name.clone(), Arc::clone(budget))).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

impl ConnectionBudget {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and keeps the flag as it then is to be.
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let result = change(&mut state);
        self.contended.store(state.is_contended(), Relaxed);
        result
    }

    /// Whether somebody wants a connection that others have.
    #[inline]
    pub(crate) fn is_contended(&self) -> bool {
        self.contended.load(Relaxed)
    }

    /// Takes a token for a connection of `worker`'s part of the pool `pool`. `None` if there is
    /// none; then a claim is noted if a client waits.
    pub(crate) fn take(
        self: &Arc<Self>,
        pool: usize,
        worker: WorkerId,
        wish: &Wish<'_>,
        now: Instant,
    ) -> Option<Token> {
        let claimant = Claimant { pool, worker };
        self.with(|state| state.take(claimant, wish, now)).then(|| Token {
            budget: Arc::clone(self),
            pool,
            role: wish.role.into(),
            database: wish.database.into(),
            taken_at: now,
            process_id: 0,
            leaves: false,
        })
    }

    /// Whether the other workers are to be asked for idle connections, because of a new claim or
    /// one that has waited since they were last asked.
    pub(crate) fn may_ask(&self, now: Instant) -> bool {
        self.with(|state| state.may_ask(now))
    }

    /// Notes that `worker`, of `workers`, has a connection with this token that has been idle since
    /// `since`, and of its own none that has been for longer.
    pub(crate) fn offer(
        &self,
        token: &mut Token,
        worker: WorkerId,
        workers: u16,
        since: Instant,
        now: Instant,
    ) -> Offered {
        let offered = self.with(|state| state.offer(token, worker, workers, since, now));
        token.leaves |= offered == Offered::Close;
        offered
    }

    /// Notes that `worker` has no idle connection.
    pub(crate) fn offer_none(&self, worker: WorkerId, workers: u16, now: Instant) {
        self.with(|state| state.offer_none(worker, workers, now));
    }

    /// Notes that the server has refused a connection because it has too many (SQLSTATE 53300),
    /// after the token was given back. Returns whether other connections of pgimbal are there that
    /// could be closed for it.
    pub(crate) fn note_refused(&self, now: Instant) -> bool {
        self.with(|state| state.note_refused(now))
    }

    /// Whether the server is to be asked for its limits by a new connection of this role and
    /// database: they were never asked, or too long ago ([`LIMITS_LIFETIME`]).
    #[must_use]
    pub fn wants_limits(&self, role: &str, database: &str, now: Instant) -> bool {
        self.state().wants_limits(role, database, now)
    }

    /// Takes in what a server says of its limits, and of those of this role and database.
    pub fn learn(&self, role: &str, database: &str, limits: LearnedLimits, now: Instant) {
        self.with(|state| state.learn(role, database, limits, now));
    }

    /// Lets `decide` set how many connections this replica may have, from those in use and those
    /// that are waited for. No token is taken meanwhile.
    pub fn settle(&self, decide: impl FnOnce(Usage) -> Grant, now: Instant) {
        let grant = self.with(|state| state.settle(decide, now));
        self.lendable.store(grant.lendable, Relaxed);
    }

    /// Whether other replicas could use a connection of this one.
    #[inline]
    pub(crate) fn is_lendable(&self) -> bool {
        self.lendable.load(Relaxed) > 0
    }

    /// Whether the configuration no longer leads to the server.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.state().is_gone()
    }

    /// Returns the process ids of the connections of pools, and of those that have ended since this
    /// was last called, the latest 1,024.
    #[must_use]
    pub fn process_ids(&self) -> (BTreeSet<u32>, Vec<u32>) {
        self.with(State::process_ids)
    }

    /// Returns the numbers as they are now.
    #[must_use]
    pub fn status(&self, now: Instant) -> BudgetStatus {
        self.with(|state| state.status(now))
    }
}

impl Token {
    /// The budget that it is of.
    #[inline]
    pub(crate) const fn budget(&self) -> &Arc<ConnectionBudget> {
        &self.budget
    }

    /// Notes the server's process.
    pub(crate) fn set_process(&mut self, process_id: u32) {
        self.process_id = process_id;
        self.budget.with(|state| state.note_process(process_id));
    }

    /// Notes that the connection, which nobody has used for a while, is closed for other replicas.
    /// False if enough of them are already.
    pub(crate) fn lend(&mut self) -> bool {
        let fewer = |lendable: u32| lendable.checked_sub(1);
        if self.budget.lendable.fetch_update(Relaxed, Relaxed, fewer).is_err() {
            return false;
        }
        let budget = Arc::clone(&self.budget);
        budget.with(|state| state.begin_to_close(self));
        self.leaves = true;
        true
    }

    /// Whether the connection, which was just released, is to be closed for somebody else.
    /// `is_wanted`: clients of its own pool wait. If it is, it counts as being closed.
    pub(crate) fn gives_way(&mut self, is_wanted: bool, now: Instant) -> bool {
        let budget = Arc::clone(&self.budget);
        self.leaves = budget.with(|state| state.gives_way(self, is_wanted, now));
        self.leaves
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let budget = Arc::clone(&self.budget);
        budget.with(|state| state.give_back(self));
    }
}
