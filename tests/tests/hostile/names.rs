//! Names that clients make up leave nothing behind.

use super::*;

#[test]
fn pools_and_counters_of_names_that_were_never_served_go_away() {
    let pg = Postgres::start();
    let table = format!("[databases.\"*\"]\nhost = \"127.0.0.1\"\nport = {}\n", pg.port);
    let config = Config::before(&pg).tables(&table).set("workers", 2);
    let proxy = config.set("server_login_retry", "\"2s\"").start();
    let mut client = proxy.client();
    client.ok("select 1");
    for number in 0..30 {
        let login = Login::new("app", &format!("made_up_{number}"), "app-secret");
        let refused = proxy.connect().log_in(&login).expect_err("there is no such database");
        assert_eq!(refused.last().expect("a message").error().code, "3D000");
    }
    assert!(proxy.metrics().contains("made_up_29"), "failures are counted for a while");
    eventually("nothing is left of them", SOON, || !proxy.metrics().contains("made_up"));
    let pools = format!("{:?}", proxy.console("show pools"));
    assert!(pools.contains("\"app\"") && !pools.contains("made_up"), "{pools}");
    // What is served keeps its counters, and another name may take a place that was freed.
    let of_app = ["database=\"app\""];
    let queries = metric(&proxy.metrics(), "pgimbal_queries_total", &of_app);
    assert_eq!(queries, Some(1.0));
    pg.run("create database real");
    let mut late = proxy.log_in(&Login::new("app", "real", "app-secret"));
    assert_eq!(late.value("select current_database()"), "real");
    assert_eq!(client.value("select current_database()"), "app");
    assert!(proxy.metrics().contains("database=\"real\""));
}
