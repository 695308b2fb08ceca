//! Clients that write outside a transaction block, commit, or copy.

use pgimbal_tests::{Message, Pipeline, WireClient};

use super::{ROW, Row, Words, Written, extended, refused, send, told_by, unknown};

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "write, simple",
        enter: |client| client.start_query("insert into writes values (hang('write, simple'))"),
        runs: true,
        sees: told_by,
        written: Written::ByWords,
        ..ROW
    },
    Row {
        name: "write, extended",
        enter: |client| {
            send(client, &extended("insert into writes values (hang('write, extended'))"));
        },
        runs: true,
        sees: told_by,
        written: Written::ByWords,
        ..ROW
    },
    Row {
        name: "write, two segments",
        enter: |client| {
            let first =
                Pipeline::new().run("insert into writes values (hang('write, two segments'))");
            send(client, &first.sync().run("insert into writes values ('second')").sync());
        },
        runs: true,
        sees: |client, words| {
            told_by(client, words);
            // The second was not sent to a server yet, with its Sync: it goes to the new one.
            let reply = client.read_reply();
            assert_eq!((reply.commands(), reply.status()), (vec!["INSERT 0 1".into()], 'I'));
        },
        written: Written::ByWords,
        ..ROW
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
        runs: true,
        sees: |client, _| {
            send(client, &Pipeline::new().run("select 'skipped'").sync());
            refused(client, "57P01", 'I');
        },
        written: Written::RolledBack,
        ..ROW
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
        runs: true,
        sees: unknown,
        written: Written::OnceAtMost,
        ..ROW
    },
    Row {
        name: "write, hangs in its own commit",
        enter: |client| {
            client.start_query("insert into slow values ('write, hangs in its own commit')");
        },
        runs: true,
        sees: told_by,
        written: Written::ByWords,
        ..ROW
    },
    Row {
        name: "commit, simple",
        enter: |client| {
            client.ok("begin");
            client.ok("insert into slow values ('commit, simple')");
            client.start_query("commit");
        },
        runs: true,
        sees: unknown,
        written: Written::OnceAtMost,
        ..ROW
    },
    Row {
        name: "commit, extended",
        enter: |client| {
            client.run(&extended("begin")).no_error();
            client.run(&extended("insert into slow values ('commit, extended')")).no_error();
            send(client, &extended("END"));
        },
        runs: true,
        sees: unknown,
        written: Written::OnceAtMost,
        ..ROW
    },
    Row {
        name: "commit, prepared",
        enter: |client| {
            client.run(&Pipeline::new().parse("c", "commit work").sync()).no_error();
            client.ok("begin");
            client.ok("insert into slow values ('commit, prepared')");
            send(client, &Pipeline::new().bind("", "c", &[]).execute("", 0).sync());
        },
        runs: true,
        sees: unknown,
        written: Written::OnceAtMost,
        ..ROW
    },
    Row {
        name: "commit among others",
        enter: |client| {
            client.start_query(
                "begin; insert into slow values ('commit among others'); commit; select 1",
            );
        },
        runs: true,
        sees: unknown,
        written: Written::OnceAtMost,
        ..ROW
    },
    Row {
        name: "commit may come",
        enter: |client| {
            client
                .start_query("begin; insert into writes values (hang('commit may come')); commit");
        },
        runs: true,
        sees: unknown,
        written: Written::OnceAtMost,
        ..ROW
    },
    Row {
        name: "prepare transaction",
        enter: |client| {
            client.ok("begin");
            client.ok("insert into slow values ('prepare transaction')");
            client.start_query("prepare transaction 'p'");
        },
        runs: true,
        sees: unknown,
        written: Written::OnceAtMost,
        ..ROW
    },
    Row {
        name: "copy before CopyDone",
        enter: |client| {
            client.start_query("copy writes from stdin");
            client.expect(b'G');
            client.send(&data("copy before CopyDone\n"));
        },
        sees: |client, _| {
            client.send(&data("the rest\n"));
            client.send(&Message::new(b'c', &[]).encode());
            refused(client, "57P01", 'I');
        },
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
        runs: true,
        sees: unknown_or_proven,
        written: Written::OnceAtMost,
        ..ROW
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
            client.send(&data("the rest\n"));
            client.send(&Message::new(b'c', &[]).encode());
            refused(client, "57P01", 'E');
            assert_eq!(client.ok("rollback").status(), 'I');
        },
        written: Written::RolledBack,
        ..ROW
    },
];

/// The table says unknown; the server's FATAL before CommandComplete says more than that.
fn unknown_or_proven(client: &mut WireClient, words: Words) {
    let reply = client.read_reply();
    let code = reply.sqlstate();
    assert!(code == "08007" || words == Words::Fatal && code == "57P01", "{reply:?}");
    super::refusal(&reply, &code, 'I');
}

fn data(text: &str) -> Vec<u8> {
    Message::new(b'd', text.as_bytes()).encode()
}
