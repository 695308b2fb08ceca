//! One pool and one PostgreSQL session side by side, and a sequence run on both.

use std::time::{Duration, Instant};

use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::{Login, Pgimbal, Postgres, WireClient};

use super::database::{CLEAN, LEAVES_DATA, WARM};
use super::exceptions::MAY_STAY_PINNED;
use super::generate::Kind;
use super::look::{self, Baseline};
use super::script::{Msg, Script};
use super::side::Side;

/// How many sequences a session beside the pool serves.
const USES: usize = 30;
/// How long what is done in the background may take on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// How long an answer may take there, and while shrinking.
const PATIENCE: [Duration; 2] = [SOON, Duration::from_secs(2)];
/// How long a pin may outlive its state, and while shrinking.
const PIN: [Duration; 2] = [SOON, Duration::from_millis(100)];

/// A pool and its database, another database for the session beside it, and everybody else.
pub(super) struct Lane {
    pub(super) kind: Kind,
    /// Whether a pin without a reason is a difference.
    pub(super) checks_pins: bool,
    /// Whether waiting should be short, since a difference is known.
    pub(super) hurry: bool,
    /// Where the pooled client connects, and to which database.
    pooled: (u16, String),
    direct: (u16, String),
    proxy: Option<Pgimbal>,
    console: Option<WireClient>,
    superusers: [WireClient; 2],
    pub(super) baseline: Baseline,
    pub(super) resident: Option<Side>,
    /// A session beside the pool that was cleaned and can be used again, and how often.
    spare: Option<(Side, usize)>,
    used: usize,
    pub(super) holder: Option<Side>,
}

/// The databases of lane `number`: the pool's, and the one beside it.
pub(super) fn databases(number: usize) -> [String; 2] {
    [format!("a{number}"), format!("b{number}")]
}

/// What code sets is asked about by the names that sessions have set before.
const NAMES: &str = "set local app.tenant = ''; set local app.x = ''; set local app.\"user\" = ''; \
                     set local app.y = ''";

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
            let kept = std::env::var("PGIMBAL_STATE_PREPARED").ok().and_then(|n| n.parse().ok());
            let listens = std::env::var("PGIMBAL_STATE_LISTEN").ok();
            let listens = listens.as_deref().unwrap_or("share");
            let config = config.set("listen_mode", format!("{listens:?}"));
            let config = match kept.or_else(|| kind.two.then_some(4_u32)) {
                Some(kept) => config.set("max_prepared_statements", kept),
                None => config,
            };
            verify.of(config, kind).start()
        });
        let pooled = proxy.as_ref().map_or((pg.port, pool), |proxy| (proxy.port, "app".to_owned()));
        let direct = (pg.port, direct);
        let mut seeded = pg.superuser();
        // Not a number that a reset goes on from: those are multiples of 1/65536.
        seeded.ok("select setseed(0.3)");
        let seeded = seeded.value("select random()::text");
        let mut fresh =
            log_in(&direct, &[], PATIENCE[0]).unwrap_or_else(|told| panic!("refused: {told:?}"));
        let baseline = Baseline::of(&mut fresh, seeded);
        fresh.leave();
        let mut lane = Self {
            kind,
            checks_pins: std::env::var("PGIMBAL_STATE_PINS").as_deref() != Ok("0"),
            hurry: false,
            pooled,
            direct,
            proxy,
            console: None,
            superusers,
            baseline,
            resident: None,
            spare: None,
            used: 0,
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
        if self.is_pooled() {
            let clients = (0..if self.kind.two { 2 } else { 1 }).map(|_| self.other());
            let clients: Result<Vec<_>, _> = clients.collect();
            let mut clients = clients.unwrap_or_else(|told| panic!("refused: {told:?}"));
            for client in &mut clients {
                client.run(&["begin", WARM, NAMES].map(Msg::query));
            }
            for mut client in clients {
                client.run(&[Msg::query("commit")]);
                client.leave();
            }
        }
        let mut resident = self.other().unwrap_or_else(|told| panic!("refused: {told:?}"));
        resident.run(&look::parse_sensitive(look::RESIDENT));
        self.resident = Some(resident);
        self.console = self
            .proxy
            .as_ref()
            .map(|proxy| proxy.log_in(&Login::new("app", "pgimbal", "app-secret")));
    }

    /// A new pool on new server connections, and data as in the beginning.
    pub(super) fn renew(&mut self) {
        self.resident = None;
        self.spare = None;
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
    pub(super) fn clean(&mut self, script: &Script) {
        if LEAVES_DATA.iter().any(|word| script.says(word)) {
            for superuser in &mut self.superusers {
                superuser.ok(CLEAN);
            }
        }
    }

    /// The first client in both sessions.
    pub(super) fn pair(
        &mut self,
        login: &[(String, String)],
    ) -> Result<[Side; 2], [Vec<String>; 2]> {
        let parameters: Vec<_> =
            login.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let patience = PATIENCE[usize::from(self.hurry)];
        let spare = self.spare.take().filter(|_| login.is_empty());
        let direct = match spare {
            Some((side, used)) => {
                self.used = used;
                Ok(side)
            }
            None => {
                self.used = 0;
                log_in(&self.direct, &parameters, patience).map(warm)
            }
        };
        let pooled = log_in(&self.pooled, &parameters, patience);
        match [pooled, direct] {
            [Ok(pooled), Ok(direct)] if self.is_pooled() => Ok([pooled, direct]),
            [Ok(pooled), Ok(direct)] => Ok([warm(pooled), direct]),
            sides => Err(sides.map(|side| side.err().unwrap_or_default())),
        }
    }

    /// Both sides leave. A backend of its own is waited for, or cleaned and kept; pgimbal must
    /// manage by itself.
    pub(super) fn leave(&mut self, [mut pooled, mut direct]: [Side; 2]) {
        if self.is_pooled() {
            pooled.leave();
        } else {
            pooled.leave_and_wait();
        }
        let is_whole = direct.is_idle() && !direct.has_an_open_segment();
        if is_whole && direct.is_plain() && self.used < USES {
            direct.run(&["set session authorization default", "discard all"].map(Msg::query));
            // What nobody has compared any more.
            direct.take_heard(0);
            self.spare = Some((direct, self.used + 1));
        } else {
            direct.leave_and_wait();
        }
    }

    /// Another client of the pool.
    pub(super) fn other(&self) -> Result<Side, Vec<String>> {
        log_in(&self.pooled, &[], PATIENCE[usize::from(self.hurry)])
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
            // Statements of SQL's that are there are a reason, and waiting would not end it.
            let has_reason = |reason: &str| {
                MAY_STAY_PINNED.iter().any(|(known, _)| *known == reason)
                    || reason == "sql_prepare" && look::has_sql_statements(&mut sides[1])
            };
            if reason.split(", ").all(has_reason) {
                return None;
            }
            if start.elapsed() > PIN[usize::from(self.hurry)] {
                return Some(reason);
            }
            for side in sides.iter_mut() {
                side.run(&[Msg::query("select 1")]);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The same with a temporary schema. What it was told at login is kept.
fn warm(mut side: Side) -> Side {
    side.run(&[Msg::query(WARM)]);
    side
}

fn log_in(
    (port, database): &(u16, String),
    parameters: &[(&str, &str)],
    patience: Duration,
) -> Result<Side, Vec<String>> {
    let mut login = Login::new("app", database, "app-secret");
    for (name, value) in parameters {
        login = login.with(name, value);
    }
    Side::log_in(*port, &login, patience)
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
