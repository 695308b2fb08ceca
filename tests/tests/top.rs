//! `pgimbal top` on a pseudo-terminal and in a pipe, at a real pgimbal and a real PgBouncer.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pgimbal_tests::pgimbal::{Config, program, undisturbed};
use pgimbal_tests::port::free_port;
use pgimbal_tests::postgres::as_postgres;
use pgimbal_tests::process::{Directory, Process, directory};
use pgimbal_tests::program::{Finished, run};
use pgimbal_tests::pseudo_terminal::PseudoTerminal;
use pgimbal_tests::{Login, Pgimbal, Postgres, WireClient};
use rustix::process::Signal;

const LIMIT: Duration = Duration::from_secs(60);

/// `pgimbal top` with these arguments, without variables and files of who runs the tests.
fn top(arguments: &[&str]) -> Command {
    let mut command = undisturbed(program());
    command.arg("top").args(arguments).env("HOME", "/nonexistent").env_remove("NO_COLOR");
    command
}

fn printed(command: &mut Command) -> Finished {
    run(command, LIMIT)
}

fn url(port: u16) -> String {
    format!("postgres://app:app-secret@127.0.0.1:{port}")
}

fn on_terminal(proxy: &Pgimbal, arguments: &[&str]) -> PseudoTerminal {
    let url = url(proxy.port);
    PseudoTerminal::start(&top(&[&[url.as_str()], arguments].concat()), 24, 80)
}

/// Whether there is a row of the database `app`.
fn has_pool(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("app "))
}

/// Whether the first sparkline has a figure; before there are two samples it has none.
fn has_rate(text: &str) -> bool {
    let figure = text.split_once("transactions/s ").map(|(_, rest)| rest);
    figure.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// A PgBouncer in front of `server`, whose console admits `app` with its password.
struct PgBouncer {
    port: u16,
    _process: Process,
    _program: Directory,
    _files: Directory,
}

impl PgBouncer {
    fn before(server: &Postgres) -> Self {
        let fetch = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/fetch-pgbouncer");
        let folder = run(&mut Command::new(fetch), LIMIT * 5).succeeded().stdout;
        // The user that it runs as may not read the cache.
        let program = directory("pgbouncer");
        let mut copy = Command::new("cp");
        copy.arg("-RL").arg(Path::new(folder.trim()).join(".")).arg(&*program);
        let _ = run(&mut copy, LIMIT).succeeded();
        let (files, port) = (directory("pgbouncer-files"), free_port());
        let users = files.join("users.txt");
        std::fs::write(&users, "\"app\" \"app-secret\"\n").expect("its users");
        let text = format!(
            "[databases]\napp = host=127.0.0.1 port={} dbname=app\n\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = scram-sha-256\nauth_file = {}\nadmin_users = app\n\
             pool_mode = transaction\n",
            server.port,
            users.display()
        );
        let ini = files.join("pgbouncer.ini");
        std::fs::write(&ini, text).expect("its configuration");
        let mut command = as_postgres(&program.join("pgbouncer"));
        command.arg(&ini);
        let mut process = Process::start(command, &files, Signal::QUIT);
        process.wait_until_it_listens("PgBouncer", &[port]);
        Self { port, _process: process, _program: program, _files: files }
    }
}

#[test]
fn top_shows_a_pgimbal_live_and_says_when_it_is_gone() {
    let server = Postgres::start();
    let mut proxy = Config::before(&server).start();
    let mut client = proxy.client();
    let _ = client.ok("select 1");
    let mut screen = on_terminal(&proxy, &[]);
    screen.wait_for("the pool", |text| {
        text.contains("pgimbal 0.") && text.contains("cl_waiting") && text.contains("app")
    });
    screen.wait_for("a rate", has_rate);
    assert!(!screen.is_usual(), "keys are read one by one");
    // The wait of a client is seen without a key.
    let _ = client.ok("begin");
    let mut second = proxy.client();
    let _ = second.ok("begin");
    let mut third = proxy.client();
    third.start_query("select 1");
    screen.wait_for_text("clients waiting 1");
    let _ = client.ok("rollback");
    screen.wait_for_text("clients waiting 0");

    screen.press("?");
    screen.wait_for_text("sort by the next column");
    screen.press("x");
    screen.wait_for_text("cl_waiting");
    screen.press("s");
    screen.wait_for_text("database▲");
    screen.press("/nobody");
    screen.wait_for("no row", |text| text.contains("/nobody") && !has_pool(text));
    screen.press("\x1b");
    // The key is read: an arrow's bytes behind it would be another key.
    screen.wait_for_text("q quit");
    screen.wait_for("the pool again", has_pool);
    // To the left: the last pane.
    screen.press("\x1b[D");
    screen.wait_for_text("current_connections");

    proxy.kill();
    screen.wait_for_text("NO CONNECTION, trying again");
    proxy.restart();
    screen.wait_for("the connection", |text| !text.contains("NO CONNECTION"));
    screen.press("q");
    assert_eq!(screen.ended().code(), Some(0));
    screen.wait_until_restored();
}

#[test]
fn top_gives_the_terminal_back_at_control_c_and_at_signals() {
    let server = Postgres::start();
    let proxy = Pgimbal::before(&server);
    let mut screen = on_terminal(&proxy, &[]);
    screen.wait_for_text("cl_waiting");
    screen.press("\x03");
    assert_eq!(screen.ended().code(), Some(0));
    screen.wait_until_restored();
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let mut screen = on_terminal(&proxy, &[]);
        screen.wait_for_text("cl_waiting");
        screen.signal(signal);
        assert_eq!(screen.ended().code(), Some(code), "{signal:?}");
        screen.wait_until_restored();
    }
}

#[test]
fn top_shows_what_clients_call_themselves_harmlessly() {
    let server = Postgres::start();
    // It shows names as they are, unlike pgimbal.
    let pgbouncer = PgBouncer::before(&server);
    let login = Login::new("app", "app", "app-secret");
    let mut client = WireClient::tcp(pgbouncer.port);
    let login = login.with("application_name", "evil\x1b]0;owned\x07\x1b[2J");
    client.log_in(&login).expect("a login");
    let url = url(pgbouncer.port);
    let command = top(&[&url, "--table", "clients"]);
    let screen = PseudoTerminal::start(&command, 24, 400);
    screen.wait_for_text("evil\\x1b]0;owned\\x07\\x1b[2J");
    let written = screen.written();
    assert!(!written.contains("\x1b]0;owned"), "{written:?}");
    let plain = printed(&mut top(&[&url, "--table", "clients"])).succeeded();
    assert!(plain.stdout.contains("evil\\x1b]0;owned"), "{}", plain.stdout);
    assert!(!plain.stdout.contains('\x1b'), "{:?}", plain.stdout);
}

#[test]
fn top_needs_no_colours_and_little_room() {
    let server = Postgres::start();
    let proxy = Pgimbal::before(&server);
    let url = url(proxy.port);
    let colours = |command: &Command, rows, columns| {
        let screen = PseudoTerminal::start(command, rows, columns);
        screen.wait_for_text("database");
        let written = screen.written();
        // The foreground colours of terminals with 16 and with 256.
        (30..38).any(|n| written.contains(&format!("\x1b[{n}m"))) || written.contains("\x1b[38;5;")
    };
    assert!(colours(&top(&[&url]), 24, 80));
    let mut command = top(&[&url]);
    assert!(!colours(command.env("NO_COLOR", "1"), 24, 80));
    assert!(!colours(command.env("NO_COLOR", "1"), 5, 20));
}

#[test]
fn top_prints_one_table_where_there_is_no_terminal() {
    let server = Postgres::start();
    let proxy = Config::before(&server).set("auth_type", "\"scram-sha-256\"").start();
    let _ = proxy.client().ok("select 1");
    let url = url(proxy.port);
    let table = printed(&mut top(&[&url])).succeeded().stdout;
    let mut lines = table.lines();
    let names: Vec<&str> = lines.next().expect("names").split_whitespace().collect();
    assert_eq!(names[..4], ["database", "user", "cl_active", "cl_waiting"], "{table}");
    assert!(lines.any(|line| line.starts_with("app ")), "{table}");
    // On a terminal too, where it is asked for.
    let mut screen = on_terminal(&proxy, &["--once", "--table", "databases"]);
    assert_eq!(screen.ended().code(), Some(0));
    screen.wait_for_text("pool_size");
    assert!(!screen.written().contains('\x1b'), "{:?}", screen.written());

    let config = proxy.directory().join("pgimbal.toml").display().to_string();
    let table = printed(&mut top(&["--config", &config, "--table", "stats"])).succeeded().stdout;
    assert!(table.starts_with("database") && table.contains("total_xact_count"), "{table}");
    let variables = [("PGHOST", "127.0.0.1"), ("PGUSER", "app"), ("PGPASSWORD", "app-secret")];
    let mut command = top(&["--once"]);
    command.envs(variables).env("PGPORT", proxy.port.to_string());
    let table = printed(&mut command).succeeded().stdout;
    assert_eq!(table.split_whitespace().take(4).collect::<Vec<_>>(), names[..4]);
}

#[test]
fn top_asks_for_a_password_and_says_why_it_cannot_begin() {
    let server = Postgres::start();
    let proxy = Config::before(&server).set("auth_type", "\"scram-sha-256\"").start();
    let url = format!("postgres://app@127.0.0.1:{}", proxy.port);
    let mut screen = PseudoTerminal::start(&top(&[&url]), 24, 80);
    screen.wait_for_text("Password for user app:");
    screen.wait_for("silence", |_| !screen.is_usual());
    screen.press("app-secret\n");
    screen.wait_for_text("cl_waiting");
    assert!(!screen.written().contains("app-secret"));
    screen.press("q");
    assert_eq!(screen.ended().code(), Some(0));
    screen.wait_until_restored();

    let none = printed(&mut top(&[&url]));
    assert_eq!(none.code, Some(1));
    assert!(none.stderr.contains("password"), "{}", none.stderr);
    let wrong = format!("postgres://app:hunter2@127.0.0.1:{}", proxy.port);
    let wrong = printed(&mut top(&[&wrong]));
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.stderr.contains("app") && !wrong.stderr.contains("hunter2"), "{}", wrong.stderr);
    let nobody = printed(&mut top(&[&format!("postgres://app@127.0.0.1:{}", free_port())]));
    assert_eq!(nobody.code, Some(1));
    assert!(nobody.stderr.contains("127.0.0.1"), "{}", nobody.stderr);
}

#[test]
fn top_shows_pgbouncer_as_far_as_its_console_goes() {
    let server = Postgres::start();
    let pgbouncer = PgBouncer::before(&server);
    let url = url(pgbouncer.port);
    let mut client = WireClient::tcp(pgbouncer.port);
    client.log_in(&Login::new("app", "app", "app-secret")).expect("a login");
    let _ = client.ok("select 1");
    let mut screen = PseudoTerminal::start(&top(&[&url]), 24, 80);
    screen.wait_for("the pool", |text| {
        text.contains("PgBouncer 1.2") && text.contains("cl_waiting") && text.contains("app")
    });
    screen.wait_for("a rate", has_rate);
    let tabs = screen.text().lines().nth(1).expect("tabs").to_owned();
    for pane in ["pools", "clients", "servers", "stats", "databases"] {
        assert!(tabs.contains(pane), "{pane}: {tabs}");
    }
    for pane in ["nodes", "pinned", "credentials", "failovers", "budget"] {
        assert!(!tabs.contains(pane), "{pane}: {tabs}");
    }
    screen.press("\x1b[D");
    screen.wait_for_text("current_connections");
    screen.press("q");
    assert_eq!(screen.ended().code(), Some(0));
    screen.wait_until_restored();
    let table = printed(&mut top(&[&url, "--table", "servers"])).succeeded().stdout;
    assert!(table.contains("application_name") && table.contains("app"), "{table}");
    let none = printed(&mut top(&[&url, "--table", "nodes"]));
    assert_eq!(none.code, Some(1));
    assert!(!none.stderr.is_empty());
}
