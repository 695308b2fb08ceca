//! A server that refuses the password that Vault says: scenarios 3, 4, 9, 16 and 18.

use std::time::{Duration, Instant};

use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::wire_client::WireClient;
use pgimbal_tests::{Postgres, ServerError};

use super::{WithStandIn, WithVault, accepted, counted, proven, refused, shop};

/// How often PostgreSQL has refused a password of `shop`.
fn failed_logins(pg: &Postgres) -> usize {
    pg.logged("FATAL:  password authentication failed for user \"shop\"")
}

#[test]
fn rotation_3_vault_lags_behind_the_server() {
    let setup = WithStandIn::new("first");
    let proxy = proven(setup.polled_every("1h").set("pool_size", 5), "first");
    let mut clients: Vec<WireClient> = (0..12).map(|_| proxy.log_in(&shop("first"))).collect();
    let asked = setup.stand_in.asked("static-creds/shop");
    setup.on_server("second");
    setup.pg.end_backends();
    for client in &mut clients {
        client.start_query("select current_user");
    }
    // Time is the subject: the retries have grown to their longest by then.
    let changed = Instant::now() + Duration::from_secs(5);
    assert!(clients[0].is_silent_for(changed - Instant::now()), "answered without a server");
    setup.in_vault("second", 1);
    for client in &mut clients {
        assert_eq!(client.read_reply().value(), "shop");
    }
    let late = changed.elapsed();
    // The retries grow from 0.2 s to 2 s, and there is one for all who wait.
    assert!(late < Duration::from_secs(4), "{late:?} after Vault's answer changed");
    let questions = setup.stand_in.asked("static-creds/shop") - asked;
    assert!((2..=12).contains(&questions), "{questions} questions in {late:?} and 5 s");
    assert!(failed_logins(&setup.pg) <= 12, "{} failed logins", failed_logins(&setup.pg));
    drop((proxy.log_in(&shop("first")), proxy.log_in(&shop("second"))));
    assert!(counted(&proxy, "pgimbal_credential_no_password_works", &[]) < 0.5);
}

#[test]
fn rotation_3_a_vault_that_never_follows_ends_in_a_clear_error() {
    let setup = WithStandIn::new("first");
    let proxy = proven(setup.config(), "first");
    let mut client = proxy.log_in(&shop("first"));
    setup.on_server("second");
    setup.pg.end_backends();
    let start = Instant::now();
    client.set_timeout(SOON * 4);
    client.start_query("select 1");
    let messages = client.read_to_end_or_ready();
    // A login may be held for 30 s.
    assert!(start.elapsed() > Duration::from_secs(25), "{:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(40), "{:?}", start.elapsed());
    let error = messages.iter().find(|message| message.tag == b'E').expect("an error").error();
    assert!(error.message.contains("no password of role \"shop\""), "{error:?}");
    assert!(error.fields[&'H'].contains("VALID UNTIL"), "{error:?}");
    let alert = || counted(&proxy, "pgimbal_credential_no_password_works", &["user=\"shop\""]);
    eventually("the alert is up", SOON, || alert() > 0.5);
    setup.in_vault("second", 1);
    eventually("it heals", SOON, || {
        let mut client = proxy.log_in(&shop("first"));
        client.start_query("select 1");
        client.read_to_end_or_ready().iter().any(|message| message.tag == b'D')
    });
    eventually("the alert is down", SOON, || alert() < 0.5);
}

#[test]
fn rotation_4_a_refused_server_login_asks_vault_at_once() {
    let setup = WithVault::by_hand();
    let proxy = proven(setup.polled_every("1h"), &setup.password());
    let mut client = proxy.log_in(&shop(&setup.password()));
    setup.rotate();
    setup.pg.end_backends();
    let start = Instant::now();
    assert_eq!(client.value("select current_user"), "shop");
    let took = start.elapsed();
    eprintln!("from the refused login to the answer: {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(accepted(&proxy, "shop"), 2);
}

#[test]
fn rotation_4_a_rotation_is_seen_within_the_poll_interval() {
    let setup = WithVault::by_hand();
    let proxy = proven(setup.config(), &setup.password());
    setup.rotate();
    let start = Instant::now();
    super::eventually_accepted(&proxy, 2);
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn rotation_9_a_server_that_has_lost_the_new_password_takes_the_one_before() {
    let setup = WithStandIn::new("first");
    let proxy = proven(setup.config(), "first");
    let before = setup.pg.value("select rolpassword from pg_authid where rolname = 'shop'");
    setup.on_server("second");
    setup.in_vault("second", 1);
    setup.pg.end_backends();
    let mut client = proxy.log_in(&shop("second"));
    assert_eq!(client.value("select current_user"), "shop");
    // As a failover to a replica that never got the ALTER ROLE does, or a restore.
    setup.pg.run(&format!("alter role shop password '{before}'"));
    setup.pg.end_backends();
    let start = Instant::now();
    for password in ["first", "second"] {
        assert_eq!(proxy.log_in(&shop(password)).value("select current_user"), "shop");
    }
    assert_eq!(client.value("select current_user"), "shop");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    setup.on_server("third");
    setup.in_vault("third", 2);
    setup.pg.end_backends();
    assert_eq!(client.value("select current_user"), "shop");
    assert_eq!(proxy.log_in(&shop("third")).value("select current_user"), "shop");
}

#[test]
fn rotation_16_an_expired_role_is_named_clearly() {
    let setup = WithVault::by_hand();
    let password = setup.password();
    let proxy = proven(setup.config(), &password);
    setup.pg.run("alter role shop valid until '2001-01-01'");
    setup.pg.end_backends();
    let mut client = proxy.log_in(&shop(&password));
    client.start_query("select current_user");
    eventually("the log says what may be wrong", SOON, || {
        proxy.log().lines().any(|line| line.contains("shop") && line.contains("VALID UNTIL"))
    });
    // The client is held meanwhile; in the end it is told the same, as in scenario 3.
    setup.pg.run("alter role shop valid until 'infinity'");
    assert_eq!(client.read_reply().value(), "shop");
}

#[test]
fn rotation_18_a_wrong_password_fails_once_for_all_and_says_so() {
    let setup = WithStandIn::new("right");
    setup.in_vault("wrong", 1);
    let proxy = setup.config().start();
    let start = Instant::now();
    let errors: Vec<ServerError> = std::thread::scope(|scope| {
        let login = || refused(&proxy, &shop("wrong"));
        let clients: Vec<_> = (0..20).map(|_| scope.spawn(login)).collect();
        clients.into_iter().map(|client| client.join().expect("a client")).collect()
    });
    for error in errors {
        assert!(error.message.contains("shop"), "{error:?}");
        assert_ne!(error.code, "53300", "{error:?}");
    }
    // Plainly wrong: nobody is held for the 30 s that a rotation may take.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let failures = failed_logins(&setup.pg);
    assert!((1..=6).contains(&failures), "{failures} failed logins in {:?}", start.elapsed());
    assert_eq!(refused(&proxy, &shop("right")).code, "28P01");
}
