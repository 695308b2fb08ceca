//! A stage for comparisons: a pool beside a direct session. What a pooled client does is compared
//! with what PostgreSQL says to the same client directly, and with what the pool's next client
//! sees.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::message::Message;
use crate::pgimbal::{Config, Pgimbal};
use crate::postgres::Postgres;
use crate::script::{Script, Shape, comparable_replies};
use crate::startup::Login;
use crate::wire_client::WireClient;

/// Time that a client may wait for a server connection that no other client should keep.
const FREE_WITHIN: Duration = Duration::from_secs(2);

/// Roles, for the whole server. `app` may be `boss`.
const ROLES: &str = "create role boss; grant boss to app";

/// In both databases: a table that everybody may use, and one whose key is checked at the end.
const TABLES: &str = "\
    grant all on schema public to public; \
    create table accounts (id int, owner text); insert into accounts values (1, 'real'); \
    create table deferred (id int primary key deferrable initially deferred); \
    insert into deferred values (1); grant all on accounts, deferred to public; \
    create extension pg_trgm";

/// The queries that show the state of a session.
const LOOK: [(&str, &str); 9] = [
    ("user", "select current_user, session_user, current_setting('role')"),
    ("schemas", "select regexp_replace(current_schemas(false)::text, 'pg_temp_[0-9]+', 'pg_temp')"),
    (
        "setting",
        "select name, setting from pg_settings where name not like '%.%' \
         and name not like 'transaction\\_%' order by name",
    ),
    (
        "custom",
        "select n, coalesce(current_setting(n, true), '') from unnest(array['app.tenant', 'app.x', \
         'app.y', 'plpgsql.my_flag', 'pg_trgm.similarity_treshold']) n",
    ),
    ("accounts", "select owner from accounts order by 1"),
    (
        "temporary",
        "select count(*) from pg_depend where refclassid = 'pg_namespace'::regclass \
         and refobjid = pg_my_temp_schema()",
    ),
    (
        "lock",
        "select classid, objid, mode from pg_locks \
         where locktype = 'advisory' and pid = pg_backend_pid() order by 1, 2, 3",
    ),
    ("channel", "select * from pg_listening_channels()"),
    (
        "name",
        "select 'cursor', name from pg_cursors where name <> '' union all \
         select 'statement', name from pg_prepared_statements where from_sql order by 1, 2",
    ),
];

/// The expectation for the client's server connection after the client's script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionExpectation {
    /// Other clients get the connection.
    Free,
    /// Other clients may have to wait until the client has left, and SHOW CLIENTS gives the reason.
    MayStay,
}

/// A server with database `app` for a pool and `twin` for sessions of their own: what belongs to
/// a database (locks, channels, tables) cannot meet.
pub struct Comparison {
    /// Both databases' server.
    pub pg: Postgres,
    /// A pool of one server connection in front of `app`, unless the test changed the
    /// configuration.
    pub proxy: Pgimbal,
    login: Login,
}

impl Comparison {
    /// With nothing but what every comparison has.
    #[must_use]
    pub fn new() -> Self {
        Self::with("", |config| config)
    }

    /// Makes a stage with `set_up` run by a superuser in both databases, and with a changed
    /// configuration.
    #[must_use]
    pub fn with(set_up: &str, change: impl FnOnce(Config) -> Config) -> Self {
        let pg = Postgres::start();
        pg.run(ROLES);
        pg.run("create database twin");
        for database in ["app", "twin"] {
            let mut superuser = superuser_of(&pg, database);
            superuser.ok(TABLES);
            superuser.ok(set_up);
        }
        let config = Config::before(&pg).set("pool_size", 1).set("max_pinned", 1);
        let proxy = change(config.set("query_wait_timeout", "\"20s\"")).start();
        Self { pg, proxy, login: Login::new("app", "app", "app-secret") }
    }

    /// Adds a startup parameter to the logins of the pooled client and of the direct session.
    #[must_use]
    pub fn logged_in_with(mut self, name: &str, value: &str) -> Self {
        self.login = self.login.with(name, value);
        self
    }

    /// Runs `sql` as superuser in both databases.
    pub fn run(&self, sql: &str) {
        for database in ["app", "twin"] {
            superuser_of(&self.pg, database).ok(sql);
        }
    }

    /// A superuser's session in `app`, and one in `twin`.
    #[must_use]
    pub fn superusers(&self) -> [WireClient; 2] {
        ["app", "twin"].map(|database| superuser_of(&self.pg, database))
    }

    /// A client of the pool.
    #[must_use]
    pub fn pooled(&self) -> WireClient {
        self.proxy.log_in(&self.login)
    }

    /// A direct session in `twin` with the same startup parameters.
    ///
    /// # Panics
    /// When the login fails.
    #[must_use]
    pub fn direct(&self) -> WireClient {
        direct(&self.pg, &self.login).expect("a direct login")
    }

    /// The reasons in SHOW CLIENTS for which clients are pinned.
    #[must_use]
    pub fn pins(&self) -> Vec<String> {
        let rows = self.proxy.console("show clients");
        let cells = rows.into_iter().flatten().filter(|(name, _)| name == "pinned");
        cells.map(|(_, value)| value).filter(|value| !matches!(&value[..], "" | "NULL")).collect()
    }

    /// Plays `script` in every shape, see [`Comparison::check`].
    ///
    /// # Panics
    /// With every difference.
    pub fn compare(&self, script: &Script, expectation: ConnectionExpectation) {
        self.compare_in(&Shape::ALL, script, expectation);
    }

    /// As `Stage::compare`, with a script of texts.
    ///
    /// # Panics
    /// As [`Comparison::compare`].
    pub fn compare_steps(&self, steps: &[&str], expectation: ConnectionExpectation) {
        self.compare(&Script::new(steps), expectation);
    }

    /// As `Stage::compare`, in some shapes only.
    ///
    /// # Panics
    /// As [`Comparison::compare`].
    pub fn compare_in(
        &self,
        shapes: &[Shape],
        script: &Script,
        expectation: ConnectionExpectation,
    ) {
        let mut differences = Vec::new();
        for shape in shapes {
            differences.extend(self.check(script, *shape, expectation));
        }
        assert!(differences.is_empty(), "{script:?}\n{}", differences.join("\n"));
    }

    /// Plays `script` on the pool and on a direct session, and returns the differences: in the
    /// replies, in the state of both sessions, and in what other clients of the pool see before and
    /// after the client has left. Empty when there are none.
    ///
    /// # Panics
    /// When a client gets no reply.
    #[must_use]
    pub fn check(
        &self,
        script: &Script,
        shape: Shape,
        expectation: ConnectionExpectation,
    ) -> Vec<String> {
        let clean = look(&mut direct(&self.pg, &twin_of("app")).expect("a direct login"));
        let mut found = Vec::new();
        let mut note = |what: &str, ours: &BTreeSet<String>, must: &BTreeSet<String>| {
            found.extend(difference(&format!("{shape:?}: {what}"), ours, must));
        };
        let mut other = self.proxy.client();
        let (mut pooled, mut twin) = (self.pooled(), self.direct());
        let answers = comparable_replies(&script.play(&mut pooled, shape));
        let must = comparable_replies(&script.play(&mut twin, shape));
        let served = self.serves(&mut other, expectation);
        if served {
            note("the next client", &look(&mut other), &clean);
        }
        // Its SQL-prepared statements are made real when a text names them: the list of them is
        // PostgreSQL's only for a session of its own.
        let own = |mut facts: BTreeSet<String>| {
            facts.retain(|fact| !fact.starts_with("name: statement"));
            facts
        };
        note("the client itself", &own(look(&mut pooled)), &own(look(&mut twin)));
        if served {
            note("the next client after another turn", &look(&mut other), &clean);
        }
        pooled.terminate();
        if !served {
            other.read_reply();
        }
        note("a client after the other has left", &look(&mut other), &clean);
        note("a new client", &look(&mut self.proxy.client()), &clean);
        if answers != must {
            found.push(format!("{shape:?}: told\n  {answers:#?}\nmust be\n  {must:#?}"));
        }
        if !served && expectation == ConnectionExpectation::Free {
            found.push(format!("{shape:?}: the client kept its server connection"));
        }
        found
    }

    /// Whether `other` gets a server connection now. If not, its query is left waiting.
    ///
    /// # Panics
    /// When `other` waits although no client is pinned.
    pub fn serves(&self, other: &mut WireClient, expectation: ConnectionExpectation) -> bool {
        self.serves_query(other, "select 1", expectation)
    }

    /// As `Stage::serves`, with a query of the test's choice.
    ///
    /// # Panics
    /// As [`Comparison::serves`].
    pub fn serves_query(
        &self,
        other: &mut WireClient,
        sql: &str,
        expectation: ConnectionExpectation,
    ) -> bool {
        let start = Instant::now();
        other.start_query(sql);
        loop {
            if !other.is_silent_for(Duration::from_millis(50)) {
                other.read_reply();
                return true;
            }
            let pinned = !self.pins().is_empty();
            if pinned
                && (expectation == ConnectionExpectation::MayStay || start.elapsed() > FREE_WITHIN)
            {
                return false;
            }
            assert!(pinned || start.elapsed() < FREE_WITHIN * 3, "a client waits for nothing");
        }
    }
}

impl Default for Comparison {
    fn default() -> Self {
        Self::new()
    }
}

/// The state of a session as its own queries show it, one line for each fact.
pub fn look(client: &mut WireClient) -> BTreeSet<String> {
    let mut facts = BTreeSet::new();
    for (label, sql) in LOOK {
        let reply = client.query(sql);
        let errors =
            reply.errors().into_iter().map(|error| format!("{} {}", error.code, error.message));
        let rows = reply.texts().into_iter().map(|row| row.join(" = "));
        facts.extend(errors.chain(rows).map(|fact| format!("{label}: {fact}")));
    }
    facts
}

/// A direct session in `twin`, with everything else of `login`.
///
/// # Errors
/// The messages up to the ErrorResponse, when the login is refused.
pub fn direct(server: &Postgres, login: &Login) -> Result<WireClient, Vec<Message>> {
    let mut login = login.clone();
    "twin".clone_into(&mut login.parameters[1].1);
    let mut client = WireClient::tcp(server.port);
    client.log_in(&login).map(|()| client)
}

fn twin_of(user: &str) -> Login {
    Login::new(user, "twin", "")
}

fn superuser_of(server: &Postgres, database: &str) -> WireClient {
    let mut client = WireClient::unix(&server.socket());
    client.log_in(&Login::new("postgres", database, "")).expect("a superuser's login");
    client
}

/// The facts that are in only one of the two sets.
fn difference(what: &str, ours: &BTreeSet<String>, must: &BTreeSet<String>) -> Vec<String> {
    let wrong = ours.difference(must).map(|fact| format!("{what}: has {fact}"));
    let missing = must.difference(ours).map(|fact| format!("{what}: must have {fact}"));
    wrong.chain(missing).collect()
}
