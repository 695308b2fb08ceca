//! Clients inside a transaction block, and those whose server connection holds state of theirs.

use pgimbal_tests::{Pipeline, WireClient};

use super::super::setup::Setup;
use super::row::{ROW, RUNNING, Row, Words, Written, extended, refusal, refused, send};

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "in a block, running, simple",
        enter: |client| {
            begin(client, "in a block, running, simple");
            client.start_query("select hang('')");
        },
        sees: |client, _| {
            refused(client, "57P01", 'E');
            failed_until_rollback(client);
        },
        written: Written::RolledBack,
        on_replica: true,
        ..RUNNING
    },
    Row {
        name: "in a block, running, extended",
        enter: |client| {
            begin(client, "in a block, running, extended");
            send(client, &extended("select hang('')"));
        },
        sees: |client, _| {
            refused(client, "57P01", 'E');
            refusal(&client.run(&extended("select 1")), "25P02", 'E');
            let reply = client.run(&extended("rollback"));
            assert_eq!((reply.no_error().tags().as_str(), reply.status()), ("12CZ", 'I'));
        },
        written: Written::RolledBack,
        on_replica: true,
        ..RUNNING
    },
    Row {
        name: "in a block, running, two segments",
        enter: |client| {
            begin(client, "in a block, running, two segments");
            let pipeline = Pipeline::new().run("select hang('')").sync().run("select 2").sync();
            send(client, &pipeline);
        },
        goes_on: |client| {
            client.read_reply().no_error();
            client.read_reply().no_error();
        },
        sees: |client, _| {
            refused(client, "57P01", 'E');
            refused(client, "25P02", 'E');
            assert_eq!(client.ok("rollback").status(), 'I');
        },
        written: Written::RolledBack,
        on_replica: true,
        ..RUNNING
    },
    Row {
        name: "idle in a block",
        enter: |client| begin(client, "idle in a block"),
        sees: |client, _| {
            // Had it been told unasked, this answer would have two errors.
            refusal(&client.query("select 1"), "57P01", 'E');
            failed_until_rollback(client);
        },
        written: Written::RolledBack,
        on_replica: true,
        ..ROW
    },
    Row {
        name: "idle in a block, extended",
        enter: |client| begin(client, "idle in a block, extended"),
        sees: |client, _| {
            refusal(&client.run(&extended("select 1")), "57P01", 'E');
            refusal(&client.run(&extended("select 1")), "25P02", 'E');
            refusal(&client.run(&extended("rollback to s")), "25P02", 'E');
            refusal(&client.run(&extended("release s")), "25P02", 'E');
            assert_eq!(client.run(&extended("rollback")).no_error().tags(), "12CZ");
        },
        written: Written::RolledBack,
        on_replica: true,
        ..ROW
    },
    Row {
        name: "idle in a block, ROLLBACK",
        enter: |client| begin(client, "idle in a block, ROLLBACK"),
        sees: |client, _| {
            let reply = client.ok("rollback");
            assert_eq!((reply.commands(), reply.status()), (vec!["ROLLBACK".to_owned()], 'I'));
        },
        written: Written::RolledBack,
        on_replica: true,
        ..ROW
    },
    Row {
        name: "idle in a block, ROLLBACK, extended",
        enter: |client| begin(client, "idle in a block, ROLLBACK, extended"),
        sees: |client, _| {
            let reply = client.run(&extended("rollback"));
            assert_eq!((reply.no_error().tags().as_str(), reply.status()), ("12CZ", 'I'));
            assert_eq!(reply.commands(), ["ROLLBACK"]);
        },
        written: Written::RolledBack,
        on_replica: true,
        ..ROW
    },
    Row {
        name: "idle in a block, COMMIT",
        enter: |client| begin(client, "idle in a block, COMMIT"),
        sees: |client, _| refusal(&client.query("commit"), "57P01", 'I'),
        written: Written::RolledBack,
        on_replica: true,
        ..ROW
    },
    Row {
        name: "idle in a block, COMMIT, extended",
        enter: |client| begin(client, "idle in a block, COMMIT, extended"),
        sees: |client, _| refusal(&client.run(&extended("commit")), "57P01", 'I'),
        written: Written::RolledBack,
        on_replica: true,
        ..ROW
    },
    Row {
        name: "idle in a block, prepared COMMIT",
        enter: |client| {
            client.run(&Pipeline::new().parse("c", "commit").sync()).no_error();
            begin(client, "idle in a block, prepared COMMIT");
        },
        sees: |client, _| {
            let commit = Pipeline::new().bind("", "c", &[]).execute("", 0).sync();
            refusal(&client.run(&commit), "57P01", 'I');
        },
        written: Written::RolledBack,
        on_replica: true,
        ..ROW
    },
    Row {
        name: "idle in a block, ROLLBACK TO",
        enter: |client| begin(client, "idle in a block, ROLLBACK TO"),
        sees: |client, _| {
            // The loss is the first thing that it hears.
            refusal(&client.query("rollback to s"), "57P01", 'E');
            refusal(&client.query("release s"), "25P02", 'E');
            assert_eq!(client.ok("rollback").status(), 'I');
        },
        written: Written::RolledBack,
        on_replica: true,
        ..ROW
    },
    Row {
        name: "idle in a block, RELEASE, extended",
        enter: |client| begin(client, "idle in a block, RELEASE, extended"),
        sees: |client, _| {
            let reply = client.run(&extended("release s"));
            assert_eq!((reply.sqlstate().as_str(), reply.status()), ("57P01", 'E'));
            let reply = client.run(&extended("rollback to s"));
            assert_eq!((reply.sqlstate().as_str(), reply.status()), ("25P02", 'E'));
            assert_eq!(client.ok("rollback").status(), 'I');
        },
        written: Written::RolledBack,
        on_replica: true,
        ..ROW
    },
    Row {
        name: "in a block, after a Flush",
        enter: |client| {
            begin(client, "in a block, after a Flush");
            send(client, &Pipeline::new().parse("", "select 1").describe_statement("").flush());
            "1tT".bytes().for_each(|tag| drop(client.expect(tag)));
        },
        sees: |client, _| {
            // Its server connection is closed, and whatever that made pgimbal say is said.
            assert!(client.has_no_input(), "nobody has asked");
            refusal(&client.run(&Pipeline::new().bind("", "", &[]).sync()), "57P01", 'E');
            failed_until_rollback(client);
        },
        goes_on: |client| {
            client.run(&Pipeline::new().sync()).no_error();
        },
        written: Written::RolledBack,
        on_replica: true,
        await_first: Setup::wait_until_unlinked,
        ..ROW
    },
    Row {
        name: "pinned by LISTEN in code",
        enter: |client| {
            client.ok("do $$begin execute 'listen mine'; end$$");
        },
        sees: ended,
        survives: false,
        goes_on: |client| {
            let reply = client.ok("notify mine");
            let heard = reply.messages.iter().any(|message| message.tag == b'A');
            assert!(heard, "it does not listen any more: {reply:?}");
        },
        ..ROW
    },
    Row {
        name: "pinned by a temporary table",
        enter: |client| {
            client.ok("create temporary table mine (x int)");
        },
        sees: ended,
        survives: false,
        goes_on: |client| {
            client.ok("table mine");
        },
        ..ROW
    },
    Row {
        name: "pinned by a lock",
        enter: |client| {
            client.ok("select pg_advisory_lock(1)");
        },
        sees: ended,
        survives: false,
        on_replica: true,
        ..ROW
    },
    Row {
        name: "pinned, running",
        enter: |client| {
            client.ok("create temporary table mine (x int)");
            client.start_query("select hang('')");
        },
        sees: ended,
        survives: false,
        ..RUNNING
    },
    Row {
        name: "session mode",
        database: "session",
        sees: ended,
        survives: false,
        on_replica: true,
        ..ROW
    },
    Row {
        name: "session mode, running, extended",
        database: "session",
        enter: |client| send(client, &extended("select hang('')")),
        sees: ended,
        survives: false,
        on_replica: true,
        ..RUNNING
    },
];

fn begin(client: &mut WireClient, name: &str) {
    super::row::begin(client, "writes", name);
    client.ok("savepoint s");
}

fn failed_until_rollback(client: &mut WireClient) {
    refusal(&client.query("select 1"), "25P02", 'E');
    refusal(&client.query("rollback to s"), "25P02", 'E');
    refusal(&client.query("release s"), "25P02", 'E');
    let reply = client.ok("rollback");
    assert_eq!((reply.commands(), reply.status()), (vec!["ROLLBACK".to_owned()], 'I'));
}

/// FATAL and the end of the connection.
fn ended(client: &mut WireClient, _: Words) {
    let messages = client.read_to_end();
    let [message] = &messages[..] else { panic!("one message: {messages:?}") };
    let error = message.error();
    assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "57P01"));
}
