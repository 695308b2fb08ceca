//! Criterion: one SELECT through the core, without a socket: processed, linked, answered, released.
//!
//! The floor of a transaction is four system calls, some 10 µs; what is measured here comes on
//! top of it.
#![allow(missing_docs, reason = "criterion's macros generate undocumented items")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test a failed expectation is the point"
)]

use criterion::{Criterion, criterion_group, criterion_main};
use pgimbal_config::{Config, DatabaseConfig};
use pgimbal_pooler::action::Action;
use pgimbal_pooler::cancel::CancelKey;
use pgimbal_pooler::ids::{ServerId, SessionId, WorkerId};
use pgimbal_pooler::plan::{Plan, Stop};
use pgimbal_pooler::pool::checkout::Checkout;
use pgimbal_pooler::pool::shared::{SharedCount, SharedDatabase, SharedPool};
use pgimbal_pooler::pool::{Place, PoolKey};
use pgimbal_pooler::pooler::Pooler;
use pgimbal_pooler::server::BackendKey;
use pgimbal_pooler::server::life::Dialed;
use pgimbal_pooler::server::prepared::StatementKey;
use pgimbal_pooler::session::arrival::Greeting;
use pgimbal_pooler::session::sessions::SessionOptions;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A core with one client and one server connection.
struct Bench {
    pooler: Pooler,
    session: SessionId,
    plan: Plan,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let now = Instant::now();
        let options = SessionOptions {
            client_idle_timeout: None,
            client_stall_timeout: Duration::from_secs(300),
        };
        let mut pooler = Pooler::new(WorkerId(0), 1, StatementKey([7; 16]), options);
        let mut config = Config::default();
        config.clients.auth_type = pgimbal_config::AuthType::Trust;
        config.databases.insert("app".into(), DatabaseConfig::default());
        let resolved = config.pool("app", "app").expect("a pool");
        let key = PoolKey { database: "app".into(), user: "app".into(), place: Place::Primary };
        let pool = pooler.pool(&key, || {
            let database = Arc::new(SharedDatabase::default());
            let user = Arc::new(SharedCount::default());
            (Arc::new(resolved), Arc::new(SharedPool::new(1, database, user)))
        });
        let session = pooler.handle_login(pool, now, now, || CancelKey::short(1, [1; 32]));
        assert_eq!(pooler.greet(session, &[], now), Greeting::Wait);
        let mut actions = Vec::new();
        pooler.poll_actions(&mut actions);
        let Some(Action::Dial(server)) = actions.first() else { panic!("no dial in {actions:?}") };
        pooler.handle_dialed(*server, welcome(), now);
        assert!(matches!(pooler.greet(session, &[], now), Greeting::Ready(_)));
        pooler.poll_actions(&mut actions);
        Self { pooler, session, plan: Plan::default(), now }
    }

    /// One transaction; returns how many bytes went either way.
    fn transaction(&mut self, request: &[u8], answer: &[u8]) -> (u64, u64) {
        let (server, to_server) = self.ask(request);
        self.plan.clear();
        let processed = self.pooler.handle_server_bytes(server, self.now, answer, &mut self.plan);
        assert_eq!((processed.taken as usize, processed.stop), (answer.len(), Stop::Checkin));
        let to_client = self.plan.bytes_to_sessions();
        self.plan.clear();
        self.pooler.checkin(server, self.now);
        (to_server, to_client)
    }

    fn ask(&mut self, request: &[u8]) -> (ServerId, u64) {
        self.plan.clear();
        let processed =
            self.pooler.handle_client_bytes(self.session, self.now, request, &mut self.plan);
        assert_eq!((processed.taken, processed.stop), (0, Stop::Checkout));
        let Checkout::Linked(server) = self.pooler.checkout(self.session, self.now) else {
            panic!("no server connection")
        };
        let processed =
            self.pooler.handle_client_bytes(self.session, self.now, request, &mut self.plan);
        assert_eq!((processed.taken as usize, processed.stop), (request.len(), Stop::Drained));
        (server, self.plan.to_server().bytes())
    }
}

fn select(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("core");
    let mut bench = Bench::new();

    let simple = message(b'Q', b"SELECT abalance FROM pgbench_accounts WHERE aid = 123456;\0");
    let rows = [
        message(b'T', &[&[0, 1][..], b"abalance\0", &[0; 18]].concat()),
        message(b'D', &[0, 1, 0, 0, 0, 1, b'0']),
        message(b'C', b"SELECT 1\0"),
        message(b'Z', b"I"),
    ]
    .concat();
    let size = |bytes: &[u8]| bytes.len() as u64;
    assert_eq!(bench.transaction(&simple, &rows), (size(&simple), size(&rows)));
    group.bench_function("simple", |bencher| bencher.iter(|| bench.transaction(&simple, &rows)));

    let run = [
        message(b'B', b"\0\0\0\0\0\x01\0\0\0\x06123456\0\0"),
        message(b'D', b"P\0"),
        message(b'E', b"\0\0\0\0\0"),
        message(b'S', b""),
    ]
    .concat();
    let text = b"SELECT abalance FROM pgbench_accounts WHERE aid = $1;\0\0\0";
    let extended = [message(b'P', &[b"\0", &text[..]].concat()), run].concat();
    let parsed_rows = [message(b'1', b""), message(b'2', b""), rows.clone()].concat();
    bench.transaction(&extended, &parsed_rows);
    group.bench_function("extended", |bencher| {
        bencher.iter(|| bench.transaction(&extended, &parsed_rows));
    });

    let parse = [message(b'P', &[b"P0_1\0", &text[..]].concat()), message(b'S', b"")].concat();
    // The statement is described too, to see whether it may be shared.
    let described = message(b'T', &[&[0, 1][..], b"abalance\0", &[0; 18]].concat());
    let parsed = [message(b'1', b""), message(b't', &[0, 0]), described, message(b'Z', b"I")];
    bench.transaction(&parse, &parsed.concat());
    let prepared = [
        message(b'B', b"\0P0_1\0\0\0\0\x01\0\0\0\x06123456\0\0"),
        message(b'D', b"P\0"),
        message(b'E', b"\0\0\0\0\0"),
        message(b'S', b""),
    ]
    .concat();
    let bound_rows = [message(b'2', b""), rows].concat();
    bench.transaction(&prepared, &bound_rows);
    group.bench_function("prepared", |bencher| {
        bencher.iter(|| bench.transaction(&prepared, &bound_rows));
    });
    group.finish();
}

/// What PostgreSQL says to whoever logs in.
fn welcome() -> Dialed {
    let parameters = [
        ("application_name", ""),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("default_transaction_read_only", "off"),
        ("in_hot_standby", "off"),
        ("integer_datetimes", "on"),
        ("IntervalStyle", "postgres"),
        ("is_superuser", "off"),
        ("server_encoding", "UTF8"),
        ("server_version", "17.6"),
        ("session_authorization", "app"),
        ("standard_conforming_strings", "on"),
        ("TimeZone", "Etc/UTC"),
    ];
    let parameters =
        parameters.map(|(name, value)| (name.as_bytes().into(), value.as_bytes().into()));
    let backend_key = BackendKey { process_id: 1, secret: Box::new([1; 4]) };
    Dialed { backend_key, parameters: parameters.into(), found: None }
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![tag];
    message.extend_from_slice(&u32::try_from(body.len() + 4).unwrap_or(u32::MAX).to_be_bytes());
    message.extend_from_slice(body);
    message
}

criterion_group!(benches, select);
criterion_main!(benches);
