//! Answers that are right and still mislead: scenarios 5 and 6, and a flood of wrong passwords
//! (13), which asks for as many.

use std::time::{Duration, Instant};

use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, always, eventually};
use pgimbal_tests::vault_stand_in::Answer;
use pgimbal_tests::{Login, Pgimbal};

use super::{WithStandIn, accepted, counted, credentials, minute, proven, refused, shop};

#[test]
fn rotation_5_a_ttl_that_rolls_over_is_no_rotation() {
    let setup = WithStandIn::new("first");
    let says = |ttl: u64| {
        setup.stand_in.role("shop", Answer::role("shop", "first", &minute(0), ttl));
    };
    says(2);
    let proxy = proven(setup.config(), "first");
    let before = credentials(&proxy, "shop");
    for ttl in [1, 0, 3600, 3599] {
        says(ttl);
        setup.asked_again(2);
    }
    let after = credentials(&proxy, "shop");
    assert_eq!((before.len(), after.len()), (1, 1), "{after:?}");
    for column in ["generation", "accepted_generations"] {
        assert_eq!(before[0][column], after[0][column], "{after:?}");
    }
    let age = |row: &std::collections::BTreeMap<String, String>| {
        row["age_seconds"].parse::<f64>().expect("an age")
    };
    assert!(age(&after[0]) >= age(&before[0]), "a new age: {before:?} {after:?}");
    assert_eq!(proxy.log_in(&shop("first")).value("select current_user"), "shop");
}

#[test]
fn rotation_6_an_older_answer_is_ignored_while_the_newest_password_works() {
    let setup = WithStandIn::new("first");
    let proxy = proven(setup.config(), "first");
    setup.on_server("second");
    setup.in_vault("second", 10);
    setup.pg.end_backends();
    let mut client = proxy.log_in(&shop("second"));
    assert_eq!(client.value("select current_user"), "shop");
    let refusals = setup.pg.logged("password authentication failed");
    let fetches = || counted(&proxy, "pgimbal_credential_fetches_total", &[]);
    // A standby that lags: what it says has been true.
    setup.in_vault("first", 0);
    setup.asked_again(3);
    setup.pg.end_backends();
    assert_eq!(client.value("select current_user"), "shop");
    assert_eq!(setup.pg.logged("password authentication failed"), refusals, "it was tried");
    assert_eq!(accepted(&proxy, "shop"), 2);
    // And one that says what nobody has seen, with an older time.
    setup.in_vault("never used", 5);
    setup.asked_again(3);
    setup.pg.end_backends();
    assert_eq!(client.value("select current_user"), "shop");
    assert_eq!(setup.pg.logged("password authentication failed"), refusals, "it was tried");
    let newest = ["generation=\"newest\""];
    let before = counted(&proxy, "pgimbal_credential_logins_total", &newest);
    drop(proxy.log_in(&shop("second")));
    assert!(counted(&proxy, "pgimbal_credential_logins_total", &newest) > before);
    assert!(fetches() > 5.0);
}

#[test]
fn rotation_6_an_older_answer_is_tried_while_the_newest_password_is_refused() {
    let setup = WithStandIn::new("first");
    let proxy = proven(setup.config(), "first");
    setup.on_server("second");
    setup.in_vault("second", 600);
    setup.pg.end_backends();
    let mut client = proxy.log_in(&shop("second"));
    assert_eq!(client.value("select current_user"), "shop");
    // The new leader's clock is behind: its rotation seems older than the last one.
    setup.on_server("third");
    setup.in_vault("third", 300);
    setup.pg.end_backends();
    let start = Instant::now();
    assert_eq!(client.value("select current_user"), "shop");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(proxy.log_in(&shop("third")).value("select current_user"), "shop");
    setup.in_vault("fourth", 301);
    setup.on_server("fourth");
    setup.pg.end_backends();
    assert_eq!(client.value("select current_user"), "shop");
}

#[test]
fn rotation_13_a_flood_of_wrong_passwords_leaves_vault_alone() {
    let setup = WithStandIn::new("right");
    let proxy = proven(setup.polled_every("1h").set("workers", 2), "right");
    let asked = || setup.stand_in.asked("static-creds/");
    let (before, start) = (asked(), Instant::now());
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let proxy = &proxy;
            scope.spawn(move || {
                for number in 0..15 {
                    let wrong = format!("wrong-{thread}-{number}");
                    assert_eq!(refused(proxy, &shop(&wrong)).code, "28P01");
                }
            });
        }
        for _ in 0..20 {
            drop(proxy.log_in(&shop("right")));
        }
    });
    let (questions, took) = (asked() - before, start.elapsed());
    let bound = 10 + usize::try_from(took.as_secs()).expect("seconds") * 2;
    assert!(questions <= bound, "{questions} questions for 90 wrong passwords in {took:?}");
    // The next rotation is seen all the same, and soon.
    setup.on_server("next");
    setup.in_vault("next", 1);
    eventually("a client with the new password gets in", SOON, || {
        proxy.connect().log_in(&shop("next")).is_ok()
    });
    assert_eq!(setup.pg.logged("password authentication failed"), 0, "the server felt the flood");
}

/// How long a refusal takes.
fn refusal_takes(proxy: &Pgimbal, user: &str) -> Duration {
    let start = Instant::now();
    assert_eq!(refused(proxy, &Login::new(user, "app", "wrong")).code, "28P01", "{user}");
    start.elapsed()
}

/// By how much the refusals of a user who exists are longer than those of one who does not, in
/// seconds: the median of pairs, each measured in one go and in either order.
fn longer_for_who_exists(proxy: &Pgimbal) -> f64 {
    const PAIRS: usize = 5;
    let mut longer: Vec<f64> = (0..PAIRS)
        .map(|number| {
            let mut users = ["shop", "nobody"];
            users.rotate_left(number % 2);
            let mut times = users.map(|user| refusal_takes(proxy, user).as_secs_f64());
            times.rotate_left(number % 2);
            times[0] - times[1]
        })
        .collect();
    longer.sort_by(f64::total_cmp);
    longer[PAIRS / 2]
}

#[test]
fn rotation_13_the_wait_does_not_tell_who_exists() {
    // What tells who exists is a wait that only one of the two has: for Vault, which takes this
    // long, or for the delay, which is twice that. Half of it is no sign of either.
    const VAULT: Duration = Duration::from_millis(400);
    // Other work on this machine makes single waits longer, by chance for the one or the other,
    // and a difference that is there is there every time: one round without it is enough.
    const ROUNDS: usize = 6;
    let setup = WithStandIn::new("right");
    let slow = Answer::role("shop", "right", &minute(0), 3600).after(VAULT);
    setup.stand_in.role("shop", slow);
    let proxy = proven(setup.polled_every("1h"), "right");
    let mut longer = Vec::new();
    let told = (0..ROUNDS).all(|_| {
        longer.push(longer_for_who_exists(&proxy));
        longer.last().is_some_and(|longer| longer.abs() >= VAULT.as_secs_f64() / 2.0)
    });
    assert!(!told, "refusals of who exists are longer by so many seconds: {longer:?}");
    // The whole wait is there, and not for nobody.
    assert!(refusal_takes(&proxy, "nobody") > VAULT, "nobody is refused at once");
}

#[test]
fn rotation_6_a_reload_to_another_role_takes_its_older_answer_and_no_late_one_of_the_first() {
    let setup = WithStandIn::new("first");
    setup.in_vault("first", 60);
    let at = |role: &str| {
        let vault = format!("{}poll_interval = \"1s\"\n", setup.stand_in.table(""));
        let config = Config::before(&setup.pg).set("auth_type", "\"scram-sha-256\"");
        let config = config.set("grace_generations", 9).tables(&vault);
        config.tables(&format!("[users.shop]\nvault_role = \"{role}\"\n"))
    };
    let mut proxy = proven(at("shop"), "first");
    setup.stand_in.role("moved", Answer::role("shop", "second", &minute(0), 3600));
    let late = Duration::from_secs(3);
    setup.stand_in.role("shop", Answer::role("shop", "late", &minute(90), 3600).after(late));
    let before = setup.stand_in.asked("static-creds/shop");
    eventually("it is being asked", SOON, || setup.stand_in.asked("static-creds/shop") > before);
    proxy.reload(at("moved"));
    eventually("its password is the newest", SOON, || accepted(&proxy, "shop") == 2);
    always("the late answer is not used", late + Duration::from_secs(1), || {
        accepted(&proxy, "shop") == 2
    });
    drop((proxy.log_in(&shop("second")), proxy.log_in(&shop("first"))));
}
