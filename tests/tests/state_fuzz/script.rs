//! What one client does: messages, the writes they are sent in, and looks at what became of it.
//! A script is also a text, one message a line, which a failure prints and `found.rs` keeps.

use pgimbal_tests::Message;

/// A frontend message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Msg {
    Query(Vec<u8>),
    Parse { name: Vec<u8>, sql: Vec<u8>, types: Vec<u32> },
    Bind { portal: Vec<u8>, name: Vec<u8>, values: Vec<Value>, binary: bool },
    Execute { portal: Vec<u8>, rows: u32 },
    Describe { kind: u8, name: Vec<u8> },
    Close { kind: u8, name: Vec<u8> },
    Flush,
    Sync,
}

/// A bound parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Text(Vec<u8>),
    Binary(Vec<u8>),
}

/// What happens between two answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Messages in one write; the answer is read if the last of them asks for one.
    Send(Vec<Msg>),
    /// Its own state in both sessions.
    Own,
    /// Another client looks, one that was there before if `true`, and the first one stays.
    Beside(bool),
    /// A transaction of another client takes a server connection.
    Hold,
    /// That transaction ends.
    Release,
    /// It leaves, in the middle of a transaction perhaps, and comes again.
    Relog,
}

/// A whole sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Script {
    /// Startup parameters beside user and database.
    pub(super) login: Vec<(String, String)>,
    pub(super) steps: Vec<Step>,
}

impl Msg {
    pub(super) fn query(sql: &str) -> Self {
        Self::Query(sql.as_bytes().to_vec())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let (tag, body) = match self {
            Self::Query(sql) => (b'Q', zero(sql)),
            Self::Parse { name, sql, types } => {
                let mut body = [zero(name), zero(sql)].concat();
                body.extend(count(types.len()));
                body.extend(types.iter().flat_map(|oid| oid.to_be_bytes()));
                (b'P', body)
            }
            Self::Bind { portal, name, values, binary } => {
                (b'B', bind(portal, name, values, *binary))
            }
            Self::Execute { portal, rows } => {
                (b'E', [zero(portal), rows.to_be_bytes().to_vec()].concat())
            }
            Self::Describe { kind, name } => (b'D', [vec![*kind], zero(name)].concat()),
            Self::Close { kind, name } => (b'C', [vec![*kind], zero(name)].concat()),
            Self::Flush => (b'H', Vec::new()),
            Self::Sync => (b'S', Vec::new()),
        };
        Message::new(tag, &body).encode()
    }

    /// Whether the server answers at once.
    pub(super) fn asks(&self) -> bool {
        matches!(self, Self::Query(_) | Self::Flush | Self::Sync)
    }

    /// It as a line of a script's text.
    pub(super) fn line(&self) -> String {
        match self {
            Self::Query(sql) => format!("Q {}", shown(sql)),
            Self::Parse { name, sql, types } => {
                let types: Vec<String> = types.iter().map(u32::to_string).collect();
                format!("P {} ({}) {}", word(name), types.join(","), shown(sql))
            }
            Self::Bind { portal, name, values, binary } => {
                let values: String =
                    values.iter().map(|value| format!(" {}", value.word())).collect();
                let format = if *binary { "binary" } else { "text" };
                format!("B {} {} {format}{values}", word(portal), word(name))
            }
            Self::Execute { portal, rows } => format!("E {} {rows}", word(portal)),
            Self::Describe { kind, name } => format!("D {} {}", char::from(*kind), word(name)),
            Self::Close { kind, name } => format!("C {} {}", char::from(*kind), word(name)),
            Self::Flush => "H".to_owned(),
            Self::Sync => "S".to_owned(),
        }
    }

    fn read(line: &str) -> Self {
        let mut parts = line.splitn(4, ' ');
        let tag = parts.next().unwrap_or_default();
        let mut next = || parts.next().unwrap_or_default();
        let kind = |word: &str| word.bytes().next().expect("S or P");
        match tag {
            "Q" => Self::Query(bytes(line.get(2..).unwrap_or_default())),
            "P" => {
                let (name, types) = (name(next()), next().trim_matches(['(', ')']));
                let types = types.split(',').filter_map(|oid| oid.parse().ok()).collect();
                Self::Parse { name, types, sql: bytes(next()) }
            }
            "B" => {
                let (portal, statement) = (name(next()), name(next()));
                let mut words = next().split(' ');
                let binary = words.next() == Some("binary");
                Self::Bind {
                    portal,
                    name: statement,
                    binary,
                    values: words.map(Value::read).collect(),
                }
            }
            "E" => Self::Execute { portal: name(next()), rows: next().parse().unwrap_or(0) },
            "D" => Self::Describe { kind: kind(next()), name: name(next()) },
            "C" => Self::Close { kind: kind(next()), name: name(next()) },
            "H" => Self::Flush,
            "S" => Self::Sync,
            _ => panic!("no message: {line}"),
        }
    }
}

impl Value {
    fn word(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Text(value) => format!("text:{}", shown(value).replace(' ', "\\x20")),
            Self::Binary(value) => format!("binary:{}", shown(value).replace(' ', "\\x20")),
        }
    }

    fn read(word: &str) -> Self {
        match word.split_once(':') {
            Some(("text", value)) => Self::Text(bytes(value)),
            Some(("binary", value)) => Self::Binary(bytes(value)),
            _ => Self::Null,
        }
    }
}

impl Step {
    const WORDS: [(&'static str, Self); 6] = [
        ("own", Self::Own),
        ("beside", Self::Beside(false)),
        ("resident", Self::Beside(true)),
        ("hold", Self::Hold),
        ("release", Self::Release),
        ("relog", Self::Relog),
    ];
}

impl std::fmt::Display for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, value) in &self.login {
            writeln!(f, "login {name} {}", shown(value.as_bytes()))?;
        }
        for step in &self.steps {
            if let Step::Send(messages) = step {
                let lines: Vec<String> = messages.iter().map(Msg::line).collect();
                writeln!(f, "{}", lines.join(" |\n"))?;
            } else {
                let word = Step::WORDS.iter().find(|(_, other)| other == step);
                writeln!(f, "{}", word.map_or("", |(word, _)| word))?;
            }
        }
        Ok(())
    }
}

impl Script {
    /// The script that this text shows. A line that ends with ` |` is sent together with the next.
    pub(super) fn read(text: &str) -> Self {
        let mut script = Self::default();
        let mut write = Vec::new();
        for line in text.lines().map(str::trim_start).filter(|line| !line.is_empty()) {
            if let Some(setting) = line.strip_prefix("login ") {
                let (name, value) = setting.split_once(' ').unwrap_or((setting, ""));
                let value = String::from_utf8(bytes(value)).expect("UTF-8");
                script.login.push((name.to_owned(), value));
            } else if let Some((_, step)) = Step::WORDS.iter().find(|(word, _)| *word == line) {
                script.steps.push(step.clone());
            } else if let Some(message) = line.strip_suffix(" |") {
                write.push(Msg::read(message));
            } else {
                write.push(Msg::read(line));
                script.steps.push(Step::Send(std::mem::take(&mut write)));
            }
        }
        script
    }

    /// What stands behind its texts that depend on settings, so that nobody has parsed them yet.
    pub(super) fn mark(&self) -> String {
        let text = self.to_string();
        let Some((_, rest)) = text.split_once(" --s") else { return String::new() };
        let digits = rest.chars().take_while(char::is_ascii_digit);
        digits.fold(" --s".to_owned(), |mut mark, digit| {
            mark.push(digit);
            mark
        })
    }

    /// Whether a text of it contains `word`, in lower case.
    pub(super) fn says(&self, word: &str) -> bool {
        self.to_string().to_lowercase().contains(word)
    }
}

fn bind(portal: &[u8], name: &[u8], values: &[Value], binary: bool) -> Vec<u8> {
    let mut body = [zero(portal), zero(name)].concat();
    body.extend(count(values.len()));
    for value in values {
        body.extend(u16::from(matches!(value, Value::Binary(_))).to_be_bytes());
    }
    body.extend(count(values.len()));
    for value in values {
        match value {
            Value::Null => body.extend((-1_i32).to_be_bytes()),
            Value::Text(bytes) | Value::Binary(bytes) => {
                body.extend(u32::try_from(bytes.len()).expect("a length").to_be_bytes());
                body.extend(bytes);
            }
        }
    }
    body.extend(count(1));
    body.extend(u16::from(binary).to_be_bytes());
    body
}

fn zero(text: &[u8]) -> Vec<u8> {
    [text, b"\0"].concat()
}

fn count(value: usize) -> [u8; 2] {
    u16::try_from(value).expect("a count of 16 bits").to_be_bytes()
}

fn word(name: &[u8]) -> String {
    if name.is_empty() { "-".to_owned() } else { shown(name) }
}

fn name(word: &str) -> Vec<u8> {
    if word == "-" { Vec::new() } else { bytes(word) }
}

/// Printable ASCII as it is but the backslash, everything else as `\x..`.
fn shown(bytes: &[u8]) -> String {
    let one = |byte: &u8| match byte {
        b'\\' => "\\\\".to_owned(),
        b' '..=b'~' => char::from(*byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    };
    bytes.iter().map(one).collect()
}

fn bytes(shown: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = shown.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(b'x') => {
                let digits = [rest.next(), rest.next()].map(Option::unwrap_or_default);
                let digits = std::str::from_utf8(&digits).expect("two digits");
                bytes.push(u8::from_str_radix(digits, 16).expect("hexadecimal digits"));
            }
            other => bytes.extend(other),
        }
    }
    bytes
}
