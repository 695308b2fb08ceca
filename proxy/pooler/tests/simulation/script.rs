//! What model clients do: any message in any state, as long as PostgreSQL's answer is known.

use crate::client::Client;
use crate::message as m;
use crate::random::Random;

/// Bytes to send at once, and how many ReadyForQuery they cause.
pub(crate) struct Step {
    pub(crate) bytes: Vec<u8>,
    pub(crate) ready: usize,
    /// How many more may come when something goes wrong.
    pub(crate) spare: usize,
}

/// The next thing that `client` does.
pub(crate) fn next(random: &mut Random, client: &mut Client) -> Step {
    let mut step = Step { bytes: Vec::new(), ready: 0, spare: 0 };
    match random.below(100) {
        0..45 => {
            let text = text(random, client);
            step.add(&m::query(&text), 1);
        }
        45..86 => segment(random, client, &mut step),
        86..88 if names_may_be_parsed(client) => lone(random, client, &mut step),
        88..90 => step.add(&m::function_call(), 1),
        90..92 => step.add(&m::sync(), 1),
        92..94 => step.add(&[m::flush(), m::sync()].concat(), 1),
        94..97 => copy_query(random, client, &mut step),
        _ if names_may_be_parsed(client) => copy_extended(random, client, &mut step),
        _ => step.add(&m::sync(), 1),
    }
    step
}

impl Step {
    fn add(&mut self, bytes: &[u8], ready: usize) {
        self.bytes.extend_from_slice(bytes);
        self.ready += ready;
    }
}

/// The text of a simple query.
fn text(random: &mut Random, client: &mut Client) -> String {
    let token = client.token();
    let block = client.reference.in_block();
    match random.below(42) {
        34..36 => {
            let text = code(random, client, &token);
            // What is pipelined behind it would run before the proxy knows what it has done.
            client.waits = text.contains("reset") || text.contains("deallocate");
            match client.session_mode && text.contains("reset") && !client.startup.is_empty() {
                true => format!("select '{token}'"),
                false => text,
            }
        }
        36 => executed(random, &token),
        37..39 => pinning(random, &token),
        39 => format!("begin; create temp table t{}; drop table t0; commit", random.below(2)),
        40 => format!("select set_config('work_mem', '{token}', true); show work_mem"),
        41 => format!("prepare r1 as select '{token}'; select '{token}'"),
        0..7 => format!("select '{token}'"),
        7..9 => format!("insert '{token}'"),
        9..14 if !block => "begin".into(),
        9..12 => "commit".into(),
        12..14 => "rollback".into(),
        14 => format!("fail '{token}'"),
        15 => format!("bad '{token}'"),
        16 => format!("select '{token}'; insert '{token}'; select '{token}'"),
        17 => format!("insert '{token}'; fail '{token}'"),
        18 => String::new(),
        19 => "inspect".into(),
        20..23 => setting(random, client),
        23 => {
            format!("show {}", random.pick(&["timezone", "application_name", "work_mem", "my.var"]))
        }
        24 if block => format!("savepoint {}", random.pick(&["a", "b"])),
        25 if block => format!("rollback to {}", random.pick(&["a", "b"])),
        26 if block => format!("release {}", random.pick(&["a", "b"])),
        24 => format!(
            "begin; set local timezone to 'Local{}'; insert '{token}'; commit",
            random.below(3)
        ),
        25 => "copy t to stdout".into(),
        26 => format!("begin; insert '{token}'; rollback"),
        27 => format!("sleep '{token}'"),
        28 => pinning(random, &token),
        29 => random.pick(&["discard all", "deallocate all", "reset all", "commit"]).into(),
        30 => format!("deallocate {}", name(random)),
        31 => format!(
            "select '{token}' /* {} */",
            "x".repeat(random.pick(&[10, 5_000, 17_000, 40_000]))
        ),
        32 => format!("insert '{token}'; commit; insert '{token}b'; fail '{token}'"),
        _ => format!(
            "select set_config('{}', '{token}', false)",
            random.pick(&["application_name", "my.var"])
        ),
    }
}

/// Some clients leave TimeZone alone and have statements that depend on it at Parse: what a
/// statement means whose client changes such a setting later is not defined, nor what one means
/// that follows RESET in its segment, before startup values are set again.
fn keeps_zone(client: &Client) -> bool {
    client.number.is_multiple_of(2) && client.startup.iter().all(|(name, _)| name != "timezone")
}

fn setting(random: &mut Random, client: &Client) -> String {
    let names = ["application_name", "work_mem", "my.var", "search_path", "timezone"];
    let name = random.pick(&names[..5 - usize::from(keeps_zone(client))]);
    let value = random.pick(&["alpha", "beta", "Gamma Delta", "it''s"]);
    match random.below(6) {
        0 => format!("reset {name}"),
        1 => format!("set local {name} to '{value}'"),
        2 => format!("set session {name} = '{value}'").replace("session ", ""),
        _ => format!("set {name} to '{value}'"),
    }
}

/// What may keep a client on its server connection, or let it go.
fn pinning(random: &mut Random, token: &str) -> String {
    match random.below(12) {
        0 | 1 => format!("create temp table t{}", random.below(3)),
        2 | 3 => format!("drop table t{}", random.below(3)),
        4 => "select pg_advisory_lock(1)".into(),
        5 | 6 => "select pg_advisory_unlock(1)".into(),
        7 => format!("listen c{}", random.below(2)),
        8 => "unlisten *".into(),
        9 => format!("prepare q{} as select '{token}'", random.below(3)),
        10 => executed(random, token),
        _ => "discard all".into(),
    }
}

/// The same without what must stand alone in its segment.
fn pinning_alone(random: &mut Random, token: &str) -> String {
    let text = pinning(random, token);
    let stands_alone = ["prepare", "execute", "deallocate", "discard"];
    match stands_alone.iter().any(|word| text.starts_with(word)) {
        true => format!("select '{token}'"),
        false => text,
    }
}

/// EXECUTE or DEALLOCATE of what SQL or the protocol has prepared.
fn executed(random: &mut Random, token: &str) -> String {
    let name = random.pick(&["q0", "q1", "q2", "r1", "s1", "s2", "s3"]);
    match random.below(4) {
        0 => format!("deallocate {name}"),
        1 => format!("execute {name}('{token}'); select '{token}b'"),
        _ => format!("execute {name}('{token}')"),
    }
}

/// DO, of which no text tells what it leaves.
fn code(random: &mut Random, client: &Client, token: &str) -> String {
    let reference = &client.reference;
    let named = |name: &String| name.starts_with(['q', 'r', 's', 'p']);
    let has_names = reference.asleep.is_some() || reference.statements.keys().any(named);
    let body = match random.below(10) {
        0 | 1 => setting(random, client),
        2 => format!("{}; {}", setting(random, client), setting(random, client)),
        3 => format!("{}; fail '{token}'", setting(random, client)),
        4 => format!("select pg_advisory_lock(1); fail '{token}'"),
        5 => format!("select set_config('my.var', '{token}', false)"),
        6 => "create temp table t1".into(),
        // Outside of a block, because it is asked about at its end only.
        7 if !has_names && !reference.in_block() => "deallocate all".into(),
        8 => "drop table t1; select pg_advisory_unlock(1)".into(),
        _ => format!("insert '{token}'"),
    };
    format!("do $${body}$$")
}

fn name(random: &mut Random) -> String {
    random.pick(&["s1", "s2", "s3", "q1", "pgimbal_x"]).into()
}

/// Messages up to a Sync.
fn segment(random: &mut Random, client: &mut Client, step: &mut Step) {
    let names_may_be_parsed = names_may_be_parsed(client);
    let mut changes_state = false;
    for _ in 0..random.pick(&[1, 1, 1, 2, 3]) {
        let mut name = if random.chance(50) { String::new() } else { name(random) };
        let portal = if random.chance(80) { "" } else { random.pick(&["p1", "p2"]) };
        if random.chance(20) {
            step.add(&m::close(random.pick(b"SSP"), &name), 0);
        }
        if random.chance(70) && (name.is_empty() || names_may_be_parsed) {
            let text = prepared_text(random, client, changes_state);
            changes_state |= [
                "set",
                "reset",
                "discard",
                "dealloc",
                "do ",
                "select set",
                "select pg_c",
                "prepare",
            ]
            .iter()
            .any(|word| text.starts_with(word));
            if text.len() > 10_000 && !name.is_empty() {
                // Its text is not kept: EXECUTE in SQL does not find it.
                name = "large".into();
            }
            step.add(&m::parse(&name, &text), 0);
        }
        // In a failed transaction PostgreSQL describes what returns no rows, if it has it.
        if random.chance(30) && !client.reference.has_failed() && client.reference.asleep.is_none()
        {
            step.add(&m::describe(b'S', &name), 0);
        }
        if random.chance(90) {
            let size = random.pick(&[0, 0, 0, 0, 30, 9_000, 20_000]);
            let parameter = format!("{}{}", client.token(), " ".repeat(size));
            step.add(&m::bind(portal, &name, &parameter), 0);
        }
        if random.chance(20) {
            step.add(&m::describe(b'P', portal), 0);
        }
        if random.chance(90) {
            step.add(&m::execute(portal, random.pick(&[0, 0, 1, 2])), 0);
        }
        if random.chance(10) {
            step.add(&m::execute(portal, 0), 0);
        }
        if random.chance(10) {
            step.add(&m::flush(), 0);
        }
    }
    step.add(&m::sync(), 1);
}

/// A segment of what must stand alone in it, and is never bound again.
fn lone(random: &mut Random, client: &mut Client, step: &mut Step) {
    let (name, token) = (name(random), client.token());
    let text = match random.below(4) {
        0 => "discard all".into(),
        1 => "deallocate all".into(),
        _ => executed(random, &token).split("; ").next().unwrap_or_default().to_owned(),
    };
    step.add(&m::parse(&name, &text), 0);
    step.add(&m::bind("", &name, &token), 0);
    step.add(&m::execute("", 0), 0);
    step.add(&m::close(b'S', &name), 0);
    step.add(&m::sync(), 1);
    // If it fails, its name is left.
    step.add(&m::close(b'S', &name), 0);
    step.add(&m::sync(), 1);
}

/// In a failed transaction whose failure the proxy has not seen, PostgreSQL refuses a Parse for
/// which the proxy may stand in.
fn names_may_be_parsed(client: &Client) -> bool {
    let reference = &client.reference;
    client.is_answered() || (!reference.in_block() && reference.asleep.is_none())
}

/// The text of a prepared statement; what changes settings stands alone in its segment, because
/// the proxy brings a client's own defaults back after the segment.
fn prepared_text(random: &mut Random, client: &mut Client, alone: bool) -> String {
    let block = client.reference.in_block();
    let token = client.token();
    match random.below(32) {
        22 if !alone => {
            let text = code(random, client, &token);
            // It may be run more than once, and anywhere.
            match ["reset", "deallocate", "insert"].iter().any(|word| text.contains(word)) {
                true => format!("select '{token}'"),
                false => text,
            }
        }
        24 if !alone => "select set_config('my.var', $1, false)".into(),
        25 if !alone => "select set_config('work_mem', $1, true)".into(),
        26 if !alone => "select pg_catalog.set_config('application_name', $1, false)".into(),
        27..29 => pinning_alone(random, &token),
        29 if !alone => format!("prepare q1 as select '{token}'"),
        30 if !alone => "deallocate all".into(),
        31 => "select pg_advisory_unlock(1)".into(),
        0..6 => format!("select $1 /* {} */", random.below(8)),
        6..8 => "insert $1".into(),
        8..10 if !alone && keeps_zone(client) => format!("zone $1 /* {} */", random.below(2)),
        10..12 => "rows $1".into(),
        12 => "fail $1".into(),
        13 => "bad $1".into(),
        // The one text that is parsed in a failed transaction: nobody is asked about its name then.
        14 if !client.reference.has_failed() => String::new(),
        15 if block || !alone => if block { "commit" } else { "begin" }.into(),
        16 => "rollback".into(),
        17 if !alone => setting(random, client).replace("reset", "show"),
        19 if !alone => format!("deallocate {}", name(random)),
        // A large unnamed statement does not outlive the query that sets startup values again.
        20 if client.startup.is_empty() => {
            format!("select $1 /* {} */", "y".repeat(random.pick(&[100, 17_000, 70_000])))
        }
        21 => "sleep $1".into(),
        _ => format!("select '{}'", client.token()),
    }
}

fn copy_query(random: &mut Random, client: &mut Client, step: &mut Step) {
    step.add(&m::query("copy t from stdin"), 1);
    copy_end(random, client, step);
}

fn copy_extended(random: &mut Random, client: &mut Client, step: &mut Step) {
    // Of its own, so that nothing else executes it by accident.
    let name = format!("copy {}", client.token());
    step.add(&m::parse(&name, "copy t from stdin"), 0);
    step.add(&m::bind("", &name, ""), 0);
    step.add(&m::execute("", 0), 0);
    if random.chance(40) {
        // Ignored, unless the COPY does not begin.
        step.add(&m::sync(), 0);
        step.spare += 1;
    }
    copy_end(random, client, step);
    step.add(&m::sync(), 1);
}

fn copy_end(random: &mut Random, client: &mut Client, step: &mut Step) {
    for _ in 0..random.below(3) {
        let size = random.pick(&[0, 0, 100, 20_000]);
        step.add(&m::copy_data(&format!("{}{}", client.token(), " ".repeat(size))), 0);
        if random.chance(20) {
            step.add(&m::flush(), 0);
        }
    }
    let end = if random.chance(70) { m::copy_done() } else { m::copy_fail("enough") };
    step.add(&end, 0);
}
