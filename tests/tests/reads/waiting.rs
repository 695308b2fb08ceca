//! A read may wait for a replica that shows what it must (`read_wait`).

use std::time::Duration;

use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Pipeline, WireClient};

use super::{HERE, Setup};

/// Writes a row and reads it back at once. Returns the port of the node that has served the read.
fn read_own_write(client: &mut WireClient, value: u32) -> String {
    client.ok(&format!(
        "insert into items values (500, '{value}') on conflict (id) do update set name = '{value}'"
    ));
    let rows = client.query("select name, here() from items where id = 500").texts();
    assert_eq!(rows[0][0], value.to_string(), "a stale read at {}", rows[0][1]);
    rows[0][1].clone()
}

/// The CPU time of pgimbal so far, in hundredths of a second.
fn ticks(setup: &Setup) -> u64 {
    let path = format!("/proc/{}/stat", setup.proxy.process().id());
    let stat = std::fs::read_to_string(path).expect("pgimbal runs");
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let field = |number: usize| fields[number].parse::<u64>().expect("a number");
    field(11) + field(12)
}

#[test]
fn a_read_of_an_own_write_waits_for_a_replica_as_long_as_read_wait_says() {
    let setup = Setup::with(1, |config| config.tables("read_wait = \"5s\""));
    let [primary, replica] = &setup.ports()[..] else { panic!("two nodes") };
    let mut client = setup.client();
    for value in 0..50 {
        assert_eq!(read_own_write(&mut client, value), *replica, "pair {value}");
    }
    let standby = &setup.cluster.nodes[1];
    standby.run("alter system set recovery_min_apply_delay = '1s'");
    standby.run("select pg_reload_conf()");
    assert_eq!(read_own_write(&mut client, 50), *replica, "it has waited for a second");
    standby.run("select pg_wal_replay_pause()");
    assert_eq!(read_own_write(&mut client, 51), *primary, "it has waited in vain");
}

/// How many clients wait.
fn waiting(setup: &Setup) -> usize {
    let is_waiting = |row: &&Vec<(String, String)>| {
        row.iter().any(|(name, value)| name == "state" && value == "waiting")
    };
    setup.proxy.console("show clients").iter().filter(is_waiting).count()
}

#[test]
fn while_a_read_waits_its_client_may_cancel_and_leave() {
    let setup = Setup::with(1, |config| config.tables("read_wait = \"60s\""));
    let standby = &setup.cluster.nodes[1];
    let (mut client, mut leaver) = (setup.client(), setup.client());
    standby.run("select pg_wal_replay_pause()");
    eventually("replay is paused", SOON, || {
        standby.value("select pg_get_wal_replay_pause_state()") == "paused"
    });
    for client in [&mut client, &mut leaver] {
        client.ok("insert into items values (nextval('numbers'), 'new')");
        client.start_query(HERE);
    }
    eventually("both wait", SOON, || waiting(&setup) == 2);
    drop(leaver);
    eventually("the one that has left waits no more", SOON, || waiting(&setup) == 1);
    let before = ticks(&setup);
    std::thread::sleep(Duration::from_secs(1));
    let used = ticks(&setup) - before;
    assert!(used < 50, "who waits costs {used} hundredths of a second in a second");
    client.cancel(setup.proxy.port);
    assert_eq!(client.read_reply().sqlstate(), "57014");
    standby.run("select pg_wal_replay_resume()");
    assert_eq!(client.value("select 1"), "1");
}

/// A statement that takes too long to parse for a worker's turn, and tells where it runs.
fn long(nulls: usize) -> String {
    format!("select here(){}", ", null".repeat(nulls))
}

#[test]
fn a_long_statement_is_parsed_beside_the_workers_turn() {
    let setup = Setup::start(1);
    let [primary, replica] = &setup.ports()[..] else { panic!("two nodes") };
    let mut client = setup.client();
    let here =
        |client: &mut WireClient| client.query(&long(500)).texts().swap_remove(0).swap_remove(0);
    assert_eq!(here(&mut client), *primary, "nothing is known of it yet");
    eventually("it is known", SOON, || here(&mut client) == *replica);
    let metrics = setup.proxy.metrics();
    assert!(metrics.contains("reason=\"being_parsed\""), "{metrics}");
}

#[test]
fn a_long_statement_may_wait_until_it_is_parsed() {
    let setup = Setup::with(1, |config| config.tables("read_unparsed = \"wait\""));
    let [_, replica] = &setup.ports()[..] else { panic!("two nodes") };
    let mut client = setup.client();
    for nulls in [200, 300, 400, 1500] {
        let rows = client.query(&long(nulls)).texts();
        assert_eq!(rows[0][0], *replica, "{nulls}");
        let rows = client.run(&Pipeline::new().run(&long(nulls + 1)).sync()).texts();
        assert_eq!(rows[0][0], *replica, "{nulls}");
    }
}

/// A statement of nearly 16 KiB that tells where it runs; each number has another one.
fn longest(number: usize) -> String {
    format!("select here() as n{number} where true{}", " or null is null".repeat(1000))
}

/// How many of them are kept until they are parsed (128 KiB).
const KEPT: usize = 8;

/// So many clients whose statements of this kind are to be parsed.
fn occupied(setup: &Setup, count: usize) -> Vec<WireClient> {
    let mut clients: Vec<WireClient> = (0..count).map(|_| setup.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.start_query(&longest(number));
    }
    clients
}

#[test]
fn while_a_statement_waits_to_be_parsed_its_client_may_cancel_and_leave() {
    let setup = Setup::with(1, |config| config.tables("read_unparsed = \"wait\""));
    let [_, replica] = &setup.ports()[..] else { panic!("two nodes") };
    let (mut client, mut leaver) = (setup.client(), setup.client());
    let mut others = occupied(&setup, KEPT - 1);
    client.start_query(&long(300));
    leaver.start_query(&long(301));
    leaver.disconnect(true);
    client.cancel(setup.proxy.port);
    assert_eq!(client.read_reply().sqlstate(), "57014");
    // Its next statement waits for the same text again.
    let again = Pipeline::new().run(&long(300)).sync();
    assert_eq!(client.run(&again).texts()[0][0], *replica);
    for other in &mut others {
        assert_eq!(other.read_reply().value(), *replica);
    }
    assert_eq!(client.query(&long(301)).texts()[0][0], *replica, "it was parsed all the same");
    assert_eq!(waiting(&setup), 0);
}

#[test]
fn a_statement_that_nobody_has_time_to_parse_is_the_primarys() {
    let setup = Setup::with(1, |config| config.tables("read_unparsed = \"wait\""));
    let [primary, replica] = &setup.ports()[..] else { panic!("two nodes") };
    let (mut client, mut writer) = (setup.client(), setup.client());
    let mut others = occupied(&setup, KEPT);
    assert_eq!(client.value(&longest(KEPT)), *primary);
    let metrics = setup.proxy.metrics();
    assert!(metrics.contains("reason=\"parser_is_busy\""), "{metrics}");
    writer.ok("insert into items values (700, 'meanwhile')");
    assert_eq!(writer.value("select name from items where id = 700"), "meanwhile");
    for other in &mut others {
        assert_eq!(other.read_reply().value(), *replica, "it has waited");
    }
    eventually("there is time for it", SOON, || client.value(&longest(KEPT)) == *replica);
}

#[test]
fn a_strong_read_waits_for_what_others_have_written() {
    let setup = Setup::with(1, |config| config.tables("read_consistency = \"strong\""));
    let [primary, replica] = &setup.ports()[..] else { panic!("two nodes") };
    let mut client = setup.client();
    let mut on_replica = 0;
    for value in 0..50 {
        setup.cluster.nodes[0].run(&format!(
            "insert into items values (501, '{value}') on conflict (id) \
             do update set name = '{value}'"
        ));
        let rows = client.query("select name, here() from items where id = 501").texts();
        assert_eq!(rows[0][0], value.to_string(), "a stale read at {}", rows[0][1]);
        assert!([primary, replica].contains(&&rows[0][1]));
        on_replica += u32::from(rows[0][1] == *replica);
    }
    assert!(on_replica > 25, "{on_replica} of 50 reads were a replica's");
}
