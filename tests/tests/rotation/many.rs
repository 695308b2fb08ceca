//! A thousand roles on one pgimbal: how much is asked of Vault, and how soon it is ready.

use std::time::{Duration, Instant};

use pgimbal_tests::http::get;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::eventually;
use pgimbal_tests::vault_stand_in::Answer;
use pgimbal_tests::{Pgimbal, Postgres, VaultStandIn};

use super::minute;

const ROLES: usize = 1000;

/// CPU time that the process has used, in hundredths of a second.
fn cpu(proxy: &Pgimbal) -> u64 {
    let path = format!("/proc/{}/stat", proxy.process().pid().as_raw_nonzero());
    let text = std::fs::read_to_string(path).expect("a living process");
    let fields: Vec<&str> = text.rsplit(") ").next().expect("fields").split(' ').collect();
    [fields[11], fields[12]].iter().map(|ticks| ticks.parse::<u64>().expect("ticks")).sum()
}

#[test]
fn a_thousand_roles_are_ready_soon_and_ask_vault_seldom() {
    let pg = Postgres::start();
    let stand_in = VaultStandIn::start();
    let mut users = String::new();
    for number in 0..ROLES {
        let name = format!("r{number:03}");
        let password = format!("{name}-password");
        stand_in.role(&name, Answer::role(&name, &password, &minute(0), 86_400));
        users.push_str(&format!("[users.{name}]\nvault_role = \"{name}\"\n"));
    }
    let config = Config::before(&pg).set("auth_type", "\"scram-sha-256\"");
    let config = config.tables(&stand_in.table("")).tables(&users);
    let start = Instant::now();
    let proxy = config.start();
    let known = || {
        let rows = proxy.console("show credentials");
        let ok = |row: &Vec<(String, String)>| {
            row.iter().any(|cell| cell.0 == "last_result" && cell.1 == "ok")
        };
        rows.iter().filter(|row| ok(row)).count()
    };
    eventually("every role is known", Duration::from_secs(60), || known() >= ROLES);
    assert_eq!(get(proxy.http_port, "/readyz").0, 200);
    let ready = start.elapsed();
    let (asked, used, start) = (stand_in.requests().len(), cpu(&proxy), Instant::now());
    let window = Duration::from_secs(15);
    std::thread::sleep(window);
    let seconds = start.elapsed().as_secs_f64();
    let rate = (stand_in.requests().len() - asked) as f64 / seconds;
    let share = (cpu(&proxy) - used) as f64 / seconds;
    eprintln!("ready after {ready:?}; then {rate:.1} requests/s and {share:.1} % of a core");
    assert!(ready < Duration::from_secs(30), "{ready:?}");
    assert!(rate > 20.0, "{rate:.1} requests/s: the roles are not polled");
    assert!(rate < 40.0, "{rate:.1} requests/s");
    // What it costs unoptimised says nothing.
    assert!(cfg!(debug_assertions) || share < 2.0, "{share:.1} % of a core");
}
