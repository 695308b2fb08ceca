//! Other people's frameworks and drivers in transaction mode, with what they do to their sessions
//! by themselves: Django, psqlODBC, ActiveRecord, golang-migrate, pgAdmin, node-postgres and
//! SQLAlchemy.
//!
//! Each program runs on PostgreSQL itself first, so that what fails through pgimbal is pgimbal's.

use std::process::Command;

use pgimbal_tests::http::metric;
use pgimbal_tests::library::{converse, migrators, node, python, ruby};
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Login, Pgimbal, Postgres};

/// The state of a session that another one must never see, as counts that are 0.
const LEFT_BEHIND: [(&str, &str); 6] = [
    (
        "settings",
        "select count(*) from pg_settings where source = 'session' \
     and name not like 'transaction%'",
    ),
    ("a role", "select count(*) where current_user <> 'scram' or session_user <> 'scram'"),
    ("a tenant", "select count(*) where current_setting('app.tenant_id', true) <> ''"),
    ("cursors", "select count(*) from pg_cursors where is_holdable"),
    ("channels", "select count(*) from pg_listening_channels()"),
    ("statements", "select count(*) from pg_prepared_statements where from_sql"),
];

struct Library {
    pg: Postgres,
    pool_size: u16,
    prepare: &'static str,
}

impl Library {
    fn new(pool_size: u16) -> Self {
        Self { pg: Postgres::start(), pool_size, prepare: "" }
    }

    /// SQL of the superuser for the tables that the program finds.
    fn prepared_by(mut self, sql: &'static str) -> Self {
        self.prepare = sql;
        self
    }

    /// Runs the program on PostgreSQL itself, then through a pool on an equal database.
    fn run(&self, command: impl Fn() -> Command) {
        self.run_with(command, |_, _| {});
    }

    /// The same with a look of the test's own at what the program names.
    fn run_with(&self, command: impl Fn() -> Command, mut look: impl FnMut(&Pgimbal, &str)) {
        self.fresh();
        let itself = "PostgreSQL itself";
        let usual = converse(command(), itself, self.pg.port, |what| self.no_lock_stays(what));
        self.fresh();
        let config = Config::before(&self.pg).set("pool_size", self.pool_size).set("workers", 2);
        let proxy = config.set("auth_type", "\"scram-sha-256\"").start();
        let complaints = converse(command(), "pgimbal", proxy.port, |what| {
            nobody_is_pinned(&proxy, what);
            self.no_lock_stays(what);
            look(&proxy, what);
        });
        // What is raised where nobody can catch it, such as in a destructor, is only printed.
        assert!(complaints.is_empty() || !usual.is_empty(), "{complaints}");
        let backends = self.pg.backends();
        assert!(backends <= usize::from(self.pool_size), "{backends} connections");
        self.nothing_is_left(&proxy);
    }

    fn fresh(&self) {
        eventually("the program's connections end", SOON, || self.pg.backends() == 0);
        self.pg.run(
            "drop schema public cascade; create schema public; grant all on schema public to scram",
        );
        self.pg.run(self.prepare);
    }

    fn no_lock_stays(&self, what: &str) {
        let locks = "select count(*) from pg_locks where locktype = 'advisory'";
        assert_eq!(self.pg.value(locks), "0", "locks stay behind: {what}");
    }

    /// Every server connection of the pool, one beside the other, is as a new one.
    fn nothing_is_left(&self, proxy: &Pgimbal) {
        let login = Login::new("scram", "app", "scram-secret");
        let mut next: Vec<_> = (0..self.pool_size).map(|_| proxy.log_in(&login)).collect();
        for client in &mut next {
            client.ok("begin");
        }
        for client in &mut next {
            for (what, sql) in LEFT_BEHIND {
                assert_eq!(client.value(sql), "0", "{what} reached the next client");
            }
        }
    }
}

/// SHOW CLIENTS shows nobody pinned, while the program still has its connections.
fn nobody_is_pinned(proxy: &Pgimbal, what: &str) {
    let clients = || -> Vec<Vec<(String, String)>> {
        let is = |row: &[(String, String)], name: &str, value: &str| {
            row.iter().any(|(column, text)| column == name && text == value)
        };
        proxy.console("show clients").into_iter().filter(|row| is(row, "user", "scram")).collect()
    };
    assert!(!clients().is_empty(), "nobody is there any more: {what}");
    let pinned = || -> Vec<String> {
        let cells = clients().into_iter().flatten().filter(|(name, _)| name == "pinned");
        cells.map(|(_, text)| text).filter(|text| !text.is_empty() && text != "NULL").collect()
    };
    let start = std::time::Instant::now();
    while !pinned().is_empty() {
        assert!(start.elapsed() < SOON, "still pinned: {what}: {:?}", pinned());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Questions so far, of every kind, and transactions.
fn questions_and_transactions(proxy: &Pgimbal) -> [f64; 2] {
    let page = proxy.metrics();
    ["pgimbal_questions_total", "pgimbal_transactions_total"]
        .map(|name| metric(&page, name, &[]).unwrap_or_else(|| panic!("/metrics has no {name}")))
}

fn django(binding: &str) {
    let mut before = None;
    let command = || {
        let mut command = python("with_django.py");
        command.env("SERVER_SIDE_BINDING", binding);
        command
    };
    Library::new(4).run_with(command, |proxy, what| match what {
        "the start of the plain load" => before = Some(questions_and_transactions(proxy)),
        "the end of the plain load" => {
            let [questions, transactions] = questions_and_transactions(proxy);
            let [asked, done] = before.expect("a start");
            let (questions, transactions) = (questions - asked, transactions - done);
            assert!(transactions > 500.0, "{transactions} transactions are no load");
            assert!(
                questions < transactions / 100.0,
                "{questions} questions for {transactions} transactions"
            );
        }
        _ => {}
    });
    assert!(before.is_some(), "there was no plain load");
}

#[test]
fn django_with_values_in_the_text() {
    django("");
}

#[test]
fn django_with_bound_values() {
    django("on");
}

fn psqlodbc(steps: &[&str]) {
    Library::new(4).run(|| {
        let mut command = python("with_psqlodbc.py");
        command.args(steps);
        command
    });
}

#[test]
fn psqlodbc_rolls_single_statements_back() {
    psqlodbc(&["statement_rollback"]);
}

#[test]
fn psqlodbc_reads_by_cursors() {
    psqlodbc(&["cursors_of_transactions", "cursors_in_autocommit"]);
}

#[test]
fn active_record_migrates_twice_at_once() {
    let library = Library::new(4);
    library.run(|| ruby("with_active_record.rb"));
    let applied =
        library.pg.value("select string_agg(version::text, ' ' order by version) from applied");
    assert_eq!(applied, "1 2 3");
}

fn golang_migrate(driver: &str) {
    let library = Library::new(3);
    library.run(|| migrators(driver));
    let applied =
        library.pg.value("select string_agg(version::text, ' ' order by version) from applied");
    assert_eq!(applied, "1 2 3 4 5");
    assert_eq!(
        library.pg.value("select version || ' ' || dirty from schema_migrations"),
        "5 false"
    );
}

#[test]
fn eight_golang_migrates_at_once_with_lib_pq() {
    golang_migrate("postgres");
}

#[test]
fn eight_golang_migrates_at_once_with_pgx() {
    golang_migrate("pgx5");
}

#[test]
fn pgadmin_opens_its_connections() {
    let library = Library::new(4);
    library.pg.run("create role reader; grant reader to scram");
    library.run(|| python("as_pgadmin.py"));
}

/// Rows of 12 tenants, of which a session sees those of its own.
const TENANTS: &str = "\
    create table orders (tenant int not null, item text not null);
    insert into orders select t, 'item ' || n from generate_series(1, 12) t, generate_series(1, t) n;
    alter table orders enable row level security;
    create policy own on orders using (tenant = current_setting('app.tenant_id', true)::int);
    grant select, insert on orders to scram";

#[test]
fn sqlalchemy_with_row_level_security() {
    Library::new(8).prepared_by(TENANTS).run(|| python("with_sqlalchemy.py"));
}

#[test]
fn node_postgres_with_row_level_security() {
    Library::new(8).prepared_by(TENANTS).run(|| node("with_node_postgres.js"));
}
