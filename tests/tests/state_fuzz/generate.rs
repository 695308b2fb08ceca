//! From a seed to what a client does.

use super::random::Random;
use super::script::{Msg, Script, Step, Value};
use super::texts::{Group, pair};

/// Which texts and steps a sequence may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// Functions, triggers and operators that do what no text shows.
    pub(super) hidden: bool,
    /// A second server connection, which others can take.
    pub(super) two: bool,
}

/// The sequence of `seed`.
pub(super) fn script(seed: u64, kind: Kind) -> Script {
    let mut random = Random::new(seed);
    let mark = format!(" --s{}", seed % 997);
    let mut maker = Maker { kind, mark, focus: Vec::new(), steps: Vec::new() };
    for _ in 0..3 {
        maker.focus.push(Group::FOCUS[random.roll(Group::FOCUS.len())]);
    }
    maker.focus.retain(|group| kind.hidden || *group != Group::Hidden);
    if kind.hidden && random.one_in(2) {
        maker.focus.push(Group::Hidden);
    }
    let login = login(&mut random);
    for _ in 0..3 + random.roll(10) {
        maker.step(&mut random);
    }
    Script { login, steps: maker.steps }
}

fn login(random: &mut Random) -> Vec<(String, String)> {
    let known = [
        ("search_path", "pg_temp"),
        ("search_path", "other, public"),
        ("TimeZone", "Asia/Tokyo"),
        ("DateStyle", "German"),
        ("work_mem", "5MB"),
        ("application_name", "started"),
        ("options", "-c app.tenant=startup"),
        ("client_encoding", "LATIN1"),
    ];
    if !random.one_in(6) {
        return Vec::new();
    }
    let (name, value) = known[random.roll(known.len())];
    vec![(name.to_owned(), value.to_owned())]
}

struct Maker {
    kind: Kind,
    mark: String,
    focus: Vec<Group>,
    steps: Vec<Step>,
}

impl Maker {
    fn text(&self, random: &mut Random) -> Vec<u8> {
        let group = match random.roll(100) {
            0..25 => Group::Transactions,
            25..75 if !self.focus.is_empty() => self.focus[random.roll(self.focus.len())],
            75..80 => Group::Failures,
            80..88 => Group::Plain,
            _ => Group::FOCUS[random.roll(Group::FOCUS.len())],
        };
        let hidden = group == Group::Hidden && !self.kind.hidden;
        let group = if hidden { Group::Plain } else { group };
        let mut text = group.text(random);
        if group == Group::Sensitive {
            text.extend(self.mark.as_bytes());
        }
        text
    }

    /// A text for Parse as `name`. PostgreSQL crashes at a Describe of a FETCH whose cursor is
    /// gone, and of an EXECUTE that executes itself.
    fn parsed(&self, random: &mut Random, name: &[u8]) -> Vec<u8> {
        let text = self.text(random);
        let crashes =
            text.starts_with(b"FETCH") || text.starts_with(b"EXECUTE") && !name.is_empty();
        if crashes { Group::Plain.text(random) } else { text }
    }

    fn step(&mut self, random: &mut Random) {
        if random.one_in(7) {
            let mut steps = super::idioms::idiom(random, &self.mark);
            return self.steps.append(&mut steps);
        }
        let messages = match random.roll(100) {
            0..40 => vec![self.query(random)],
            40..58 => self.run(random),
            58..68 => self.pipeline(random),
            68..74 => self.prepare(random),
            74..82 => execute(random),
            82..85 => close(random),
            85..91 => bound_setting(random),
            91..94 => return self.steps.push(Step::Own),
            94..96 => return self.steps.push(Step::Beside(random.one_in(2))),
            96..99 if self.kind.two => {
                return self.steps.push(if random.one_in(2) { Step::Hold } else { Step::Release });
            }
            99 => return self.steps.push(Step::Relog),
            _ => vec![self.query(random)],
        };
        self.write(random, messages);
    }

    /// One write, or two with a cut anywhere, or none of its own.
    fn write(&mut self, random: &mut Random, mut messages: Vec<Msg>) {
        if random.one_in(6)
            && let Some(Step::Send(last)) = self.steps.last_mut()
        {
            return last.append(&mut messages);
        }
        if messages.len() > 1 && random.one_in(4) {
            let rest = messages.split_off(1 + random.roll(messages.len() - 1));
            if random.one_in(2) {
                messages.push(Msg::Flush);
            }
            self.steps.push(Step::Send(messages));
            messages = rest;
        }
        self.steps.push(Step::Send(messages));
    }

    fn query(&self, random: &mut Random) -> Msg {
        let mut text = self.text(random);
        if random.one_in(4) {
            for _ in 0..=random.roll(3) {
                text.extend(b"\n; ");
                text.extend(self.text(random));
            }
        }
        Msg::Query(text)
    }

    fn one(&self, random: &mut Random) -> Vec<Msg> {
        let name = statement(random);
        let portal = portal(random);
        let mut messages = vec![
            Msg::Parse { sql: self.parsed(random, &name), name: name.clone(), types: Vec::new() },
            Msg::Bind {
                portal: portal.clone(),
                name,
                values: Vec::new(),
                binary: random.one_in(8),
            },
        ];
        if random.one_in(4) {
            messages.push(Msg::Describe { kind: b'P', name: portal.clone() });
        }
        let rows = u32::from(random.one_in(4));
        messages.push(Msg::Execute { portal: portal.clone(), rows });
        if rows == 1 && random.one_in(2) {
            messages.push(Msg::Execute { portal, rows: 0 });
        } else if random.one_in(8) {
            messages.push(Msg::Close { kind: b'P', name: portal });
        }
        messages
    }

    fn run(&self, random: &mut Random) -> Vec<Msg> {
        let mut messages = self.one(random);
        messages.push(Msg::Sync);
        messages
    }

    fn pipeline(&self, random: &mut Random) -> Vec<Msg> {
        let mut messages = Vec::new();
        for _ in 0..2 + random.roll(3) {
            match random.roll(10) {
                0 => messages.push(self.query(random)),
                1 => messages.push(Msg::Sync),
                2 => messages.push(Msg::Flush),
                _ => messages.extend(self.one(random)),
            }
        }
        if !random.one_in(8) {
            messages.push(Msg::Sync);
        }
        messages
    }

    fn prepare(&self, random: &mut Random) -> Vec<Msg> {
        let name = statement(random);
        let mut messages = vec![Msg::Parse {
            sql: self.parsed(random, &name),
            name: name.clone(),
            types: Vec::new(),
        }];
        if random.one_in(2) {
            messages.push(Msg::Describe { kind: b'S', name });
        }
        messages.push(Msg::Sync);
        messages
    }
}

fn statement(random: &mut Random) -> Vec<u8> {
    let long = "s".repeat(70);
    random.pick(&["", "", "s1", "s1", "s2", "q1", &long]).as_bytes().to_vec()
}

fn portal(random: &mut Random) -> Vec<u8> {
    random.pick(&["", "", "", "p1", "p2", "c1"]).as_bytes().to_vec()
}

fn execute(random: &mut Random) -> Vec<Msg> {
    let (name, portal) = (statement(random), portal(random));
    let rows = u32::from(random.one_in(3));
    let mut messages = vec![
        Msg::Bind { portal: portal.clone(), name: name.clone(), values: Vec::new(), binary: false },
        Msg::Execute { portal: portal.clone(), rows },
    ];
    match random.roll(8) {
        0 => messages.insert(0, Msg::Describe { kind: b'S', name }),
        // Another text in between, then the rest of the portal.
        1 => messages.push(Msg::Query(b"RESET ROLE".to_vec())),
        2 => drop(messages.pop()),
        _ => {}
    }
    if rows == 1 && random.one_in(2) {
        messages.push(Msg::Execute { portal, rows: 0 });
    }
    messages.push(Msg::Sync);
    messages
}

fn close(random: &mut Random) -> Vec<Msg> {
    let statement = Msg::Close { kind: b'S', name: statement(random) };
    let portal = Msg::Close { kind: b'P', name: portal(random) };
    vec![if random.one_in(2) { statement } else { portal }, Msg::Sync]
}

/// `set_config` with bound values in either format.
fn bound_setting(random: &mut Random) -> Vec<Msg> {
    let (name, value) = pair(random);
    let (name, value) = (name.replace('"', ""), value.replace(['\'', '"'], ""));
    let both = |random: &mut Random, text: &str| {
        let bytes = text.as_bytes().to_vec();
        if random.one_in(2) { Value::Text(bytes) } else { Value::Binary(bytes) }
    };
    let value = if random.one_in(12) { Value::Null } else { both(random, &value) };
    let types: &[&[u32]] = &[&[], &[25], &[1043], &[0]];
    let (sql, types, values): (String, Vec<u32>, Vec<Value>) = match random.roll(5) {
        0 | 1 => {
            let local = random.pick(&["false", "false", "true"]);
            (
                format!("SELECT set_config('{name}', $1, {local})"),
                random.pick(types).to_vec(),
                vec![value],
            )
        }
        2 => {
            let local =
                [Value::Text(b"f".to_vec()), Value::Binary(vec![0]), Value::Binary(vec![1])];
            let values = vec![both(random, &name), value, local[random.roll(3)].clone()];
            ("SELECT pg_catalog.set_config($1, $2, $3)".to_owned(), Vec::new(), values)
        }
        3 => {
            let sql =
                format!("SELECT set_config('app.x', $1, false), set_config('{name}', $2, false)");
            (sql, Vec::new(), vec![both(random, "bound"), value])
        }
        _ => {
            let types = random.pick(&[&[25, 1043][..], &[25, 25], &[]]).to_vec();
            ("SELECT set_config($1, $2, false)".to_owned(), types, vec![both(random, &name), value])
        }
    };
    let (statement, portal) = (statement(random), portal(random));
    let rows = u32::from(random.one_in(3));
    vec![
        Msg::Parse { name: statement.clone(), sql: sql.into_bytes(), types },
        Msg::Bind { portal: portal.clone(), name: statement, values, binary: random.one_in(4) },
        Msg::Execute { portal, rows },
        Msg::Sync,
    ]
}
