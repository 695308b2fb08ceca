//! What a client proves decides what is asked and tried: scenarios 4, 25 and 27, and users that
//! only a rule knows.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::vault_stand_in::Answer;
use pgimbal_tests::{Login, Pgimbal};

use super::{WithStandIn, WithVault, accepted, admin, minute, proven, refused, shop};

fn works(proxy: &Pgimbal, password: &str) {
    assert_eq!(proxy.log_in(&shop(password)).value("select current_user"), "shop");
}

#[test]
fn rotation_4_a_password_that_was_never_used_waits_for_its_source_too() {
    let setup = WithVault::by_hand();
    let first = setup.password();
    let proxy = setup.polled_every("1h").start();
    eventually("it is read", SOON, || accepted(&proxy, "shop") == 1);
    let second = setup.rotate();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| works(&proxy, &first));
        }
    });
    works(&proxy, &second);
    assert_eq!(accepted(&proxy, "shop"), 2);
}

#[test]
fn rotation_4_a_new_answer_ends_the_pause_and_blames_no_password_that_was_never_tried() {
    let setup = WithStandIn::new("right");
    setup.in_vault("wrong", 0);
    let config = setup.polled_every("1h").set("server_login_retry", "\"1h\"");
    let proxy = config.start();
    assert_eq!(refused(&proxy, &shop("wrong")).code, "28P01");
    setup.in_vault("right", 1);
    let said = proxy.log().len();
    let mut admin = admin(&proxy);
    for _ in 0..2 {
        admin.ok("REFRESH shop");
    }
    let still = |line: &str| line.contains("still says the password that the server refuses");
    assert!(!proxy.log()[said..].lines().any(still), "{}", proxy.log());
    let start = Instant::now();
    works(&proxy, "right");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn rotation_25_a_leader_whose_clock_was_ahead() {
    let setup = WithStandIn::new("ahead");
    setup.in_vault("ahead", 60);
    let proxy = proven(setup.config(), "ahead");
    setup.on_server("present");
    setup.in_vault("present", 1);
    setup.asked_again(2);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| works(&proxy, "present"));
        }
    });
    setup.pg.end_backends();
    works(&proxy, "present");
    assert_eq!(setup.pg.logged("password authentication failed"), 0, "the server felt it");
    // The next one is later than that, and earlier than the clock that was ahead.
    setup.on_server("next");
    setup.in_vault("next", 2);
    works(&proxy, "next");
}

#[test]
fn rotation_25_an_older_answer_that_the_server_refuses_is_not_believed() {
    let setup = WithStandIn::new("newest");
    setup.in_vault("newest", 60);
    let proxy = proven(setup.config(), "newest");
    setup.in_vault("of a standby that lags", 1);
    setup.asked_again(2);
    for _ in 0..4 {
        assert_eq!(refused(&proxy, &shop("of a standby that lags")).code, "28P01");
    }
    let tries = setup.pg.logged("password authentication failed");
    assert!((1..=2).contains(&tries), "{tries} tries at the server");
    works(&proxy, "newest");
}

#[test]
fn rotation_27_a_stale_client_does_not_starve_those_with_the_right_password() {
    let setup = WithStandIn::new("first");
    let proxy = proven(setup.polled_every("1h"), "first");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Worse than one that waits for a second in between.
        let stale = scope.spawn(|| {
            while !is_over.load(Relaxed) {
                assert_eq!(refused(&proxy, &shop("stale")).code, "28P01");
            }
        });
        for (minutes, password) in (1..).zip(["second", "third", "fourth", "fifth", "sixth"]) {
            setup.on_server(password);
            setup.in_vault(password, minutes);
            works(&proxy, password);
        }
        is_over.store(true, Relaxed);
        stale.join().expect("a stale client");
    });
}

/// Users are those of Vault, and nobody is listed.
fn by_rule(setup: &WithStandIn) -> Config {
    let vault = format!("{}poll_interval = \"1h\"\n", setup.stand_in.table(""));
    let config = Config::before(&setup.pg).set("auth_type", "\"scram-sha-256\"");
    config.tables(&vault).tables("[users.\"*\"]\nvault_role = \"{user}\"\n")
}

/// Logs in from an address of the loopback network; the SQLSTATE that it ends with, if it does.
fn from_address(proxy: &Pgimbal, address: [u8; 4], login: &Login) -> Option<String> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket.bind(&SocketAddr::from((address, 0)).into()).expect("an address of ours");
    let to = SocketAddr::from(([127, 0, 0, 1], proxy.port));
    socket.connect(&to.into()).expect("a listening port");
    let mut client = pgimbal_tests::WireClient::of(TcpStream::from(socket));
    client.log_in(login).err().map(|told| told.last().expect("an error").error().code)
}

#[test]
fn rotation_22_made_up_names_use_up_no_questions_of_others() {
    let setup = WithStandIn::new("unused");
    setup.stand_in.rule("static-creds/made-up", Answer::error(404, "unknown role"));
    let users: Vec<String> = (0..12).map(|number| format!("user{number}")).collect();
    for user in &users {
        setup.pg.run(&format!("create role {user} login password 'of-{user}'"));
        setup.stand_in.role(user, Answer::role(user, &format!("of-{user}"), &minute(0), 3600));
    }
    let proxy = by_rule(&setup).start();
    let before = setup.stand_in.asked("static-creds/made-up");
    let (is_over, start) = (AtomicBool::new(false), Instant::now());
    let told = std::thread::scope(|scope| {
        let attackers: Vec<_> = (0..16)
            .map(|thread| {
                let (proxy, is_over) = (&proxy, &is_over);
                scope.spawn(move || {
                    let mut told = Vec::new();
                    for number in 0.. {
                        let name = format!("made-up-{thread}-{number}");
                        let login = Login::new(&name, "app", "any");
                        told.extend(from_address(proxy, [127, 0, 0, 99], &login));
                        if is_over.load(Relaxed) {
                            break;
                        }
                    }
                    told
                })
            })
            .collect();
        eventually("they ask", SOON, || {
            setup.stand_in.asked("static-creds/made-up") >= before + 10
        });
        for user in &users {
            let login = Login::new(user, "app", &format!("of-{user}"));
            assert_eq!(proxy.log_in(&login).value("select current_user"), *user);
        }
        eventually("their budget ends", SOON, || {
            let login = Login::new("made-up-too", "app", "any");
            from_address(&proxy, [127, 0, 0, 99], &login).as_deref() == Some("57P03")
        });
        is_over.store(true, Relaxed);
        let attackers = attackers.into_iter().map(|attacker| attacker.join().expect("an attacker"));
        attackers.flatten().collect::<Vec<String>>()
    });
    assert!(told.iter().all(|code| code == "28P01" || code == "57P03"), "{told:?}");
    let asked = setup.stand_in.asked("static-creds/made-up") - before;
    let most = 25 + 2 * usize::try_from(start.elapsed().as_secs()).expect("seconds");
    assert!(asked <= most, "{asked} questions in {:?}", start.elapsed());
}

#[test]
fn rotation_22_nothing_is_asked_of_a_name_without_a_proof() {
    let setup = WithStandIn::new("right");
    let proxy = by_rule(&setup).start();
    let mut client = proxy.connect();
    let proof = client.up_to_the_proof(&shop("right"));
    drop(proxy.console("show credentials"));
    assert_eq!(setup.stand_in.asked("static-creds/shop"), 0);
    client.send(&proof);
    let last = client.read_to_end_or_ready().pop().expect("an answer");
    assert_eq!(last.tag, b'Z');
    assert_eq!(setup.stand_in.asked("static-creds/shop"), 1);
}
