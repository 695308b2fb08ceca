//! Prepared statements that follow their client over server connections: statements 14, 15, 18,
//! 19, 21, 22.

use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::{Login, Pgimbal, Pipeline, Postgres, Reply, WireClient};

fn prepare(client: &mut WireClient, name: &str, sql: &str) -> Reply {
    client.run(&Pipeline::new().parse(name, sql).sync())
}

fn execute(client: &mut WireClient, name: &str) -> Reply {
    client.run(&Pipeline::new().bind("", name, &[]).execute("", 0).sync())
}

fn pool(size: u32) -> (Postgres, Pgimbal) {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("pool_size", size).start();
    (pg, proxy)
}

#[test]
fn statements_follow_their_client_to_another_server() {
    let (pg, proxy) = pool(2);
    let mut client = proxy.client();
    prepare(&mut client, "s", "select $1::int + 1").no_error();
    for value in ["1", "41"] {
        pg.end_backends();
        let bind = Pipeline::new().bind("", "s", &[value]).execute("", 0).sync();
        let expected: i32 = value.parse::<i32>().expect("a number") + 1;
        assert_eq!(client.run(&bind).value(), expected.to_string());
        pg.end_backends();
        let describe = client.run(&Pipeline::new().describe_statement("s").sync());
        assert_eq!(describe.no_error().tags(), "tTZ");
    }
}

#[test]
fn behaviour_14_a_failed_injected_parse_is_forgotten() {
    let (pg, proxy) = pool(1);
    pg.run("create table t as select 1 as x; grant all on t to app");
    let mut client = proxy.client();
    prepare(&mut client, "s", "select x from t").no_error();
    pg.end_backends();
    pg.run("drop table t");
    for _ in 0..2 {
        assert_eq!(execute(&mut client, "s").sqlstate(), "42P01");
    }
    pg.run("create table t as select 2 as x; grant all on t to app");
    assert_eq!(execute(&mut client, "s").value(), "2");
    assert_eq!(execute(&mut client, "s").value(), "2");
}

#[test]
fn behaviour_14_a_failed_eviction_close_is_remembered() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("pool_size", 1).set("max_prepared_statements", 2).start();
    let mut client = proxy.client();
    prepare(&mut client, "a", "select 'a'").no_error();
    prepare(&mut client, "b", "select 'b'").no_error();
    // Whatever is closed to make room for c is not closed: the server skips it.
    let skipped = Pipeline::new().run("select 1/0").parse("c", "select 'c'").sync();
    assert_eq!(client.run(&skipped).sqlstate(), "22012");
    assert_eq!(execute(&mut client, "c").sqlstate(), "26000");
    prepare(&mut client, "c", "select 'c'").no_error();
    for _ in 0..2 {
        for name in ["a", "b", "c"] {
            assert_eq!(execute(&mut client, name).value(), name);
        }
    }
    let kept = client.value("select count(*) from pg_prepared_statements");
    assert!(kept.parse::<u32>().expect("a count") <= 2, "{kept} statements on the server");
}

#[test]
fn behaviour_15_equal_statements_are_shared() {
    let (pg, proxy) = pool(1);
    let mut clients: Vec<WireClient> = (0..5).map(|_| proxy.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        prepare(client, &format!("mine{number}"), "select 'shared'").no_error();
    }
    // A new server is given one statement for all of them.
    pg.end_backends();
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(execute(client, &format!("mine{number}")).value(), "shared");
    }
    let sql = "select count(*) from pg_prepared_statements where statement like '%shared%'";
    assert_eq!(proxy.client().value(sql), "1");
}

#[test]
fn behaviour_15_settings_at_parse_part_statements() {
    let (pg, proxy) = pool(1);
    pg.run(
        "create schema one; create schema two; create table one.t as select 1 as x; \
         create table two.t as select 2 as x; grant all on schema one, two to app; \
         grant all on one.t, two.t to app",
    );
    let noon = "select timestamptz '2024-06-01 12:00' at time zone 'UTC'";
    let cases = [
        ("set timezone = 'UTC'", "set timezone = 'Asia/Tokyo'", noon),
        (
            "set datestyle = 'ISO, MDY'",
            "set datestyle = 'ISO, DMY'",
            "select date '02/03/2024' - '2024-01-01'",
        ),
        ("set search_path = one", "set search_path = two", "select x from t"),
        (
            "set intervalstyle = 'postgres'",
            "set intervalstyle = 'sql_standard'",
            "select extract(hour from interval '-1 2:00:00')",
        ),
    ];
    let mut direct = pg.superuser();
    for (left, right, sql) in cases {
        let mut clients = [proxy.client(), proxy.client()];
        for round in 0..2 {
            for (client, setting) in clients.iter_mut().zip([left, right]) {
                direct.ok(setting);
                let expected = direct.value(sql);
                if round == 0 {
                    client.ok(setting);
                    prepare(client, "s", sql).no_error();
                }
                assert_eq!(execute(client, "s").value(), expected, "{setting}: {sql}");
            }
        }
        direct.ok("reset all");
    }
}

#[test]
fn behaviour_15_startup_settings_and_parameter_types_part_statements() {
    let (_pg, proxy) = pool(1);
    let noon = "select timestamptz '2024-06-01 12:00' at time zone 'UTC'";
    for (zone, expected) in [("UTC", "2024-06-01 12:00:00"), ("Asia/Tokyo", "2024-06-01 03:00:00")]
    {
        let mut client = proxy.log_in(&Login::new("app", "app", "").with("TimeZone", zone));
        prepare(&mut client, "s", noon).no_error();
        assert_eq!(execute(&mut client, "s").value(), expected, "{zone}");
    }
    for (oid, expected) in [(23, "integer"), (25, "text"), (1700, "numeric"), (23, "integer")] {
        let mut client = proxy.client();
        let run = Pipeline::new().parse_typed("s", "select pg_typeof($1)", &[oid]);
        let run = run.bind("", "s", &["1"]).execute("", 0).sync();
        assert_eq!(client.run(&run).value(), expected);
    }
}

#[test]
fn behaviour_18_unnamed_statement_is_the_clients_own() {
    let (_pg, proxy) = pool(1);
    let (mut a, mut b) = (proxy.client(), proxy.client());
    prepare(&mut a, "", "select 'a'").no_error();
    prepare(&mut b, "", "select 'b'").no_error();
    assert_eq!(execute(&mut a, "").value(), "a");
    assert_eq!(execute(&mut b, "").value(), "b");
    let describe = a.run(&Pipeline::new().describe_statement("").sync());
    assert_eq!(describe.no_error().tags(), "tTZ");
    b.ok("select 'a simple query takes the unnamed statement away'");
    assert_eq!(execute(&mut b, "").sqlstate(), "26000");
    assert_eq!(execute(&mut a, "").value(), "a");
}

#[test]
fn behaviour_19_a_text_parsed_anew_after_ddl_has_a_fresh_plan() {
    let (pg, proxy) = pool(1);
    pg.run("create table t as select 1 as x; grant all on t to app");
    let (mut a, mut b) = (proxy.client(), proxy.client());
    prepare(&mut a, "s", "select * from t").no_error();
    assert_eq!(execute(&mut a, "s").texts(), [["1"]]);
    pg.run("alter table t add column y int default 2");
    prepare(&mut b, "s", "select * from t").no_error();
    assert_eq!(execute(&mut b, "s").no_error().texts(), [["1", "2"]]);
    a.run(&Pipeline::new().close_statement("s").sync()).no_error();
    prepare(&mut a, "s", "select * from t").no_error();
    assert_eq!(execute(&mut a, "s").no_error().texts(), [["1", "2"]]);
    pg.run("alter table t add column z int default 3");
    let mut c = proxy.client();
    let one_go = Pipeline::new().parse("s", "select * from t").bind("", "s", &[]);
    let reply = c.run(&one_go.execute("", 0).sync());
    assert_eq!(reply.no_error().texts(), [["1", "2", "3"]]);
}

#[test]
fn behaviour_21_deallocate_all_clears_the_clients_own_statements() {
    let (_pg, proxy) = pool(1);
    for sql in ["deallocate all", "DISCARD ALL", "deallocate prepare all;", "/* x */ discard all"] {
        let (mut a, mut b) = (proxy.client(), proxy.client());
        prepare(&mut a, "s", "select 's'").no_error();
        prepare(&mut b, "s", "select 's'").no_error();
        a.ok(sql);
        assert_eq!(execute(&mut a, "s").sqlstate(), "26000", "{sql}");
        assert_eq!(execute(&mut b, "s").value(), "s", "{sql}");
        prepare(&mut a, "s", "select 'new'").no_error();
        assert_eq!(execute(&mut a, "s").value(), "new", "{sql}");
    }
}

#[test]
fn behaviour_21_also_when_pipelined() {
    let (_pg, proxy) = pool(1);
    let (mut a, mut b) = (proxy.client(), proxy.client());
    prepare(&mut b, "s", "select 's'").no_error();
    prepare(&mut a, "s", "select 's'").no_error();
    let extended = Pipeline::new()
        .run("deallocate all")
        .parse("s", "select 'new'")
        .bind("", "s", &[])
        .execute("", 0)
        .sync();
    let reply = a.run(&extended);
    assert_eq!(reply.no_error().tags(), "12C12DCZ");
    assert_eq!(reply.value(), "new");
    let simple = Pipeline::new().query("deallocate all").parse("s", "select 'newer'");
    a.send(simple.bind("", "s", &[]).execute("", 0).sync().bytes());
    a.read_reply().no_error();
    assert_eq!(a.read_reply().value(), "newer");
    assert_eq!(execute(&mut b, "s").value(), "s");
}

#[test]
fn deallocate_of_one_name_reaches_the_protocols_statement() {
    let (_pg, proxy) = pool(1);
    let (mut a, mut b) = (proxy.client(), proxy.client());
    prepare(&mut a, "S one", "select 's'").no_error();
    prepare(&mut b, "S one", "select 's'").no_error();
    a.ok("deallocate \"S one\"");
    assert_eq!(execute(&mut a, "S one").sqlstate(), "26000");
    assert_eq!(execute(&mut b, "S one").value(), "s");
    assert_eq!(a.query("deallocate \"S one\"").sqlstate(), "26000");
    prepare(&mut a, "S one", "select 'again'").no_error();
    assert_eq!(execute(&mut a, "S one").value(), "again");
}

#[test]
fn a_deallocate_that_fails_or_is_skipped_takes_nothing_away() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("pool_size", 1).set("max_pinned", 1).start();
    let deallocate = || Pipeline::new().parse("", "deallocate p").bind("", "", &[]);
    for in_a_block in [false, true] {
        let mut client = proxy.client();
        client.ok("prepare p as select 'p'");
        prepare(&mut client, "s", "select 's'").no_error();
        if in_a_block {
            client.ok("begin");
            assert_eq!(client.query("selec").status(), 'E');
            let failed = client.run(&deallocate().execute("", 0).sync());
            assert_eq!(failed.sqlstate(), "25P02");
            client.ok("rollback");
        } else {
            let skipped = Pipeline::new().execute("no such portal", 0);
            let skipped = skipped.raw(deallocate().execute("", 0).sync().bytes());
            assert_eq!(client.run(&skipped).sqlstate(), "34000");
        }
        assert_eq!(client.value("execute p"), "p", "in a block: {in_a_block}");
        assert_eq!(execute(&mut client, "s").value(), "s", "in a block: {in_a_block}");
    }
}

#[test]
fn behaviour_22_the_number_of_statements_on_a_server_is_limited() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("pool_size", 1).set("max_prepared_statements", 5).start();
    let mut client = proxy.client();
    for round in 0..3 {
        for number in 0..20 {
            let (name, sql) = (format!("s{number}"), format!("select {number}"));
            if round == 0 {
                prepare(&mut client, &name, &sql).no_error();
            }
            assert_eq!(execute(&mut client, &name).value(), number.to_string());
        }
        let kept = client.value("select count(*) from pg_prepared_statements");
        assert!(kept.parse::<u32>().expect("a count") <= 5, "{kept} statements on the server");
    }
    // The least recently used go first: a statement used between all others stays.
    let names = "select string_agg(statement, ',') from pg_prepared_statements";
    for number in 0..12 {
        execute(&mut client, "s19").no_error();
        execute(&mut client, &format!("s{number}")).no_error();
    }
    assert!(client.value(names).contains("select 19"), "the most used statement was evicted");
}
