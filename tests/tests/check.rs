//! `pgimbal check` before a real Vault: what works, and what to fix, in a line each.

use std::time::Duration;

use pgimbal_tests::certificates::Certificates;
use pgimbal_tests::pgimbal::{program, undisturbed};
use pgimbal_tests::port::free_port;
use pgimbal_tests::process::directory;
use pgimbal_tests::program::run;
use pgimbal_tests::vault::{Passwords, reads};
use pgimbal_tests::{Postgres, Vault};

const LIMIT: Duration = Duration::from_secs(30);

/// Runs it and returns the exit code and what it said, in which none of `secrets` appears.
fn check(config: &str, secrets: &Passwords) -> (Option<i32>, String) {
    let directory = directory("check");
    let file = directory.join("pgimbal.toml");
    std::fs::write(&file, config).expect("the configuration");
    let mut command = undisturbed(program());
    command.args(["check", "--config"]).arg(&file);
    let finished = run(&mut command, LIMIT);
    let said = format!("{}{}", finished.stdout, finished.stderr);
    secrets.appear_nowhere(&[("the check", &said)]);
    (finished.code, said)
}

/// Asserts that it finds something that does not work, and returns what it said.
#[track_caller]
fn fails(config: &str, secrets: &Passwords) -> String {
    let (code, said) = check(config, secrets);
    assert_eq!(code, Some(1), "{said}");
    said
}

/// Database `app` of `server` for `users`, whose passwords are those of Vault's roles of the same
/// name, and for `scram`, whose password stands in the configuration.
fn config(server: &Postgres, vault: &str, users: &[&str]) -> String {
    let mut text = format!(
        "[databases.app]\nhost = \"127.0.0.1\"\nport = {}\n{vault}\n\
         [users.scram]\npassword = \"scram-secret\"\n",
        server.port
    );
    for user in users {
        text.push_str(&format!("[users.{user}]\nvault_role = \"{user}\"\n"));
    }
    text
}

fn secrets(vault: &Vault, roles: &[&str]) -> Passwords {
    let passwords = Passwords::default();
    passwords.add("scram-secret");
    for role in roles {
        passwords.add(&vault.role(role).password);
    }
    passwords
}

#[track_caller]
fn says(said: &str, words: &[&str]) {
    let found = said.lines().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(found, "no line has {words:?}:\n{said}");
}

#[test]
fn check_logs_in_to_vault_and_tries_each_password() {
    let pg = Postgres::start();
    pg.run("create role shop login; create role billing login");
    let vault = Vault::before(&pg);
    vault.static_role("shop", 3600);
    vault.static_role("billing", 3600);
    let secrets = secrets(&vault, &["shop", "billing"]);
    let [role_id, secret_id] = vault.approle(&reads("database/static-creds/*"), "60s");
    secrets.add(&secret_id);
    let table = format!(
        "[vaults.main]\naddress = [\"{}\"]\nlogin = \"approle\"\nrole_id = \"{role_id}\"\n\
         secret_id = \"{secret_id}\"\n",
        vault.address()
    );
    let text = config(&pg, &table, &["shop", "billing"]);
    let (code, said) = check(&text, &secrets);
    assert_eq!(code, Some(0), "{said}");
    says(&said, &["vault main", "ok (Vault"]);
    says(&said, &["user shop, vault main, role shop: ok (made ", "the next in "]);
    for user in ["shop", "billing", "scram"] {
        says(&said, &[&format!("database app, user {user}, server 127.0.0.1"), ": ok (PostgreSQL"]);
    }

    pg.run("alter role shop password 'by somebody else'");
    pg.run("alter role billing valid until '2001-02-03'");
    let said = fails(&text, &secrets);
    says(&said, &["user shop, server", "password authentication failed", "28P01"]);
    says(&said, &["somebody else", "vault write -f database/rotate-role/shop"]);
    says(
        &said,
        &["user billing, server", "VALID UNTIL has passed (2001-02-03", "ALTER ROLE billing"],
    );
    assert!(!said.lines().any(|line| line.contains("shop") && line.contains("UNTIL")), "{said}");

    let wrong = text.replace(&secret_id, "not-the-secret-id");
    let said = fails(&wrong, &secrets);
    says(&said, &["user shop", "refuses the approle login"]);
    says(&said, &["database app, user shop", "not tried", "password is not known"]);
}

#[test]
fn check_says_what_vault_lacks() {
    let pg = Postgres::start();
    pg.run("create role shop login; create role billing login");
    let vault = Vault::before(&pg);
    vault.static_role("shop", 3600);
    vault.static_role("billing", 3600);
    let secrets = secrets(&vault, &["shop", "billing"]);

    let token = vault.token(&reads("database/static-creds/shop"));
    secrets.add(&token);
    let said = fails(&config(&pg, &vault.table(&token), &["shop", "billing"]), &secrets);
    says(&said, &["user shop, vault main, role shop: ok"]);
    let policy = "path \"database/static-creds/billing\" { capabilities = [\"read\"] }";
    says(&said, &["user billing", "permission denied (403)", policy]);

    let token = vault.token("path \"*\" { capabilities = [\"read\", \"list\"] }");
    secrets.add(&token);
    let said = fails(&config(&pg, &vault.table(&token), &["shop", "nobody"]), &secrets);
    says(
        &said,
        &["user nobody", "no static role of this name", "vault list database/static-roles"],
    );

    let table = format!("{}mount = \"db\"\n", vault.table(&token));
    let said = fails(&config(&pg, &table, &["shop"]), &secrets);
    says(&said, &["user shop", "no database secrets engine is mounted at \"db\"", "set `mount`"]);

    vault.seal();
    let said = fails(&config(&pg, &vault.table(&token), &["shop"]), &secrets);
    says(&said, &["vault main", "sealed", "unseal it"]);
}

#[test]
fn check_tries_each_password_on_each_node() {
    let pg = Postgres::start();
    pg.run("create role shop login");
    let vault = Vault::before(&pg);
    vault.static_role("shop", 3600);
    let secrets = secrets(&vault, &["shop"]);
    let gone = free_port();
    let node = |name: &str, port: u16| {
        format!("[clusters.c.nodes.{name}]\nhost = \"127.0.0.1\"\nport = {port}\n")
    };
    let text = format!(
        "[databases.app]\ncluster = \"c\"\n{}[users.shop]\nvault_role = \"shop\"\n\
         [clusters.c]\nprobe_user = \"shop\"\n{}{}",
        vault.table(&vault.reader()),
        node("a", pg.port),
        node("b", gone),
    );
    let said = fails(&text, &secrets);
    let place = |name: &str, port: u16| format!("user shop, node {name} (127.0.0.1:{port})");
    says(&said, &[&place("a", pg.port), ": ok (PostgreSQL"]);
    says(&said, &[&place("b", gone), "Connection refused"]);
    // The prober's password comes from Vault too.
    says(&said, &["cluster c, node a", "primary, timeline 1"]);
}

#[test]
fn check_names_a_vault_whose_certificate_is_not_trusted() {
    let pg = Postgres::start();
    let vault = Vault::with_tls(&Certificates::new());
    let secrets = Passwords::default();
    secrets.add("a-token");
    let trusted = vault.table("a-token");
    let said = fails(&config(&pg, &trusted, &["shop"]), &secrets);
    says(&said, &["vault main", "ok (Vault"]);
    let untrusted: String = trusted
        .lines()
        .filter(|line| !line.starts_with("ca_file"))
        .map(|line| format!("{line}\n"))
        .collect();
    let said = fails(&config(&pg, &untrusted, &["shop"]), &secrets);
    says(&said, &["vault main", "TLS failed"]);
}
