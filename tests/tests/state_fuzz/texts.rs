//! Single SQL statements, in groups so that a sequence can dwell on a few of them.

use super::random::Random;

/// Settings and values for them, as they stand in a SET.
pub(super) const SETTINGS: [(&str, &[&str]); 25] = [
    ("work_mem", &["'5MB'", "'6MB'", "7168", "'nonsense'"]),
    ("TimeZone", &["'Asia/Tokyo'", "'America/New_York'", "'UTC'"]),
    ("DateStyle", &["'German'", "'SQL, DMY'", "'ISO, MDY'"]),
    ("search_path", PATHS),
    ("app.tenant", &["'A'", "'B'", "''", "'C'"]),
    ("app.x", &["'1'", "'2'", "'it''s'"]),
    ("app.\"user\"", &["'u'"]),
    ("client_encoding", &["'LATIN1'", "'SJIS'", "'UTF8'", "'WIN1251'"]),
    ("standard_conforming_strings", &["off", "on", "off"]),
    ("lock_timeout", &["'9s'", "8000"]),
    ("statement_timeout", &["'70s'"]),
    ("idle_session_timeout", &["'90s'"]),
    ("application_name", &["'one'", "'two'"]),
    ("bytea_output", &["escape"]),
    ("extra_float_digits", &["0"]),
    ("IntervalStyle", &["iso_8601"]),
    ("default_transaction_isolation", &["'serializable'", "'repeatable read'"]),
    ("default_transaction_read_only", &["on", "off"]),
    ("default_transaction_deferrable", &["on"]),
    ("client_min_messages", &["error", "notice"]),
    ("enable_seqscan", &["off"]),
    ("row_security", &["off"]),
    ("xmlbinary", &["hex"]),
    ("escape_string_warning", &["off"]),
    ("nosuch", &["1"]),
];

const PATHS: &[&str] = &[
    "pg_temp",
    "other, public",
    "own, pg_catalog, public",
    "public, pg_catalog",
    "pg_catalog, own",
    "'pg_temp'",
    "E'pg\\137temp'",
    "nosuch, pg_temp",
    "\"$user\", public",
    "U&'pg\\005ftemp', public",
    "pg_temp, other",
    "PG_TEMP, public",
    "''",
];

/// Statements whose answer depends on settings; other clients parse the same texts.
pub(super) const SENSITIVE: [&str; 7] = [
    "select extract(epoch from '2024-01-01 00:00'::timestamptz)::bigint::text",
    "select extract(month from '01/02/2024'::date)::text",
    "select owner from accounts where id in (1, 9)",
    "select '\\x41'::bytea::text, 0.1::float8::text, interval '1 day 2 hours'::text",
    "select 'a\\'::text",
    "select set_config('app.probe', 'x', true)",
    "select '2024-02-03'::date, current_setting('work_mem')",
];

/// Names of savepoints: equal ones, and such as are cut to the same 63 bytes.
const SAVEPOINTS: &[&str] = &[
    "a",
    "A",
    "a",
    "\"a\"",
    "b",
    "_EXEC_SVP_1",
    "long_long_long_long_long_long_long_long_long_long_long_long_long_1",
    "long_long_long_long_long_long_long_long_long_long_long_long_long_2",
    "\"ééééééééééééééééééééééééééééééééé1\"",
    "\"xééééééééééééééééééééééééééééééééé2\"",
];

/// What a sequence can dwell on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    Transactions,
    Settings,
    SetConfig,
    Roles,
    Temporary,
    Locks,
    Channels,
    Cursors,
    Statements,
    Blocks,
    Calls,
    Discards,
    Readings,
    Sensitive,
    Failures,
    Plain,
    Hidden,
}

impl Group {
    pub(super) const FOCUS: [Self; 14] = [
        Self::Settings,
        Self::SetConfig,
        Self::Roles,
        Self::Temporary,
        Self::Locks,
        Self::Channels,
        Self::Cursors,
        Self::Statements,
        Self::Blocks,
        Self::Calls,
        Self::Discards,
        Self::Readings,
        Self::Sensitive,
        Self::Hidden,
    ];

    /// A statement of this group.
    pub(super) fn text(self, random: &mut Random) -> Vec<u8> {
        match self {
            Self::Readings => super::objects::reading(random),
            Self::Transactions => transaction(random).into_bytes(),
            Self::Settings => setting(random).into_bytes(),
            Self::SetConfig => set_config(random).into_bytes(),
            Self::Sensitive => random.pick(&SENSITIVE).as_bytes().to_vec(),
            _ => super::objects::text(self, random).into_bytes(),
        }
    }
}

fn transaction(random: &mut Random) -> String {
    let savepoint = random.pick(SAVEPOINTS);
    match random.roll(22) {
        0..6 => random.pick(&["BEGIN", "begin", "START TRANSACTION", "BEGIN"]).to_owned(),
        6 => "BEGIN ISOLATION LEVEL SERIALIZABLE".to_owned(),
        7..10 => random.pick(&["COMMIT", "END", "commit work"]).to_owned(),
        10..12 => random.pick(&["ROLLBACK", "ABORT"]).to_owned(),
        12 => "COMMIT AND CHAIN".to_owned(),
        13 => "ROLLBACK AND CHAIN".to_owned(),
        14..17 => format!("SAVEPOINT {savepoint}"),
        17..19 => format!("ROLLBACK TO {savepoint}"),
        19 => format!("RELEASE {savepoint}"),
        20 => format!("ROLLBACK TO {savepoint}; RELEASE {savepoint}"),
        _ => random
            .pick(&[
                "SET TRANSACTION READ ONLY",
                "PREPARE TRANSACTION 'x'",
                "SET CONSTRAINTS ALL IMMEDIATE",
            ])
            .to_owned(),
    }
}

/// A setting and a value of it: half of the time one of the first few, so that they meet.
pub(super) fn pair(random: &mut Random) -> (&'static str, &'static str) {
    let count = if random.one_in(2) { 6 } else { SETTINGS.len() };
    let (name, values) = SETTINGS[random.roll(count)];
    (name, values[random.roll(values.len())])
}

/// A SET or the like.
pub(super) fn setting(random: &mut Random) -> String {
    let (name, value) = pair(random);
    match random.roll(20) {
        0..6 => format!("SET {name} = {value}"),
        6 => format!("SET SESSION {name} TO {value}"),
        7..11 => format!("SET LOCAL {name} = {value}"),
        11 => format!("RESET {name}"),
        12 => format!("SET {name} TO DEFAULT"),
        13 => format!("SET LOCAL {name} TO DEFAULT"),
        14 => "RESET ALL".to_owned(),
        15 => format!("/* x */ set/**/{name}/*'*/=  {value} --;"),
        16 => format!("SET LOCAL {name} TO DEFAULT; RESET ALL"),
        _ => random
            .pick(&[
                "SET TIME ZONE 'Asia/Tokyo'",
                "SET LOCAL TIME ZONE -5",
                "SET SCHEMA 'pg_temp'",
                "SET NAMES 'LATIN1'",
                "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
                "SET TIME ZONE LOCAL",
                "SELECT pg_catalog.set_config('TimeZone', 'Asia/Tokyo', false); SET LOCAL work_mem = 9000",
                "set work_mem from current",
            ])
            .to_owned(),
    }
}

/// `value` as a string that any function takes.
fn literal(value: &str) -> String {
    if value.ends_with('\'') && !value.contains(',') {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', ""))
    }
}

fn set_config(random: &mut Random) -> String {
    let ((name, value), (second, other)) = (pair(random), pair(random));
    let (value, other) = (literal(value), literal(other));
    let (name, second) = (name.replace('"', ""), second.replace('"', ""));
    let local = random.pick(&["false", "true", "false", "'f'", "1 > 2"]);
    let call = format!("set_config('{name}', {value}, {local})");
    match random.roll(16) {
        0..5 => format!("SELECT {call}"),
        5 => format!("SELECT pg_catalog.{call}"),
        6 => format!("SELECT {call}, set_config('{second}', {other}, false)"),
        7 => format!("SELECT {call} FROM pg_show_all_settings() WHERE name = 'bytea_output'"),
        8 => format!("SELECT {call} WHERE false"),
        9 => format!("SELECT {call} FROM generate_series(1, 2)"),
        10 => format!("SELECT 1; SELECT {call}; SET app.tenant = 'Z'"),
        11 => format!("SELECT set_config('{name}', {value}::varchar, false)"),
        12 => format!(
            "SELECT pg_catalog.set_config('{name}', {value}, false), 1/(id-1) FROM accounts ORDER BY id"
        ),
        13 => format!("WITH x AS MATERIALIZED (SELECT {call} AS y) SELECT y FROM x"),
        14 => format!(
            "SELECT query_to_xml('SELECT pg_catalog.set_config(''app.x'', ''xml'', {})', true, false, '') IS NULL",
            "false"
        ),
        _ => "SELECT set_config('role', 'boss', false)".to_owned(),
    }
}
