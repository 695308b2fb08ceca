//! The console for people: hints in psql, and what the log says of each command.

use std::process::Command;
use std::time::Duration;

use pgimbal_tests::http::metric;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::program::{Finished, run};
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Login, Pgimbal, Postgres};

fn psql(proxy: &Pgimbal, user: &str, command: &str) -> Finished {
    let mut psql = Command::new("psql");
    psql.args(["-X", "-h", "127.0.0.1", "-p", &proxy.port.to_string(), "-U", user]);
    psql.args(["-d", "pgimbal", "-c", command]).env("PGPASSWORD", "x");
    run(&mut psql, Duration::from_secs(20))
}

#[test]
fn psqls_own_commands_get_the_right_one_as_a_hint() {
    let pg = Postgres::start();
    let proxy = Pgimbal::before(&pg);
    for (command, hint) in [
        ("\\l", "SHOW DATABASES"),
        ("\\d", "connect to a database, in psql with \\c"),
        ("\\du", "SHOW USERS"),
        ("SHOW POOL", "Did you mean SHOW POOLS?"),
        ("PAUSE", "HOLD <cluster>"),
        ("SELECT version()", "SHOW VERSION"),
    ] {
        let finished = psql(&proxy, "app", command);
        let said = format!("{}{}", finished.stdout, finished.stderr);
        assert!(said.contains("HINT:") && said.contains(hint), "{command}: {said}");
        assert!(said.contains("SHOW HELP"), "{command}: {said}");
    }
}

#[test]
fn each_command_is_logged_with_user_address_and_result() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("stats_users", "[\"scram\"]").start();
    psql(&proxy, "app", "SHOW POOLS");
    psql(&proxy, "app", "REFRESH nobody");
    psql(&proxy, "scram", "RELOAD");
    psql(&proxy, "app", "ALTER ROLE app PASSWORD 'hunter2'");
    let mut driver = proxy.log_in(&Login::new("app", "pgimbal", "app-secret"));
    driver.ok("set application_name = 'hunter2'; show version");
    let log = proxy.log();
    let line = |words: &[&str]| {
        let found = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(found, "no line has {words:?}:\n{log}");
    };
    line(&["console", "user=app", "peer=127.0.0.1:", "command=SHOW POOLS", "result=ok"]);
    line(&["user=app", "command=REFRESH nobody", "result=4"]);
    line(&["user=scram", "command=RELOAD", "result=42501"]);
    line(&["user=app", "command=ALTER", "result=42601"]);
    line(&["command=SHOW VERSION", "result=ok"]);
    assert!(!log.contains("hunter2"), "{log}");
}

#[test]
fn what_is_said_of_the_configuration_is_what_is_in_force() {
    let pg = Postgres::start();
    let config = Config::before(&pg);
    let mut proxy = config.clone().start();
    eventually("it is ready", SOON, || proxy.log().contains("ready on "));
    let value = |proxy: &Pgimbal, key: &str| {
        let rows = proxy.console("SHOW CONFIG");
        let row = rows.into_iter().find(|row| row[0].1 == key).expect("the option");
        row[1].1.clone()
    };
    let reload = |proxy: &mut Pgimbal, config: Config| {
        proxy.reload(config);
        let finished = psql(proxy, "app", "RELOAD");
        assert!(finished.success, "{}", finished.stderr);
        finished.stderr
    };
    let changed = config.clone().set("workers", 2).set("listen_backlog", 77).set("pool_size", 3);
    reload(&mut proxy, changed.clone());
    assert_eq!(value(&proxy, "workers"), "1");
    assert_eq!(value(&proxy, "pool_size"), "3");
    assert_ne!(value(&proxy, "listen_backlog"), "77");
    // It is still so, and still said.
    let said = reload(&mut proxy, changed);
    assert!(said.contains("need a restart: listen_backlog, workers"), "{said}");
    reload(&mut proxy, config.clone());
    let said = reload(&mut proxy, config);
    assert!(said.contains("nothing has changed"), "{said}");
}

#[test]
fn a_reload_that_a_vault_refuses_changes_no_cluster() {
    let pg = Postgres::start();
    let cluster = |name: &str| {
        format!(
            "[clusters.{name}]\nprobe_user = \"app\"\n[clusters.{name}.nodes.a]\n\
             host = \"127.0.0.1\"\nport = {}\n",
            pg.port
        )
    };
    let config = Config::before(&pg);
    let mut proxy = config.clone().tables(&cluster("first")).start();
    let shown = |proxy: &Pgimbal| format!("{:?}", proxy.console("SHOW NODES"));
    assert!(shown(&proxy).contains("first"));
    let ca = proxy.directory().join("no-certificate.pem");
    // The configuration's checks take it for a certificate; the Vault's client does not.
    let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    std::fs::write(&ca, pem).expect("a file");
    let vault = format!(
        "[vaults.main]\naddress = \"https://127.0.0.1:1\"\ntoken = \"t\"\nca_file = {ca:?}\n"
    );
    proxy.reload(config.tables(&format!("{}{vault}", cluster("second"))));
    let refused = metric(&proxy.metrics(), "pgimbal_reloads_total", &["result=\"refused\""]);
    let refused_before = refused.unwrap_or(0.0);
    let finished = psql(&proxy, "app", "RELOAD");
    assert!(!finished.success && finished.stderr.contains("no-certificate"), "{}", finished.stderr);
    let refused = metric(&proxy.metrics(), "pgimbal_reloads_total", &["result=\"refused\""]);
    assert!(refused > Some(refused_before));
    let shown = shown(&proxy);
    assert!(shown.contains("first") && !shown.contains("second"), "{shown}");
}

#[test]
fn the_line_at_the_start_says_what_was_read_and_where_it_serves() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).start();
    eventually("it is ready", SOON, || proxy.log().contains("ready on "));
    let log = proxy.log();
    let line = log.lines().find(|line| line.contains("ready on ")).expect("the line");
    let file = proxy.directory().join("pgimbal.toml");
    for words in [
        format!("ready on 127.0.0.1:{}", proxy.port),
        format!("http=\"127.0.0.1:{}\"", proxy.http_port),
        format!("config={:?}", file.display().to_string()),
        "client_tls=\"disable\"".to_owned(),
        "server_tls=\"prefer\"".to_owned(),
        "clusters=[]".to_owned(),
    ] {
        assert!(line.contains(&words), "{words}: {line}");
    }
}

#[test]
fn json_logs_hold_lists_as_lists() {
    let pg = Postgres::start();
    let config = Config::before(&pg).set("log_format", "\"json\"");
    let mut proxy = config.clone().start();
    eventually("it is ready", SOON, || proxy.log().contains("ready on "));
    proxy.reload(config.set("pool_size", 3).set("query_wait_timeout", "\"9s\""));
    eventually("it has reloaded", SOON, || proxy.log().contains("configuration reloaded"));
    let log = proxy.log();
    let line = log.lines().find(|line| line.contains("configuration reloaded")).expect("a line");
    let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
    assert_eq!(line["applied"], serde_json::json!(["pool_size", "query_wait_timeout"]));
    assert_eq!(line["needs_restart"], serde_json::json!([]));
}
