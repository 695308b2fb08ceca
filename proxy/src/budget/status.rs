//! The budget of each server, for the console and the metrics.

use std::sync::Arc;
use std::time::Instant;

use pgimbal_pooler::pool::budget::{BudgetStatus, Budgets};

use super::replicas::{ReplicaBudget, Tokens};

/// The handle to the budgets of all servers, for those who look. Clones are cheap.
#[derive(Clone, Debug, Default)]
pub struct ServerBudgets {
    budgets: Arc<Budgets>,
    replicas: Option<ReplicaBudget>,
}

/// The budget of one server at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    /// The server, `host:port`.
    pub server: Box<str>,
    /// What this process has of it.
    pub numbers: BudgetStatus,
    /// What it shares with other replicas; `None` where there is none.
    pub tokens: Option<Tokens>,
}

impl ServerBudgets {
    /// Makes the handle to these budgets, which are shared with other replicas through `replicas`.
    #[must_use]
    pub const fn new(budgets: Arc<Budgets>, replicas: Option<ReplicaBudget>) -> Self {
        Self { budgets, replicas }
    }

    /// The budgets as they are now, by the servers' names. A server is there from the first
    /// connection that was to be opened to it.
    #[must_use]
    pub fn status(&self) -> Vec<ServerStatus> {
        let now = Instant::now();
        let budgets = self.budgets.all().into_iter();
        budgets
            .map(|(server, budget)| {
                let tokens = self.replicas.as_ref().and_then(|replicas| replicas.tokens(&server));
                ServerStatus { server, numbers: budget.status(now), tokens }
            })
            .collect()
    }
}
