//! The connection to a console, and its answers.

use std::time::Duration;

use pgimbal_wire::encode;
use pgimbal_wire::error::{ErrorFields, Severity};
use pgimbal_wire::tag::backend;
use thiserror::Error;

use super::table::{Malformed, Table, harmless};
use crate::dial::{self, DialError, Target};
use crate::transport::{Broken, Conversation};

/// Longest message of an answer in bytes; a row of a console has a few hundred.
const MAX_MESSAGE: usize = 1024 * 1024;

/// Time limit for a whole answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// An open connection to a console.
#[derive(Debug)]
pub(super) struct Console {
    conversation: Conversation,
    version: String,
}

/// The reason for which a console does not answer.
#[derive(Debug, Error)]
pub(super) enum ConsoleError {
    /// There is no connection.
    #[error("{}", harmless(.0.to_string().as_bytes()))]
    Dial(#[from] DialError),
    /// It refused the command, with its message. The connection is still of use.
    #[error("{0}")]
    Refused(String),
    /// The connection is of no use any more, for this reason.
    #[error("{0}")]
    Lost(String),
}

impl From<Broken> for ConsoleError {
    fn from(broken: Broken) -> Self {
        Self::Lost(match broken {
            Broken::Closed => "it closed the connection".to_owned(),
            Broken::Io(error) => format!("the connection broke: {error}"),
            Broken::Length(_) => "it sent a message of invalid length".to_owned(),
        })
    }
}

impl From<Malformed> for ConsoleError {
    fn from(Malformed: Malformed) -> Self {
        Self::Lost("its answer is malformed".to_owned())
    }
}

impl Console {
    /// Connects, logs in and asks for the version, which a database that is no console refuses.
    ///
    /// # Errors
    /// [`ConsoleError`] when one of these fails.
    pub(super) async fn connect(target: &Target) -> Result<Self, ConsoleError> {
        let dialed = Box::pin(dial::dial(target)).await?;
        let mut conversation = Conversation::new(dialed.transport);
        conversation.inbox = dialed.residual;
        let mut console = Self { conversation, version: String::new() };
        let answer = console.ask("SHOW VERSION").await?;
        let version = answer.rows().first().and_then(|row| row.first());
        console.version = version.cloned().unwrap_or_default();
        Ok(console)
    }

    /// The program and its version, as it names itself.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Runs a command and returns its table, which has no columns when the command has none.
    ///
    /// # Errors
    /// [`ConsoleError::Refused`] when the console knows no such command, [`ConsoleError::Lost`]
    /// when there is no answer within 10 s or none of the protocol.
    pub(super) async fn ask(&mut self, command: &str) -> Result<Table, ConsoleError> {
        tokio::time::timeout(ANSWER_LIMIT, self.answer(command)).await.unwrap_or_else(|_| {
            Err(ConsoleError::Lost(format!("no answer within {ANSWER_LIMIT:?}")))
        })
    }

    async fn answer(&mut self, command: &str) -> Result<Table, ConsoleError> {
        let conversation = &mut self.conversation;
        encode::query(&mut conversation.outbox, command.as_bytes());
        conversation.send().await.map_err(Broken::Io)?;
        let mut table = Table::default();
        let mut refused = None;
        loop {
            let (tag, total) = conversation.message(MAX_MESSAGE).await?;
            let body = conversation.body(total);
            match tag {
                backend::ROW_DESCRIPTION => table = Table::describe(body)?,
                backend::DATA_ROW => table.add(body)?,
                backend::ERROR_RESPONSE => refused = Some(refusal(body)?),
                backend::READY_FOR_QUERY => {
                    conversation.consume(total);
                    return refused.map_or(Ok(table), |text| Err(ConsoleError::Refused(text)));
                }
                _ => {}
            }
            conversation.consume(total);
        }
    }
}

/// The message of an ErrorResponse.
///
/// # Errors
/// [`ConsoleError::Lost`] when it ends the connection or is malformed.
fn refusal(body: &[u8]) -> Result<String, ConsoleError> {
    let fields = ErrorFields::parse(body).map_err(|_| Malformed)?;
    let text = harmless(fields.message);
    match fields.severity {
        Severity::Fatal | Severity::Panic => Err(ConsoleError::Lost(text)),
        _ => Ok(text),
    }
}
