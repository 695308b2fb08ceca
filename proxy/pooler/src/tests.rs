//! For unit tests: a core with one pool, some sessions and one server connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgimbal_config::{AuthType, Config, DatabaseConfig, PoolConfig};

use crate::action::Action;
use crate::cancel::CancelKey;
use crate::ids::{PoolId, ServerId, SessionId, WorkerId};
use crate::pool::shared::{SharedCount, SharedDatabase, SharedPool};
use crate::pool::{Place, PoolKey};
use crate::pooler::Pooler;
use crate::server::BackendKey;
use crate::server::life::Dialed;
use crate::server::prepared::StatementKey;
use crate::session::arrival::Greeting;
use crate::session::sessions::SessionOptions;

/// A core, and what is in it.
pub(crate) struct Fixture<const SESSIONS: usize> {
    pub(crate) pooler: Pooler,
    pub(crate) pool: PoolId,
    pub(crate) server: ServerId,
    pub(crate) sessions: [SessionId; SESSIONS],
    pub(crate) now: Instant,
}

impl<const SESSIONS: usize> Fixture<SESSIONS> {
    /// A pool of one server connection with the process id 77, which is idle, and greeted sessions
    /// with the process ids 1, 2 and so on. `configure` changes the pool's options.
    pub(crate) fn new(configure: impl FnOnce(&mut PoolConfig)) -> Self {
        let now = Instant::now();
        let options = SessionOptions {
            client_idle_timeout: None,
            client_stall_timeout: Duration::from_secs(300),
        };
        let mut pooler = Pooler::new(WorkerId(0), 1, StatementKey([7; 16]), options);
        let pool = pool(&mut pooler, configure);
        let sessions = std::array::from_fn(|n| {
            pooler.handle_login(pool, now, now, || CancelKey::short(n as u32 + 1, [1; 32]))
        });
        assert_eq!(pooler.greet(sessions[0], &[], now), Greeting::Wait);
        let mut actions = Vec::new();
        pooler.poll_actions(&mut actions);
        let Some(Action::Dial(server)) = actions.first().copied() else { panic!("{actions:?}") };
        let reported = [("client_encoding", "UTF8"), ("standard_conforming_strings", "on")];
        let reported =
            reported.map(|(name, value)| (name.as_bytes().into(), value.as_bytes().into()));
        let backend_key = BackendKey { process_id: 77, secret: Box::new([1; 4]) };
        let dialed = Dialed { backend_key, parameters: reported.into(), found: None };
        pooler.handle_dialed(server, dialed, now);
        for session in sessions {
            assert!(matches!(pooler.greet(session, &[], now), Greeting::Ready(_)));
        }
        Self { pooler, pool, server, sessions, now }
    }
}

fn pool(pooler: &mut Pooler, configure: impl FnOnce(&mut PoolConfig)) -> PoolId {
    let mut config = Config::default();
    config.clients.auth_type = AuthType::Trust;
    config.databases.insert("app".into(), DatabaseConfig::default());
    let mut resolved = config.pool("app", "app").expect("a pool");
    resolved.pool.size = 1;
    configure(&mut resolved.pool);
    let key = PoolKey { database: "app".into(), user: "app".into(), place: Place::Primary };
    pooler.pool(&key, || {
        let (database, user) =
            (Arc::new(SharedDatabase::default()), Arc::new(SharedCount::default()));
        (Arc::new(resolved), Arc::new(SharedPool::new(1, database, user)))
    })
}
