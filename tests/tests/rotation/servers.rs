//! Server connections around a rotation: scenarios 14 and 17.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, always, eventually};
use pgimbal_tests::vault_stand_in::Answer;
use pgimbal_tests::{Login, Postgres, VaultStandIn, WireClient};

use super::{WithStandIn, credentials, eventually_accepted, minute, proven, shop};

#[test]
fn rotation_14_connections_from_before_keep_working_and_are_replaced_between_transactions() {
    let setup = WithStandIn::new("first");
    let proxy = proven(setup.config().set("pool_size", 3), "first");
    let mut clients: Vec<WireClient> = (0..3).map(|_| proxy.log_in(&shop("first"))).collect();
    for client in &mut clients {
        client.ok("begin");
    }
    let [mut holder, others @ ..] = <[WireClient; 3]>::try_from(clients).ok().expect("three");
    let mut others = Vec::from(others);
    let (held, before): (String, BTreeSet<String>) =
        (holder.backend(), others.iter_mut().map(WireClient::backend).collect());
    for client in &mut others {
        client.ok("commit");
    }
    setup.on_server("second");
    setup.in_vault("second", 1);
    eventually_accepted(&proxy, 2);
    let newest = proxy.log_in(&shop("second")).value("select 1");
    assert_eq!(newest, "1");
    // The transaction keeps its connection, whatever becomes of the others.
    let living = || {
        let pids = "select coalesce(string_agg(pid::text, ' '), '') from pg_stat_activity where usename = 'shop'";
        setup.pg.value(pids).split(' ').map(str::to_owned).collect::<BTreeSet<String>>()
    };
    always("a transaction is not cut", Duration::from_secs(1), || {
        assert_eq!(others[0].value("select 1"), "1");
        holder.backend() == held
    });
    eventually("idle connections are replaced", SOON * 4, || {
        assert_eq!(others[0].value("select 1"), "1");
        assert_eq!(holder.backend(), held);
        living().is_disjoint(&before)
    });
    assert_eq!(holder.ok("commit").status(), 'I');
    eventually("the last one is replaced too", SOON * 4, || {
        assert_eq!(holder.value("select 1"), "1");
        !living().contains(&held)
    });
    let rows = credentials(&proxy, "shop");
    let old: u64 = rows[1..].iter().filter_map(|row| row["servers"].parse::<u64>().ok()).sum();
    assert_eq!(old, 0, "{rows:?}");
    assert!(!setup.pg.log().contains("terminating connection"), "a connection was cut");
}

/// How many roles rotate in the same second.
const ROLES: usize = 200;

fn role(number: usize) -> String {
    format!("r{number:03}")
}

#[test]
fn rotation_17_two_hundred_roles_rotate_in_the_same_second() {
    let pg = Postgres::with(&["max_connections=450"]);
    let stand_in = VaultStandIn::start();
    let rotate = |generation: u64| {
        let mut sql = String::new();
        for number in 0..ROLES {
            let name = role(number);
            let password = format!("{name}-{generation}");
            let _ = write!(sql, "alter role {name} password '{password}';");
            stand_in.role(&name, Answer::role(&name, &password, &minute(generation), 3600));
        }
        pg.run(&sql);
    };
    let create: String = (0..ROLES).map(|n| format!("create role {} login;", role(n))).collect();
    pg.run(&create);
    rotate(0);
    let users: String =
        (0..ROLES).map(|n| format!("[users.{0}]\nvault_role = \"{0}\"\n", role(n))).collect();
    let config = Config::before(&pg).set("auth_type", "\"scram-sha-256\"").set("pool_size", 1);
    let config = config.tables(&stand_in.table("poll_interval = \"2s\"")).tables(&users);
    let proxy = config.start();
    let mut clients: Vec<WireClient> = (0..ROLES)
        .map(|n| proxy.log_in(&Login::new(&role(n), "app", &format!("{}-0", role(n)))))
        .collect();
    for client in &mut clients {
        client.ok("select 1");
    }
    let before = pg.logged("connection received");
    rotate(1);
    let start = Instant::now();
    let mut most = 0;
    let mut last = before;
    // Everybody goes on while the new passwords are found out.
    while start.elapsed() < Duration::from_secs(4) {
        for client in clients.iter_mut().step_by(20) {
            client.ok("select 1");
        }
        let now = pg.logged("connection received");
        most = most.max(now - last);
        last = now;
        std::thread::sleep(Duration::from_millis(100));
    }
    eprintln!("{} new connections, {most} at most in a tenth of a second", last - before);
    assert!(most <= ROLES / 4, "{most} connections at once");
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.value("select current_user"), role(number));
    }
    for number in (0..ROLES).step_by(20) {
        for generation in 0..2 {
            let password = format!("{}-{generation}", role(number));
            drop(proxy.log_in(&Login::new(&role(number), "app", &password)));
        }
    }
}
