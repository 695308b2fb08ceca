//! Twenty rotations under load, with the first password all the way, and not one password
//! anywhere afterwards.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pgimbal_tests::pgimbal::{program, undisturbed};
use pgimbal_tests::program::{Finished, run};
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Pgimbal, postgres};

use super::{WithVault, admin, counted, proven, refused, shop, state_directory};

const ROTATIONS: usize = 20;
/// Twenty of them take a hundred seconds, and Vault is sealed twice.
const LONG: Duration = Duration::from_secs(240);

/// pgbench as `shop` with `password`, running `script`.
fn pgbench(proxy: &Pgimbal, password: &str, script: &Path) -> Command {
    let mut command = Command::new(postgres::bin().join("pgbench"));
    command.env("PGHOST", "127.0.0.1").env("PGPORT", proxy.port.to_string());
    command.env("PGUSER", "shop").env("PGPASSWORD", password).env("PGDATABASE", "app");
    command.env("HOME", proxy.directory()).arg("-n").arg("-f").arg(script);
    command
}

fn without_errors(finished: Finished) -> String {
    let finished = finished.succeeded();
    let all = format!("{}{}", finished.stdout, finished.stderr);
    assert!(finished.stdout.contains("number of failed transactions: 0"), "{all}");
    assert!(!all.contains("error") && !all.contains("abort"), "{all}");
    all
}

/// Clients that come anew for each transaction, until `done`.
fn reconnecting(proxy: &Pgimbal, password: &str, done: &AtomicBool) -> String {
    let script = proxy.directory().join("one.sql");
    fs::write(&script, "select 1;\n").expect("a script");
    let mut reports = String::new();
    while !done.load(Ordering::Relaxed) {
        let mut command = pgbench(proxy, password, &script);
        command.args(["-C", "-c", "4", "-j", "2", "-T", "10", "-R", "25"]);
        reports.push_str(&without_errors(run(&mut command, LONG)));
    }
    reports
}

/// Clients that stay for most of the run.
fn staying(proxy: &Pgimbal, password: &str) -> String {
    let script = proxy.directory().join("transaction.sql");
    let text = "begin;\nselect 1;\nselect pg_sleep(0.005);\ncommit;\n";
    fs::write(&script, text).expect("a script");
    let mut command = pgbench(proxy, password, &script);
    command.args(["-c", "8", "-j", "1", "-T", "95", "-R", "40"]);
    without_errors(run(&mut command, LONG))
}

/// One raw client that stays for the whole run and looks at every answer.
fn watching(proxy: &Pgimbal, password: &str, done: &AtomicBool, answers: &AtomicU64) {
    let mut client = proxy.log_in(&shop(password));
    while !done.load(Ordering::Relaxed) {
        assert_eq!(client.value("select current_user"), "shop");
        answers.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sets its flag at the end of the scope, however that ends, so that no thread waits for ever.
struct Done<'d>(&'d AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn rotation_1_twenty_rotations_under_load_show_no_error_and_no_password() {
    let setup = WithVault::new(5);
    let state = state_directory();
    let config = setup.polled_every("30s").set("grace_generations", 25).set("pool_size", 4);
    let config = config.set("state_dir", format!("\"{}\"", state.display()));
    let config = config.set("log", "\"debug\"");
    // New server connections all the time, each with the password of the moment.
    let config = config.set("server_lifetime", "\"2s\"").set("workers", 2);
    let passwords = setup.vault.record(&["shop"]);
    let first = setup.password();
    let proxy = proven(config, &first);
    let (done, answers) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut seen = String::new();
    std::thread::scope(|scope| {
        let end = Done(&done);
        let reconnecting = scope.spawn(|| reconnecting(&proxy, &first, &done));
        let staying = scope.spawn(|| staying(&proxy, &first));
        let watching = scope.spawn(|| watching(&proxy, &first, &done, &answers));
        let start = Instant::now();
        let reached = |count: usize| {
            eventually(&format!("{count} passwords"), LONG, || {
                assert!(!watching.is_finished(), "the client that watches has ended");
                passwords.count() >= count
            });
        };
        for pause in [1 + ROTATIONS / 3, 1 + 2 * ROTATIONS / 3] {
            reached(pause);
            // Sealed between two rotations: what the server has, pgimbal has heard of.
            eventually("the last password is known", SOON, || {
                super::accepted(&proxy, "shop") >= passwords.count()
            });
            setup.vault.seal();
            let answered = answers.load(Ordering::Relaxed);
            seen.push_str(&console(&proxy));
            eventually("traffic goes on", SOON, || answers.load(Ordering::Relaxed) > answered + 50);
            // Longer than a period: a rotation is overdue when Vault comes back.
            std::thread::sleep(Duration::from_secs(5));
            setup.vault.unseal();
        }
        reached(1 + ROTATIONS);
        eprintln!("{ROTATIONS} rotations in {:?}", start.elapsed());
        drop(end);
        for thread in [reconnecting, staying] {
            seen.push_str(&thread.join().expect("clients without an error"));
        }
        watching.join().expect("a client without an error");
    });
    let older = ["user=\"shop\"", "generation=\"older\""];
    assert!(counted(&proxy, "pgimbal_credential_logins_total", &older) > 100.0);
    // The server has a new password a moment before Vault says it; a login then is held.
    assert!(setup.pg.logged("password authentication failed") <= 4 * ROTATIONS);
    assert!(!proxy.log().contains("ERROR"), "{}", proxy.log());
    for wrong in ["wrong", "", "also wrong"] {
        seen.push_str(&format!("{:?}", refused(&proxy, &shop(wrong))));
    }
    seen.push_str(&console(&proxy));
    seen.push_str(&check(&proxy));
    assert!(passwords.count() > ROTATIONS);
    passwords.appear_nowhere(&[
        ("pgimbal's log", &proxy.log()),
        ("PostgreSQL's log", &setup.pg.log()),
        ("reports, errors and the console", &seen),
        ("the metrics", &proxy.metrics()),
        ("the history", &texts(&state)),
    ]);
}

/// What all files of a directory hold.
fn texts(directory: &Path) -> String {
    let files = fs::read_dir(directory).expect("the directory").flatten();
    let bytes = files.filter_map(|entry| fs::read(entry.path()).ok());
    bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect()
}

/// Everything that the console says.
fn console(proxy: &Pgimbal) -> String {
    let mut admin = admin(proxy);
    let tables = ["credentials", "clients", "servers", "pools", "config", "databases", "stats"];
    let answers = tables.map(|table| format!("{:?}", admin.query(&format!("show {table}"))));
    let refresh = format!("{:?}", admin.query("refresh shop"));
    answers.concat() + &refresh
}

/// What `pgimbal check` says of this configuration.
fn check(proxy: &Pgimbal) -> String {
    let mut command = undisturbed(program());
    command.arg("check").arg("--config").arg(proxy.directory().join("pgimbal.toml"));
    let finished = run(&mut command, LONG);
    format!("{}{}", finished.stdout, finished.stderr)
}

#[test]
fn the_most_talkative_log_shows_no_password_and_no_token() {
    let setup = WithVault::by_hand();
    let token = setup.vault.reader();
    let config = super::shop_from(&setup.pg, &setup.vault.table(&token), "300ms");
    let first = setup.password();
    let passwords = pgimbal_tests::Passwords::default();
    for method in ["scram-sha-256", "password", "md5"] {
        let config =
            config.clone().set("auth_type", format!("\"{method}\"")).set("log", "\"trace\"");
        let proxy = proven(config, &setup.password());
        passwords.add(&setup.password());
        let next = setup.rotate();
        super::eventually_accepted(&proxy, 2);
        setup.pg.end_backends();
        drop(proxy.log_in(&shop(&next)).value("select 1"));
        let _ = refused(&proxy, &shop("wrong"));
        for secret in [&first, &next, &token] {
            passwords.add(secret);
        }
        passwords.appear_nowhere(&[("the log", &proxy.log())]);
    }
}
