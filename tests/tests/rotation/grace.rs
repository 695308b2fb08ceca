//! What applications may still say: scenarios 1, 2 and 12's single half, and `accept_also`.

use std::time::{Duration, Instant};

use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::vault_stand_in::Answer;
use pgimbal_tests::wire_client::WireClient;
use pgimbal_tests::{Login, Pgimbal};

use super::{
    WithStandIn, WithVault, accepted, admin, counted, credentials, eventually_accepted, minute,
    proven, refused, shop,
};

/// The ways a client may prove its password.
const METHODS: [&str; 3] = ["scram-sha-256", "md5", "password"];

fn works(proxy: &Pgimbal, password: &str) -> WireClient {
    let mut client = proxy.log_in(&shop(password));
    assert_eq!(client.value("select current_user"), "shop");
    client
}

#[test]
fn rotation_1_the_old_password_works_through_the_grace_period() {
    let setup = WithVault::by_hand();
    let first = setup.password();
    let start = |method: &str| setup.config().set("auth_type", format!("\"{method}\"")).start();
    let proxies = METHODS.map(start);
    let mut early: Vec<WireClient> = proxies.iter().map(|proxy| works(proxy, &first)).collect();
    let second = setup.rotate();
    for (proxy, early) in proxies.iter().zip(&mut early) {
        eventually("the rotation is seen", SOON, || {
            credentials(proxy, "shop").first().is_some_and(|row| row["accepted_generations"] == "2")
        });
        assert_eq!(early.value("select current_user"), "shop");
        drop((works(proxy, &first), works(proxy, &second)));
        assert_eq!(refused(proxy, &shop("neither")).code, "28P01");
        let logins = |generation: &str| {
            let label = format!("generation=\"{generation}\"");
            counted(proxy, "pgimbal_credential_logins_total", &["user=\"shop\"", &label])
        };
        assert!(logins("previous") >= 1.0 && logins("newest") >= 2.0, "{}", proxy.metrics());
        assert!(!proxy.log().contains("ERROR"), "{}", proxy.log());
    }
    assert_eq!(setup.pg.logged("password authentication failed"), 0);
}

#[test]
fn rotation_2_after_the_grace_period_the_old_password_is_refused() {
    let setup = WithVault::by_hand();
    let first = setup.password();
    let by_count = setup.config().set("grace_generations", 2).start();
    let by_age = setup.config().set("grace_age", "\"2s\"").start();
    let at_once = setup.config().set("grace_generations", 1).start();
    for proxy in [&by_count, &by_age, &at_once] {
        drop(works(proxy, &first));
    }
    let second = setup.rotate();
    eventually("the newest alone is accepted", SOON, || {
        at_once.connect().log_in(&shop(&second)).is_ok()
            && at_once.connect().log_in(&shop(&first)).is_err()
    });
    drop(works(&by_age, &second));
    eventually("its age ends the old one", SOON, || {
        by_age.connect().log_in(&shop(&first)).is_err()
    });
    drop(works(&by_count, &first));
    let third = setup.rotate();
    drop(works(&by_count, &third));
    drop(works(&by_count, &second));
    for proxy in [&by_count, &by_age, &at_once] {
        drop(works(proxy, &third));
        let error = refused(proxy, &shop(&first));
        assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "28P01"));
        assert!(error.message.contains("shop"), "{error:?}");
    }
}

#[test]
fn rotation_2_an_emergency_revoke_refuses_all_but_the_newest_at_once() {
    let setup = WithVault::by_hand();
    let first = setup.password();
    let proxy = setup.config().set("grace_generations", 3).start();
    let mut early = works(&proxy, &first);
    let second = setup.rotate();
    eventually_accepted(&proxy, 2);
    let third = setup.rotate();
    eventually_accepted(&proxy, 3);
    for password in [&first, &second, &third] {
        drop(works(&proxy, password));
    }
    let mut admin = admin(&proxy);
    admin.ok("REVOKE OLD shop");
    for password in [&first, &second] {
        assert_eq!(refused(&proxy, &shop(password)).code, "28P01");
    }
    drop(works(&proxy, &third));
    // A session stays: who holds one is seen by its generation, and an operator may end it.
    assert_eq!(early.value("select current_user"), "shop");
    assert_eq!(admin.query("REVOKE OLD nobody").errors().len(), 1);
    eventually_accepted(&proxy, 1);
    let fourth = setup.rotate();
    eventually_accepted(&proxy, 2);
    drop((works(&proxy, &third), works(&proxy, &fourth)));
    assert_eq!(refused(&proxy, &shop(&second)).code, "28P01");
}

#[test]
fn rotation_1_one_more_old_password_is_accepted_beside_vaults() {
    let setup = WithVault::by_hand();
    // What another pooler let in, as its password and as the verifier that PostgreSQL made of it.
    setup.pg.run("create role old login password 'from-elsewhere'");
    let verifier = setup.pg.value("select rolpassword from pg_authid where rolname = 'old'");
    for also in ["from-elsewhere", verifier.as_str()] {
        let rule = format!("accept_also = '{also}'\n");
        let proxy = setup.config().tables(&rule).start();
        drop(works(&proxy, "from-elsewhere"));
        drop(works(&proxy, &setup.password()));
        assert_eq!(refused(&proxy, &shop("from-nowhere")).code, "28P01");
        let label = ["generation=\"also\""];
        assert!(counted(&proxy, "pgimbal_credential_logins_total", &label) >= 1.0);
        let (previous, next) = (setup.password(), setup.rotate());
        eventually_accepted(&proxy, 2);
        for password in ["from-elsewhere", &previous, &next] {
            drop(works(&proxy, password));
        }
    }
}

#[test]
fn rotation_1_a_reload_adds_and_drops_the_old_password_and_its_salt() {
    let setup = WithVault::by_hand();
    setup.pg.run("create role old login password 'from-elsewhere'");
    let verifier = setup.pg.value("select rolpassword from pg_authid where rolname = 'old'");
    let first = setup.password();
    let mut proxy = setup.config().start();
    drop(works(&proxy, &first));
    let second = setup.rotate();
    eventually_accepted(&proxy, 2);
    let enters = |proxy: &Pgimbal, password: &str| proxy.connect().log_in(&shop(password)).is_ok();
    proxy.reload(setup.config().tables(&format!("accept_also = '{verifier}'\n")));
    for password in ["from-elsewhere", &second, &first] {
        let what = format!("{password} is accepted with the verifier's salt");
        eventually(&what, SOON, || enters(&proxy, password));
    }
    proxy.reload(setup.config());
    eventually("it is accepted no more", SOON, || !enters(&proxy, "from-elsewhere"));
    for password in [&second, &first] {
        eventually("the others still are", SOON, || enters(&proxy, password));
    }
    assert_eq!(accepted(&proxy, "shop"), 2);
}

#[test]
fn rotation_4_a_client_with_the_new_password_is_let_in_at_once() {
    let setup = WithVault::by_hand();
    for method in METHODS {
        let config = setup.polled_every("1h").set("auth_type", format!("\"{method}\""));
        let proxy = proven(config, &setup.password());
        let polls = counted(&proxy, "pgimbal_credential_fetches_total", &["result=\"ok\""]);
        let next = setup.rotate();
        let start = std::time::Instant::now();
        drop(works(&proxy, &next));
        // Vault's `timeout` and the derivation's time are the longest wait.
        assert!(start.elapsed() < Duration::from_secs(7), "{:?}", start.elapsed());
        let fetches = counted(&proxy, "pgimbal_credential_fetches_total", &["result=\"ok\""]);
        assert!(fetches > polls, "{}", proxy.metrics());
    }
}

#[test]
fn rotation_4_a_client_with_the_new_password_waits_for_a_slow_vault() {
    let setup = WithStandIn::new("first");
    let proxy = proven(setup.polled_every("1h"), "first");
    setup.on_server("second");
    // Longer than anybody waits for whom nothing is asked.
    let slow = Answer::role("shop", "second", &minute(1), 3600).after(Duration::from_secs(3));
    setup.stand_in.role("shop", slow);
    let start = Instant::now();
    drop(proxy.log_in(&shop("second")));
    assert!(start.elapsed() >= Duration::from_secs(3), "{:?}", start.elapsed());
    // Whoever does not exist is refused as late as who does.
    let mut times = Vec::new();
    for user in ["shop", "nobody"] {
        let start = Instant::now();
        assert_eq!(refused(&proxy, &Login::new(user, "app", "wrong")).code, "28P01");
        times.push(start.elapsed());
    }
    assert!(times.iter().all(|time| *time >= Duration::from_secs(3)), "{times:?}");
}
