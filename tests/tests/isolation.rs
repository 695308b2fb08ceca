//! Nothing of one client is visible to another, found by comparing everything: statement 35.

use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::{Login, Pipeline, Postgres, WireClient};

/// Everything of a session that SQL can see.
const EVERYTHING: [&str; 6] = [
    "select name, setting from pg_settings where name not like 'plpgsql.%' order by name",
    "select name from pg_prepared_statements where from_sql",
    "select * from pg_listening_channels()",
    "select name from pg_cursors where name <> ''",
    "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
    "select current_user, session_user, current_schemas(false)::text, pg_my_temp_schema() = 0 or \
     not exists (select from pg_class where relnamespace = pg_my_temp_schema())",
];

const ACTIONS: [&str; 48] = [
    "set work_mem = '9MB'",
    "set timezone = 'Asia/Tokyo'",
    "set search_path = pg_catalog",
    "set client_encoding = 'LATIN1'",
    "set session authorization default",
    "set default_transaction_isolation = 'serializable'",
    "set session characteristics as transaction read only",
    "set role none",
    "set my.own = 'x'",
    "set application_name = 'action'",
    "begin; set work_mem = '9MB'; commit",
    "begin; set local work_mem = '9MB'; commit",
    "select set_config('work_mem', '9MB', false)",
    "select set_config('my.other', '9MB', false), 1",
    "with x as (select set_config('work_mem', '9MB', false)) select * from x",
    "do $$ begin perform set_config('work_mem', '9MB', false); end $$",
    "do $$ begin execute 'set work_mem = ''9MB'''; end $$",
    "prepare mine as select 1",
    "listen news",
    "begin; listen news; commit",
    "create temp table mine (x int)",
    "create temp view mine as select 1",
    "create temp sequence mine",
    "select pg_advisory_lock(1)",
    "select pg_advisory_lock_shared(1, 2)",
    "begin; declare mine cursor with hold for select 1; commit",
    "update pg_settings set setting = '9MB' where name = 'work_mem'",
    "SET /* hidden */ work_mem TO '9MB'; SELECT 1",
    "explain analyze create temp table mine as select 1",
    "reset all",
    "set role scram",
    "set session authorization app",
    "select pg_catalog.set_config('work_mem', '9MB', false)",
    "select \"set_config\"('work_mem', '9MB', false)",
    "select U&\"set_\\0063onfig\"('work_mem', '9MB', false)",
    "select set_config('work_mem', '9' || 'MB', false)",
    "select set_config('work_mem', '9MB', 1 > 2)",
    "values (set_config('work_mem', '9MB', false))",
    "explain analyze select set_config('work_mem', '9MB', false)",
    "select 1 where exists (select set_config('work_mem', '9MB', false))",
    "select pg_catalog.\"pg_advisory_lock\"(1)",
    "begin; create temp table mine (x int) on commit delete rows; commit",
    "begin; set work_mem = '9MB'; savepoint s; set lock_timeout = '9s'; rollback to s; commit",
    "select 1 into temporary table mine",
    "select set_config(name, '9MB', false) from pg_settings where name = 'work_mem'",
    "set session work_mem from current",
    "alter system reset work_mem",
    "begin; select pg_advisory_xact_lock(1); prepare transaction 'mine'; rollback prepared 'mine'",
];

/// Deeds that fail on PostgreSQL as it is set up here; they must leave nothing either.
const REFUSED: [&str; 2] = ["alter system", "prepare transaction"];

fn everything(client: &mut WireClient) -> Vec<Vec<Vec<String>>> {
    EVERYTHING.iter().map(|sql| client.ok(sql).texts()).collect()
}

/// The rows that are in one of the two only: thousands are in both.
fn differences(found: &[Vec<Vec<String>>], expected: &[Vec<Vec<String>>]) -> Vec<String> {
    let only = |side: &[Vec<Vec<String>>], other: &[Vec<Vec<String>>]| -> Vec<String> {
        let rows = side.iter().zip(other).flat_map(|(rows, others)| {
            rows.iter().filter(|row| !others.contains(row)).map(|row| row.join(" = "))
        });
        rows.collect()
    };
    [only(found, expected), only(expected, found)].concat()
}

#[test]
fn behaviour_35_nothing_of_one_client_is_visible_to_another() {
    let pg = Postgres::start();
    pg.run("grant scram to app");
    let proxy = Config::before(&pg).set("pool_size", 2).set("max_pinned", 1).start();
    let expected = everything(&mut proxy.client());
    for action in ACTIONS {
        for extended in [false, true] {
            if extended && action.contains("; ") && !action.starts_with("do") {
                continue;
            }
            let mut actor = proxy.client();
            let pipeline = if extended {
                Pipeline::new().run(action).sync()
            } else {
                Pipeline::new().query(action)
            };
            let done = actor.run(&pipeline);
            if !REFUSED.iter().any(|refused| action.contains(refused)) {
                done.no_error();
            } else if done.status() != 'I' {
                actor.ok("rollback");
            }
            let beside = everything(&mut proxy.client());
            let seen = differences(&beside, &expected);
            assert!(seen.is_empty(), "{action} was seen beside its client: {seen:?}");
            actor.terminate();
            // Both servers, since each takes one.
            let mut after = [proxy.client(), proxy.client()];
            for client in &mut after {
                client.ok("begin");
            }
            for client in &mut after {
                let seen = differences(&everything(client), &expected);
                assert!(seen.is_empty(), "{action} was seen after its client: {seen:?}");
                client.ok("commit");
            }
        }
    }
}

#[test]
fn behaviour_35_startup_values_are_the_clients_own() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("pool_size", 1).start();
    let expected = everything(&mut proxy.client());
    let options = "-c work_mem=9MB -c search_path=pg_catalog -c my.own=x";
    let login = Login::new("app", "app", "")
        .with("application_name", "action")
        .with("TimeZone", "Asia/Tokyo")
        .with("client_encoding", "LATIN1")
        .with("options", options);
    let mut actor = proxy.log_in(&login);
    assert_eq!(actor.value("show work_mem"), "9MB");
    let seen = differences(&everything(&mut proxy.client()), &expected);
    assert!(seen.is_empty(), "{seen:?}");
    assert_eq!(actor.value("show work_mem"), "9MB");
    actor.terminate();
    let seen = differences(&everything(&mut proxy.client()), &expected);
    assert!(seen.is_empty(), "{seen:?}");
}

#[test]
fn the_strict_option_resets_after_every_transaction() {
    let pg = Postgres::start();
    pg.run(
        "create function hidden() returns text language sql as \
         $$ select set_config('work_mem', '9MB', false) $$",
    );
    let config = Config::before(&pg).set("pool_size", 1);
    let proxy = config.set("reset_query_always", true).start();
    let mut actor = proxy.client();
    actor.ok("set lock_timeout = '3s'");
    actor.ok("select hidden()");
    assert_eq!(proxy.client().value("show work_mem"), "4MB", "the reset query did not run");
    assert_eq!(actor.value("show lock_timeout"), "3s", "the client's own setting was lost");
    actor.run(&Pipeline::new().parse("s", "select 's'").sync()).no_error();
    let run = Pipeline::new().bind("", "s", &[]).execute("", 0).sync();
    assert_eq!(actor.run(&run).value(), "s");
}

#[test]
fn behaviour_35_what_a_function_call_or_a_parameter_sets_stays_with_its_client() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("pool_size", 2).set("max_pinned", 1).start();
    let oid = |name: &str| -> u32 {
        pg.value(&format!("select '{name}'::regprocedure::oid")).parse().expect("an oid")
    };
    let call = |function: u32, arguments: &[&str]| {
        let mut body = [&function.to_be_bytes()[..], &[0, 0, 0]].concat();
        body.push(u8::try_from(arguments.len()).expect("few arguments"));
        for argument in arguments {
            body.extend(u32::try_from(argument.len()).expect("short").to_be_bytes());
            body.extend(argument.as_bytes());
        }
        Pipeline::new().message(b'F', &[&body[..], &[0, 0]].concat())
    };
    let parameters = |sql: &str, values: &[&str]| {
        Pipeline::new().parse("", sql).bind("", "", values).execute("", 0).sync()
    };
    let actions = [
        call(oid("set_config(text,text,bool)"), &["work_mem", "9MB", "f"]),
        call(oid("pg_advisory_lock(bigint)"), &["7"]),
        parameters("select set_config($1, $2, $3::bool)", &["work_mem", "9MB", "f"]),
        parameters("select set_config('work_mem', $1, false)", &["9MB"]),
        parameters("select pg_advisory_lock($1)", &["7"]),
    ];
    let expected = everything(&mut proxy.client());
    for action in &actions {
        let mut actor = proxy.client();
        actor.run(action).no_error();
        let seen = differences(&everything(&mut proxy.client()), &expected);
        assert!(seen.is_empty(), "{} was seen: {seen:?}", action.bytes().escape_ascii());
        actor.terminate();
        let mut after = [proxy.client(), proxy.client()];
        for client in &mut after {
            client.ok("begin");
        }
        for client in &mut after {
            let seen = differences(&everything(client), &expected);
            assert!(seen.is_empty(), "{} was seen later: {seen:?}", action.bytes().escape_ascii());
            client.ok("commit");
        }
    }
}
