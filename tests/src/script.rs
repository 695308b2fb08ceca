//! Scripts: the steps of a client, and the shapes in which they are sent: as simple queries or by
//! the extended protocol, waiting for each reply or not.

use crate::message::Message;
use crate::pipeline::Pipeline;
use crate::reply::Reply;
use crate::wire_client::WireClient;

/// The separator of two statements of one step.
const BESIDE: &str = " ;; ";

/// The steps of one client.
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

/// The way in which the texts of a script are sent. Messages are sent as they are in every shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One Query for each step, waiting for each reply.
    Queries,
    /// All Query messages in one write.
    QueriesAtOnce,
    /// Parse, Bind and Execute of the unnamed statement, one Sync for each step, waiting for each
    /// reply.
    Extended,
    /// The messages of `Extended` in one write.
    ExtendedAtOnce,
    /// Named statements, which are described before they are bound and closed after they have run.
    Named,
}

impl Shape {
    /// All that a test plays a script in.
    pub const ALL: [Self; 5] =
        [Self::Queries, Self::Extended, Self::Named, Self::QueriesAtOnce, Self::ExtendedAtOnce];

    /// The shapes that wait for each reply before the next step.
    pub const WAITING: [Self; 3] = [Self::Queries, Self::Extended, Self::Named];

    const fn waits(self) -> bool {
        matches!(self, Self::Queries | Self::Extended | Self::Named)
    }
}

impl Script {
    /// Makes a script with a step for each text; ` ;; ` separates the statements of one step.
    #[must_use]
    pub fn new(steps: &[&str]) -> Self {
        Self::default().then(steps)
    }

    /// Makes a script as [`Script::new`], with each character below U+0100 sent as one byte, so
    /// that `\u{83}` is 0x83.
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

    /// Adds one step of messages, to which `readies` ReadyForQuery messages reply.
    #[must_use]
    pub fn messages(mut self, pipeline: Pipeline, readies: usize) -> Self {
        self.steps.push(Step::Messages(pipeline, readies));
        self
    }

    /// Number of steps.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether the script has no steps.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Plays the script and returns every reply.
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

    /// Plays step `number`, counted from 0, and returns its replies.
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

/// The replies as text, without what differs between two databases of one server: OIDs of tables,
/// process ids, and places in PostgreSQL's source.
#[must_use]
pub fn comparable_replies(replies: &[Reply]) -> Vec<String> {
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
