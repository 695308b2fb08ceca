//! What Vault should not say: odd answers leave the last good password, odd passwords are taken
//! as they are.

use std::time::Duration;

use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, always, eventually};
use pgimbal_tests::vault_stand_in::Answer;
use pgimbal_tests::{Passwords, Pgimbal};
use serde_json::json;

use super::{WithStandIn, accepted, last_result, minute, proven, shop};

/// Waits until `last_result` is `label` and says what else must hold meanwhile.
fn refuses(setup: &WithStandIn, proxy: &Pgimbal, label: &str, answer: Answer) {
    setup.stand_in.role("shop", answer);
    eventually(&format!("the result is {label}"), SOON, || last_result(proxy) == label);
    setup.pg.end_backends();
    assert_eq!(proxy.log_in(&shop("first")).value("select current_user"), "shop", "{label}");
    assert_eq!(accepted(proxy, "shop"), 1, "{label}");
}

fn often(setup: &WithStandIn) -> Config {
    setup.polled_every("300ms")
}

#[test]
fn bad_answers_leave_the_last_good_password() {
    let setup = WithStandIn::new("first");
    let proxy = proven(often(&setup), "first");
    let data = |data: serde_json::Value| Answer::json(200, &json!({ "data": data }));
    let bad = [
        ("no JSON", Answer::raw(200, b"<html>a load balancer's page</html>")),
        ("nothing", Answer::raw(200, b"")),
        ("half", Answer::raw(200, b"{\"data\":{\"username\":\"shop\",\"pass")),
        ("no data", Answer::json(200, &json!({ "request_id": "1" }))),
        ("null", data(json!(null))),
        ("no password", data(json!({ "username": "shop", "ttl": 5 }))),
        ("a number", data(json!({ "username": "shop", "password": 12_345_678 }))),
        ("a list", Answer::raw(200, b"[1, 2, 3]")),
        ("no text", Answer::raw(200, &[0xff, 0xfe, 0x00, 0x7b])),
    ];
    for (number, (name, answer)) in bad.into_iter().enumerate() {
        eprintln!("{name}");
        setup.stand_in.role("shop", Answer::role("shop", "first", &minute(0), 3600));
        eventually("it heals", SOON, || last_result(&proxy) == "ok");
        refuses(&setup, &proxy, "malformed", answer);
        assert!(!proxy.log().contains("load balancer's page"), "{number}: the text is logged");
        assert!(!proxy.log().contains("12345678"), "{number}: the text is logged");
    }
    for password in ["", "with\0nul"] {
        let answer = Answer::role("shop", password, &minute(9), 3600);
        refuses(&setup, &proxy, "unusable", answer);
    }
    refuses(&setup, &proxy, "unusable", Answer::role("shop", &"k".repeat(70_000), &minute(9), 1));
    refuses(&setup, &proxy, "too_large", Answer::raw(200, &vec![b' '; 4 << 20]));
    let log = proxy.log();
    assert!(log.lines().all(|line| line.len() < 2000), "a line of a whole answer");
}

#[test]
fn vaults_statuses_are_told_apart() {
    let setup = WithStandIn::new("first");
    let proxy = proven(often(&setup), "first");
    // What the answer's status is, what Vault says with it, and the status of its health.
    let cases = [
        (501, "not initialized", 501, "uninitialised"),
        (503, "Vault is sealed", 503, "sealed"),
        (472, "DR secondary", 472, "recovery_secondary"),
        (473, "performance standby", 473, "performance_standby"),
        (500, "local node not active but active cluster node not found", 429, "standby"),
        (500, "internal error", 200, "server_fault"),
        (502, "bad gateway", 200, "server_fault"),
        (429, "request path \"database\": rate limit quota exceeded", 200, "rate_limited"),
        (403, "permission denied", 200, "permission_denied"),
        (400, "unknown role: shop", 200, "unknown_role"),
        (404, "no handler for route \"database/static-creds/shop\"", 200, "wrong_mount"),
    ];
    for (status, text, health, label) in cases {
        setup.stand_in.rule("sys/health", Answer::json(health, &json!({ "version": "1.21.0" })));
        refuses(&setup, &proxy, label, Answer::error(status, text));
        let name = "pgimbal_credential_fetches_total";
        let result = format!("result=\"{label}\"");
        assert!(super::counted(&proxy, name, &[&result]) >= 1.0, "{label}");
        setup.in_vault("first", 0);
        eventually("it heals", SOON, || last_result(&proxy) == "ok");
    }
}

#[test]
fn every_field_but_the_password_is_optional() {
    let setup = WithStandIn::new("first");
    let says = |data: serde_json::Value| {
        setup.stand_in.role("shop", Answer::json(200, &json!({ "data": data })));
    };
    says(json!({ "password": "first" }));
    let proxy = proven(often(&setup).set("grace_generations", 9), "first");
    let forms = [
        json!({ "password": "p1", "last_openbao_rotation": minute(1), "ttl": 30 }),
        json!({ "password": "p2", "last_vault_rotation": minute(2), "ttl": 30,
            "rotation_schedule": "0 0 * * SAT", "rotation_window": 3600 }),
        json!({ "password": "p3", "last_vault_rotation": "2026-01-01T01:03:00+01:00", "ttl": -1 }),
        json!({ "password": "p4", "last_vault_rotation": "no time", "username": "shop" }),
        json!({ "password": "p5", "last_vault_rotation": null, "ttl": null, "more": { "x": 1 } }),
    ];
    for (number, form) in forms.into_iter().enumerate() {
        let password = form["password"].as_str().expect("a password").to_owned();
        setup.on_server(&password);
        says(form);
        setup.pg.end_backends();
        let mut client = proxy.log_in(&shop("first"));
        assert_eq!(client.value("select current_user"), "shop", "{password}");
        assert!(accepted(&proxy, "shop") >= number + 2, "{password}");
        let mut client = proxy.log_in(&shop(&password));
        assert_eq!(client.value("select current_user"), "shop");
    }
}

#[test]
fn passwords_with_quotes_newlines_and_ten_kilobytes() {
    let setup = WithStandIn::new("first");
    let passwords = Passwords::default();
    let odd = [
        "a'b\"c\\d$e".to_owned(),
        "line one\nline two\r\n\ttabbed".to_owned(),
        " leading and trailing ".to_owned(),
        "pässwörd – ünïcödé 🔑".to_owned(),
        "k".repeat(10_240),
    ];
    for method in ["scram-sha-256", "password", "md5"] {
        setup.on_server("first");
        setup.in_vault("first", 0);
        let proxy = proven(often(&setup).set("auth_type", format!("\"{method}\"")), "first");
        for (number, password) in odd.iter().enumerate() {
            passwords.add(password);
            setup.on_server(password);
            setup.in_vault(password, 1 + u64::try_from(number).expect("few"));
            setup.pg.end_backends();
            // The server's refusal makes it known; that a client may is held elsewhere.
            let previous = number.checked_sub(1).map_or("first", |before| odd[before].as_str());
            for password in [previous, password.as_str()] {
                let mut client = proxy.log_in(&shop(password));
                assert_eq!(client.value("select current_user"), "shop", "{method}: {password:?}");
            }
        }
        let console = format!("{:?}", proxy.console("show credentials"));
        passwords.appear_nowhere(&[
            ("the log", &proxy.log()),
            ("the metrics", &proxy.metrics()),
            ("the console", &console),
        ]);
    }
}

#[test]
fn a_user_of_another_name_is_named_and_the_password_before_works_on() {
    let setup = WithStandIn::new("first");
    let proxy = proven(often(&setup), "first");
    setup.stand_in.role("shop", Answer::role("somebody", "second", &minute(1), 3600));
    setup.asked_again(3);
    setup.pg.end_backends();
    assert_eq!(proxy.log_in(&shop("first")).value("select current_user"), "shop");
    let line =
        |line: &str| line.contains("\"somebody\"") && line.contains("tried for user \"shop\"");
    eventually("the log names it and says what follows", SOON, || {
        proxy.log().replace('\\', "").lines().any(line)
    });
}

#[test]
fn a_slow_vault_is_given_up_in_time() {
    let setup = WithStandIn::new("first");
    let table = setup.stand_in.table("timeout = \"500ms\"\n");
    let proxy = proven(super::shop_from(&setup.pg, &table, "300ms"), "first");
    let slow = Answer::role("shop", "second", &minute(1), 3600).after(Duration::from_secs(3));
    refuses(&setup, &proxy, "timeout", slow);
    always("a late answer is not used", Duration::from_secs(4), || accepted(&proxy, "shop") == 1);
}
