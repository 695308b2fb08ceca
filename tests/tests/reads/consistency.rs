//! A session reads what it has written, whatever its replicas do.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use pgimbal_tests::cluster::End;
use pgimbal_tests::until::{SOON, always, eventually};
use pgimbal_tests::{Login, Pipeline, WireClient};

use super::drivers::pairs;
use super::{HERE, Setup};

/// Counts a row of the client's own up, and reads it back each time, by turns in both protocols and
/// in a transaction. Returns how many of the reads a replica has served.
fn write_and_read(client: &mut WireClient, own: u32, pairs: u32, primary: &str) -> u32 {
    let mut on_replicas = 0;
    client.ok(&format!("insert into items values ({own}, '0') on conflict do nothing"));
    for pair in 1..=pairs {
        let write = format!("update items set name = '{pair}' where id = {own}");
        let read = format!("select name, here() from items where id = {own}");
        let row = match pair % 3 {
            0 => {
                client.ok("begin");
                client.ok(&write);
                client.ok("commit");
                client.query(&read)
            }
            1 => {
                client.run(&Pipeline::new().run(&write).sync()).no_error();
                client.run(&Pipeline::new().run(&read).sync())
            }
            _ => {
                client.ok(&write);
                client.ok("begin read only");
                let reply = client.query(&read);
                client.ok("commit");
                reply
            }
        };
        let row = &row.no_error().texts()[0];
        assert_eq!(row[0], pair.to_string(), "a stale read of {own} at {}", row[1]);
        on_replicas += u32::from(row[1] != primary);
    }
    on_replicas
}

#[test]
fn reads_of_own_writes_are_never_stale_while_replay_stops_and_goes_on() {
    let setup = Setup::start(2);
    let ports = setup.ports();
    let clients: Vec<WireClient> = (0..4).map(|_| setup.client()).collect();
    let pairs = pairs(300) / 4;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let replicas = &setup.cluster.nodes[1..];
            for turn in 0.. {
                if done.load(Relaxed) {
                    break;
                }
                let node = &replicas[turn % replicas.len()];
                node.run("select pg_wal_replay_pause()");
                std::thread::sleep(Duration::from_millis(200));
                node.run("select pg_wal_replay_resume()");
            }
        });
        let writers: Vec<_> = (0..)
            .zip(clients)
            .map(|(number, mut client)| {
                let primary = &ports[0];
                scope.spawn(move || write_and_read(&mut client, 100 + number, pairs, primary))
            })
            .collect();
        for writer in writers {
            writer.join().expect("no stale read");
        }
        done.store(true, Relaxed);
    });
}

#[test]
fn reads_of_own_writes_wait_for_a_slow_replica_at_the_primary() {
    let setup = Setup::start(1);
    let [primary, replica] = &setup.ports()[..] else { panic!("two nodes") };
    let standby = &setup.cluster.nodes[1];
    standby.run("alter system set recovery_min_apply_delay = '300ms'");
    standby.run("select pg_reload_conf()");
    let mut client = setup.client();
    let mut other = setup.client();
    write_and_read(&mut client, 200, pairs(30), primary);
    assert_eq!(client.value(HERE), *primary, "the replica has not replayed it yet");
    assert_eq!(other.value(HERE), *replica, "who has not written need not wait");
    eventually("the replica has caught up", SOON, || client.value(HERE) == *replica);
    assert_eq!(client.value("select name from items where id = 200"), pairs(30).to_string());
}

#[test]
fn reads_stay_at_the_primary_while_replay_is_paused() {
    let setup = Setup::start(1);
    let [primary, replica] = &setup.ports()[..] else { panic!("two nodes") };
    let mut client = setup.client();
    pause(&setup);
    client.ok("insert into items values (300, 'new')");
    always("its reads are the primary's", Duration::from_secs(2), || {
        client.query("select name, here() from items where id = 300").texts()
            == [["new".to_owned(), primary.clone()]]
    });
    resume(&setup);
    eventually("the replica has caught up", SOON, || client.value(HERE) == *replica);
    assert_eq!(client.value("select name from items where id = 300"), "new");
}

#[test]
fn who_hears_a_notification_reads_what_it_tells_of() {
    let setup = Setup::start(1);
    let [primary, replica] = &setup.ports()[..] else { panic!("two nodes") };
    let (mut client, mut other) = (setup.client(), setup.client());
    client.ok("listen news");
    eventually("reads are served by the replica", SOON, || client.value(HERE) == *replica);
    pause(&setup);
    other.ok("begin; insert into items values (310, 'new'); notify news, '310'; commit");
    let told = client.expect(b'A').body;
    assert!(told.ends_with(b"news\x00310\0"), "{told:?}");
    let row = client.query("select name, here() from items where id = 310").texts();
    assert_eq!(row, [["new".to_owned(), primary.clone()]]);
    resume(&setup);
    eventually("the replica has caught up", SOON, || client.value(HERE) == *replica);
}

#[test]
fn what_is_written_behind_a_read_only_transaction_is_read() {
    const WRITE: &str = "insert into items values (nextval('numbers') + 5000, 'late')";
    let setup = Setup::start(1);
    let [primary, replica] = &setup.ports()[..] else { panic!("two nodes") };
    let (mut client, mut other) = (setup.client(), setup.client());
    let behind_its_end = format!("commit; {WRITE}");
    for texts in [
        &[&*behind_its_end][..],
        &["commit; begin", WRITE, "commit"],
        &["set transaction read write", WRITE, "commit"],
        &["begin read write", WRITE, "commit"],
        &["start transaction read write", WRITE, "commit"],
    ] {
        pause(&setup);
        client.ok(WRITE);
        client.ok("begin read only");
        resume(&setup);
        other.ok(WRITE);
        eventually("the replica has caught up", SOON, || other.value(HERE) == *replica);
        pause(&setup);
        texts.iter().for_each(|text| drop(client.ok(text)));
        let count = "select count(*) from items where name = 'late'";
        let row = client.query(&format!("select ({count}), here()")).texts();
        assert_eq!(row, [[setup.cluster.nodes[0].value(count), primary.clone()]], "{texts:?}");
        resume(&setup);
        eventually("the replica has caught up", SOON, || client.value(HERE) == *replica);
    }
}

#[test]
fn reads_may_be_as_old_as_their_level_allows() {
    let setup = Setup::with(1, |config| {
        let database = "cluster = \"c\"\ndbname = \"app\"\nroute = \"auto\"\nread_consistency";
        config.tables(&format!(
            "read_consistency = \"eventual\"\n\
             [databases.seconds]\n{database} = \"bounded\"\nread_max_staleness = \"6s\"\n\
             [databases.bytes]\n{database} = \"bounded\"\nread_max_staleness = \"off\"\n\
             read_max_staleness_bytes = \"64KiB\""
        ))
    });
    let [primary, replica] = &setup.ports()[..] else { panic!("two nodes") };
    let client = |database| setup.proxy.log_in(&Login::new("app", database, "app-secret"));
    let [mut any, mut seconds, mut bytes] = ["auto", "seconds", "bytes"].map(client);
    for client in [&mut any, &mut seconds, &mut bytes] {
        eventually("the replica serves", SOON, || client.value(HERE) == *replica);
    }
    pause(&setup);
    for (client, id) in [(&mut any, 340), (&mut seconds, 341), (&mut bytes, 342)] {
        client.ok(&format!("insert into items values ({id}, 'new')"));
        let read = format!("select count(*), here() from items where id = {id}");
        assert_eq!(client.query(&read).texts(), [["0".to_owned(), replica.clone()]]);
    }
    eventually("the replica is 6 s behind", SOON, || seconds.value(HERE) == *primary);
    assert_eq!(seconds.value("select name from items where id = 341"), "new");
    assert_eq!(bytes.value(HERE), *replica, "however long ago");
    bytes.ok("insert into items select i, repeat('x', 900) from generate_series(350, 450) i");
    eventually("the replica is 64 KiB behind", SOON, || bytes.value(HERE) == *primary);
    assert_eq!(any.value(HERE), *replica, "however far");
    resume(&setup);
    for client in [&mut seconds, &mut bytes] {
        eventually("the replica has caught up", SOON, || client.value(HERE) == *replica);
    }
}

/// Has the replica replay nothing more.
fn pause(setup: &Setup) {
    let standby = &setup.cluster.nodes[1];
    standby.run("select pg_wal_replay_pause()");
    eventually("replay is paused", SOON, || {
        standby.value("select pg_get_wal_replay_pause_state()") == "paused"
    });
}

fn resume(setup: &Setup) {
    setup.cluster.nodes[1].run("select pg_wal_replay_resume()");
}

#[test]
fn what_a_session_writes_on_its_promoted_replica_is_read() {
    let mut setup = Setup::start(2);
    let ports = setup.ports();
    let mut client = setup.client();
    eventually("the first replica serves", SOON, || {
        client.ok("commit");
        client.ok("begin read only");
        client.value(HERE) == ports[1]
    });
    setup.cluster.settle(0);
    setup.cluster.nodes[0].end(End::Fast);
    setup.cluster.nodes[1].promote();
    setup.cluster.repoint(2, 1);
    let mut other = setup.client();
    other.ok("insert into items values (500, 'other')");
    eventually("the other replica has caught up", SOON, || other.value(HERE) == ports[2]);
    setup.cluster.nodes[2].run("select pg_wal_replay_pause()");
    // The node says so once that it is no standby.
    assert_eq!(client.value(HERE), ports[1]);
    // Its tag is that of a read.
    client.ok("commit; select open_note()");
    assert_eq!(client.value("select count(*) from items where name = 'noted'"), "1");
}

#[test]
fn reads_go_on_when_a_replica_is_lost_and_when_one_is_promoted() {
    let mut setup = Setup::start(2);
    let ports = setup.ports();
    let mut client = setup.client();
    write_and_read(&mut client, 400, 10, &ports[0]);
    setup.cluster.nodes[2].kill();
    write_and_read(&mut client, 400, 10, &ports[0]);
    eventually("the other replica serves", SOON, || client.value(HERE) == ports[1]);
    assert_eq!(client.parameters["in_hot_standby"], "off");
    setup.cluster.settle(0);
    setup.cluster.nodes[0].kill();
    // Reads of who has written nothing since go on without a primary.
    assert_eq!(client.value(HERE), ports[1]);
    setup.cluster.nodes[1].promote();
    write_and_read(&mut client, 401, 10, &ports[1]);
    assert_eq!(client.value("select name from items where id = 400"), "10");
    assert_eq!(client.value(HERE), ports[1], "no replica is left");
    assert_eq!(client.parameters["in_hot_standby"], "off");
}
