//! Commands and tables of all replicas.

use std::collections::HashMap;

use pgimbal_tests::cluster::Cluster;
use pgimbal_tests::pgimbal::{Config, undisturbed};
use pgimbal_tests::postgres::bin;
use pgimbal_tests::program::run;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Login, Pgimbal, Postgres, Reply};
use rustix::process::Signal;

use super::{peers, replica, start, tables, three, wait_for_peers};

/// The answer of each replica to a command for all.
fn results(proxy: &Pgimbal, command: &str) -> Vec<(String, String)> {
    let pair = |row: Vec<(String, String)>| {
        let [(replica, name), (result, said)] = &row[..] else { panic!("{row:?}") };
        assert_eq!((replica.as_str(), result.as_str()), ("replica", "result"));
        (name.clone(), said.clone())
    };
    proxy.console(command).into_iter().map(pair).collect()
}

/// Whether a NoticeResponse came along.
fn warning(reply: &Reply) -> bool {
    reply.messages.iter().any(|message| message.tag == b'N')
}

fn names(results: &[(String, String)]) -> Vec<&str> {
    results.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn a_hold_on_one_holds_on_all_and_a_resume_ends_it_everywhere() {
    let cluster = Cluster::start(1);
    cluster.settle(0);
    let all = start(&Config::before_cluster(&cluster), 3, true);
    for proxy in &all {
        eventually("writes go through", SOON, || proxy.client().query("begin").errors().is_empty());
    }
    let held = results(&all[1], "hold c");
    assert_eq!(names(&held), ["r1", "r0", "r2"]);
    assert!(held.iter().all(|(_, said)| said.contains("writes of c wait")), "{held:?}");
    let mut clients: Vec<_> = all.iter().map(Pgimbal::client).collect();
    for (proxy, client) in all.iter().zip(&mut clients) {
        client.start_query("select 'held'");
        eventually("it waits", SOON, || {
            let page = proxy.metrics();
            pgimbal_tests::http::metric(&page, "pgimbal_clients_waiting", &[]) == Some(1.0)
        });
    }
    let resumed = results(&all[2], "resume");
    assert_eq!(resumed[0], ("r2".to_owned(), "resumed: c".to_owned()));
    // The others may have heard of it before they were asked.
    let is_over = |said: &str| ["resumed: c", "nothing was held"].contains(&said);
    assert!(resumed.iter().all(|(_, said)| is_over(said)), "{resumed:?}");
    for mut client in clients {
        assert_eq!(client.read_reply().value(), "held");
    }
    // What all refuse is an error, as with one replica.
    let mut console = all[0].log_in(&Login::new("app", "pgimbal", "app-secret"));
    assert_eq!(console.query("hold nowhere").sqlstate(), "42704");
    // Names are taken as they are.
    assert_eq!(console.query("hold \"no \"\"where\"").sqlstate(), "42704");
}

#[test]
fn a_reload_reaches_all_and_who_does_not_answer_is_named() {
    let pg = Postgres::start();
    let tables = tables(3, true);
    let config = Config::before(&pg);
    let start = |table| replica(config.clone(), table).start();
    let mut all: Vec<Pgimbal> = tables.iter().map(start).collect();
    all.iter().for_each(|one| wait_for_peers(one, 2));
    for proxy in &all {
        let text = std::fs::read_to_string(proxy.directory().join("pgimbal.toml")).expect("a file");
        proxy.overwrite_config(&text.replace("pool_size = 2", "pool_size = 7"));
    }
    let reloaded = results(&all[0], "reload");
    assert_eq!(names(&reloaded), ["r0", "r1", "r2"]);
    assert!(reloaded.iter().all(|(_, said)| said.starts_with("in force now: ")), "{reloaded:?}");
    // One whose file is wrong.
    all[1].overwrite_config("nonsense");
    let mut console = all[0].log_in(&Login::new("app", "pgimbal", "app-secret"));
    let reply = console.query("reload");
    assert_eq!((warning(&reply), reply.tags().as_str()), (true, "TDDDCZ"), "{reply:?}");
    let said: Vec<Vec<String>> = reply.texts();
    assert!(said[1][1].starts_with("ERROR: ") && said[2][1] == "nothing has changed", "{said:?}");
    // One that is gone, and then one that is silent.
    drop(all.pop());
    let gone = results(&all[0], "resume");
    let told = |results: &[(String, String)]| {
        let of: HashMap<_, _> = results.iter().cloned().collect();
        of["r2"].clone()
    };
    assert_eq!(names(&gone), ["r0", "r1", "r2"]);
    assert!(told(&gone).starts_with("ERROR: "), "{gone:?}");
    eventually("it is silent", SOON, || peers(&all[0]).iter().any(|row| row["state"] == "silent"));
    let silent = results(&all[0], "resume");
    assert!(told(&silent).starts_with("ERROR: the replica is silent for "), "{silent:?}");
    assert_eq!(silent[1], ("r1".to_owned(), "nothing was held".to_owned()));
    assert_eq!(silent_count(&all[0]), Some(1.0));
}

fn silent_count(proxy: &Pgimbal) -> Option<f64> {
    pgimbal_tests::http::metric(&proxy.metrics(), "pgimbal_peers_silent", &[])
}

#[test]
fn a_replica_that_drained_is_not_counted_as_silent() {
    let pg = Postgres::start();
    let mut all = three(&pg);
    all[2].signal(Signal::TERM);
    eventually("it drains", SOON, || peers(&all[0]).iter().any(|row| row["ready"] == "no"));
    drop(all.pop());
    eventually("it is silent", SOON, || peers(&all[0]).iter().any(|row| row["state"] == "silent"));
    assert_eq!(silent_count(&all[0]), Some(0.0));
}

#[test]
fn tables_of_all_have_a_column_with_the_replica() {
    let pg = Postgres::start();
    let mut all = three(&pg);
    let clients: Vec<_> = all.iter().map(Pgimbal::client).collect();
    let rows = all[1].console("show clients all");
    let mut of: Vec<&str> = rows.iter().map(|row| row[0].1.as_str()).collect();
    of.sort_unstable();
    assert_eq!(of, ["r0", "r1", "r2"]);
    assert_eq!((rows[0][0].0.as_str(), rows[0][1].0.as_str()), ("replica", "type"), "{rows:?}");
    drop(clients);
    // Who may only look, may look at all.
    let looks = Config::before(&pg).set("stats_users", "[\"scram\"]");
    let stats = start(&looks, 2, false);
    let login = Login::new("scram", "pgimbal", "scram-secret");
    let mut console = stats[0].log_in(&login);
    assert_eq!(console.ok("show version all").texts().len(), 2);
    assert_eq!(console.query("reload").sqlstate(), "42501");
    // psql shows rows of a command, in both protocols.
    let psql = |proxy: &Pgimbal, commands: &str| {
        let mut command = undisturbed(bin().join("psql"));
        let port = proxy.port.to_string();
        command.args(["-XAt", "-h", "127.0.0.1", "-p", &port, "-U", "app", "pgimbal", "-c"]);
        run(command.arg(commands), SOON).succeeded().stdout
    };
    assert_eq!(
        psql(&all[0], "resume"),
        "r0|nothing was held\nr1|nothing was held\nr2|nothing was held\n"
    );
    // A replica that is gone has a row, and a warning.
    drop(all.pop());
    let mut console = all[0].log_in(&Login::new("app", "pgimbal", "app-secret"));
    let reply = console.ok("show version all");
    assert_eq!((warning(&reply), reply.tags().as_str()), (true, "TDDDCZ"), "{reply:?}");
    let texts = reply.rows();
    assert_eq!(texts[2][0].as_deref(), Some(&b"r2"[..]));
    assert_eq!(texts[2][1], None);
}

#[test]
fn peers_are_shown_and_the_database_pgbouncer_has_its_columns() {
    let pg = Postgres::start();
    let all = three(&pg);
    let rows = peers(&all[0]);
    let names: Vec<_> = rows.iter().map(|row| (&*row["replica"], &*row["state"])).collect();
    assert_eq!(names, [("r0", "self"), ("r1", "alive"), ("r2", "alive")]);
    assert_eq!((&*rows[1]["peer_id"], &*rows[1]["why"]), ("2", ""));
    let mut console = all[0].log_in(&Login::new("app", "pgbouncer", "app-secret"));
    let reply = console.ok("show peers");
    assert_eq!(reply.columns(), ["peer_id", "host", "port", "pool_size"]);
    let ids: Vec<String> = reply
        .rows()
        .iter()
        .map(|row| String::from_utf8_lossy(row[0].as_ref().unwrap()).into_owned())
        .collect();
    assert_eq!(ids, ["2", "3"]);
    let page = all[0].metrics();
    let metric = |name: &str, labels: &[&str]| pgimbal_tests::http::metric(&page, name, labels);
    assert_eq!(metric("pgimbal_peers", &[]), Some(2.0));
    assert_eq!(metric("pgimbal_peers_silent", &[]), Some(0.0));
    let failed = metric("pgimbal_peer_handshakes_failed_total", &["reason=\"handshake\""]);
    assert_eq!(failed, Some(0.0));
}
