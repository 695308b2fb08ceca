//! How pgimbal logs in to Vault, and what it refuses to.

use std::fs;
use std::time::Duration;

use pgimbal_tests::certificates::Certificates;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::port::free_port;
use pgimbal_tests::process::directory;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::vault::reads;
use pgimbal_tests::vault_stand_in::Answer;
use pgimbal_tests::{Login, Postgres, Vault};

use super::{
    WithStandIn, WithVault, eventually_accepted, last_result, minute, proven, refused, shop,
};

#[test]
fn an_approle_logs_in_again_whenever_its_token_ends() {
    let setup = WithVault::by_hand();
    let [role_id, secret_id] = setup.vault.approle(&reads("database/static-creds/shop"), "2s");
    let keys = format!(
        "[vaults.main]\naddress = [\"{}\"]\nlogin = \"approle\"\nrole_id = \"{role_id}\"\nsecret_id = \"{secret_id}\"\n",
        setup.vault.address()
    );
    let proxy = proven(super::shop_from(&setup.pg, &keys, "500ms"), &setup.password());
    for count in 2..4 {
        // Longer than a token lives.
        std::thread::sleep(Duration::from_millis(2500));
        let next = setup.rotate();
        eventually_accepted(&proxy, count.min(2));
        drop(proxy.log_in(&shop(&next)));
    }
    assert!(!proxy.log().contains(&secret_id));
}

#[test]
fn a_token_file_is_read_again_when_its_token_is_dead() {
    let setup = WithVault::by_hand();
    let folder = directory("token");
    let file = folder.join("token");
    let dead = setup.vault.token(&reads("database/static-creds/shop"));
    fs::write(&file, format!("{dead}\n")).expect("a file");
    let keys = format!(
        "[vaults.main]\naddress = [\"{}\"]\nlogin = \"token_file\"\ntoken_file = \"{}\"\n",
        setup.vault.address(),
        file.display()
    );
    let proxy = proven(super::shop_from(&setup.pg, &keys, "300ms"), &setup.password());
    let revoke = serde_json::json!({ "token": dead });
    setup.vault.root().write("auth/token/revoke", &revoke);
    eventually("it is noticed", SOON, || last_result(&proxy) != "ok");
    drop(proxy.log_in(&shop(&setup.password())));
    fs::write(&file, setup.vault.reader()).expect("a file");
    eventually("the new token is used", SOON, || last_result(&proxy) == "ok");
    setup.rotate();
    eventually_accepted(&proxy, 2);
}

#[test]
fn a_kubernetes_token_is_read_anew_for_each_login() {
    let setup = WithStandIn::new("first");
    let folder = directory("jwt");
    let file = folder.join("token");
    fs::write(&file, "jwt-one").expect("a file");
    setup.stand_in.rule("auth/kubernetes/login", Answer::token("short", 1));
    setup.stand_in.rule("auth/token/renew-self", Answer::error(403, "permission denied"));
    let keys = format!(
        "login = \"kubernetes\"\nkubernetes_role = \"pgimbal\"\nkubernetes_jwt_file = \"{}\"\nnamespace = \"team/shop\"\n",
        file.display()
    );
    let config = super::shop_from(&setup.pg, &setup.stand_in.table(&keys), "300ms");
    let _proxy = proven(config, "first");
    let logins = |jwt: &str| {
        let requests = setup.stand_in.requests();
        let with = |body: &str| body.contains(jwt) && body.contains("\"pgimbal\"");
        let of = |path: &str| path.contains("auth/kubernetes/login");
        requests.iter().filter(|request| of(&request.path) && with(&request.body)).count()
    };
    assert!(logins("jwt-one") >= 1);
    fs::write(&file, "jwt-two").expect("a file");
    eventually("the new one is used", SOON, || logins("jwt-two") >= 1);
    for request in setup.stand_in.requests() {
        assert_eq!(request.headers.get("x-vault-namespace").map(String::as_str), Some("team/shop"));
        let login = request.path.contains("login");
        let token = request.headers.get("x-vault-token").map(String::as_str);
        assert!(login || token == Some("short"), "{} with {token:?}", request.path);
    }
}

#[test]
fn a_vault_that_is_away_is_stood_in_for_by_the_next_address() {
    let setup = WithStandIn::new("first");
    let addresses = format!(
        "[vaults.main]\naddress = [\"http://127.0.0.1:{}\", \"http://127.0.0.1:{}\"]\ntoken = \"t\"\n",
        free_port(),
        setup.stand_in.port
    );
    let proxy = proven(super::shop_from(&setup.pg, &addresses, "1s"), "first");
    setup.on_server("second");
    setup.in_vault("second", 1);
    eventually_accepted(&proxy, 2);
    assert_eq!(last_result(&proxy), "ok");
}

#[test]
fn tls_to_vault_is_verified_and_never_given_up() {
    let pg = Postgres::start();
    pg.run("create role shop login");
    let vault = Vault::with_tls(&Certificates::new());
    vault.serve(pg.port);
    vault.static_role("shop", 86_400);
    let table = vault.table(&vault.reader());
    let password = vault.role("shop").password;
    drop(proven(super::shop_from(&pg, &table, "1s"), &password));

    let stranger = Certificates::new();
    let ours = vault.authority().display().to_string();
    let theirs = stranger.files()[0].display().to_string();
    let unverified = table.replace(&format!("ca_file = \"{ours}\"\n"), "");
    for bad in [table.replace(&ours, &theirs), unverified] {
        let proxy = super::shop_from(&pg, &bad, "1s").start();
        eventually("it is refused", SOON, || last_result(&proxy) == "tls");
        let log = proxy.log();
        let line = log.lines().find(|line| line.contains("TLS")).expect("a line that says so");
        assert!(line.contains(&vault.address()) || line.contains("main"), "{line}");
        assert!(line.to_lowercase().contains("certificate"), "{line}");
    }
    // The certificate must be for the name that was asked for.
    let elsewhere = Vault::with_tls(&Certificates::named(&["localhost", "vault.example"]));
    let proxy = super::shop_from(&pg, &elsewhere.table("any"), "1s").start();
    eventually("127.0.0.1 is not its name", SOON, || last_result(&proxy) == "tls");
}

#[test]
fn a_role_without_permission_is_named_with_the_policy_to_add() {
    let setup = WithVault::by_hand();
    let token = setup.vault.token(&reads("database/static-creds/another"));
    let proxy = super::shop_from(&setup.pg, &setup.vault.table(&token), "1s").start();
    eventually("it is refused", SOON, || last_result(&proxy) == "permission_denied");
    let log = proxy.log();
    let policy = "path \"database/static-creds/shop\"";
    let line = log.lines().find(|line| line.replace('\\', "").contains(policy));
    let line = line.unwrap_or_else(|| panic!("no policy in\n{log}"));
    assert!(line.contains("capabilities") && line.contains("read"), "{line}");
    assert!(line.contains("shop"), "{line}");
    // Others are not concerned.
    drop(proxy.log_in(&Login::new("scram", "app", "scram-secret")));
}

#[test]
fn a_rule_over_users_reads_each_users_own_role() {
    let setup = WithVault::by_hand();
    setup.pg.run("create role ship login");
    setup.vault.static_role("ship", 86_400);
    let config = Config::before(&setup.pg).set("auth_type", "\"scram-sha-256\"");
    let table = format!("{}poll_interval = \"1s\"\n", setup.vault.table(&setup.vault.reader()));
    let proxy = config.tables(&table).tables("[users.\"*\"]\nvault_role = \"{user}\"\n").start();
    for user in ["shop", "ship"] {
        let (first, login) =
            (setup.vault.role(user).password, |password: &str| Login::new(user, "app", password));
        assert_eq!(proxy.log_in(&login(&first)).value("select current_user"), user);
        let second = setup.vault.rotate(user);
        for password in [&second, &first] {
            assert_eq!(proxy.log_in(&login(password)).value("select current_user"), user);
        }
    }
    for user in ["nobody", "../config/app", "shop/../ship"] {
        let error = refused(&proxy, &Login::new(user, "app", "any"));
        assert_eq!(error.code, "28P01", "{user}: {error:?}");
    }
}

#[test]
fn the_configured_password_of_a_static_user_is_as_before() {
    let setup = WithStandIn::new("first");
    setup.stand_in.role("shop", Answer::role("shop", "first", &minute(0), 3600));
    let proxy = proven(setup.config(), "first");
    for user in ["scram", "md5", "clear"] {
        let login = Login::new(user, "app", &format!("{user}-secret"));
        assert_eq!(proxy.log_in(&login).value("select current_user"), user);
    }
    assert_eq!(setup.stand_in.asked("static-creds/scram"), 0);
}
