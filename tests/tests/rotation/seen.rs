//! What people see of it: `SHOW CREDENTIALS`, `REFRESH`, metrics, and never a secret.

use std::collections::BTreeMap;
use std::time::Duration;

use pgimbal_tests::Passwords;
use pgimbal_tests::until::{SOON, eventually};

use super::{WithVault, accepted, admin, counted, credentials, eventually_accepted, proven, shop};

const COLUMNS: [&str; 12] = [
    "user",
    "source",
    "role",
    "generation",
    "age_seconds",
    "next_rotation_seconds",
    "last_fetch",
    "last_result",
    "accepted_generations",
    "clients",
    "servers",
    "stale_seconds",
];

#[test]
fn show_credentials_tells_who_uses_which_generation() {
    let setup = WithVault::by_hand();
    let first = setup.password();
    let proxy = proven(setup.config().set("grace_generations", 3), &first);
    let old = [proxy.log_in(&shop(&first)), proxy.log_in(&shop(&first))];
    let second = setup.rotate();
    eventually_accepted(&proxy, 2);
    let new = proxy.log_in(&shop(&second));
    let mut admin = admin(&proxy);
    let reply = admin.ok("SHOW CREDENTIALS");
    assert_eq!(reply.columns(), COLUMNS);
    eventually("the clients are counted", SOON, || {
        let rows = credentials(&proxy, "shop");
        let clients: Vec<&str> = rows.iter().map(|row| row["clients"].as_str()).collect();
        clients == ["1", "2"]
    });
    let rows = credentials(&proxy, "shop");
    let mut shown: Vec<String> = proxy
        .console("show clients")
        .into_iter()
        .map(|row| row.into_iter().collect::<BTreeMap<_, _>>())
        .filter(|row| row["user"] == "shop")
        .map(|row| row["generation"].clone())
        .collect();
    shown.sort();
    let (old_number, new_number) = (&rows[1]["generation"], &rows[0]["generation"]);
    assert_eq!(shown.iter().collect::<Vec<_>>(), [old_number, old_number, new_number]);
    let newest = &rows[0];
    assert_eq!(newest["source"], "vault", "{newest:?}");
    assert!(newest["role"].contains("shop"), "{newest:?}");
    assert_eq!(newest["last_result"], "ok", "{newest:?}");
    let next: f64 = newest["next_rotation_seconds"].parse().expect("seconds");
    assert!((86_000.0..=86_400.0).contains(&next), "{newest:?}");
    assert!(newest["age_seconds"].parse::<f64>().expect("seconds") < 60.0, "{newest:?}");
    drop((old, new));
    eventually("they have left", SOON, || {
        credentials(&proxy, "shop").iter().all(|row| row["clients"] == "0")
    });
    let passwords = Passwords::default();
    passwords.add(&first);
    passwords.add(&second);
    let console: String = ["credentials", "clients", "servers", "pools", "config", "databases"]
        .map(|table| format!("{:?}", admin.query(&format!("show {table}"))))
        .concat();
    passwords.appear_nowhere(&[
        ("the console", &console),
        ("the metrics", &proxy.metrics()),
        ("the log", &proxy.log()),
    ]);
}

#[test]
fn refresh_asks_at_once() {
    let setup = WithVault::by_hand();
    let proxy = proven(setup.polled_every("1h"), &setup.password());
    setup.rotate();
    assert_eq!(accepted(&proxy, "shop"), 1);
    let mut admin = admin(&proxy);
    admin.ok("REFRESH shop");
    eventually("the new generation is known", Duration::from_secs(3), || {
        accepted(&proxy, "shop") == 2
    });
    for nobody in ["REFRESH nobody", "REFRESH scram"] {
        assert_eq!(admin.query(nobody).errors().len(), 1, "{nobody}");
    }
}

#[test]
fn a_due_rotation_is_used_within_a_second() {
    let setup = WithVault::new(5);
    let config = setup.polled_every("30s").set("grace_generations", 25);
    let proxy = proven(config, &setup.password());
    let mut delays = Vec::new();
    for _ in 0..2 {
        let (before, known) = (setup.password(), accepted(&proxy, "shop"));
        eventually("Vault rotates", SOON, || setup.password() != before);
        let used = || accepted(&proxy, "shop") > known;
        delays.push(eventually("pgimbal has it", Duration::from_secs(5), used));
    }
    eprintln!("from Vault's answer changing to its use: {delays:?}");
    let shortest = delays.iter().min().expect("two delays");
    assert!(*shortest < Duration::from_millis(1500), "{delays:?}");
}

#[test]
fn metrics_tell_the_age_and_the_next_rotation() {
    let setup = WithVault::by_hand();
    let proxy = proven(setup.config(), &setup.password());
    let user = ["user=\"shop\""];
    let of = |name: &str| counted(&proxy, name, &user);
    assert!(of("pgimbal_credential_next_rotation_seconds") > 86_000.0, "{}", proxy.metrics());
    assert!((0.0..60.0).contains(&of("pgimbal_credential_age_seconds")), "{}", proxy.metrics());
    assert!(of("pgimbal_credential_logins_total") >= 1.0, "{}", proxy.metrics());
    assert!(of("pgimbal_credential_stale_seconds") < 0.001, "{}", proxy.metrics());
    let ok = ["source=\"vault\"", "result=\"ok\""];
    assert!(counted(&proxy, "pgimbal_credential_fetches_total", &ok) >= 1.0);
    assert!(counted(&proxy, "pgimbal_credential_fetch_seconds_count", &[]) >= 1.0);
    assert!(counted(&proxy, "pgimbal_credential_fetch_seconds_sum", &[]) > 0.0);
}
