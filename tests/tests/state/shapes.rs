//! Prepared statements whose rows or parameters have changed, and one name space for SQL and the
//! protocol: cases 32 and 33.

use pgimbal_tests::script::comparable_replies;
use pgimbal_tests::{
    Comparison, ConnectionExpectation, Message, Pipeline, Reply, Script, Shape, WireClient,
};

const TABLE: &str = "create table t (a int8); insert into t values (1); grant all on t to public";

/// A pool of two with the table.
fn comparison() -> Comparison {
    Comparison::with(TABLE, |config| config.set("pool_size", 2))
}

fn binary(name: &str) -> Pipeline {
    Pipeline::new().bind_binary("", name, &[]).execute("", 0).sync()
}

fn prepare(name: &str, sql: &str) -> Pipeline {
    Pipeline::new().parse(name, sql).describe_statement(name).sync()
}

/// Clients that hold the server connection which `client` had until now; the other is free.
fn occupy(comparison: &Comparison, client: &mut WireClient) -> WireClient {
    let backend = client.backend();
    let mut others = Vec::new();
    loop {
        let mut holder = comparison.proxy.client();
        holder.ok("begin");
        if holder.backend() == backend {
            for mut other in others {
                WireClient::ok(&mut other, "rollback");
            }
            return holder;
        }
        others.push(holder);
        assert!(others.len() < 2, "the pool has two");
    }
}

/// The fields of an error that drivers look at: SQLSTATE, message, file and routine.
fn fields(reply: &Reply) -> Vec<Option<String>> {
    let errors = reply.errors();
    assert_eq!(errors.len(), 1, "one error expected: {reply:?}");
    "SCMFR".chars().map(|field| errors[0].fields.get(&field).cloned()).collect()
}

/// A statement whose rows change under a client; it is told so on every connection until it
/// parses anew, and then it works.
fn changed_rows(comparison: &Comparison, sql: &str, alter: &str, run: &dyn Fn(&str) -> Pipeline) {
    let (mut client, mut twin) = (comparison.pooled(), comparison.direct());
    for own in [&mut client, &mut twin] {
        own.run(&prepare("s1", sql)).no_error();
        own.run(&binary("s1")).no_error();
    }
    let mut holder = occupy(comparison, &mut client);
    comparison.run(alter);
    let must = twin.run(&run("s1"));
    assert_eq!(must.sqlstate(), "0A000", "the case is not what it was");
    let must = fields(&must);
    assert_eq!(must[3..], [Some("plancache.c".into()), Some("RevalidateCachedQuery".into())]);
    assert_eq!(fields(&client.run(&run("s1"))), must, "{alter}: where the statement was missing");
    assert_eq!(fields(&client.run(&run("s1"))), must, "{alter}: again");
    holder.ok("rollback");
    let mut other = occupy(comparison, &mut client);
    assert_eq!(fields(&client.run(&run("s1"))), must, "{alter}: on the other connection");
    other.ok("rollback");
    for (close, name) in [(false, "s2"), (true, "s1")] {
        let close = if close { Pipeline::new().close_statement(name) } else { Pipeline::new() };
        let anew = close.parse(name, sql).describe_statement(name);
        let anew = anew.bind_binary("", name, &[]).execute("", 0).sync();
        let [ours, must] =
            [&mut client, &mut twin].map(|own| comparable_replies(&[own.run(&anew)]));
        assert_eq!(ours, must, "{alter}: parsed anew as {name}");
        let _holder = occupy(comparison, &mut client);
        assert_eq!(client.run(&binary(name)).errors(), [], "{alter}: anew as {name}, elsewhere");
    }
}

#[test]
fn state_case_32_rows_of_another_shape_than_was_described() {
    changed_rows(&comparison(), "select * from t", "alter table t alter a type float8", &binary);
}

#[test]
fn state_case_32_1_by_a_column_more_or_less_or_another_name() {
    let comparison = comparison();
    for alter in [
        "alter table t add column b text",
        "alter table t drop column b",
        "alter table t rename a to c",
        "alter table t alter c type varchar(5)",
        "alter table t alter c type varchar(7)",
    ] {
        changed_rows(&comparison, "select * from t", alter, &binary);
    }
}

#[test]
fn state_case_32_2_in_a_pipeline_in_a_block_and_by_describe() {
    let comparison = comparison();
    let wholes: [&dyn Fn(&str) -> Pipeline; 3] = [
        &|name| Pipeline::new().run("select 1").bind_binary("", name, &[]).execute("", 0).sync(),
        &|name| Pipeline::new().bind("p", name, &[]).describe_portal("p").execute("p", 1).sync(),
        &|name| Pipeline::new().run("select 1").describe_statement(name).bind("", name, &[]).sync(),
    ];
    for (number, run) in wholes.into_iter().enumerate() {
        let alter = format!("alter table t add column more{number} int");
        changed_rows(&comparison, "select * from t", &alter, run);
    }
    let sql = "insert into t (a) values (2) returning *";
    changed_rows(&comparison, sql, "alter table t add column last int", &binary);
    // What the same segment did before is undone with it.
    let (mut client, before) =
        (comparison.pooled(), comparison.pg.value("select count(*) from accounts"));
    client.run(&prepare("s1", "select * from t")).no_error();
    let _holder = occupy(&comparison, &mut client);
    comparison.run("alter table t add column very_last int");
    let insert = Pipeline::new().run("insert into accounts values (9, 'x')");
    let segment = insert.raw(binary("s1").bytes());
    assert_eq!(client.run(&segment).sqlstate(), "0A000");
    assert_eq!(comparison.pg.value("select count(*) from accounts"), before);
    client.ok("begin");
    let failed = client.run(&binary("s1"));
    assert_eq!((failed.sqlstate(), failed.status()), ("0A000".to_owned(), 'E'));
    client.ok("rollback");
}

#[test]
fn state_case_32_3_where_the_statement_was_evicted_or_the_server_is_new() {
    let change = |config: pgimbal_tests::pgimbal::Config| config.set("max_prepared_statements", 1);
    let comparison = Comparison::with(TABLE, change);
    for evict in [true, false] {
        let mut client = comparison.pooled();
        client.run(&prepare("s1", "select * from t")).no_error();
        if evict {
            client.run(&prepare("s2", "select 2")).no_error();
            client.run(&binary("s2")).no_error();
        } else {
            comparison.pg.end_backends();
        }
        comparison
            .run(&format!("alter table t alter a type {}", if evict { "float8" } else { "int4" }));
        for _ in 0..2 {
            let got = client.run(&binary("s1"));
            assert_eq!(got.sqlstate(), "0A000", "{got:?}");
        }
        client.run(&Pipeline::new().close_statement("s1").sync()).no_error();
        client.run(&prepare("s1", "select * from t")).no_error();
        client.run(&binary("s1")).no_error();
    }
    // An equal shape, though the table is another one, is none of it.
    let mut client = comparison.pooled();
    client.run(&prepare("s1", "select * from t")).no_error();
    client.run(&prepare("s2", "select 2")).no_error();
    comparison.run(
        "drop table t; create table t (a int4); insert into t values (5); grant all on t to public",
    );
    let got = client.run(&Pipeline::new().bind("", "s1", &[]).execute("", 0).sync());
    assert_eq!(got.value(), "5");
}

#[test]
fn state_case_32b_parameters_keep_the_types_that_were_told() {
    let comparison = comparison();
    let sql = "insert into t values ($1)";
    for (alter, shape) in [("float8", "int8"), ("int4", "float8"), ("numeric", "int4")] {
        let (mut client, mut twin) = (comparison.pooled(), comparison.direct());
        let one: Vec<u8> = match shape {
            "int8" => 1_i64.to_be_bytes().into(),
            "int4" => 1_i32.to_be_bytes().into(),
            _ => 1_f64.to_be_bytes().into(),
        };
        let [ours, must] =
            [&mut client, &mut twin].map(|own| comparable_replies(&[own.run(&prepare("s1", sql))]));
        assert_eq!(ours, must);
        let _holder = occupy(&comparison, &mut client);
        comparison.run(&format!("alter table t alter a type {alter}; truncate t"));
        let bind = Pipeline::new().bind_binary("", "s1", &[&one]).execute("", 0).sync();
        let [ours, must] =
            [&mut client, &mut twin].map(|own| comparable_replies(&[own.run(&bind)]));
        assert_eq!(ours, must, "to {alter}");
        assert_eq!(twin.value("select a from t"), "1", "the case is not what it was");
        assert_eq!(client.value("select a from t"), "1", "to {alter}");
        let described = Pipeline::new().describe_statement("s1").sync();
        let [ours, must] =
            [&mut client, &mut twin].map(|own| comparable_replies(&[own.run(&described)]));
        assert_eq!(ours, must, "to {alter}: described again");
    }
}

#[test]
fn state_case_32c_a_statement_of_other_parameter_types_is_not_shared() {
    let comparison = Comparison::with(TABLE, |config| config);
    let sql = "insert into t values ($1)";
    let mut first = comparison.pooled();
    first.run(&prepare("s1", sql)).no_error();
    comparison.run("alter table t alter a type float8; truncate t");
    for name in ["s1", "other"] {
        let (mut second, mut twin) = (comparison.proxy.client(), comparison.direct());
        let [ours, must] =
            [&mut second, &mut twin].map(|own| comparable_replies(&[own.run(&prepare(name, sql))]));
        assert_eq!(ours, must, "{name}");
        let bind = Pipeline::new().bind_binary("", name, &[&1_f64.to_be_bytes()]).execute("", 0);
        second.run(&bind.sync()).no_error();
        assert_eq!(second.value("select string_agg(a::text, ' ') from t"), "1", "{name}");
        // Nor is the first one's taken from it.
        let bind = Pipeline::new().bind_binary("", "s1", &[&1_i64.to_be_bytes()]).execute("", 0);
        first.run(&bind.sync()).no_error();
        assert_eq!(first.value("select string_agg(a::text, ' ') from t"), "1 1", "{name}");
        comparison.run("truncate t");
        comparison.pg.end_backends();
    }
}

/// `s1` by the protocol and `p1` by SQL.
fn both_names() -> Script {
    let parse = Pipeline::new().parse("s1", "select id, owner from accounts where id > $1").sync();
    Script::default().messages(parse, 1).then(&["PREPARE p1 (int) AS SELECT $1 + 1 AS x"])
}

/// A script, and what it is about.
fn name_spaces() -> Vec<(&'static str, Script)> {
    let message = |pipeline: Pipeline| Script::default().messages(pipeline.sync(), 1);
    let q = |sql: &str| Script::default().messages(Pipeline::new().query(sql), 1);
    vec![
        ("EXECUTE", q("EXECUTE s1(0)")),
        ("EXPLAIN EXECUTE", q("EXPLAIN (COSTS OFF) EXECUTE s1(0)")),
        (
            "CREATE TABLE AS",
            q("CREATE TABLE made AS EXECUTE s1(0)")
                .then(&["SELECT * FROM made", "DROP TABLE made"]),
        ),
        ("a text of several", q("SELECT 1; EXECUTE s1(0); SELECT 2")),
        ("EXECUTE that fails", q("EXECUTE s1('x')")),
        (
            "EXECUTE in a block",
            q("BEGIN").then(&["EXECUTE s1(0)", "EXECUTE nosuchname", "ROLLBACK", "EXECUTE s1(0)"]),
        ),
        ("dynamic EXECUTE", q("DO $$BEGIN EXECUTE 'EXECUTE s1(0)'; END$$")),
        ("PREPARE of a name in use", q("PREPARE s1 AS SELECT 1")),
        ("PREPARE of its own name", q("PREPARE p1 AS SELECT 1")),
        ("Parse of a name in use", message(Pipeline::new().parse("p1", "select 1"))),
        ("Bind of an SQL name", message(Pipeline::new().bind("", "p1", &["1"]).execute("", 0))),
        ("Describe of an SQL name", message(Pipeline::new().describe_statement("p1"))),
        (
            "Close of an SQL name",
            message(Pipeline::new().close_statement("p1")).then(&["EXECUTE p1(1)"]),
        ),
        (
            "Close and Parse",
            message(
                Pipeline::new()
                    .close_statement("p1")
                    .parse("p1", "select 7")
                    .bind("", "p1", &[])
                    .execute("", 0),
            )
            .then(&["EXECUTE p1"]),
        ),
        (
            "DEALLOCATE",
            q("DEALLOCATE s1").messages(Pipeline::new().bind("", "s1", &["0"]).sync(), 1),
        ),
        (
            "DEALLOCATE and PREPARE",
            q("DEALLOCATE s1; PREPARE s1 AS SELECT 5")
                .messages(Pipeline::new().bind("", "s1", &[]).execute("", 0).sync(), 1),
        ),
        (
            "EXECUTE by the protocol",
            message(
                Pipeline::new()
                    .parse("e", "EXECUTE s1(0)")
                    .describe_statement("e")
                    .bind("", "e", &[])
                    .execute("", 0),
            ),
        ),
        ("quoted and folded", q("EXECUTE \"s1\"(0); EXECUTE S1(0)")),
        ("an unknown name", q("EXECUTE nosuchname")),
    ]
}

/// Takes the server connection that somebody had until now, if it is free, and gives back the
/// one that `old` has.
fn move_on(comparison: &Comparison, old: Option<WireClient>) -> WireClient {
    let mut new = comparison.proxy.client();
    let served = comparison.serves_query(&mut new, "begin", ConnectionExpectation::MayStay);
    if let Some(mut old) = old {
        old.ok("rollback");
        old.terminate();
    }
    if !served {
        new.read_reply();
    }
    new
}

fn compare_names(comparison: &Comparison, elsewhere: bool) {
    let mut differences = Vec::new();
    for (what, script) in name_spaces() {
        for shape in Shape::WAITING {
            let (mut client, mut twin) = (comparison.pooled(), comparison.direct());
            both_names().play(&mut client, Shape::Queries);
            both_names().play(&mut twin, Shape::Queries);
            let mut holder = None;
            for number in 0..script.len() {
                // In a block the client has the other connection.
                if elsewhere && (number == 0 || !what.contains("in a block")) {
                    holder = Some(move_on(comparison, holder));
                }
                let ours = comparable_replies(&script.play_step(&mut client, shape, number));
                let must = comparable_replies(&script.play_step(&mut twin, shape, number));
                if ours != must {
                    differences.push(format!(
                        "{what} {shape:?} step {number}: {ours:?}\n  must be {must:?}"
                    ));
                }
            }
            client.terminate();
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn state_case_33_one_name_space_in_transaction_mode() {
    compare_names(&comparison(), false);
}

#[test]
fn state_case_33b_one_name_space_in_session_mode() {
    let comparison =
        Comparison::with("", |config| config.set("pool_mode", "\"session\"").set("pool_size", 4));
    compare_names(&comparison, false);
}

#[test]
fn state_case_33c_when_another_connection_serves_in_between() {
    compare_names(&comparison(), true);
}

#[test]
fn state_case_33d_names_reach_nobody_and_end_with_their_client() {
    let comparison = Comparison::new();
    let both = Script::new(&["PREPARE p1 AS SELECT 1", "EXECUTE p1"]);
    comparison.compare(&both, ConnectionExpectation::MayStay);
    let mut client = comparison.pooled();
    client.run(&Pipeline::new().parse("s1", "select 'mine'").sync()).no_error();
    assert_eq!(client.query("EXECUTE s1").errors(), []);
    let mut next = comparison.proxy.client();
    for pipeline in [
        Pipeline::new().query("EXECUTE s1"),
        Pipeline::new().bind("", "s1", &[]).sync(),
        Pipeline::new().query("EXECUTE p1"),
    ] {
        assert_eq!(next.run(&pipeline).sqlstate(), "26000");
    }
    // Nothing of its making shows.
    let shown = "select count(*) from pg_prepared_statements where name in ('s1', 'p1')";
    assert_eq!(next.value(shown), "0");
    assert!(client.query("EXECUTE s1").messages.iter().any(|m: &Message| m.tag == b'D'));
}
