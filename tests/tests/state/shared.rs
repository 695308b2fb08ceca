//! Prepared statements that clients share, and what may not part or spoil them: cases 3, 4, 17
//! and 18.

use pgimbal_tests::script::comparable_replies;
use pgimbal_tests::{
    Comparison, ConnectionExpectation, Pipeline, Reply, Script, Shape, WireClient,
};

const EPOCH: &str =
    "select extract(epoch from '2024-01-01 00:00'::timestamptz)::bigint::text as epoch";
const MONTH: &str = "select extract(month from '01/02/2024'::date)::text as month";

fn run(name: &str, sql: &str) -> Pipeline {
    Pipeline::new().parse(name, sql).bind("", name, &[]).execute("", 0).sync()
}

fn execute(name: &str) -> Pipeline {
    Pipeline::new().bind("", name, &[]).execute("", 0).sync()
}

/// One client prepares `sql` between `before` and `after`; what others then get for the same
/// text, and the client itself, must be what a session of its own gets.
fn compare(comparison: &Comparison, before: &[&str], after: &[&str], sql: &str) {
    for shape in Shape::WAITING {
        for run_it in [false, true] {
            let what = format!("{before:?} {shape:?}, executed at once: {run_it}");
            let mut parse = Pipeline::new().parse("s", sql).describe_statement("s");
            if run_it {
                parse = parse.bind("", "s", &[]).execute("", 0);
            }
            let script = Script::new(before).messages(parse.sync(), 1).then(after);
            let (mut client, mut twin) = (comparison.pooled(), comparison.direct());
            let answers = comparable_replies(&script.play(&mut client, shape));
            assert_eq!(answers, comparable_replies(&script.play(&mut twin, shape)), "{what}");
            let mut next = comparison.proxy.client();
            let shares = comparison.serves(&mut next, ConnectionExpectation::MayStay);
            if shares {
                others(comparison, &mut next, sql, &what);
            }
            // What the client has prepared goes on meaning what it meant, wherever it is.
            let own = twin.run(&execute("s")).value();
            assert_eq!(client.run(&execute("s")).value(), own, "{what}: its own");
            if shares && comparison.pins().is_empty() {
                comparison.pg.end_backends();
                assert_eq!(client.run(&execute("s")).value(), own, "{what}: its own, anew");
                others(comparison, &mut next, sql, &what);
                assert_eq!(client.run(&execute("s")).value(), own, "{what}: its own, then");
            }
            client.terminate();
            if !shares {
                next.read_reply();
            }
            others(comparison, &mut next, sql, &what);
            // The same text once more where the other's was first on the server.
            comparison.pg.end_backends();
        }
    }
}

/// What a client that has done nothing gets for `sql`, however it asks.
fn others(comparison: &Comparison, next: &mut WireClient, sql: &str, what: &str) {
    let must = comparison.direct().run(&run("t", sql)).value();
    assert_eq!(next.run(&run("whole", sql)).value(), must, "{what}: another");
    let parsed = next.run(&Pipeline::new().parse("apart", sql).describe_statement("apart").sync());
    assert_eq!(parsed.errors(), [], "{what}: another");
    for name in ["apart", "whole"] {
        assert_eq!(next.run(&execute(name)).value(), must, "{what}: another, {name}");
    }
    assert_eq!(next.run(&run("", sql)).value(), must, "{what}: another, unnamed");
    let close = Pipeline::new().close_statement("whole").close_statement("apart").sync();
    next.run(&close).no_error();
}

#[test]
fn state_case_03_a_statement_parsed_under_a_local_time_zone() {
    let before = ["BEGIN", "SET LOCAL TimeZone = 'America/New_York'"];
    compare(&Comparison::new(), &before, &["COMMIT"], EPOCH);
}

#[test]
fn state_case_03b_set_otherwise_and_rolled_back() {
    let comparison = Comparison::new();
    for (before, after) in [
        (
            &["BEGIN", "SELECT set_config('timezone', 'America/New_York', true)"][..],
            &["COMMIT"][..],
        ),
        (&["BEGIN ;; SET LOCAL TIME ZONE 'America/New_York'"], &["ROLLBACK"]),
        (&["BEGIN", "SET TimeZone = 'America/New_York'"], &["ROLLBACK"]),
        (&["BEGIN", "SAVEPOINT a", "SET TimeZone = 'Asia/Tokyo'"], &["ROLLBACK TO a", "COMMIT"]),
        (&["BEGIN", "DO $$BEGIN SET LOCAL TimeZone = 'Asia/Tokyo'; END$$"], &["COMMIT"]),
    ] {
        compare(&comparison, before, after, EPOCH);
    }
}

#[test]
fn state_case_03c_in_one_segment_with_the_setting() {
    // The client may keep its connection: its statement was parsed under a time zone of its own.
    let comparison = Comparison::with("", |config| config.set("pool_size", 3).set("max_pinned", 3));
    let local = || Pipeline::new().run("SET LOCAL TimeZone = 'America/New_York'");
    let segments = [
        local().parse("s", EPOCH).sync(),
        local().parse("s", EPOCH).bind("", "s", &[]).execute("", 0).sync(),
        Pipeline::new().run("BEGIN").raw(local().parse("s", EPOCH).run("COMMIT").sync().bytes()),
    ];
    for segment in segments {
        let (mut client, mut twin) = (comparison.pooled(), comparison.direct());
        assert_eq!(
            comparable_replies(&[client.run(&segment)]),
            comparable_replies(&[twin.run(&segment)])
        );
        let must = comparison.direct().run(&run("t", EPOCH)).value();
        assert_eq!(comparison.proxy.client().run(&run("t", EPOCH)).value(), must, "{segment:?}");
        let must = twin.run(&execute("s")).value();
        assert_eq!(client.run(&execute("s")).value(), must, "{segment:?}: its own");
    }
}

#[test]
fn state_case_04_a_statement_parsed_under_a_local_date_style() {
    compare(&Comparison::new(), &["BEGIN", "SET LOCAL DateStyle = 'SQL, DMY'"], &["COMMIT"], MONTH);
}

#[test]
fn state_case_04b_a_local_path_and_interval_style() {
    let set_up = "create schema other; create table other.accounts as select 7 as id, 'other' as owner; \
                  grant all on schema other to public; grant all on other.accounts to public";
    let comparison = Comparison::with(set_up, |config| config);
    let owner = "select owner from accounts";
    let hours = "select extract(hour from interval '-1 2:00:00')::text";
    for (set, sql) in [
        ("SET LOCAL search_path = other", owner),
        ("SELECT set_config('search_path', 'other', true)", owner),
        ("SET LOCAL intervalstyle = 'sql_standard'", hours),
        ("SET LOCAL DateStyle TO 'ISO, DMY'", MONTH),
        ("CREATE TEMPORARY TABLE accounts ON COMMIT DROP AS SELECT 'temporary' AS owner", owner),
    ] {
        compare(&comparison, &["BEGIN", set], &["ROLLBACK"], sql);
    }
}

/// Two clients that share a statement, and its name on the server.
fn sharing(comparison: &Comparison) -> (WireClient, WireClient, String) {
    let (mut spoiler, mut victim) = (comparison.pooled(), comparison.proxy.client());
    for client in [&mut spoiler, &mut victim] {
        assert_eq!(client.run(&run("s", "select 'shared'")).value(), "shared");
    }
    let name = spoiler.value(
        "select name from pg_prepared_statements where statement = 'select ''shared''' \
         order by prepare_time desc limit 1",
    );
    (spoiler, victim, name)
}

/// Nobody notices: neither who had the statement before nor who prepares it now.
fn unspoilt(comparison: &Comparison, victim: &mut WireClient, what: &str) {
    for _ in 0..2 {
        let got = victim.run(&execute("s"));
        assert_eq!(got.errors(), [], "{what}");
        assert_eq!(got.value(), "shared", "{what}");
        let again = victim.run(&Pipeline::new().describe_statement("s").sync());
        assert_eq!(again.no_error().tags(), "tTZ", "{what}");
    }
    let mut next = comparison.proxy.client();
    assert_eq!(next.run(&run("n", "select 'shared'")).value(), "shared", "{what}: a new client");
    assert_eq!(next.run(&execute("n")).value(), "shared", "{what}: a new client");
}

#[test]
fn state_case_17_a_name_of_pgimbals_cannot_be_closed() {
    let comparison = Comparison::new();
    let (mut spoiler, mut victim, name) = sharing(&comparison);
    spoiler.run(&Pipeline::new().close_statement(&name).sync()).no_error();
    unspoilt(&comparison, &mut victim, "Close");
    let deallocate = format!("DEALLOCATE \"{name}\"");
    for shape in Shape::ALL {
        let replies: Vec<Reply> = Script::new(&[&deallocate]).play(&mut spoiler, shape);
        assert_eq!(replies[0].sqlstate(), "26000", "{shape:?}");
        unspoilt(&comparison, &mut victim, &format!("DEALLOCATE {shape:?}"));
    }
    for shape in Shape::ALL {
        let (mut spoiler, mut victim, _) = sharing(&comparison);
        let all = Script::new(&["DO $$BEGIN EXECUTE 'DEALLOCATE ALL'; END$$"]);
        all.play(&mut spoiler, shape)[0].no_error();
        unspoilt(&comparison, &mut victim, &format!("DEALLOCATE ALL {shape:?}"));
    }
}

#[test]
fn state_case_17b_nor_executed_described_bound_or_deallocated_otherwise() {
    let comparison = Comparison::new();
    let (mut spoiler, mut victim, name) = sharing(&comparison);
    for pipeline in [
        execute(&name),
        Pipeline::new().describe_statement(&name).sync(),
        Pipeline::new().query(&format!("EXECUTE \"{name}\"")),
        Pipeline::new().query(&format!("EXPLAIN EXECUTE {name}")),
        Pipeline::new().query(&format!("SELECT 1; DEALLOCATE PREPARE {name}")),
    ] {
        assert_eq!(spoiler.run(&pipeline).sqlstate(), "26000", "{pipeline:?}");
    }
    unspoilt(&comparison, &mut victim, "a foreign name");
    for text in [
        format!("DO $$BEGIN EXECUTE 'DEALL' || 'OCATE \"{name}\"'; END$$"),
        "BEGIN; DO $$BEGIN EXECUTE 'DEALL' || 'OCATE ALL'; END$$; ROLLBACK".to_owned(),
        "DO $$BEGIN EXECUTE 'DISC' || 'ARD PLANS'; EXECUTE 'DEALL' || 'OCATE ALL'; PERFORM 1/0; END$$".to_owned(),
    ] {
        spoiler.query(&text);
        unspoilt(&comparison, &mut victim, &text);
    }
}

#[test]
fn state_case_17c_a_pipeline_that_meets_the_hole_is_whole() {
    let comparison = Comparison::new();
    let (mut spoiler, mut victim, _) = sharing(&comparison);
    spoiler.ok("DO $$BEGIN EXECUTE 'DEALLOCATE ALL'; END$$");
    let whole = Pipeline::new()
        .run("UPDATE accounts SET id = id + 1")
        .bind("", "s", &[])
        .execute("", 0)
        .sync();
    victim.run(&whole).no_error();
    assert_eq!(victim.value("SELECT id FROM accounts"), "2", "not once");
}

#[test]
fn state_case_18_a_text_put_under_a_shared_name() {
    let comparison = Comparison::new();
    for shape in Shape::ALL {
        let (mut spoiler, mut victim, name) = sharing(&comparison);
        let put = format!(
            "DO $$BEGIN EXECUTE 'DEALL' || 'OCATE \"{name}\"'; \
             EXECUTE 'PRE' || 'PARE \"{name}\" AS SELECT ''spoilt'''; END$$"
        );
        Script::new(&[&put]).play(&mut spoiler, shape)[0].no_error();
        // What SQL has prepared may keep its client where it is.
        let mut other = comparison.proxy.client();
        if comparison.serves(&mut other, ConnectionExpectation::MayStay) {
            unspoilt(&comparison, &mut victim, &format!("{shape:?}"));
        }
        spoiler.terminate();
        unspoilt(&comparison, &mut victim, &format!("{shape:?}, when it has left"));
    }
}

#[test]
fn state_case_18b_by_sql_that_is_not_dynamic_or_fails_later() {
    let comparison = Comparison::new();
    let (mut spoiler, mut victim, name) = sharing(&comparison);
    for text in [
        format!("DEALLOCATE \"{name}\"; PREPARE \"{name}\" AS SELECT 'spoilt'"),
        format!("PREPARE \"{name}\" AS SELECT 'spoilt'"),
        format!(
            "DO $$BEGIN EXECUTE 'DEALLOCATE \"{name}\"'; \
             EXECUTE 'PREPARE \"{name}\" AS SELECT ''spoilt'''; PERFORM 1/0; END$$"
        ),
    ] {
        spoiler.query(&text);
        let mut other = comparison.proxy.client();
        if comparison.serves(&mut other, ConnectionExpectation::MayStay) {
            unspoilt(&comparison, &mut victim, &text);
        }
    }
    spoiler.terminate();
    unspoilt(&comparison, &mut victim, "when it has left");
}
