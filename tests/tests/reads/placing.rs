//! Which statements go to a replica, in both protocols.

use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Pipeline, WireClient};

use super::{HERE, Setup};

/// Statements that tell where they run, and that a replica may serve.
const READS: [&str; 7] = [
    HERE,
    "table (select here()) t",
    "values (here())",
    "with a as materialized (select here() as h) select h from a",
    "/* of an application */ select here() -- at the end",
    "select here() from items right join (values (1)) v(n) on id = n limit 1",
    "(select here() union all select here()) limit 1",
];

/// Statements that tell where they run, and that only the primary may serve.
const WRITES: [&str; 6] = [
    "select here() from (select nextval('numbers')) n",
    "insert into items values (nextval('numbers')) returning here()",
    "with a as (insert into items values (nextval('numbers'))) select here()",
    "select open_note()",
    "/* pgimbal.route=primary */ select here()",
    "select here() from (select * from items for update) i right join (values (1)) v on true limit 1",
];

#[test]
fn reads_go_to_a_replica_in_both_protocols_and_all_else_to_the_primary() {
    let setup = Setup::start(1);
    let [primary, replica] = &setup.ports()[..] else { panic!("two nodes") };
    let mut client = setup.client();
    for (statements, node) in [(&READS[..1], replica), (&WRITES[..], primary)] {
        for sql in statements {
            assert_eq!(client.value(sql), *node, "{sql}");
            assert_eq!(client.run(&Pipeline::new().run(sql).sync()).value(), *node, "{sql}");
            let prepared = Pipeline::new().parse("s", sql).describe_statement("s").sync();
            client.run(&prepared).no_error();
            for _ in 0..2 {
                let run = Pipeline::new().bind("", "s", &[]).execute("", 0).sync();
                assert_eq!(client.run(&run).value(), *node, "{sql}");
            }
            client.run(&Pipeline::new().close_statement("s").sync()).no_error();
        }
        // What was written is on the replica by now, as far as pgimbal knows.
        eventually("the replica has caught up", SOON, || client.value(HERE) == *replica);
    }
}

#[test]
fn reads_of_every_form_go_to_a_replica() {
    let setup = Setup::start(1);
    let replica = &setup.ports()[1];
    let mut client = setup.client();
    for sql in READS.iter().filter(|sql| !sql.starts_with("table")) {
        assert_eq!(client.value(sql), *replica, "{sql}");
    }
    let two = client.query("select here(); select here()");
    assert_eq!(two.texts(), vec![vec![replica.clone()]; 2], "{two:?}");
    // One that writes takes the others with it.
    let primary = &setup.ports()[0];
    let two = client.query("select here(); insert into items values (1000); select here()");
    assert_eq!(two.texts(), vec![vec![primary.clone()]; 2], "{two:?}");
}

#[test]
fn reads_of_a_driver_that_prepares_with_a_flush_go_to_a_replica() {
    let setup = Setup::start(1);
    let [primary, replica] = &setup.ports()[..] else { panic!("two nodes") };
    let mut client = setup.client();
    for (sql, node) in [(HERE, replica), (WRITES[0], primary)] {
        client.send(Pipeline::new().parse("p", sql).describe_statement("p").flush().bytes());
        for tag in [b'1', b't', b'T'] {
            client.expect(tag);
        }
        let run = Pipeline::new().bind("", "p", &[]).execute("", 0).sync();
        assert_eq!(client.run(&run).value(), *node, "{sql}");
        client.run(&Pipeline::new().close_statement("p").sync()).no_error();
        eventually("the replica has caught up", SOON, || client.value(HERE) == *replica);
    }
    // What was prepared for reading does not keep a write that follows it from the primary.
    client.send(Pipeline::new().parse("p", HERE).describe_statement("p").flush().bytes());
    for tag in [b'1', b't', b'T'] {
        client.expect(tag);
    }
    let reply = client.run(&Pipeline::new().run(WRITES[0]).sync());
    assert_eq!(reply.value(), *primary, "{reply:?}");
}

#[test]
fn reads_and_writes_of_a_pipeline_go_where_each_belongs() {
    let setup = Setup::start(1);
    let [primary, replica] = &setup.ports()[..] else { panic!("two nodes") };
    let mut client = setup.client();
    // A segment with a write goes to the primary as a whole.
    let segment = Pipeline::new().run(HERE).run(WRITES[1]).run(HERE).sync();
    let reply = client.run(&segment);
    assert_eq!(reply.texts(), vec![vec![primary.clone()]; 3], "{reply:?}");
    eventually("the replica has caught up", SOON, || client.value(HERE) == *replica);
    // Segments by themselves, sent at once.
    let pipeline = Pipeline::new()
        .run(HERE)
        .sync()
        .query(HERE)
        .run("insert into items values (2000, 'own') returning here()")
        .sync()
        .run("select name from items where id = 2000")
        .sync()
        .query("select count(*)::text from items where id = 2000");
    client.send(pipeline.bytes());
    let values: Vec<String> = (0..5).map(|_| client.read_reply().value()).collect();
    assert_eq!(values, [&**replica, replica, primary, "own", "1"]);
}

#[test]
fn reads_that_are_bound_on_a_replica_run_there_and_what_follows_them_on_the_primary() {
    let setup = Setup::start(1);
    let [primary, replica] = &setup.ports()[..] else { panic!("two nodes") };
    let mut client = setup.client();
    let catch_up = |client: &mut WireClient| {
        eventually("the replica has caught up", SOON, || client.value(HERE) == *replica);
    };
    // The end of a transaction, in the same segment.
    client.ok("begin read only");
    assert_eq!(client.value(HERE), *replica);
    let reply = client.run(&Pipeline::new().run("commit").run(WRITES[1]).sync());
    assert_eq!((reply.value(), reply.status()), (primary.clone(), 'I'), "{reply:?}");
    catch_up(&mut client);
    client.ok("begin read only");
    let reply = client.run(&Pipeline::new().run("rollback").run("begin").run(WRITES[1]).sync());
    assert_eq!((reply.value(), reply.status()), (primary.clone(), 'T'), "{reply:?}");
    client.ok("commit");
    catch_up(&mut client);
    // A read that was bound before a Flush.
    client.send(Pipeline::new().parse("", HERE).bind("", "", &[]).flush().bytes());
    client.expect(b'1');
    client.expect(b'2');
    let rest = Pipeline::new().describe_portal("").execute("", 0).run(WRITES[1]).sync();
    let reply = client.run(&rest);
    assert_eq!(reply.texts(), [[replica.clone()], [primary.clone()]], "{reply:?}");
}

#[test]
fn reads_in_read_only_transactions_stay_on_one_replica() {
    let setup = Setup::start(2);
    let [primary, replicas @ ..] = &setup.ports()[..] else { panic!("three nodes") };
    let mut client = setup.client();
    for begin in ["begin read only", "start transaction isolation level repeatable read, read only"]
    {
        client.ok(begin);
        let node = client.value(HERE);
        assert!(replicas.contains(&node), "{begin}: {node}");
        for _ in 0..4 {
            assert_eq!(client.value(HERE), node, "{begin}");
            // Also what would not be a read by itself.
            assert_eq!(client.value("select here() from (select pg_backend_pid()) p"), node);
        }
        let refused = client.query("insert into items values (1)");
        assert_eq!((refused.sqlstate().as_str(), refused.status()), ("25006", 'E'));
        client.ok("rollback");
    }
    let whole = client.query("begin read only; select here(); commit");
    assert!(replicas.contains(&whole.value()), "{whole:?}");
    let extended = Pipeline::new().run("begin read only").run(HERE).run("commit").sync();
    assert!(replicas.contains(&client.run(&extended).value()));
    // What may write, or no standby runs, is the primary's.
    for begin in ["begin", "begin read write", "begin isolation level serializable read only"] {
        client.ok(begin);
        assert_eq!(client.value(HERE), *primary, "{begin}");
        client.ok("commit");
    }
    let more = client.query("begin read only; select here(); commit; select here()");
    assert_eq!(more.texts(), vec![vec![primary.clone()]; 2], "{more:?}");
    client.ok("set default_transaction_read_only = on");
    client.ok("begin");
    eventually("the replicas have caught up", SOON, || {
        client.ok("rollback");
        client.ok("begin");
        client.value(HERE) != *primary
    });
    client.ok("commit");
    client.ok("begin read write");
    assert_eq!(client.value(HERE), *primary);
    client.ok("commit");
}

#[test]
fn reads_go_where_the_session_or_a_comment_says() {
    let setup = Setup::start(1);
    let [primary, replica] = &setup.ports()[..] else { panic!("two nodes") };
    let mut client = setup.client();
    assert_eq!(client.value("/* pgimbal.route=primary */ select here()"), *primary);
    assert_eq!(client.value("-- pgimbal.route = 'primary'\nselect here()"), *primary);
    eventually("it holds for one statement", SOON, || client.value(HERE) == *replica);
    client.ok("/* pgimbal.route=primary */ begin read only");
    client.ok("notify news");
    assert_eq!(client.value(HERE), *primary, "and for one transaction, which no standby would run");
    client.ok("commit");
    eventually("it holds for one transaction", SOON, || client.value(HERE) == *replica);
    client.ok("set pgimbal.route = 'primary'");
    assert_eq!(client.value(HERE), *primary);
    assert_eq!(client.value("/* pgimbal.route=replica */ select here()"), *replica);
    client.ok("set pgimbal.route = 'auto'");
    eventually("the replica has caught up", SOON, || client.value(HERE) == *replica);
    client.ok("reset pgimbal.route");
    eventually("the replica has caught up", SOON, || client.value(HERE) == *replica);
    // By the startup option, of a database that has no route.
    let login = pgimbal_tests::Login::new("app", "app", "app-secret");
    let mut optioned = setup.proxy.log_in(&login.clone().with("options", "-c pgimbal.route=auto"));
    eventually("functions are known", SOON, || optioned.value(HERE) == *replica);
    optioned.ok("insert into items values (3000)");
    let mut plain = setup.proxy.log_in(&login);
    assert_eq!(plain.value(HERE), *primary);
    let prepared = Pipeline::new().parse("s", "/*pgimbal.route='replica'*/ select here()").sync();
    plain.run(&prepared).no_error();
    let run = Pipeline::new().bind("", "s", &[]).execute("", 0).sync();
    assert_eq!(plain.run(&run).value(), *replica);
    plain.ok("insert into items values (3001)");
}

#[test]
fn reads_on_a_replica_leave_the_client_with_the_words_of_the_primary() {
    let setup = Setup::start(1);
    let [primary, replica] = &setup.ports()[..] else { panic!("two nodes") };
    let mut client = setup.client();
    assert_eq!(client.parameters["in_hot_standby"], "off");
    for _ in 0..3 {
        assert_eq!(client.value(HERE), *replica);
        assert_eq!(client.parameters["in_hot_standby"], "off");
        assert_eq!(client.value(WRITES[1]), *primary);
        assert_eq!(client.parameters["in_hot_standby"], "off");
        eventually("the replica has caught up", SOON, || client.value(HERE) == *replica);
    }
    assert_eq!(client.value("show transaction_read_only"), "off");
    assert_eq!(client.value("select pg_is_in_recovery()"), "f");
    // What a setting of its own is, it is told, wherever it is.
    client.ok("set application_name = 'mine'");
    assert_eq!(client.parameters["application_name"], "mine");
    eventually("the replica has caught up", SOON, || client.value(HERE) == *replica);
    assert_eq!(client.value("show application_name"), "mine");
    assert_eq!(client.parameters["in_hot_standby"], "off");
}

#[test]
fn reads_of_a_session_with_state_follow_it() {
    let setup = Setup::start(1);
    let [primary, replica] = &setup.ports()[..] else { panic!("two nodes") };
    let mut client = setup.client();
    client.ok("create temporary table own (id int)");
    assert_eq!(client.value(HERE), *primary, "it keeps its server connection");
    assert_eq!(client.value("select count(*) from own"), "0");
    client.ok("discard temp");
    eventually("the replica has caught up", SOON, || client.value(HERE) == *replica);
    client.ok("select pg_advisory_lock(7)");
    assert_eq!(client.value(HERE), *primary);
    client.ok("select pg_advisory_unlock(7)");
    client.ok("create table other.items as select 'other' as name");
    let prepared = Pipeline::new().parse("s", "select name from items limit 1").sync();
    client.run(&prepared).no_error();
    client.ok("set search_path = other, public");
    eventually("the replica has caught up", SOON, || client.value(HERE) == *replica);
    assert_eq!(client.value("select name from items"), "other", "settings follow");
    let run = Pipeline::new().bind("", "s", &[]).execute("", 0).sync();
    assert_eq!(client.run(&run).value(), "other", "what was prepared before follows them");
    // A cursor or a lock that a READ ONLY transaction takes on a replica ends with it.
    client.ok("begin read only");
    assert_eq!(client.value(HERE), *replica);
    client.ok("select pg_advisory_lock(8)");
    client.ok("commit");
    client.ok("insert into public.items values (4000)");
    eventually("the replica has caught up", SOON, || client.value(HERE) == *replica);
}

#[test]
fn reads_are_told_apart_in_any_encoding() {
    let setup = Setup::start(1);
    let [primary, replica] = &setup.ports()[..] else { panic!("two nodes") };
    let mut client = setup.client();
    client.ok("insert into items values (5000, 'é')");
    for encoding in ["SJIS", "LATIN1", "UTF8"] {
        client.ok(&format!("set client_encoding = '{encoding}'"));
        eventually("the replica has caught up", SOON, || client.value(HERE) == *replica);
        assert_eq!(client.value("select count(*) from items where id = 5000"), "1");
        assert_eq!(client.value(WRITES[0]), *primary, "{encoding}");
    }
    // 0x5C is the second byte of a character in SJIS, and no backslash.
    client.ok("set client_encoding = 'SJIS'");
    let text = b"select '\x95\x5c', here() from (select nextval('numbers')) n";
    let reply = client.run(&Pipeline::new().query_bytes(text));
    assert_eq!(reply.texts()[0][1], *primary, "{reply:?}");
    client.ok("set client_encoding = 'UTF8'");
    client.ok("set standard_conforming_strings = off");
    eventually("the replica has caught up", SOON, || client.value(HERE) == *replica);
    let text = r"select 'a\'; insert into items values (5001); --', here()";
    assert_eq!(client.query(text).texts()[0][1], *primary, "not followed");
    assert_eq!(client.value("select count(*) from items where id = 5001"), "0");
    client.ok("set standard_conforming_strings = on");
}

#[test]
fn reads_are_explained_on_the_console_and_counted_by_reason() {
    let setup = Setup::start(1);
    let mut client = setup.client();
    client.ok("insert into items values (6000)");
    for (sql, route, node, why) in [
        (HERE, "auto", "n2", "it only reads"),
        ("insert into items values (1)", "auto", "n1", "SELECT"),
        ("select nextval('numbers')", "auto", "n1", "nextval"),
        ("begin read only", "auto", "n2", "READ ONLY"),
        ("begin", "auto", "n1", "may write"),
        ("/* pgimbal.route=primary */ select 1", "primary", "n1", "comment"),
    ] {
        let rows = setup.proxy.console(&format!("explain route {sql}"));
        let row = rows.iter().find(|row| row.contains(&("database".into(), "auto".into())));
        let row = row.unwrap_or_else(|| panic!("{sql}: {rows:?}"));
        assert!(row.contains(&("route".into(), route.into())), "{sql}: {row:?}");
        assert!(row.contains(&("node".into(), node.into())), "{sql}: {row:?}");
        let (_, told) = row.iter().find(|(name, _)| name == "why").expect("a reason");
        assert!(told.contains(why), "{sql}: {told}");
    }
    let page = setup.proxy.metrics();
    for (role, reason) in [("replica", "read"), ("primary", "statement")] {
        let labels = format!("role=\"{role}\",reason=\"{reason}\"");
        let counted = |line: &str| line.starts_with("pgimbal_routed_total{database=\"auto\"");
        assert!(page.lines().any(|line| counted(line) && line.contains(&labels)), "{labels}");
    }
}
