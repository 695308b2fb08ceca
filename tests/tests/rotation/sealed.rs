//! A Vault that says nothing for long: scenario 7.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Message, Pgimbal, WireClient};
use rustix::process::Signal;

use super::{
    WithVault, counted, credentials, eventually_accepted, last_result, proven, shop,
    state_directory,
};

/// Traffic of all kinds: a client that stays, one that comes, a new server connection.
fn traffic(setup: &WithVault, proxy: &Pgimbal, client: &mut WireClient, password: &str) {
    assert_eq!(client.value("select current_user"), "shop");
    assert_eq!(proxy.log_in(&shop(password)).value("select current_user"), "shop");
    setup.pg.end_backends();
    assert_eq!(client.value("select current_user"), "shop");
}

#[test]
fn rotation_7_traffic_goes_on_while_vault_is_sealed() {
    let setup = WithVault::by_hand();
    let first = setup.password();
    let proxy = proven(setup.config(), &first);
    let mut client = proxy.log_in(&shop(&first));
    setup.vault.seal();
    eventually("it is noticed", SOON, || last_result(&proxy) == "sealed");
    traffic(&setup, &proxy, &mut client, &first);
    let stale = || counted(&proxy, "pgimbal_credential_stale_seconds", &["user=\"shop\""]);
    eventually("the metric says since when", SOON, || stale() >= 2.0);
    eventually("the console too", SOON, || {
        credentials(&proxy, "shop")[0]["stale_seconds"].parse::<f64>().is_ok_and(|age| age >= 2.0)
    });
    let told = |log: &str| log.lines().filter(|line| line.contains("sealed")).count();
    assert!(told(&proxy.log()) >= 1, "{}", proxy.log());
    assert!(told(&proxy.log()) <= 3, "one line for each poll:\n{}", proxy.log());
    traffic(&setup, &proxy, &mut client, &first);
    setup.vault.unseal();
    eventually("it heals", SOON, || last_result(&proxy) == "ok" && stale() < 0.5);
    let second = setup.rotate();
    eventually_accepted(&proxy, 2);
    traffic(&setup, &proxy, &mut client, &second);
    traffic(&setup, &proxy, &mut client, &first);
}

#[test]
fn rotation_7_a_vault_that_hangs_delays_nobody() {
    let setup = WithVault::by_hand();
    let first = setup.password();
    let table = setup.vault.table(&setup.vault.reader());
    let config = super::shop_from(&setup.pg, &format!("{table}timeout = \"1s\"\n"), "1s");
    let proxy = proven(config, &first);
    let mut client = proxy.log_in(&shop(&first));
    setup.vault.signal(Signal::STOP);
    eventually("it is noticed", SOON, || last_result(&proxy) == "timeout");
    let start = Instant::now();
    traffic(&setup, &proxy, &mut client, &first);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    setup.vault.signal(Signal::CONT);
    eventually("it heals", SOON, || last_result(&proxy) == "ok");
}

#[test]
fn rotation_7_with_the_password_cache_a_start_needs_no_vault() {
    let setup = WithVault::by_hand();
    let first = setup.password();
    let state = state_directory();
    let config = setup.config().set("state_dir", format!("\"{}\"", state.display()));
    let config = config.set("password_cache", true).set("credential_history", "\"file\"");
    let mut proxy = proven(config, &first);
    setup.vault.seal();
    proxy.restart();
    let mut client = proxy.log_in(&shop(&first));
    traffic(&setup, &proxy, &mut client, &first);
    for entry in fs::read_dir(&*state).expect("the directory").flatten() {
        let mode = entry.metadata().expect("a file").permissions().mode() & 0o777;
        assert!(mode == 0o600 || entry.path().is_dir(), "{mode:o} {}", entry.path().display());
    }
    setup.vault.unseal();
    let second = setup.rotate();
    eventually_accepted(&proxy, 2);
    traffic(&setup, &proxy, &mut client, &second);
}

#[test]
fn rotation_7_without_the_cache_clients_are_held_until_vault_answers() {
    let setup = WithVault::by_hand();
    let first = setup.password();
    let config: Config = setup.config();
    setup.vault.seal();
    let proxy = config.start();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| proxy.log_in(&shop(&first)).value("select current_user")))
            .collect();
        eventually("it is noticed", SOON, || last_result(&proxy) == "sealed");
        setup.vault.unseal();
        for client in clients {
            assert_eq!(client.join().expect("a client"), "shop");
        }
    });
}

#[test]
fn rotation_7_without_the_cache_a_client_is_told_in_the_end() {
    let setup = WithVault::by_hand();
    let config = setup.config();
    setup.vault.seal();
    let proxy = config.start();
    let mut client = proxy.connect();
    client.set_timeout(Duration::from_secs(45));
    let told = client.log_in(&shop("any")).expect_err("no password is known");
    let error = told.last().expect("an error").error();
    assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "57P03"), "{error:?}");
    assert!(format!("{error:?}").contains("sealed"), "{error:?}");
    // Others are not concerned.
    drop(proxy.log_in(&pgimbal_tests::Login::new("scram", "app", "scram-secret")));
}

#[test]
fn rotation_7_a_user_of_a_rule_is_held_too() {
    let setup = WithVault::by_hand();
    let first = setup.password();
    let table = setup.vault.table(&setup.vault.reader());
    let config = Config::before(&setup.pg).set("auth_type", "\"scram-sha-256\"");
    let config = config.tables(&format!("{table}poll_interval = \"1s\"\n"));
    setup.vault.seal();
    let proxy = config.tables("[users.\"*\"]\nvault_role = \"{user}\"\n").start();
    std::thread::scope(|scope| {
        let client = scope.spawn(|| proxy.log_in(&shop(&first)).value("select current_user"));
        eventually("it is asked about", SOON, || {
            credentials(&proxy, "shop").first().is_some_and(|row| row["last_result"] == "sealed")
        });
        setup.vault.unseal();
        assert_eq!(client.join().expect("a client"), "shop");
    });
    eventually("a stranger is refused as ever", SOON, || {
        super::refused(&proxy, &pgimbal_tests::Login::new("nobody", "app", "any")).code == "28P01"
    });
}

/// What a client is told whose server connection cannot be opened while Vault is sealed.
fn names_the_seal(messages: &[Message]) {
    let error = messages.iter().find(|message| message.tag == b'E').expect("an error").error();
    assert_eq!(error.code, "57P03", "{error:?}");
    for word in ["no password", "shop", "sealed"] {
        assert!(error.message.contains(word), "{word} is not in {error:?}");
    }
}

fn answers(proxy: &Pgimbal, password: &str) -> bool {
    let mut client = proxy.log_in(&shop(password));
    client.start_query("select current_user");
    client.read_to_end_or_ready().iter().any(|message| message.tag == b'D')
}

#[test]
fn rotation_7_sealed_between_a_rotation_and_pgimbals_reading_of_it() {
    let setup = WithVault::by_hand();
    let first = setup.password();
    let rarely = setup.polled_every("1h");
    // In one a client has a connection that works, in the other nobody has.
    let proxy = proven(rarely.clone().set("query_wait_timeout", "\"5s\""), &first);
    let bare = proven(rarely, &first);
    let mut staying = proxy.log_in(&shop(&first));
    staying.ok("begin");
    let mine = staying.value("select pg_backend_pid()");
    let second = setup.rotate();
    setup.vault.seal();
    setup.pg.run(&format!(
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'shop' and pid <> {mine}"
    ));
    let mut held = bare.log_in(&shop(&first));
    held.set_timeout(SOON * 4);
    let start = Instant::now();
    held.start_query("select 1");
    let mut waiting = proxy.log_in(&shop(&first));
    waiting.start_query("select 1");
    let alert = |proxy: &Pgimbal| {
        counted(proxy, "pgimbal_credential_no_password_works", &["user=\"shop\""]) > 0.5
    };
    eventually("the alert is up", SOON, || alert(&proxy) && alert(&bare));
    names_the_seal(&waiting.read_to_end_or_ready());
    names_the_seal(&held.read_to_end_or_ready());
    let took = start.elapsed();
    assert!((25..40).contains(&took.as_secs()), "a login may be held for 30 s, not {took:?}");
    assert_eq!(staying.value("select pg_backend_pid()"), mine);
    setup.vault.unseal();
    let start = Instant::now();
    for proxy in [&proxy, &bare] {
        eventually("it heals", SOON, || answers(proxy, &first));
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        drop(proxy.log_in(&shop(&second)));
        eventually("the alert is down", SOON, || !alert(proxy));
    }
    assert_eq!(staying.ok("commit").status(), 'I');
}
