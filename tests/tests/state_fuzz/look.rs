//! How a session is asked what it stands at, in words that nothing of the client's can answer.

use super::exceptions::RESET_ONLY;
use super::script::Msg;
use super::side::Side;
use super::texts::{SENSITIVE, SETTINGS};

/// What pg_temp holds, the locks, the channels, the holdable cursors: one row each.
const OBJECTS: &str = "\
select pg_catalog.array_agg(o order by o) from (\
  select pg_catalog.pg_describe_object(classid, objid, objsubid) as o \
    from pg_catalog.pg_depend where refclassid operator(pg_catalog.=) 2615::pg_catalog.oid \
  and refobjid operator(pg_catalog.=) pg_catalog.pg_my_temp_schema()) x;\
select pg_catalog.array_agg(pg_catalog.concat_ws(' ', classid, objid, objsubid, mode) \
    order by classid::pg_catalog.int8, objid::pg_catalog.int8, objsubid, mode) \
  from pg_catalog.pg_locks where locktype operator(pg_catalog.=) 'advisory' \
  and pid operator(pg_catalog.=) pg_catalog.pg_backend_pid();\
select pg_catalog.array_agg(c order by c) from pg_catalog.pg_listening_channels() c;\
select pg_catalog.array_agg(pg_catalog.concat_ws(' ', name, statement) order by name) \
  from pg_catalog.pg_cursors where is_holdable";
/// The rows of [`OBJECTS`] in a session without any.
const NO_OBJECTS: [&str; 4] = ["D null"; 4];

/// Names of statements that a look tries.
const SQL_STATEMENTS: [&str; 4] = ["q1", "q2", "d1", "d3"];
const PROTOCOL_STATEMENTS: [&str; 3] = ["s1", "s2", "q1"];

/// Settings and roles in one text, the objects in it too.
fn state(hidden_too: bool) -> Msg {
    let reset_only = RESET_ONLY.iter().map(|(name, _)| *name).filter(|_| hidden_too);
    let names = SETTINGS.iter().map(|(name, _)| *name).chain(["role", "session_authorization"]);
    let list: Vec<String> =
        names.chain(reset_only).map(|name| format!("'{}'", name.replace('"', ""))).collect();
    let names = list.join(",");
    // A custom setting that is '' and one that is unset are alike.
    Msg::Query(
        format!(
            "select n, coalesce(pg_catalog.current_setting(n, true), '') \
               from pg_catalog.unnest(array[{names}]::pg_catalog.text[]) n;\
             select name, setting from pg_catalog.pg_settings \
               where source operator(pg_catalog.=) 'session' \
               and setting operator(pg_catalog.<>) reset_val \
               and name operator(pg_catalog.!~~) 'transaction%' \
               and pg_catalog.lower(name) operator(pg_catalog.<>) all \
               (array[{lower}]::pg_catalog.text[]) order by name;\
             select current_user, session_user;{OBJECTS}",
            lower = names.to_lowercase(),
        )
        .into_bytes(),
    )
}

/// What the first client asks in both sessions.
pub(super) fn own() -> Vec<Msg> {
    let mut messages = vec![state(false)];
    for name in SQL_STATEMENTS {
        messages.push(Msg::Query(format!("EXPLAIN (COSTS OFF) EXECUTE {name}").into_bytes()));
    }
    for name in PROTOCOL_STATEMENTS {
        messages.push(Msg::Describe { kind: b'S', name: name.into() });
        messages.push(Msg::Sync);
    }
    messages
}

/// Whether these answers to [`own`] show nothing that could keep a server connection.
pub(super) fn shows_nothing_that_pins(told: &[String]) -> bool {
    let objects = told.iter().filter(|line| *line == NO_OBJECTS[0]).count();
    let unknown = told.iter().filter(|line| line.starts_with("E ERROR 26000")).count();
    let names = SQL_STATEMENTS.len();
    let sql = told.iter().filter(|line| line.starts_with("T QUERY PLAN")).count();
    objects == NO_OBJECTS.len() && sql == 0 && unknown >= names
}

/// Whether a session has statements of SQL's, under whatever name.
pub(super) fn has_sql_statements(side: &mut Side) -> bool {
    let count = "select count(*) from pg_catalog.pg_prepared_statements where from_sql";
    !side.run(&[Msg::query(count)]).contains(&"D '0'".to_owned())
}

/// What was told without the rows of EXPLAIN: a plan may be another on another server connection.
pub(super) fn without_plans(mut told: Vec<String>) -> Vec<String> {
    let mut is_plan = false;
    told.retain(|line| {
        let is_row = line.starts_with("D ");
        is_plan = line.starts_with("T QUERY PLAN") || (is_plan && is_row);
        !(is_plan && is_row)
    });
    told
}

/// What another client asks of the server connection, in a transaction block too.
pub(super) fn short() -> Vec<Msg> {
    vec![state(true)]
}

/// Everything another client asks. `seeded` is what random() says first after `setseed(0.3)`;
/// with `mark` it parses the texts that a sequence has marked so.
pub(super) fn other(mark: Option<&str>, seeded: &str) -> Vec<Msg> {
    let mut messages = vec![state(true)];
    let count = "select count(*) from pg_catalog.pg_prepared_statements where from_sql";
    let random = format!("select random()::text operator(pg_catalog.=) '{seeded}'");
    for sql in [count, &random, "execute q1", "execute s1"] {
        messages.push(Msg::Query(sql.into()));
    }
    messages.extend(mark.map(parse_sensitive).unwrap_or_default());
    for number in 0..SENSITIVE.len() {
        messages.push(Msg::Bind {
            portal: Vec::new(),
            name: format!("n{number}").into_bytes(),
            values: Vec::new(),
            binary: false,
        });
        messages.push(Msg::Execute { portal: Vec::new(), rows: 0 });
        messages.push(Msg::Sync);
    }
    messages
}

/// What the client that is always there puts behind its texts, so that others are the first to
/// parse theirs.
pub(super) const RESIDENT: &str = " --r";

/// The statements whose answers depend on settings, by name.
pub(super) fn parse_sensitive(mark: &str) -> Vec<Msg> {
    let parse = |(number, sql): (usize, &&str)| Msg::Parse {
        name: format!("n{number}").into_bytes(),
        sql: format!("{sql}{mark}").into_bytes(),
        types: Vec::new(),
    };
    SENSITIVE.iter().enumerate().map(parse).chain([Msg::Sync]).collect()
}

/// What a session of its own answers to another client's looks.
#[derive(Clone)]
pub(super) struct Baseline {
    pub(super) seeded: String,
    pub(super) short: Vec<String>,
    pub(super) newcomer: Vec<String>,
    pub(super) resident: Vec<String>,
}

impl Baseline {
    pub(super) fn of(fresh: &mut Side, seeded: String) -> Self {
        let short = fresh.run(&short());
        let newcomer = fresh.run(&other(Some(""), &seeded));
        let resident = fresh.run(&other(None, &seeded));
        Self { seeded, short, newcomer, resident }
    }
}
