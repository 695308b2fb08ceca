//! Too few open files: what is said, and who goes without.

use super::*;
use pgimbal_tests::http;
use pgimbal_tests::pgimbal::{program, undisturbed};
use pgimbal_tests::program::run;

#[test]
fn more_clients_than_open_files_are_told_so_and_the_others_are_served() {
    let pg = Postgres::start();
    let config = Config::before(&pg).set("max_client_conn", 5000);
    let proxy = config.through(&["prlimit", "--nofile=300:300"]).start();
    eventually("the log says so", SOON, || {
        proxy.log().contains("300 open files are allowed, and up to 10")
    });
    let mut served = Vec::new();
    let mut refused = 0;
    for _ in 0..400 {
        let mut client = proxy.connect();
        match client.log_in(&app()) {
            Ok(()) => served.push(client),
            Err(messages) => {
                let error = messages.last().expect("a message").error();
                assert_eq!(error.code, "53300");
                assert!(format!("{:?}", error.fields).contains("open"), "{error:?}");
                refused += 1;
            }
        }
    }
    assert!(served.len() >= 100 && refused > 0, "{} and {refused}", served.len());
    // Nobody who was let in fails later: server connections, HTTP and files have theirs.
    for client in &mut served {
        assert_eq!(client.value("select 1"), "1");
    }
    let limit = metric(&proxy.metrics(), "pgimbal_client_connections_limit", &[]);
    assert_eq!(limit, Some(served.len() as f64));
    assert_eq!(http::get(proxy.http_port, "/readyz").0, 200);
}

#[test]
fn the_soft_limit_is_raised_to_the_hard_one() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).through(&["prlimit", "--nofile=64:8192"]).start();
    let mut clients: Vec<WireClient> = (0..200).map(|_| proxy.client()).collect();
    assert_eq!(clients[199].value("select 1"), "1");
    assert!(!proxy.log().contains("open files"), "{}", proxy.log());
}

#[test]
fn check_says_that_open_files_do_not_suffice() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).start();
    let config = proxy.directory().join("pgimbal.toml");
    let check = |limit: &str| {
        let mut command = undisturbed("prlimit");
        command.arg(format!("--nofile={limit}")).arg(program());
        command.args(["check", "--config"]).arg(&config);
        run(&mut command, SOON).stdout
    };
    let said = check("300:300");
    assert!(said.contains("open files: warning: 300 open files are allowed, and up to"), "{said}");
    let said = check("64:8192");
    assert!(said.contains("open files: ok"), "{said}");
}
