//! The extended protocol as PostgreSQL speaks it: statements 12, 13, 16, 17, 23 to 25.

use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::SOON;
use pgimbal_tests::{Message, Pipeline, Postgres, Reply, WireClient};

/// A direct client and one of the proxy: what both are told must be the same.
fn both(pg: &Postgres, proxy: &pgimbal_tests::Pgimbal) -> [WireClient; 2] {
    let mut direct = WireClient::unix(&pg.socket());
    direct.log_in(&pgimbal_tests::Login::new("app", "app", "")).expect("a direct login");
    [direct, proxy.client()]
}

/// The messages that the protocol orders, without where in PostgreSQL an error was raised.
fn comparable(reply: &Reply) -> Vec<String> {
    let ordered = reply.messages.iter().filter(|message| !matches!(message.tag, b'S' | b'N'));
    ordered
        .map(|message| match message.tag {
            b'E' => format!("E {} {}", message.error().code, message.error().message),
            _ => format!("{message:?}"),
        })
        .collect()
}

fn same(clients: &mut [WireClient; 2], pipeline: &Pipeline, why: &str) {
    let [direct, pooled] = clients.each_mut().map(|client| comparable(&client.run(pipeline)));
    assert_eq!(pooled, direct, "pgimbal (left) and PostgreSQL (right) differ: {why}");
}

#[test]
fn behaviour_12_replies_come_in_the_order_of_the_requests() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("pool_size", 1).start();
    let mut clients = both(&pg, &proxy);
    same(&mut clients, &Pipeline::new().parse("a", "select 1").sync(), "a first Parse");
    let mut other = proxy.client();
    other.run(&Pipeline::new().parse("x", "select 2").bind("", "x", &[]).execute("", 0).sync());
    let mixed = Pipeline::new()
        .parse("b", "select 1")
        .bind("", "a", &[])
        .parse("c", "select 2")
        .execute("", 0)
        .close_statement("a")
        .close_statement("unknown")
        .parse("a", "select 3")
        .describe_statement("a")
        .bind("", "c", &[])
        .close_statement("c")
        .close_portal("unknown")
        .describe_portal("")
        .execute("", 0)
        .parse("d", "select 2")
        .sync();
    for client in &mut clients {
        let reply = client.run(&mixed);
        reply.no_error();
        assert_eq!(reply.tags(), "121DC331tT233TDC1Z");
    }
    same(&mut clients, &Pipeline::new().bind("", "a", &[]).execute("", 0).sync(), "the new a");
}

/// Pipelines of any of the messages over few names and texts, right and wrong ones.
fn random_pipeline(seed: &mut u64) -> Pipeline {
    let mut pick = |count: u64| {
        *seed =
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((*seed >> 33) % count).expect("a small number")
    };
    let names = ["", "a", "b"];
    let texts = ["select 1", "select 'two'", "values (3), (4)", "selec", "select 1/0", ""];
    let mut pipeline = Pipeline::new();
    for _ in 0..=pick(8) {
        let name = names[pick(3)];
        pipeline = match pick(9) {
            0..3 => pipeline.parse(name, texts[pick(6)]),
            3..5 => pipeline.bind("", name, &[]).execute("", 0),
            5 => pipeline.describe_statement(name),
            6 => pipeline.close_statement(name),
            7 => pipeline.close_portal(""),
            _ => pipeline.sync().parse(name, texts[pick(3)]),
        };
    }
    pipeline.sync()
}

#[test]
fn behaviour_12_13_16_17_any_pipeline_is_answered_as_by_postgresql() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("pool_size", 2).set("max_prepared_statements", 2).start();
    let first = std::env::var("PGIMBAL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    for seed in first..first + 40 {
        let mut clients = both(&pg, &proxy);
        let mut state = seed;
        for step in 0..25 {
            let pipeline = random_pipeline(&mut state);
            let syncs =
                pipeline.bytes().windows(5).filter(|window| window == b"S\0\0\0\x04").count();
            let replies = clients.each_mut().map(|client| {
                client.send(pipeline.bytes());
                (0..syncs).flat_map(|_| comparable(&client.read_reply())).collect::<Vec<_>>()
            });
            let [direct, pooled] = replies;
            let bytes = pipeline.bytes().escape_ascii();
            assert_eq!(pooled, direct, "PGIMBAL_SEED={seed}, step {step}: {bytes}");
        }
    }
}

#[test]
fn behaviour_13_after_an_error_all_up_to_sync_is_discarded() {
    let pg = Postgres::start();
    pg.run("create table t (x int); grant all on t to app");
    let proxy = Config::before(&pg).set("pool_size", 1).start();
    let mut client = proxy.client();
    client.send(Pipeline::new().run("select 1/0").flush().bytes());
    client.expect(b'1');
    assert_eq!(client.expect(b'E').error().code, "22012");
    // Nothing of this has arrived when the error is sent, and it arrives in pieces.
    let late = Pipeline::new().run("insert into t values (1)").parse("s", "select 1").flush();
    let (head, tail) = late.bytes().split_at(9);
    client.send(head);
    let mut other = proxy.client();
    other.start_query("select count(*) from t");
    proxy.wait_for_waiting(1);
    client.send(tail);
    client.send(Pipeline::new().sync().bytes());
    // An answer to what was discarded would stand before it.
    assert_eq!(client.read_reply().tags(), "Z");
    assert_eq!(other.read_reply().value(), "0");
    let unknown = client.run(&Pipeline::new().bind("", "s", &[]).sync());
    assert_eq!(unknown.sqlstate(), "26000");
}

#[test]
fn behaviour_13_a_query_behind_an_error_is_discarded_too() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("pool_size", 1).start();
    let mut clients = both(&pg, &proxy);
    for first in ["discard sequences", "prepare q as select 1", "do $$begin end$$", "select 1"] {
        for failing in ["select 1/0", "rollback to nowhere", "select 1"] {
            // pgimbal sends messages of its own around some of these queries: none of them may end
            // what the server discards.
            let pipeline = Pipeline::new()
                .parse("s1", failing)
                .bind("", "s1", &[])
                .execute("", 0)
                .query(first)
                .query("select set_config('application_name', 'late', false)")
                .sync()
                .query("select current_setting('application_name')")
                .query("deallocate all")
                .query("reset all")
                .sync();
            same(&mut clients, &pipeline, &format!("{failing}, then {first}"));
        }
    }
}

#[test]
fn behaviour_23_a_statement_a_name_or_a_bind_larger_than_any_buffer() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).start();
    let mut client = proxy.client();
    let long = "x".repeat(3_000_000);
    let text = format!("select length('{long}') + $1::int");
    let run = |name: &str, sql: &str, parameter: &str| {
        Pipeline::new().parse(name, sql).bind("", name, &[parameter]).execute("", 0).sync()
    };
    assert_eq!(client.run(&run("", &text, "1")).value(), "3000001");
    let name = "n".repeat(30_000);
    assert_eq!(client.run(&run(&name, "select $1::int", "2")).value(), "2");
    // PostgreSQL takes at most 10,000 bytes of Close, Describe and Execute.
    let name = "m".repeat(9_000);
    assert_eq!(client.run(&run(&name, "select $1::int", "3")).value(), "3");
    let close = Pipeline::new().describe_statement(&name).close_statement(&name).sync();
    assert_eq!(client.run(&close).tags(), "tT3Z");
    let value = "v".repeat(20_000_000);
    assert_eq!(client.run(&run("b", "select length($1)", &value)).value(), "20000000");
    assert_eq!(client.run(&run("e", "select $1::text", &value)).value().len(), value.len());
    let both = run(&format!("{name}2"), &text, "4");
    assert_eq!(client.run(&both).value(), "3000004");
    assert_eq!(client.value(&format!("select length('{long}')")), "3000000");
}

#[test]
fn behaviour_24_a_portal_survives_sync_inside_a_transaction() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).start();
    for client in &mut both(&pg, &proxy) {
        client.ok("begin");
        let series = "select generate_series(1, 5)";
        let open = Pipeline::new().parse("s", series).bind("p", "s", &[]).execute("p", 2).sync();
        assert_eq!(client.run(&open).tags(), "12DDsZ");
        assert_eq!(client.value("select 'between'"), "between");
        let more = client.run(&Pipeline::new().execute("p", 2).sync());
        assert_eq!((more.tags(), more.texts()[0][0].clone()), ("DDsZ".into(), "3".into()));
        let rest = client.run(&Pipeline::new().execute("p", 0).close_portal("p").sync());
        assert_eq!(rest.tags(), "DC3Z");
        client.ok("commit");
        let gone = client.run(&Pipeline::new().execute("p", 0).sync());
        assert_eq!(gone.sqlstate(), "34000");
    }
}

#[test]
fn behaviour_24_rare_messages_work() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).start();
    let mut clients = both(&pg, &proxy);
    let oid: u32 = pg.value("select 'int4pl'::regproc::oid").parse().expect("an oid");
    let mut call = oid.to_be_bytes().to_vec();
    call.extend([0, 1, 0, 0, 0, 2, 0, 0, 0, 1, b'4', 0, 0, 0, 2, b'3', b'8', 0, 0]);
    let cases = [
        (Pipeline::new().message(b'F', &call), "FunctionCall"),
        (Pipeline::new().message(b'F', &[0; 4]), "a malformed FunctionCall"),
        (Pipeline::new().query(""), "an empty query"),
        (Pipeline::new().query("   -- nothing\n"), "a comment"),
        (Pipeline::new().run("").sync(), "an empty extended query"),
        (Pipeline::new().sync(), "a bare Sync"),
        (Pipeline::new().query("select 1; select 2; select 3"), "several statements"),
        (Pipeline::new().query("select 1; select 1/0; select 3"), "one of them failing"),
        (Pipeline::new().query("begin; select 1"), "an open transaction"),
        (Pipeline::new().query("commit; select 1"), "its end"),
    ];
    for (pipeline, name) in cases {
        same(&mut clients, &pipeline, name);
    }
}

#[test]
fn behaviour_24_flush_without_sync() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).start();
    for client in &mut both(&pg, &proxy) {
        client.send(Pipeline::new().parse("", "select $1::text").flush().bytes());
        client.expect(b'1');
        client.send(Pipeline::new().describe_statement("").flush().bytes());
        client.expect(b't');
        client.expect(b'T');
        client.send(Pipeline::new().bind("", "", &["v"]).execute("", 0).flush().bytes());
        client.expect(b'2');
        client.expect(b'D');
        client.expect(b'C');
        assert_eq!(client.run(&Pipeline::new().sync()).tags(), "Z");
    }
}

#[test]
fn behaviour_25_ten_thousand_statements_in_one_pipeline() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).start();
    for sync_each in [false, true] {
        let mut client = proxy.client();
        let before = proxy.process().status_kib("VmHWM");
        let mut pipeline = Pipeline::new();
        for number in 0..10_000_u32 {
            let value = number.to_string();
            pipeline = pipeline.parse("", "select $1::text, repeat('x', 200)");
            pipeline = pipeline.bind("", "", &[&value]).execute("", 0);
            if sync_each {
                pipeline = pipeline.sync();
            }
        }
        let pipeline = pipeline.sync();
        let mut writer = client.second_handle();
        let writing = std::thread::spawn(move || {
            std::io::Write::write_all(&mut writer, pipeline.bytes()).expect("all is taken");
        });
        let mut next = 0;
        let mut syncs = if sync_each { 10_001 } else { 1 };
        while syncs > 0 {
            match client.read() {
                message if message.tag == b'D' => {
                    let value = message.columns().remove(0).expect("a value");
                    assert_eq!(value, next.to_string().as_bytes());
                    next += 1;
                }
                Message { tag: b'Z', .. } => syncs -= 1,
                message => assert!(b"12C".contains(&message.tag), "{message:?}"),
            }
        }
        writing.join().expect("the writer");
        assert_eq!(next, 10_000);
        // The kernel counts it in pages of each thread, so that it may seem to shrink.
        let grown = proxy.process().status_kib("VmHWM").saturating_sub(before);
        assert!(grown < 16 * 1024, "one pipeline made the proxy grow by {grown} KiB");
    }
}

#[test]
fn behaviour_25_replies_that_are_never_flushed_do_not_pile_up() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).start();
    let mut client = proxy.client();
    let before = proxy.process().status_kib("VmHWM");
    // PostgreSQL sends no byte for a Parse before a Flush or a Sync.
    let parse = Pipeline::new().parse("", "select 1").bytes().repeat(50_000);
    let mut writer = client.second_handle();
    let writing = std::thread::spawn(move || {
        std::io::Write::write_all(&mut writer, &parse).expect("all is taken");
        std::io::Write::write_all(&mut writer, Pipeline::new().sync().bytes()).expect("Sync");
    });
    client.set_timeout(SOON * 2);
    let tags = client.read_reply().tags();
    writing.join().expect("the writer");
    assert_eq!(tags.len(), 50_001);
    let grown = proxy.process().status_kib("VmHWM") - before;
    assert!(grown < 16 * 1024, "owed replies made the proxy grow by {grown} KiB");
}
