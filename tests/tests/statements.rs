//! Names and plans of prepared statements: statements 16, 17, 60 to 62.

use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::{Pgimbal, Pipeline, Postgres, WireClient};

fn pool_of_one() -> (Postgres, Pgimbal) {
    let pg = Postgres::start();
    pg.run("create table t (x int); grant all on t to app");
    let proxy = Config::before(&pg).set("pool_size", 1).start();
    (pg, proxy)
}

fn run(name: &str) -> Pipeline {
    Pipeline::new().bind("", name, &[]).execute("", 0)
}

#[test]
fn behaviour_16_a_duplicate_name_is_42p05_and_an_unknown_one_26000() {
    let (_pg, proxy) = pool_of_one();
    let mut client = proxy.client();
    client.run(&Pipeline::new().parse("s", "select 1").sync()).no_error();
    for sql in ["select 1", "select 2"] {
        let duplicate = client.run(&Pipeline::new().parse("s", sql).sync());
        assert_eq!(duplicate.sqlstate(), "42P05");
        assert_eq!(duplicate.errors()[0].message, "prepared statement \"s\" already exists");
        assert_eq!(client.run(&run("s").sync()).value(), "1");
    }
    for unknown in [run("no").sync(), Pipeline::new().describe_statement("no").sync()] {
        let unknown = client.run(&unknown);
        assert_eq!(unknown.sqlstate(), "26000");
        assert_eq!(unknown.errors()[0].message, "prepared statement \"no\" does not exist");
    }
    assert_eq!(client.run(&run("s").sync()).value(), "1");
}

#[test]
fn behaviour_16_in_a_pipeline_what_ran_before_is_rolled_back() {
    let (_pg, proxy) = pool_of_one();
    let mut client = proxy.client();
    client.run(&Pipeline::new().parse("s", "select 1").sync()).no_error();
    let insert = || Pipeline::new().run("insert into t values (1)");
    let wrong = [
        (insert().bind("", "no", &[]).execute("", 0).sync(), "26000"),
        (insert().describe_statement("no").sync(), "26000"),
        (insert().parse("s", "select 2").sync(), "42P05"),
        (insert().parse("s", "select 1").run("insert into t values (2)").sync(), "42P05"),
    ];
    for (pipeline, code) in wrong {
        let reply = client.run(&pipeline);
        assert_eq!(reply.sqlstate(), code);
        assert_eq!(client.value("select count(*) from t"), "0", "{code} kept what ran before");
    }
    client.ok("begin");
    client.ok("insert into t values (3)");
    let failed = client.run(&Pipeline::new().parse("s", "select 2").sync());
    assert_eq!((failed.sqlstate().as_str(), failed.status()), ("42P05", 'E'));
    client.ok("commit");
    assert_eq!(client.value("select count(*) from t"), "0");
    assert_eq!(client.run(&run("s").sync()).value(), "1");
}

#[test]
fn behaviour_16_a_client_cannot_name_what_is_not_its_own() {
    let (_pg, proxy) = pool_of_one();
    let mut owner = proxy.client();
    owner.run(&Pipeline::new().parse("s", "select 'secret'").sync()).no_error();
    assert_eq!(owner.run(&run("s").sync()).value(), "secret");
    let mut thief = proxy.client();
    let server_side = thief.value("select name from pg_prepared_statements limit 1");
    assert_eq!(thief.run(&run(&server_side).sync()).sqlstate(), "26000");
    let parse = Pipeline::new().parse(&server_side, "select 'mine'").sync();
    thief.run(&parse).no_error();
    assert_eq!(thief.run(&run(&server_side).sync()).value(), "mine");
    assert_eq!(owner.run(&run("s").sync()).value(), "secret");
    thief.run(&Pipeline::new().close_statement(&server_side).sync()).no_error();
    assert_eq!(owner.run(&run("s").sync()).value(), "secret");
}

#[test]
fn behaviour_17_a_failed_or_skipped_parse_leaves_no_name() {
    let (_pg, proxy) = pool_of_one();
    let mut client = proxy.client();
    let failed = client.run(&Pipeline::new().parse("s", "selec").sync());
    assert_eq!(failed.sqlstate(), "42601");
    assert_eq!(client.run(&run("s").sync()).sqlstate(), "26000");
    client.run(&Pipeline::new().parse("s", "select 1").sync()).no_error();
    assert_eq!(client.run(&run("s").sync()).value(), "1");
    let skipped = Pipeline::new().parse("bad", "selec").parse("t", "select 2");
    let skipped = client.run(&skipped.close_statement("s").sync());
    assert_eq!(skipped.sqlstate(), "42601");
    assert_eq!(client.run(&run("t").sync()).sqlstate(), "26000");
    assert_eq!(client.run(&run("s").sync()).value(), "1", "a skipped Close took effect");
    client.run(&Pipeline::new().parse("t", "select 3").sync()).no_error();
    assert_eq!(client.run(&run("t").sync()).value(), "3");
}

#[test]
fn behaviour_60_eviction_leaves_the_statement_of_an_open_portal() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("pool_size", 1).set("max_prepared_statements", 2).start();
    let mut client = proxy.client();
    client.ok("begin");
    let open = Pipeline::new().parse("open", "select generate_series(1, 4)");
    let open = open.bind("p", "open", &[]).execute("p", 2).sync();
    assert_eq!(client.run(&open).tags(), "12DDsZ");
    let name = client.value("select name from pg_prepared_statements");
    for number in 0..6 {
        let parse = Pipeline::new().parse(&format!("s{number}"), &format!("select {number}"));
        let run = parse.bind("", &format!("s{number}"), &[]).execute("", 0).sync();
        assert_eq!(client.run(&run).value(), number.to_string());
        let still = format!("select count(*) from pg_prepared_statements where name = '{name}'");
        assert_eq!(client.value(&still), "1", "evicted under an open portal");
    }
    let rest = client.run(&Pipeline::new().execute("p", 0).sync());
    assert_eq!(rest.texts(), [["3"], ["4"]]);
    client.ok("commit");
}

#[test]
fn behaviour_61_an_unnamed_statement_keeps_its_custom_plans() {
    let (_pg, proxy) = pool_of_one();
    let mut client = proxy.client();
    let sql = "select count(*) from generate_series(1, 10) as g where g < $1::int";
    for number in 1..=12_u32 {
        let run = Pipeline::new().parse("", sql).bind("", "", &[&number.to_string()]);
        let reply = client.run(&run.execute("", 0).sync());
        assert_eq!(reply.value(), (number - 1).min(10).to_string());
    }
    client.run(&Pipeline::new().parse("", sql).sync()).no_error();
    for number in 1..=12_u32 {
        let bind = Pipeline::new().bind("", "", &[&number.to_string()]).execute("", 0).sync();
        client.run(&bind).no_error();
    }
    let generic = "select coalesce(sum(generic_plans), 0) from pg_prepared_statements";
    assert_eq!(client.value(generic), "0", "an unnamed statement was planned generically");
}

#[test]
fn behaviour_62_a_text_above_the_limit_keeps_its_client_on_the_server() {
    let pg = Postgres::start();
    let config = Config::before(&pg).set("pool_size", 1).set("max_pinned", 1);
    let proxy = config.set("max_statement_bytes", "\"1KiB\"").start();
    let (mut a, mut b) = (proxy.client(), proxy.client());
    let long = format!("select 'long' -- {}", "x".repeat(4000));
    a.run(&Pipeline::new().parse("long", &long).sync()).no_error();
    assert_eq!(a.run(&run("long").sync()).value(), "long");
    b.start_query("select 'b'");
    proxy.wait_for_waiting(1);
    assert_eq!(a.run(&run("long").sync()).value(), "long");
    a.run(&Pipeline::new().close_statement("long").sync()).no_error();
    assert_eq!(b.read_reply().value(), "b");
    // An unnamed one is no reason to stay: it goes with the next Parse, but must be right.
    let whole = Pipeline::new().run(&long).sync();
    assert_eq!(WireClient::run(&mut a, &whole).value(), "long");
}
