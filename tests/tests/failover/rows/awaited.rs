//! Clients whose transaction has been committed and awaits a synchronous replica: when the server
//! is shut down meanwhile it says so in a warning, which proves nothing.

use pgimbal_tests::{Message, Pipeline};

use super::row::{RUNNING, Row, Written, begin, extended, send, unknown};
use super::writes::data;

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "awaits, simple",
        enter: |client| client.start_query("insert into writes values ('awaits, simple')"),
        ..AWAITS
    },
    Row {
        name: "awaits, extended",
        enter: |client| {
            send(client, &extended("insert into writes values ('awaits, extended')"));
        },
        ..AWAITS
    },
    Row {
        name: "awaits, two segments",
        enter: |client| {
            let first = Pipeline::new().run("insert into writes values ('awaits, two segments')");
            send(client, &first.sync().run("select 'second'").sync());
        },
        sees: |client, words| {
            unknown(client, words);
            assert_eq!(client.read_reply().value(), "second");
        },
        ..AWAITS
    },
    Row {
        // It cannot be run again, and must not be done twice.
        name: "awaits, a function that writes",
        enter: |client| {
            client.start_query("select note('writes', 'awaits, a function that writes')");
        },
        ..AWAITS
    },
    Row {
        name: "awaits, several in one query",
        enter: |client| {
            client.start_query(
                "insert into writes values ('awaits, several in one query'); select 1",
            );
        },
        ..AWAITS
    },
    Row {
        name: "awaits, commit",
        enter: |client| {
            begin(client, "writes", "awaits, commit");
            client.start_query("commit");
        },
        ..AWAITS
    },
    Row {
        name: "awaits, commit, extended",
        enter: |client| {
            begin(client, "writes", "awaits, commit, extended");
            send(client, &extended("commit"));
        },
        ..AWAITS
    },
    Row {
        name: "awaits, prepare transaction",
        enter: |client| {
            begin(client, "writes", "awaits, prepare transaction");
            client.start_query("prepare transaction 'awaits'");
        },
        // It is prepared and not committed.
        written: Written::Never,
        ..AWAITS
    },
    Row {
        name: "awaits, copy",
        enter: |client| {
            client.start_query("copy writes from stdin");
            client.expect(b'G');
            client.send(&data("awaits, copy\n"));
            client.send(&Message::new(b'c', &[]).encode());
        },
        ..AWAITS
    },
];

const AWAITS: Row = Row { sees: unknown, written: Written::Once, ..RUNNING };
