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
        45..88 => segment(random, client, &mut step),
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
    match random.below(34) {
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

fn pinning(random: &mut Random, token: &str) -> String {
    match random.below(5) {
        0 => format!("create temp table t{}", random.below(3)),
        1 => "select pg_advisory_lock(1)".into(),
        2 => format!("prepare q{} as select '{token}'", random.below(3)),
        3 => format!("execute q{}", random.below(3)),
        _ => "discard all".into(),
    }
}

fn name(random: &mut Random) -> String {
    random.pick(&["s1", "s2", "s3", "pgimbal_x"]).into()
}

/// Messages up to a Sync.
fn segment(random: &mut Random, client: &mut Client, step: &mut Step) {
    let names_may_be_parsed = names_may_be_parsed(client);
    let mut changes_state = false;
    for _ in 0..random.pick(&[1, 1, 1, 2, 3]) {
        let name = if random.chance(50) { String::new() } else { name(random) };
        let portal = if random.chance(80) { "" } else { random.pick(&["p1", "p2"]) };
        if random.chance(20) {
            step.add(&m::close(random.pick(b"SSP"), &name), 0);
        }
        if random.chance(70) && (name.is_empty() || names_may_be_parsed) {
            let text = prepared_text(random, client, changes_state);
            changes_state |=
                ["set", "reset", "discard", "dealloc"].iter().any(|word| text.starts_with(word));
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
    match random.below(22) {
        0..6 => format!("select $1 /* {} */", random.below(8)),
        6..8 => "insert $1".into(),
        8..10 if !alone && keeps_zone(client) => format!("zone $1 /* {} */", random.below(2)),
        10..12 => "rows $1".into(),
        12 => "fail $1".into(),
        13 => "bad $1".into(),
        14 => String::new(),
        15 if block || !alone => if block { "commit" } else { "begin" }.into(),
        16 => "rollback".into(),
        17 if !alone => setting(random, client).replace("reset", "show"),
        18 if !alone => "discard all".into(),
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
