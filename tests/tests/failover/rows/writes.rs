//! Clients that write outside a transaction block, commit, or copy.

use pgimbal_tests::{Message, Pipeline, WireClient};

use super::row::{ROW, RUNNING, Row, Written, begin, extended, refused, send, told_by, unknown};

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "write, simple",
        enter: |client| client.start_query("insert into writes values (hang('write, simple'))"),
        sees: told_by,
        written: Written::ByWords,
        ..RUNNING
    },
    Row {
        name: "write, extended",
        enter: |client| {
            send(client, &extended("insert into writes values (hang('write, extended'))"));
        },
        sees: told_by,
        written: Written::ByWords,
        ..RUNNING
    },
    Row {
        name: "write, two segments",
        enter: |client| {
            let first =
                Pipeline::new().run("insert into writes values (hang('write, two segments'))");
            send(client, &first.sync().run("insert into writes values ('second')").sync());
        },
        sees: |client, words| {
            told_by(client, words);
            // The second was not sent to a server yet, with its Sync: it goes to the new one.
            let reply = client.read_reply();
            assert_eq!((reply.commands(), reply.status()), (vec!["INSERT 0 1".into()], 'I'));
        },
        goes_on: |client| {
            for _ in 0..2 {
                assert_eq!(client.read_reply().no_error().commands(), ["INSERT 0 1"]);
            }
        },
        written: Written::ByWords,
        ..RUNNING
    },
    Row {
        name: "write, no Sync yet",
        enter: |client| {
            let sql = "insert into writes values (hang('write, no Sync yet'))";
            send(client, &Pipeline::new().parse("", sql).bind("", "", &[]).flush());
            client.expect(b'1');
            client.expect(b'2');
            send(client, &Pipeline::new().execute("", 0).flush());
        },
        sees: |client, _| {
            send(client, &Pipeline::new().run("select 'skipped'").sync());
            refused(client, "57P01", 'I');
        },
        goes_on: |client| {
            send(client, &Pipeline::new().sync());
            assert_eq!(client.read_reply().no_error().commands(), ["INSERT 0 1"]);
        },
        written: Written::RolledBack,
        ..RUNNING
    },
    Row {
        name: "write, hangs at Sync",
        enter: |client| {
            send(
                client,
                &Pipeline::new().run("insert into slow values ('write, hangs at Sync')").flush(),
            );
            client.expect(b'1');
            client.expect(b'2');
            // It comes before the commit, and so proves nothing.
            client.expect(b'C');
            send(client, &Pipeline::new().sync());
        },
        sees: unknown,
        written: Written::OnceAtMost,
        ..RUNNING
    },
    Row {
        name: "write, hangs in its own commit",
        enter: |client| {
            client.start_query("insert into slow values ('write, hangs in its own commit')");
        },
        sees: told_by,
        written: Written::ByWords,
        ..RUNNING
    },
    Row {
        name: "commit, simple",
        enter: |client| {
            begin(client, "slow", "commit, simple");
            client.start_query("commit");
        },
        sees: unknown,
        written: Written::OnceAtMost,
        ..RUNNING
    },
    Row {
        name: "commit, extended",
        enter: |client| {
            begin(client, "slow", "commit, extended");
            send(client, &extended("END"));
        },
        sees: unknown,
        written: Written::OnceAtMost,
        ..RUNNING
    },
    Row {
        name: "commit, prepared",
        enter: |client| {
            client.run(&Pipeline::new().parse("c", "commit work").sync()).no_error();
            client.ok("begin");
            client.ok("insert into slow values ('commit, prepared')");
            send(client, &Pipeline::new().bind("", "c", &[]).execute("", 0).sync());
        },
        sees: unknown,
        written: Written::OnceAtMost,
        ..RUNNING
    },
    Row {
        name: "commit among others",
        enter: |client| {
            client.start_query(
                "begin; insert into slow values ('commit among others'); commit; select 1",
            );
        },
        sees: unknown,
        written: Written::OnceAtMost,
        ..RUNNING
    },
    Row {
        name: "commit may come",
        enter: |client| {
            client
                .start_query("begin; insert into writes values (hang('commit may come')); commit");
        },
        sees: unknown,
        written: Written::OnceAtMost,
        ..RUNNING
    },
    Row {
        name: "prepare transaction",
        enter: |client| {
            begin(client, "slow", "prepare transaction");
            client.start_query("prepare transaction 'p'");
        },
        goes_on: |client| {
            client.read_reply().no_error();
            client.ok("commit prepared 'p'");
        },
        sees: unknown,
        written: Written::OnceAtMost,
        ..RUNNING
    },
    Row {
        name: "call",
        enter: |client| client.start_query("call note_and_hang('call')"),
        sees: unknown,
        written: Written::OnceAtMost,
        ..RUNNING
    },
    Row {
        name: "call, extended",
        enter: |client| send(client, &extended("call note_and_hang('call, extended')")),
        sees: unknown,
        written: Written::OnceAtMost,
        ..RUNNING
    },
    Row {
        name: "do",
        enter: |client| {
            client.start_query(
                "do $$ begin insert into writes values ('do'); commit; perform hang(''); end $$",
            );
        },
        sees: unknown,
        written: Written::OnceAtMost,
        ..RUNNING
    },
    Row {
        name: "create index concurrently",
        enter: |client| {
            client.start_query("select hang(''); create index concurrently i on one (x)");
        },
        sees: unknown,
        goes_on: |client| {
            // It cannot run in the transaction of a text with several statements.
            assert_eq!(client.read_reply().sqlstate(), "25001");
        },
        written: Written::Never,
        ..RUNNING
    },
    Row {
        name: "copy before CopyDone",
        enter: |client| {
            client.start_query("copy writes from stdin");
            client.expect(b'G');
            client.send(&data("copy before CopyDone\n"));
        },
        sees: |client, _| {
            end_copy(client);
            refused(client, "57P01", 'I');
        },
        goes_on: copied,
        written: Written::RolledBack,
        ..ROW
    },
    Row {
        name: "copy after CopyDone",
        enter: |client| {
            client.start_query("copy slow from stdin");
            client.expect(b'G');
            client.send(&data("copy after CopyDone\n"));
            client.send(&Message::new(b'c', &[]).encode());
        },
        // In a simple query CommandComplete comes after the commit: a FATAL before it says more
        // than that nobody knows.
        sees: told_by,
        written: Written::ByWords,
        ..RUNNING
    },
    Row {
        name: "copy in a transaction",
        enter: |client| {
            client.ok("begin");
            client.start_query("copy writes from stdin");
            client.expect(b'G');
            client.send(&data("copy in a transaction\n"));
        },
        sees: |client, _| {
            end_copy(client);
            refused(client, "57P01", 'E');
            assert_eq!(client.ok("rollback").status(), 'I');
        },
        goes_on: copied,
        written: Written::RolledBack,
        ..ROW
    },
];

/// The rest of a copy, up to CopyDone.
fn end_copy(client: &mut WireClient) {
    client.send(&data("the rest\n"));
    client.send(&Message::new(b'c', &[]).encode());
}

/// Ends a copy, which is done.
fn copied(client: &mut WireClient) {
    end_copy(client);
    assert_eq!(client.read_reply().no_error().commands(), ["COPY 2"]);
}

pub(super) fn data(text: &str) -> Vec<u8> {
    Message::new(b'd', text.as_bytes()).encode()
}
