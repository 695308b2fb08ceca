//! Other people's clients in transaction mode: psql, pgbench, tokio-postgres, psycopg 3, asyncpg.

use std::process::Command;
use std::time::Duration;

use pgimbal_tests::library::{converse, python};
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::program::run;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Pgimbal, Postgres, postgres};

const LIMIT: Duration = Duration::from_secs(120);

fn start(auth_type: &str) -> (Postgres, Pgimbal) {
    let pg = Postgres::start();
    pg.run("grant create on schema public to app, scram");
    let config = Config::before(&pg).set("pool_size", 5).set("workers", 2);
    let proxy = config.set("auth_type", format!("\"{auth_type}\"")).start();
    (pg, proxy)
}

fn libpq(program: &str, proxy: &Pgimbal) -> Command {
    let mut command = Command::new(postgres::bin().join(program));
    command.env("PGHOST", "127.0.0.1").env("PGPORT", proxy.port.to_string());
    command.env("PGUSER", "scram").env("PGPASSWORD", "scram-secret").env("PGDATABASE", "app");
    command.env("HOME", proxy.directory());
    command
}

fn psql(proxy: &Pgimbal, script: &str) -> String {
    run(libpq("psql", proxy).args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", script]), LIMIT)
        .succeeded()
        .stdout
}

#[test]
fn psql_does_what_it_does() {
    let (_pg, proxy) = start("scram-sha-256");
    let script = proxy.directory().join("script.sql");
    std::fs::write(
        &script,
        "create table t (x int, y text);\n\
         begin; insert into t values (1, 'one'); savepoint s; insert into t values (2, 'two');\n\
         rollback to s; commit;\n\
         \\copy t from stdin with (format csv)\n3,three\n4,four\n\\.\n\
         \\copy (select y from t order by x) to stdout\n\
         select x from t where x = $1 \\bind 3 \\g\n\
         set work_mem = '9MB';\nshow work_mem;\n\
         \\d t\n\\dt\n\\gset\n\
         prepare p as select 42;\nexecute p;\n\
         select 'last';\n",
    )
    .expect("a script");
    let text = std::fs::read_to_string(&script).expect("the script");
    // \bind came with psql 16.
    let text = text
        .replace("select x from t where x = $1 \\bind 3 \\g\n", "select 3;\n")
        .replace("\\gset\n", "");
    std::fs::write(&script, text).expect("a script");
    let mut command = libpq("psql", &proxy);
    command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-f"]).arg(&script);
    let stdout = run(&mut command, LIMIT).succeeded().stdout;
    let expected = "one\nthree\nfour\n3\n9MB\n";
    assert!(stdout.starts_with(expected), "{stdout}");
    assert!(stdout.ends_with("42\nlast\n"), "{stdout}");
    assert_eq!(psql(&proxy, "select sum(x) from t"), "8\n");
}

#[test]
fn psql_is_interrupted_by_a_signal() {
    let (_pg, proxy) = start("scram-sha-256");
    let mut command = libpq("psql", &proxy);
    command.args(["-XAtq", "-c", "set statement_timeout = '500ms'", "-c", "select pg_sleep(30)"]);
    let finished = run(&mut command, LIMIT);
    assert!(!finished.success);
    assert!(finished.stderr.contains("statement timeout"), "{}", finished.stderr);
    let mut command = Command::new("timeout");
    command.args(["--signal=INT", "1"]).arg(postgres::bin().join("psql"));
    for (key, value) in libpq("psql", &proxy).get_envs() {
        command.env(key, value.expect("a value"));
    }
    let finished = run(command.args(["-XAtq", "-c", "select pg_sleep(30)"]), LIMIT);
    assert!(finished.stderr.contains("canceling statement due to user request"), "{finished:?}");
}

#[test]
fn pgbench_in_its_three_protocols() {
    let (pg, proxy) = start("scram-sha-256");
    let _ = run(libpq("pgbench", &proxy).args(["-i", "-q", "-s", "1"]), LIMIT).succeeded();
    for protocol in ["simple", "extended", "prepared"] {
        for kind in ["-S", "-N"] {
            let mut command = libpq("pgbench", &proxy);
            // pgbench waits for the answer to each PQprepare while its other clients sit in their
            // transactions: no more of them than servers, or it blocks itself.
            let [clients, each] = match (protocol, kind) {
                ("prepared", "-N") => ["5", "400"],
                _ => ["20", "100"],
            };
            command.args([kind, "-n", "-M", protocol, "-j", "2", "-c", clients, "-t", each]);
            let finished = run(&mut command, LIMIT).succeeded();
            let processed = "number of transactions actually processed: 2000/2000";
            assert!(finished.stdout.contains(processed), "{protocol}: {}", finished.stdout);
            assert!(
                finished.stdout.contains("number of failed transactions: 0"),
                "{}",
                finished.stdout
            );
        }
    }
    assert!(pg.backends() <= 5, "{} connections for a pool of 5", pg.backends());
    let history = pg.value("select count(*) from pgbench_history");
    assert_eq!(history, "6000", "transactions were lost or doubled");
}

#[test]
fn pgbench_connects_anew_for_each_transaction() {
    let (_pg, proxy) = start("scram-sha-256");
    let script = proxy.directory().join("one.sql");
    std::fs::write(&script, "select 1;\n").expect("a script");
    let mut command = libpq("pgbench", &proxy);
    command.args(["-n", "-C", "-c", "8", "-j", "2", "-t", "25", "-f"]).arg(&script);
    let finished = run(&mut command, LIMIT).succeeded();
    assert!(finished.stdout.contains("actually processed: 200/200"), "{}", finished.stdout);
}

#[test]
fn psycopg() {
    let (pg, proxy) = start("scram-sha-256");
    let _ = converse(python("with_psycopg.py"), "pgimbal", proxy.port, |_| {});
    assert!(pg.backends() <= 5);
}

#[test]
fn asyncpg() {
    let (pg, proxy) = start("scram-sha-256");
    let _ = converse(python("with_asyncpg.py"), "pgimbal", proxy.port, |_| {});
    assert!(pg.backends() <= 5);
}

/// After a Flush its server connection ends, three times outside of a transaction and three times
/// in one.
#[test]
fn asyncpg_keeps_its_connection_when_its_backend_ends_behind_a_flush() {
    let (pg, proxy) = start("trust");
    let mut ended = 0;
    let _ = converse(python("with_asyncpg_and_lost_backends.py"), "pgimbal", proxy.port, |_| {
        pg.run("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app'");
        eventually("pgimbal has seen its end", SOON, || proxy.console("show servers").is_empty());
        ended += 1;
    });
    assert_eq!(ended, 6);
}
