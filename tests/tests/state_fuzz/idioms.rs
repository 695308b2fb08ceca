//! Shapes of several statements that a random order of single ones hardly ever makes.

use super::random::Random;
use super::script::{Msg, Step};
use super::texts::{Group, SENSITIVE, pair};

/// One of them, with texts that depend on settings marked with `mark`.
pub(super) fn idiom(random: &mut Random, mark: &str) -> Vec<Step> {
    match random.roll(9) {
        0..3 => block(random),
        8 => notified(random),
        3 => parsed_under(random, mark),
        4 => read_under(random),
        5 => portals(random),
        6 => paths(random),
        _ => undone(random),
    }
}

/// A transaction of settings, savepoints and an error here and there.
fn block(random: &mut Random) -> Vec<Step> {
    let mut texts: Vec<Vec<u8>> = Vec::new();
    let savepoints: &[&str] =
        random.pick(&[&["a", "b"][..], &["_EXEC_SVP_1", "_EXEC_SVP_2"], &["a", "A"]]);
    if random.one_in(2) {
        texts.push(change(random));
    }
    texts.push(b"BEGIN".to_vec());
    let mut made = 0;
    for _ in 0..2 + random.roll(7) {
        let last = savepoints[usize::from(made > 1)];
        texts.push(match random.roll(10) {
            0..4 => change(random),
            4 | 5 => {
                made += 1;
                format!("SAVEPOINT {}", savepoints[usize::from(made > 1)]).into_bytes()
            }
            6 => b"SELECT 1/0".to_vec(),
            7 if made > 0 => format!("ROLLBACK TO {last};RELEASE {last}").into_bytes(),
            8 if made > 0 => format!("ROLLBACK TO {}", savepoints[0]).into_bytes(),
            9 if made > 0 => format!("SAVEPOINT {last}; SELECT 1").into_bytes(),
            _ => Group::Transactions.text(random),
        });
    }
    texts.push(random.pick(&["COMMIT", "COMMIT", "COMMIT", "ROLLBACK", "END"]).into());
    sent(random, texts)
}

/// A change that the session keeps, loses or gets back.
fn change(random: &mut Random) -> Vec<u8> {
    match random.roll(10) {
        0..3 => Group::Settings.text(random),
        3 => Group::SetConfig.text(random),
        4 => Group::Roles.text(random),
        5 => random.pick(&["RESET ALL", "RESET ROLE", "SET ROLE boss"]).into(),
        6 => random.pick(&["SET LOCAL work_mem TO DEFAULT", "RESET ALL"]).into(),
        _ => {
            let value = ["A", "B", "C"][random.roll(3)];
            format!("SET app.tenant = '{value}'").into_bytes()
        }
    }
}

/// What is notified on a channel that the client listens to, or listened to a moment ago.
fn notified(random: &mut Random) -> Vec<Step> {
    let mut texts = vec![b"LISTEN news".to_vec()];
    for number in 0..4 + random.roll(8) {
        texts.push(match random.roll(12) {
            0..5 => format!("NOTIFY news, '{number}'").into_bytes(),
            5 => random.pick(&["LISTEN news", "LISTEN c1", "LISTEN \"News\""]).into(),
            6 => random.pick(&["UNLISTEN news", "UNLISTEN c1", "UNLISTEN *"]).into(),
            7 | 8 => random.pick(&["BEGIN", "COMMIT", "ROLLBACK"]).into(),
            9 => random.pick(&["SAVEPOINT a", "ROLLBACK TO a", "RELEASE a", "SELECT 1/0"]).into(),
            10 => random.pick(&["SELECT pg_notify('c1', 'y')", "NOTIFY \"News\""]).into(),
            _ => {
                let does = random.pick(&["LISTEN news", "NOTIFY news", "UNLISTEN news"]);
                format!("DO $do$BEGIN {does}; END$do$").into_bytes()
            }
        });
    }
    texts.push(random.pick(&["COMMIT", "COMMIT", "ROLLBACK"]).into());
    texts.push(b"NOTIFY news, 'last'".to_vec());
    sent(random, texts)
}

/// A statement that is parsed under settings of the transaction.
fn parsed_under(random: &mut Random, mark: &str) -> Vec<Step> {
    let (name, value) = pair(random);
    let local = random.pick(&[
        "SET LOCAL TimeZone = 'America/New_York'",
        "SET LOCAL DateStyle = 'SQL, DMY'",
        "SET LOCAL search_path = other, public",
        "",
    ]);
    let local = if local.is_empty() { format!("SET LOCAL {name} = {value}") } else { local.into() };
    let sql = format!("{}{mark}", SENSITIVE[random.roll(SENSITIVE.len())]);
    let parse = vec![parse(b"s1", sql.into_bytes()), Msg::Sync];
    vec![
        Step::Send(vec![Msg::query("BEGIN")]),
        Step::Send(vec![Msg::Query(local.into_bytes())]),
        Step::Send(parse),
        Step::Send(vec![Msg::query(random.pick(&["COMMIT", "COMMIT", "ROLLBACK"]))]),
    ]
}

/// A text that another setting, not reported yet, makes read differently.
fn read_under(random: &mut Random) -> Vec<Step> {
    let texts = (0..2).map(|_| Group::Readings.text(random)).collect();
    if random.one_in(2) { vec![Step::Send(segment(texts, false))] } else { sent(random, texts) }
}

/// A portal under a name that becomes a cursor's, or that a FETCH reads.
fn portals(random: &mut Random) -> Vec<Step> {
    let mut texts = vec![change(random), b"BEGIN".to_vec()];
    texts.truncate(1 + random.roll(2));
    texts.reverse();
    let mut steps = sent(random, texts);
    steps.push(Step::Send(vec![Msg::query("BEGIN")]));
    let bind = Msg::Bind { portal: b"p1".to_vec(), name: vec![], values: vec![], binary: false };
    let mut bound = vec![parse(b"", change(random)), bind];
    if random.one_in(2) {
        bound.push(Msg::Close { kind: b'P', name: b"p1".to_vec() });
    }
    bound.push(Msg::Sync);
    steps.push(Step::Send(bound));
    let between = ["DECLARE p1 CURSOR FOR SELECT 1", "FETCH ALL FROM p1", "CLOSE p1", "SELECT 1"];
    steps.push(Step::Send(vec![Msg::query(random.pick(&between))]));
    steps.push(Step::Send(vec![Msg::Execute { portal: b"p1".to_vec(), rows: 0 }, Msg::Sync]));
    steps.push(Step::Send(vec![Msg::query(random.pick(&["COMMIT", "COMMIT", "ROLLBACK"]))]));
    steps
}

/// A table that is temporary because of the search_path.
fn paths(random: &mut Random) -> Vec<Step> {
    let path = random.pick(&[
        "nosuch, pg_temp",
        "E'pg\\137temp'",
        "pg_temp",
        "U&'pg\\005ftemp', public",
        "PG_TEMP, public",
    ]);
    let how = random.pick(&["SET", "SET SESSION", "SET LOCAL"]);
    let texts = [
        format!("{how} search_path = {path}"),
        "CREATE TABLE accounts (id int, owner text)".to_owned(),
        "INSERT INTO accounts VALUES (1, 'mine')".to_owned(),
        random.pick(&["RESET search_path", "RESET ALL", "SELECT owner FROM accounts"]).to_owned(),
    ];
    sent(random, texts.map(String::into_bytes).to_vec())
}

/// A segment whose beginning a later part undoes, or commits.
fn undone(random: &mut Random) -> Vec<Step> {
    let end = random.pick(&[
        "SELECT 1/0",
        "INSERT INTO notes VALUES (1, 99)",
        "DO $$BEGIN COMMIT; END$$",
        "CALL set_commit('1')",
        "COMMIT",
        "ROLLBACK",
        "BEGIN",
    ]);
    let mut texts = vec![change(random), end.into()];
    if random.one_in(2) {
        texts.push(random.pick(&["SELECT 1/0", "SELECT 1", "RESET ALL", "ROLLBACK"]).into());
    }
    if random.one_in(4) {
        let mut messages = segment(texts, true);
        messages.pop();
        messages.extend(["RESET ROLE", "ROLLBACK"].map(Msg::query));
        return vec![Step::Send(messages)];
    }
    vec![Step::Send(segment(texts, random.one_in(2)))]
}

/// `texts` one after the other: each as a query or a segment, some in one text.
fn sent(random: &mut Random, texts: Vec<Vec<u8>>) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for text in texts {
        if random.one_in(6)
            && let Some(Step::Send(last)) = steps.last_mut()
            && let Some(Msg::Query(before)) = last.last_mut()
        {
            before.extend(b"\n; ");
            before.extend(text);
            continue;
        }
        let fetch = text.starts_with(b"FETCH");
        let messages = if random.one_in(5) && !fetch {
            segment(vec![text], false)
        } else {
            vec![Msg::Query(text)]
        };
        steps.push(Step::Send(messages));
    }
    steps
}

/// `texts` in one segment.
fn segment(texts: Vec<Vec<u8>>, named: bool) -> Vec<Msg> {
    let mut messages = Vec::new();
    for (number, text) in texts.into_iter().enumerate() {
        let name = if named { format!("i{number}").into_bytes() } else { Vec::new() };
        if named {
            messages.push(Msg::Close { kind: b'S', name: name.clone() });
        }
        messages.push(parse(&name, text));
        messages.push(Msg::Bind { portal: vec![], name, values: vec![], binary: false });
        messages.push(Msg::Execute { portal: vec![], rows: 0 });
    }
    messages.push(Msg::Sync);
    messages
}

fn parse(name: &[u8], sql: Vec<u8>) -> Msg {
    Msg::Parse { name: name.to_vec(), sql, types: Vec::new() }
}
