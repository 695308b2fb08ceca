//! Clients that are idle, that wait, or that read.

use pgimbal_tests::{Pipeline, WireClient};

use super::row::{ROW, RUNNING, Row, Words, Written, extended, send, told_by};

const MANY_ROWS: &str = "select i, repeat('x', 1000), case when i = 200 then hang('') end \
                         from generate_series(1, 300) i";
const LONG_ROW: &str = "select repeat('x', 100000000)";
const COPY: &str = "copy (select i, repeat('x', 1000), case when i = 200 then hang('') end \
                    from generate_series(1, 300) i) to stdout";

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "idle",
        sees: |client, _| client.expect_nothing_before_the_next_reply(),
        on_replica: true,
        ..ROW
    },
    Row {
        name: "waits, simple",
        during: Some(|client| client.start_query("insert into writes values ('waits, simple')")),
        sees: |client, _| {
            assert_eq!(client.read_reply().no_error().commands(), ["INSERT 0 1"]);
        },
        written: Written::Once,
        ..ROW
    },
    Row {
        name: "waits, extended",
        during: Some(|client| {
            send(client, &extended("insert into writes values ('waits, extended')"));
        }),
        sees: |client, _| assert_eq!(client.read_reply().no_error().tags(), "12CZ"),
        written: Written::Once,
        ..ROW
    },
    Row {
        name: "waits, prepared",
        enter: |client| {
            let parse = Pipeline::new().parse("s", "insert into writes values ($1)").sync();
            client.run(&parse).no_error();
        },
        during: Some(|client| {
            let bind = Pipeline::new().bind("", "s", &["waits, prepared"]);
            send(client, &bind.execute("", 0).sync());
        }),
        sees: |client, _| assert_eq!(client.read_reply().no_error().tags(), "2CZ"),
        written: Written::Once,
        ..ROW
    },
    Row {
        name: "waits to begin",
        during: Some(|client| client.start_query("begin")),
        sees: |client, _| {
            assert_eq!(client.read_reply().no_error().status(), 'T');
            client.ok("insert into writes values ('waits to begin')");
            assert_eq!(client.ok("commit").commands(), ["COMMIT"]);
        },
        written: Written::Once,
        ..ROW
    },
    Row {
        name: "waits, two segments",
        during: Some(|client| {
            let first = Pipeline::new().run("insert into writes values ('waits, two segments')");
            send(client, &first.sync().run("select 'second'").sync());
        }),
        sees: |client, _| {
            assert_eq!(client.read_reply().no_error().tags(), "12CZ");
            assert_eq!(client.read_reply().value(), "second");
        },
        written: Written::Once,
        ..ROW
    },
    Row {
        name: "about to read",
        during: Some(|client| client.start_query("select 'read'")),
        sees: |client, _| assert_eq!(client.read_reply().value(), "read"),
        on_replica: true,
        ..ROW
    },
    Row {
        name: "run again, simple",
        enter: |client| client.start_query("select hang('again')"),
        sees: again,
        goes_on: |client| again(client, Words::Nothing),
        on_replica: true,
        ..RUNNING
    },
    Row {
        name: "run again, extended",
        enter: |client| {
            let described = Pipeline::new().parse("", "select hang('again')").bind("", "", &[]);
            send(client, &described.describe_portal("").execute("", 0).sync());
        },
        sees: |client, _| {
            let reply = client.read_reply();
            assert_eq!((reply.value().as_str(), reply.tags().as_str()), ("again", "12TDCZ"));
            assert_eq!(reply.status(), 'I');
        },
        on_replica: true,
        ..RUNNING
    },
    Row {
        name: "run again, prepared",
        enter: |client| {
            client.run(&Pipeline::new().parse("s", "select hang($1)").sync()).no_error();
            send(client, &Pipeline::new().bind("", "s", &["again"]).execute("", 0).sync());
        },
        sees: again,
        goes_on: |client| again(client, Words::Nothing),
        on_replica: true,
        ..RUNNING
    },
    // In a READ ONLY transaction the next ones are refused with 25006, so that what the server said
    // the first time decides, as it does for those that are not run again.
    Row {
        name: "not again: nextval",
        enter: |client| client.start_query("select hang(''), nextval('numbers')"),
        sees: told_by,
        ..RUNNING
    },
    Row {
        name: "not again: for update",
        enter: |client| client.start_query("select hang(x) from one for update"),
        sees: told_by,
        ..RUNNING
    },
    Row {
        name: "not again: a function that writes",
        enter: |client| {
            client.start_query("select hang_and_write('not again: a function that writes')");
        },
        sees: told_by,
        written: Written::ByWords,
        ..RUNNING
    },
    Row {
        name: "not again: select into",
        enter: |client| client.start_query("select hang('') into made from generate_series(1, 1)"),
        sees: told_by,
        ..RUNNING
    },
    Row {
        name: "not again: a writing CTE",
        enter: |client| {
            client.start_query(
                "with w as (insert into writes select hang('not again: a writing CTE') \
                 returning id) select * from w",
            );
        },
        sees: told_by,
        written: Written::ByWords,
        ..RUNNING
    },
    Row {
        name: "not again: pg_notify",
        enter: |client| client.start_query("select hang(''), pg_notify('c', 'x')"),
        sees: told_by,
        ..RUNNING
    },
    Row {
        name: "not again: a message in the log",
        enter: |client| {
            client.start_query("select hang(''), pg_logical_emit_message(false, 'p', 'x')");
        },
        sees: told_by,
        ..RUNNING
    },
    Row {
        name: "partly forwarded, simple",
        enter: |client| {
            client.start_query(MANY_ROWS);
            first_rows(client);
        },
        sees: |client, words| cut_short(client, b'D', words),
        goes_on: |client| the_rest(client, b'D'),
        on_replica: true,
        ..RUNNING
    },
    Row {
        name: "partly forwarded, extended",
        enter: |client| {
            send(client, &extended(MANY_ROWS));
            client.expect(b'1');
            client.expect(b'2');
            for _ in 0..50 {
                client.expect(b'D');
            }
        },
        sees: |client, words| cut_short(client, b'D', words),
        goes_on: |client| the_rest(client, b'D'),
        on_replica: true,
        ..RUNNING
    },
    Row {
        name: "partly forwarded, READ ONLY",
        enter: |client| {
            client.ok("set default_transaction_read_only to on");
            client.start_query(MANY_ROWS);
            first_rows(client);
        },
        sees: |client, _| cut_short(client, b'D', Words::ReadOnly),
        goes_on: |client| the_rest(client, b'D'),
        on_replica: true,
        ..RUNNING
    },
    Row {
        name: "partly forwarded, writes",
        enter: |client| {
            client.start_query(
                "/* a /* b */ */ select i, repeat('x', 1000), case \
                 when i = 1 then note('writes', 'partly forwarded, writes')::text \
                 when i = 200 then hang('') end from generate_series(1, 300) i",
            );
            first_rows(client);
        },
        sees: |client, words| cut_short(client, b'D', words),
        goes_on: |client| the_rest(client, b'D'),
        written: Written::ByWords,
        ..RUNNING
    },
    Row {
        name: "prepared, after a Flush",
        enter: |client| {
            let prepare = Pipeline::new().parse("p", "select 'prepared'").describe_statement("p");
            send(client, &prepare.flush());
            "1tT".bytes().for_each(|tag| drop(client.expect(tag)));
        },
        sees: |client, _| {
            let reply = client.run(&Pipeline::new().bind("", "p", &[]).execute("", 0).sync());
            // What was sent unasked would stand before it.
            assert_eq!((reply.value().as_str(), reply.tags().as_str()), ("prepared", "2DCZ"));
            assert_eq!(reply.status(), 'I');
        },
        goes_on: |client| {
            client.run(&Pipeline::new().sync()).no_error();
        },
        on_replica: true,
        ..ROW
    },
    Row {
        name: "partly copied out",
        enter: |client| {
            client.start_query(COPY);
            client.expect(b'H');
            for _ in 0..50 {
                client.expect(b'd');
            }
        },
        sees: |client, words| cut_short(client, b'd', words),
        goes_on: |client| the_rest(client, b'd'),
        on_replica: true,
        ..RUNNING
    },
    Row {
        name: "a message cut in half",
        enter: |client| {
            client.start_query(LONG_ROW);
            client.expect(b'T');
            client.read_bytes(&mut [0; 100_000]).expect("the beginning of a row");
        },
        sees: |client, _| {
            let rest = client.read_raw_to_end();
            assert!(rest.len() < 100_000_000 - 100_000, "the whole row came");
            assert!(rest.iter().rev().take(100).all(|byte| *byte == b'x'), "more than the row");
        },
        survives: false,
        goes_on: |client| {
            // The tag, the length, the number of columns and the length of the one.
            let rest = 1 + 4 + 2 + 4 + 100_000_000 - 100_000;
            client.read_bytes(&mut vec![0; rest]).expect("the rest of the row");
            client.read_reply().no_error();
        },
        on_replica: true,
        ..RUNNING
    },
];

fn again(client: &mut WireClient, _: Words) {
    let reply = client.read_reply();
    assert_eq!((reply.value().as_str(), reply.status()), ("again", 'I'));
}

/// The rows that had not come yet of the 300.
fn the_rest(client: &mut WireClient, tag: u8) {
    let reply = client.read_reply();
    let rows = reply.no_error().messages.iter().filter(|message| message.tag == tag).count();
    assert_eq!(rows, 250);
}

fn first_rows(client: &mut WireClient) {
    client.expect(b'T');
    for _ in 0..50 {
        client.expect(b'D');
    }
}

/// Some more whole rows may come, then the error.
fn cut_short(client: &mut WireClient, tag: u8, words: Words) {
    let mut reply = client.read_reply();
    let rows = reply.messages.iter().filter(|message| message.tag == tag).count();
    assert!(rows < 200, "{rows} rows");
    reply.messages.retain(|message| message.tag != tag);
    // A statement that reads by its first word may have written, unless it ran READ ONLY.
    let code = if words == Words::Nothing { "08007" } else { "57P01" };
    super::refusal(&reply, code, 'I');
}
