//! What a run is like: its pool, what may go wrong, what clients ask for at login.

use pgimbal_config::{
    Host, PoolConfig, PoolMode, ReadConsistency, ReadUnparsed, ResolvedCluster, ResolvedPool,
    Route, ServerBudget, ServerLimit, ServerPassword,
};

use crate::random::Random;

/// What may go wrong in a run.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "any of them may be on with any other")]
pub(crate) struct Troubles {
    pub(crate) kills: bool,
    pub(crate) vanishings: bool,
    pub(crate) cancels: bool,
    pub(crate) dial_failures: bool,
    /// Questions, and settings that are set all at once, are refused now and then.
    pub(crate) balks: bool,
    /// The primary dies now and then, in a world with a cluster.
    pub(crate) failovers: bool,
}

/// The shape of a run.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) workers: u16,
    pub(crate) clients: usize,
    pub(crate) steps: usize,
    pub(crate) pool: PoolConfig,
    pub(crate) max_pinned: u32,
    /// The longest piece of a stream that arrives at once.
    pub(crate) chunk: usize,
    pub(crate) troubles: Troubles,
    pub(crate) cluster: Option<ResolvedCluster>,
}

pub(super) fn startup(random: &mut Random) -> Vec<(String, String)> {
    let mut list = Vec::new();
    for (name, value) in
        [("timezone", "Startup/Zone"), ("application_name", "app"), ("work_mem", "8MB")]
    {
        if random.chance(25) {
            list.push((name.to_owned(), value.to_owned()));
        }
    }
    if random.chance(5) {
        // No server takes it.
        list.push(("search_path".into(), "Bad".into()));
    }
    list
}

pub(crate) fn resolved(shape: &Shape) -> ResolvedPool {
    ResolvedPool {
        is_listed: true,
        host: Host::Tcp("localhost".into()),
        port: 5432,
        dbname: "db".into(),
        options: None,
        user: "user".into(),
        login: ServerPassword::Role("user".into()),
        cluster: shape.cluster.clone(),
        route: Route::Primary,
        zone: None,
        read_consistency: ReadConsistency::Session,
        read_max_staleness: None,
        read_max_staleness_bytes: None,
        read_wait: None,
        read_unparsed: ReadUnparsed::Primary,
        read_functions: Vec::new(),
        tls: Default::default(),
        // The budget is simulated beside it, without sessions.
        server_budget: ServerBudget { limit: ServerLimit::Off, ..ServerBudget::default() },
        max_db_connections: None,
        max_user_connections: None,
        max_pinned: shape.max_pinned,
        pool: shape.pool.clone(),
    }
}

/// A pool of `size` server connections in transaction mode.
pub(crate) fn pool(size: u32) -> PoolConfig {
    PoolConfig { mode: PoolMode::Transaction, size, ..PoolConfig::default() }
}
