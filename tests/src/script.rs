//! What a client does, step by step, and the shapes in which the same can be said: simple
//! queries or the extended protocol, waiting for each answer or not.

use crate::message::Message;
use crate::pipeline::Pipeline;
use crate::reply::Reply;
use crate::wire_client::WireClient;

/// What stands between two statements of one step.
const BESIDE: &str = " ;; ";

/// Steps of one client.
#[derive(Clone, Default)]
pub struct Script {
    steps: Vec<Step>,
}

#[derive(Clone)]
enum Step {
    /// Statements of one query text, or of one segment up to a Sync.
    Texts(Vec<Vec<u8>>),
    /// Messages as they are, and how many ReadyForQuery answer them.
    Messages(Pipeline, usize),
}

/// How the texts of a script are sent. Messages are sent as they are in every shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A simple query for each step.
    Queries,
    /// All simple queries in one write.
    QueriesAtOnce,
    /// Parse, Bind and Execute of the unnamed statement, one Sync for each step.
    Extended,
    /// All of that in one write.
    ExtendedAtOnce,
    /// Statements with names, described before they are bound and closed when they have run.
    Named,
}

impl Shape {
    /// All that a test plays a script in.
    pub const ALL: [Self; 5] =
        [Self::Queries, Self::Extended, Self::Named, Self::QueriesAtOnce, Self::ExtendedAtOnce];

    /// Those that wait for each answer before they send the next.
    pub const WAITING: [Self; 3] = [Self::Queries, Self::Extended, Self::Named];

    const fn waits(self) -> bool {
        matches!(self, Self::Queries | Self::Extended | Self::Named)
    }
}

impl Script {
    /// A step for each text; ` ;; ` parts the statements of one step.
    #[must_use]
    pub fn new(steps: &[&str]) -> Self {
        Self::default().then(steps)
    }

    /// The same where each character below U+0100 is one byte, so that `\u{83}` is 0x83.
    #[must_use]
    pub fn of_bytes(steps: &[&str]) -> Self {
        let byte = |c| u8::try_from(u32::from(c)).expect("a character below U+0100");
        Self {
            steps: steps
                .iter()
                .map(|step| texts(step, |s| s.chars().map(byte).collect()))
                .collect(),
        }
    }

    /// The same with these steps behind the others.
    #[must_use]
    pub fn then(mut self, steps: &[&str]) -> Self {
        self.steps.extend(steps.iter().map(|step| texts(step, |text| text.as_bytes().to_vec())));
        self
    }

    /// One step of messages which `readies` ReadyForQuery answer.
    #[must_use]
    pub fn messages(mut self, pipeline: Pipeline, readies: usize) -> Self {
        self.steps.push(Step::Messages(pipeline, readies));
        self
    }

    /// How many steps there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Plays it and returns every answer.
    pub fn play(&self, client: &mut WireClient, shape: Shape) -> Vec<Reply> {
        if shape.waits() {
            return (0..self.len()).flat_map(|step| self.play_step(client, shape, step)).collect();
        }
        let mut bytes = Vec::new();
        let mut readies = 0;
        for number in 0..self.len() {
            let (pipeline, count) = self.step(shape, number);
            bytes.extend(pipeline.bytes());
            readies += count;
        }
        client.send(&bytes);
        (0..readies).map(|_| client.read_reply()).collect()
    }

    /// Plays one step of it.
    pub fn play_step(&self, client: &mut WireClient, shape: Shape, number: usize) -> Vec<Reply> {
        let (pipeline, readies) = self.step(shape, number);
        client.send(pipeline.bytes());
        (0..readies).map(|_| client.read_reply()).collect()
    }

    fn step(&self, shape: Shape, number: usize) -> (Pipeline, usize) {
        let texts = match &self.steps[number] {
            Step::Messages(pipeline, readies) => return (pipeline.clone(), *readies),
            Step::Texts(texts) => texts,
        };
        let mut pipeline = Pipeline::new();
        match shape {
            Shape::Queries | Shape::QueriesAtOnce => {
                return (pipeline.query_bytes(&texts.join(&b"; "[..])), 1);
            }
            Shape::Extended | Shape::ExtendedAtOnce => {
                for text in texts {
                    pipeline = pipeline.parse_bytes("", text).bind("", "", &[]).execute("", 0);
                }
            }
            Shape::Named => {
                for (place, text) in texts.iter().enumerate() {
                    let name = format!("step{number}_{place}");
                    pipeline = pipeline.parse_bytes(&name, text).describe_statement(&name);
                    pipeline = pipeline.bind("", &name, &[]).execute("", 0);
                    pipeline = pipeline.close_statement(&name);
                }
            }
        }
        (pipeline.sync(), 1)
    }
}

/// As in a list of cases: the statements of a step beside each other, messages as bytes.
impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for step in &self.steps {
            let text = match step {
                Step::Texts(texts) => texts.join(BESIDE.as_bytes()),
                Step::Messages(pipeline, _) => pipeline.bytes().to_vec(),
            };
            write!(f, "`{}` ", text.escape_ascii())?;
        }
        Ok(())
    }
}

fn texts(step: &str, bytes: impl Fn(&str) -> Vec<u8>) -> Step {
    Step::Texts(step.split(BESIDE).map(bytes).collect())
}

/// What the answers said, without what differs between two databases of one server: identifiers
/// of tables, process ids, and the place in PostgreSQL's source where an error was raised.
#[must_use]
pub fn told(replies: &[Reply]) -> Vec<String> {
    replies.iter().flat_map(|reply| &reply.messages).filter_map(shown).collect()
}

fn shown(message: &Message) -> Option<String> {
    match message.tag {
        b'S' => None,
        b'E' | b'N' => {
            let error = message.error();
            let tag = char::from(message.tag);
            Some(format!("{tag} {} {} {}", error.severity, error.code, error.message))
        }
        b'A' => Some(format!("A {}", message.body[4..].escape_ascii())),
        b'T' => Some(format!("T {}", columns(&message.body))),
        _ => Some(format!("{message:?}")),
    }
}

/// Name, type and format of each column in a RowDescription's body.
fn columns(body: &[u8]) -> String {
    let mut rest = &body[2..];
    let mut shown = Vec::new();
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        let (name, after) = (&rest[..end], &rest[end + 1..]);
        let oid = u32::from_be_bytes(after[6..10].try_into().expect("four bytes"));
        shown.push(format!("{}:{oid}:{}", name.escape_ascii(), after[17]));
        rest = &after[18..];
    }
    shown.join(",")
}
