//! `pgimbal check` as a gate: exit codes, JSON, what a rule and a wildcard are tried with, and what
//! does not fit.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use pgimbal_tests::pgimbal::{Config, program, undisturbed};
use pgimbal_tests::port::free_port;
use pgimbal_tests::process::directory;
use pgimbal_tests::program::{Finished, run};
use pgimbal_tests::{Kubernetes, Postgres, Vault};

const LIMIT: Duration = Duration::from_secs(30);

fn check(config: &str, arguments: &[&str]) -> Finished {
    let directory = directory("gate");
    let file = directory.join("pgimbal.toml");
    std::fs::write(&file, config).expect("the configuration");
    let mut command = undisturbed(program());
    command.args(["check", "--config"]).arg(&file).args(arguments);
    run(&mut command, LIMIT)
}

/// A configuration for `server` on a free port, with `tables` behind it.
fn config(server: u16, tables: &str) -> String {
    format!(
        "listen = \"127.0.0.1:{}\"\n{tables}",
        free_port(),
        tables = tables.replace("SERVER", &format!("host = \"127.0.0.1\"\nport = {server}"))
    )
}

const APP: &str = "[databases.app]\nSERVER\n[users.scram]\npassword = \"scram-secret\"\n";

#[test]
fn check_tells_failures_and_warnings_apart() {
    let pg = Postgres::start();
    let good = check(&config(pg.port, APP), &[]);
    assert_eq!(good.code, Some(0), "{}{}", good.stdout, good.stderr);

    let many = config(pg.port, &APP.replace("SERVER", "SERVER\npool_size = 5000"));
    let warned = check(&many, &[]);
    assert_eq!(warned.code, Some(3), "{}", warned.stdout);
    let line = "warning: the pools may open 5000 connections, and it has ";
    assert!(warned.stdout.contains(line), "{}", warned.stdout);

    let failed = check(&config(pg.port, &APP.replace("scram-secret", "wrong")), &[]);
    assert_eq!(failed.code, Some(1), "{}", failed.stdout);

    let files = config(pg.port, &format!("max_client_conn = 4000000000\n{APP}"));
    let warned = check(&files, &[]);
    assert_eq!(warned.code, Some(3), "{}", warned.stdout);
    assert!(warned.stdout.contains("open files: warning: "), "{}", warned.stdout);
}

#[test]
fn check_speaks_json() {
    let pg = Postgres::start();
    let parse = |finished: &Finished| -> serde_json::Value {
        serde_json::from_str(&finished.stdout).unwrap_or_else(|e| panic!("{e}: {finished:?}"))
    };
    let good = parse(&check(&config(pg.port, APP), &["--json"]));
    assert_eq!(good["result"], "ok");
    let of_app = |document: &serde_json::Value| {
        let findings = document["findings"].as_array().expect("a list").clone();
        let place = |f: &serde_json::Value| f["place"].as_str().unwrap_or("").to_owned();
        findings.into_iter().find(|f| place(f).starts_with("database app")).expect("the login")
    };
    assert_eq!(of_app(&good)["verdict"], "ok");
    let bad = check(&config(pg.port, &APP.replace("scram-secret", "wrong")), &["--json"]);
    assert_eq!((bad.code, &parse(&bad)["result"]), (Some(1), &"failure".into()));
    assert_eq!(of_app(&parse(&bad))["verdict"], "failure");
    let wrong = check(&config(pg.port, &format!("pool_sise = 3\n{APP}")), &["--json"]);
    let document = parse(&wrong);
    assert_eq!((wrong.code, &document["result"]), (Some(78), &"failure".into()));
    let text = document["findings"][0]["text"].as_str().expect("a text");
    assert!(text.starts_with("pool_sise: unknown key"), "{text}");
}

#[test]
fn check_survives_a_reader_that_has_read_enough() {
    let pg = Postgres::start();
    let directory = directory("gate");
    let file = directory.join("pgimbal.toml");
    std::fs::write(&file, config(pg.port, APP)).expect("the configuration");
    let mut command = undisturbed(program());
    command.args(["check", "--config"]).arg(&file).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("a check");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("its end");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
}

#[test]
fn check_tries_rules_and_wildcards_by_name() {
    let pg = Postgres::start();
    let directory = directory("gate");
    std::fs::write(directory.join("scram"), "scram-secret").expect("a password");
    std::fs::write(directory.join("md5"), "not it").expect("a password");
    let rule = format!(
        "[databases.\"*\"]\nSERVER\n[users.\"*\"]\npassword_file = \"{}/{{user}}\"\n",
        directory.display()
    );
    let rule = config(pg.port, &rule);
    let all = check(&rule, &[]);
    assert_eq!(all.code, Some(0), "{}", all.stdout);
    assert!(all.stdout.contains("--user tries one"), "{}", all.stdout);
    let one = check(&rule, &["--user", "scram", "--database", "app"]);
    assert_eq!(one.code, Some(0), "{}", one.stdout);
    assert!(one.stdout.contains("database app, user scram, server"), "{}", one.stdout);
    let wrong = check(&rule, &["--user", "md5", "--database", "app"]);
    assert_eq!(wrong.code, Some(1), "{}", wrong.stdout);
    let nobody = check(&rule, &["--user", "nobody"]);
    assert_eq!(nobody.code, Some(1), "{}", nobody.stdout);
    let missing = check(&rule, &["--user", "scram", "--database", "nowhere"]);
    assert_eq!(missing.code, Some(1), "{}", missing.stdout);
    let unlisted = check(&config(pg.port, APP), &["--database", "other"]);
    assert_eq!(unlisted.code, Some(1), "{}", unlisted.stdout);

    let wildcard = config(pg.port, &APP.replace("databases.app", "databases.\"*\""));
    let tried = check(&wildcard, &[]);
    assert_eq!(tried.code, Some(0), "{}", tried.stdout);
    assert!(tried.stdout.contains("database postgres, user scram"), "{}", tried.stdout);
    let wrong = check(&wildcard.replace("scram-secret", "wrong"), &[]);
    assert_eq!(wrong.code, Some(1), "{}", wrong.stdout);
}

#[test]
fn check_has_one_line_for_a_user_of_the_console_only() {
    let pg = Postgres::start();
    let more = "[users.ops]\npassword = \"x\"\n[databases.postgres]\nSERVER\n";
    let text = format!("admin_users = [\"ops\"]\n{APP}{more}");
    let finished = check(&config(pg.port, &text), &[]);
    assert_eq!(finished.code, Some(0), "{}", finished.stdout);
    let lines: Vec<_> = finished.stdout.lines().filter(|line| line.contains("ops")).collect();
    assert!(matches!(lines[..], [line] if line.contains("console only")), "{}", finished.stdout);
}

#[test]
fn check_asks_vault_for_the_token_that_no_role_uses() {
    let pg = Postgres::start();
    let vault = Vault::before(&pg);
    let table = |token: &str| config(pg.port, &format!("{APP}{}", vault.table(token)));
    let bad = check(&table("hvs.bad"), &[]);
    assert_eq!(bad.code, Some(1), "{}", bad.stdout);
    assert!(bad.stdout.contains("Vault refuses the token (403)"), "{}", bad.stdout);
    let good = check(&table(&vault.reader()), &[]);
    assert_eq!(good.code, Some(0), "{}", good.stdout);
    assert!(good.stdout.contains("vault main, token: ok (lives for "), "{}", good.stdout);
}

#[test]
fn check_names_the_rules_that_the_store_lacks() {
    let pg = Postgres::start();
    let kubernetes = Kubernetes::shared();
    let namespace = kubernetes.namespace();
    let token = kubernetes.service_account(&namespace, "pgimbal");
    let file = kubernetes.kubeconfig(&namespace, &token);
    let store = format!(
        "{APP}[store]\nkind = \"kubernetes\"\nsecret = \"facts\"\nkubeconfig = \"{}\"\n",
        file.display()
    );
    let look = || check(&config(pg.port, &store), &[]);
    let place = format!("store, secret {namespace}/facts: ");
    let none = look();
    assert_eq!(none.code, Some(1), "{}", none.stdout);
    let expected = format!("{place}RBAC does not allow pgimbal's service account to get, list");
    assert!(none.stdout.contains(&expected), "{}", none.stdout);
    assert!(none.stdout.contains("verbs: [get, list, watch, update]"), "{}", none.stdout);

    kubernetes.allow(&namespace, "pgimbal", "facts", &["get", "list", "update", "watch"]);
    pgimbal_tests::eventually("RBAC knows the rule", LIMIT, || !look().stdout.contains("RBAC"));
    let missing = look();
    assert_eq!(missing.code, Some(1), "{}", missing.stdout);
    let expected = format!("kubectl create secret generic facts --namespace {namespace}");
    assert!(missing.stdout.contains(&expected), "{}", missing.stdout);

    kubernetes.make_secret(&namespace, "facts");
    let good = look();
    assert_eq!(good.code, Some(0), "{}", good.stdout);
    assert!(good.stdout.contains(&format!("{place}ok (empty)")), "{}", good.stdout);
    assert!(!good.stdout.contains(&token));
}

#[test]
fn check_reads_the_store_in_vault_and_in_a_file() {
    let pg = Postgres::start();
    let vault = Vault::before(&pg);
    vault.kv("kv", 2);
    let look = |token: &str| {
        let store = "[store]\nkind = \"vault\"\nvault_mount = \"kv\"\n";
        check(&config(pg.port, &format!("{APP}{store}{}", vault.table(token))), &[])
    };
    let bad = look(&vault.reader());
    assert_eq!(bad.code, Some(1), "{}", bad.stdout);
    let expected = "store, vault main, kv/pgimbal: Vault's policy does not allow pgimbal's token \
                    to create, read, update it";
    assert!(bad.stdout.contains(expected), "{}", bad.stdout);
    assert!(bad.stdout.contains("path \"kv/data/pgimbal\" { capabilities"), "{}", bad.stdout);
    let all = "{ capabilities = [\"create\", \"read\", \"update\"] }";
    let good = look(&vault.token(&format!("path \"kv/data/pgimbal\" {all}")));
    assert_eq!(good.code, Some(0), "{}", good.stdout);
    assert!(good.stdout.contains("store, vault main, kv/pgimbal: ok (empty)"), "{}", good.stdout);

    let directory = directory("store");
    std::fs::set_permissions(&*directory, std::fs::Permissions::from_mode(0o700)).expect("a mode");
    let facts = directory.join("facts");
    let store = format!("{APP}[store]\nkind = \"file\"\nfile = \"{}\"\n", facts.display());
    let look = || check(&config(pg.port, &store), &[]);
    assert!(look().stdout.contains("facts: ok (empty)"));
    assert!(!facts.exists(), "a check makes nothing");
    let written = |text: &str| std::fs::write(&facts, text).expect("a file");
    written("{\"version\": 2}");
    std::fs::set_permissions(&facts, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    let other = look();
    assert_eq!(other.code, Some(1), "{}", other.stdout);
    assert!(other.stdout.contains("the document there is of version 2"), "{}", other.stdout);
    written(&format!("{{\"version\": 1, \"later\": \"{}\"}}", "x".repeat(499_973)));
    let large = look();
    assert_eq!(large.code, Some(3), "{}", large.stdout);
    assert!(large.stdout.contains("it holds 500000 of 1048576 bytes"), "{}", large.stdout);
}

#[test]
fn check_names_who_has_the_port() {
    let pg = Postgres::start();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let text = APP.replace("SERVER", &format!("host = \"127.0.0.1\"\nport = {}", pg.port));
    let finished = check(&format!("listen = \"127.0.0.1:{port}\"\n{text}"), &[]);
    assert_eq!(finished.code, Some(1), "{}", finished.stdout);
    let holder = format!("(process {}) listens there", std::process::id());
    assert!(finished.stdout.contains(&holder), "{}", finished.stdout);
    let far = check(&format!("listen = \"203.0.113.1:6432\"\n{text}"), &[]);
    assert_eq!(far.code, Some(1), "{}", far.stdout);
    assert!(far.stdout.contains("listen 203.0.113.1:6432: cannot listen there"), "{}", far.stdout);

    let proxy = Config::before(&pg).start();
    let beside = check(&format!("listen = \"127.0.0.1:{}\"\n{text}", proxy.port), &[]);
    assert_eq!(beside.code, Some(0), "{}", beside.stdout);
    assert!(beside.stdout.contains("pgimbal listens there already"), "{}", beside.stdout);
}
