//! One pool and one PostgreSQL session side by side, and a sequence run on both.

use std::time::{Duration, Instant};

use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::{Login, Pgimbal, Postgres, WireClient};

use super::database::{CLEAN, LEAVES_DATA};
use super::generate::Kind;
use super::look::{self, Baseline};
use super::side::Side;

/// How long what is done in the background may take.
const SOON: Duration = Duration::from_secs(3);

/// A pool and its database, another database for the session beside it, and everybody else.
pub(super) struct Lane {
    pub(super) kind: Kind,
    /// Where the pooled client connects, and to which database.
    pooled: (u16, String),
    direct: (u16, String),
    proxy: Option<Pgimbal>,
    console: Option<WireClient>,
    superusers: [WireClient; 2],
    pub(super) baseline: Baseline,
    pub(super) resident: Option<Side>,
    pub(super) holder: Option<Side>,
}

/// The databases of lane `number`: the pool's, and the one beside it.
pub(super) fn databases(number: usize) -> [String; 2] {
    [format!("a{number}"), format!("b{number}")]
}

impl Lane {
    /// A lane on the databases of `number`; without `verify` both sides are PostgreSQL itself.
    pub(super) fn new(pg: &Postgres, number: usize, kind: Kind, verify: Option<&Verify>) -> Self {
        let names = databases(number);
        let superusers = names.clone().map(|name| {
            let mut client = WireClient::unix(&pg.socket());
            client.log_in(&Login::new("postgres", &name, "")).expect("a superuser's login");
            client
        });
        let [pool, direct] = names;
        let proxy = verify.map(|verify| {
            let config = Config::before(pg).server("dbname", format!("{pool:?}"));
            let size = if kind.two { 2 } else { 1 };
            let config = config.set("pool_size", size).set("max_pinned", size);
            let config = if kind.two { config.set("max_prepared_statements", 4) } else { config };
            verify.of(config, kind).start()
        });
        let pooled = proxy.as_ref().map_or((pg.port, pool), |proxy| (proxy.port, "app".to_owned()));
        let direct = (pg.port, direct);
        let mut seeded = pg.superuser();
        seeded.ok("select setseed(0.5)");
        let seeded = seeded.value("select random()::text");
        let mut fresh = log_in(&direct, &[]).unwrap_or_else(|told| panic!("refused: {told:?}"));
        let baseline = Baseline::of(&mut fresh, seeded);
        fresh.leave();
        let mut lane = Self {
            kind,
            pooled,
            direct,
            proxy,
            console: None,
            superusers,
            baseline,
            resident: None,
            holder: None,
        };
        lane.settle_in();
        lane
    }

    /// Whether the pool is one.
    pub(super) fn is_pooled(&self) -> bool {
        self.proxy.is_some()
    }

    /// Those who are there before the first sequence.
    fn settle_in(&mut self) {
        let mut resident = self.other().unwrap_or_else(|told| panic!("refused: {told:?}"));
        resident.run(&look::parse_sensitive());
        self.resident = Some(resident);
        self.console = self
            .proxy
            .as_ref()
            .map(|proxy| proxy.log_in(&Login::new("app", "pgimbal", "app-secret")));
    }

    /// A new pool on new server connections, and data as in the beginning.
    pub(super) fn renew(&mut self) {
        self.resident = None;
        self.holder = None;
        self.console = None;
        if let Some(proxy) = &mut self.proxy {
            proxy.restart();
        }
        let others = "from pg_stat_activity where datname = current_database() \
                      and pid <> pg_backend_pid()";
        for superuser in &mut self.superusers {
            superuser.ok(&format!("select pg_terminate_backend(pid) {others}"));
            let start = Instant::now();
            while superuser.value(&format!("select count(*) {others}")) != "0" {
                assert!(start.elapsed() < SOON, "backends stay");
                std::thread::sleep(Duration::from_millis(1));
            }
            superuser.ok(CLEAN);
        }
        self.settle_in();
    }

    /// Takes back what a sequence left, if its texts say so.
    pub(super) fn clean(&mut self, script: &super::script::Script) {
        if LEAVES_DATA.iter().any(|word| script.says(word)) {
            for superuser in &mut self.superusers {
                superuser.ok(CLEAN);
            }
        }
    }

    /// The first client in both sessions.
    pub(super) fn pair(&self, login: &[(String, String)]) -> Result<[Side; 2], [Vec<String>; 2]> {
        let parameters: Vec<_> =
            login.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let sides = [log_in(&self.pooled, &parameters), log_in(&self.direct, &parameters)];
        match sides {
            [Ok(pooled), Ok(direct)] => Ok([pooled, direct]),
            sides => Err(sides.map(|side| side.err().unwrap_or_default())),
        }
    }

    /// Another client of the pool.
    pub(super) fn other(&self) -> Result<Side, Vec<String>> {
        log_in(&self.pooled, &[])
    }

    /// Why the console says that a client keeps its server connection.
    pub(super) fn pinned(&mut self) -> Option<String> {
        let reply = self.console.as_mut()?.query("show clients");
        let column = reply.columns().iter().position(|name| name == "pinned")?;
        let reasons = reply.texts().into_iter().map(|mut row| row.swap_remove(column));
        reasons.into_iter().find(|reason| !reason.is_empty() && reason != "NULL")
    }

    /// Waits until nobody holds an advisory lock in either database: who has left a moment ago.
    pub(super) fn wait_for_locks(&mut self) {
        let locks = "select count(*) from pg_locks where locktype = 'advisory' and database = \
                     (select oid from pg_database where datname = current_database())";
        let start = Instant::now();
        let superusers = &mut self.superusers;
        while superusers.iter_mut().any(|superuser| superuser.value(locks) != "0") {
            if start.elapsed() > SOON {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether the client whose sides these are stays pinned although it goes on.
    pub(super) fn stays_pinned(&mut self, sides: &mut [Side; 2]) -> Option<String> {
        let start = Instant::now();
        loop {
            let reason = self.pinned()?;
            if start.elapsed() > SOON {
                return Some(reason);
            }
            for side in sides.iter_mut() {
                side.run(&[super::script::Msg::Query(b"select 1".to_vec())]);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn log_in(
    (port, database): &(u16, String),
    parameters: &[(&str, &str)],
) -> Result<Side, Vec<String>> {
    let mut login = Login::new("app", database, "app-secret");
    for (name, value) in parameters {
        login = login.with(name, value);
    }
    Side::log_in(*port, &login)
}

/// How pgimbal is told to look after state.
pub(super) struct Verify(Option<String>);

impl Verify {
    /// What `PGIMBAL_STATE_VERIFY` says, if anything.
    pub(super) fn asked() -> Self {
        Self(std::env::var("PGIMBAL_STATE_VERIFY").ok())
    }

    /// Whether this pgimbal knows the option at all.
    pub(super) fn is_known() -> bool {
        pgimbal_config::reference().contains("`verify`")
    }

    /// The one place where the option is written.
    fn of(&self, config: Config, kind: Kind) -> Config {
        if !Self::is_known() {
            return config;
        }
        let fitting = if kind.hidden { "always" } else { "text" };
        config.set("verify", format!("{:?}", self.0.as_deref().unwrap_or(fitting)))
    }

    /// Whether sequences may hide something from the texts.
    pub(super) fn may_hide(&self) -> bool {
        self.0.as_deref().is_none_or(|verify| verify == "always")
    }
}
