//! What a replica refuses runs on the primary, and its client sees nothing of that.

use pgimbal_tests::Pipeline;
use pgimbal_tests::until::{SOON, eventually};

use super::{HERE, Setup};

#[test]
fn reads_that_a_replica_refuses_run_on_the_primary_once_and_unseen() {
    let setup = Setup::start(1);
    let [primary, replica] = &setup.ports()[..] else { panic!("two nodes") };
    let mut client = setup.client();
    let noted = || -> u64 {
        let count = "select count(*) from items where name = 'noted'";
        setup.cluster.nodes[0].value(count).parse().expect("a count")
    };
    let refused = |kind: &str| {
        let log = setup.cluster.nodes[1].log();
        log.lines()
            .filter(|line| line.contains("read-only transaction") && line.contains(kind))
            .count()
    };
    let sql = "select sly()";
    let ways: [&dyn Fn(&str) -> Pipeline; 3] =
        [&|sql| Pipeline::new().query(sql), &|sql| Pipeline::new().run(sql).sync(), &|sql| {
            Pipeline::new()
                .parse("s", sql)
                .describe_statement("s")
                .bind("", "s", &[])
                .describe_portal("")
                .execute("", 0)
                .sync()
        }];
    for (number, way) in ways.iter().enumerate() {
        eventually("the replica has caught up", SOON, || client.value(HERE) == *replica);
        // Each is another text, which no replica has refused before.
        let sql = format!("{sql} as c{number}");
        let (before, told) = (noted(), refused(""));
        let reply = client.run(&way(&sql));
        assert_eq!(reply.value(), *primary, "{sql}");
        assert_eq!(noted(), before + 1, "it has run once");
        assert_eq!(refused(""), told + 1, "a replica was tried");
        // It is remembered.
        eventually("the replica has caught up", SOON, || client.value(HERE) == *replica);
        assert_eq!(client.value(&sql), *primary);
        assert_eq!(refused(""), told + 1, "no replica was tried again");
    }
    // What was prepared by then is usable.
    let run = Pipeline::new().bind("", "s", &[]).execute("", 0).sync();
    assert_eq!(client.run(&run).value(), *primary);
    // An error that the primary raises too is told once.
    eventually("the replica has caught up", SOON, || client.value(HERE) == *replica);
    let reply = client.query("select here(), 1 / (select count(*) from items where id < 0)");
    assert_eq!(reply.sqlstate(), "22012");
}

#[test]
fn reads_that_recovery_cancels_run_on_the_primary() {
    let setup = Setup::start(1);
    let [primary, replica] = &setup.ports()[..] else { panic!("two nodes") };
    let standby = &setup.cluster.nodes[1];
    standby.run("alter system set max_standby_streaming_delay = 0");
    standby.run("select pg_reload_conf()");
    let mut client = setup.client();
    client.ok("create table doomed (id int)");
    eventually("the replica has caught up", SOON, || {
        client.value(HERE) == *replica && client.value("select count(*) from doomed") == "0"
    });
    client.start_query("select rest() from (select count(*) from doomed) c");
    eventually("it runs on the replica", SOON, || standby.running("rest()") == 1);
    setup.cluster.nodes[0]
        .run("drop table doomed; create table doomed (id int); grant all on doomed to app");
    assert_eq!(client.read_reply().value(), *primary);
}

#[test]
fn reads_of_unlogged_tables_are_the_primarys() {
    let setup = Setup::start(1);
    let [primary, replica] = &setup.ports()[..] else { panic!("two nodes") };
    let mut client = setup.client();
    client.ok("create unlogged table fast as select 1 as id");
    for _ in 0..2 {
        eventually("the replica has caught up", SOON, || client.value(HERE) == *replica);
        assert_eq!(client.value("select here() from fast"), *primary);
        let run = Pipeline::new().run("select here() from fast where id = 1").sync();
        assert_eq!(client.run(&run).value(), *primary);
    }
}
