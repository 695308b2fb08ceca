//! A question on its way: which statements it has, how far it is answered, whether it was refused.

use pgimbal_wire::encode;
use pgimbal_wire::error::SqlState;

use super::answer::Answer;
use super::question::{OwnStatements, Question};
use crate::sql::Kinds;

/// A question that the proxy has sent to a server about the state of a session or about the
/// database: a list of statements in one segment, and the answers that have come so far.
#[derive(Debug)]
pub struct Asking {
    /// The kinds that are asked about.
    kinds: Kinds,
    list: Vec<Question>,
    /// How many statements of the list are answered.
    done: usize,
    answer: Answer,
    broken: bool,
    refusal: Option<Refusal>,
    attempt: Attempt,
    client: Waiting,
}

/// Whether the client waits for the answer to a question before its next message is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The client waits, so that nothing of what was asked about can have changed when the answer
    /// comes.
    Yes,
    /// The client waits no longer, because the answer is late: the session is pinned as unknown,
    /// the kinds asked about stay raised, and are asked about again.
    No,
}

/// The SQLSTATE of the ErrorResponse with which a server has refused to answer a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal(SqlState);

/// Whether a question is asked for the first time or repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    First,
    Last,
}

impl Refusal {
    /// Whether the error is 26000: a statement of the proxy's own is missing, because the client's
    /// code has deallocated all. If [`Asking::may_ask_again`], the client's prepared statements
    /// count as deallocated too, and the question is asked once more.
    #[must_use]
    pub fn is_missing_statement(self) -> bool {
        self.0 == SqlState::INVALID_SQL_STATEMENT_NAME
    }

    /// Whether the error is 42501 (insufficient privilege): the pool's user may not ask. The
    /// session is pinned as unknown, and no session of its pool is asked about these kinds again.
    #[must_use]
    pub fn is_denied(self) -> bool {
        self.0 == SqlState::INSUFFICIENT_PRIVILEGE
    }
}

impl Asking {
    /// A question about these kinds of session state: BEGIN, the statements that tell of them, each
    /// at most once, COMMIT. Kinds that no query shows ([`Kinds::HIDDEN`], dblink) add none. The
    /// caller sends it with [`Self::write`], between two transactions of the client.
    #[must_use]
    pub fn about(kinds: Kinds) -> Self {
        let asked = Question::ALL.into_iter().filter(|question| question.kinds().meets(kinds));
        let list = [Question::Begin].into_iter().chain(asked).chain([Question::End]).collect();
        Self {
            kinds,
            list,
            done: 0,
            answer: Answer::default(),
            broken: false,
            refusal: None,
            attempt: Attempt::First,
            client: Waiting::Yes,
        }
    }

    /// A question that tells the two facts about the database only (event triggers, functions named
    /// `set_config`), and nothing of the session. Sent ahead of a client's message, when a session
    /// gets a server connection and the facts are due, or when a statement needs them.
    #[must_use]
    pub fn for_facts() -> Self {
        Self { kinds: Kinds::NONE, ..Self::about(Kinds::ROLE) }
    }

    /// The same question, marked as the second attempt: [`Self::may_ask_again`] is then false. Used
    /// after a refusal with 26000.
    #[must_use]
    pub fn last(self) -> Self {
        Self { attempt: Attempt::Last, ..self }
    }

    /// Notes that the client no longer waits for the answer, because it is late. The answer then
    /// does not prove that the kinds asked about are gone. The caller lets the client's messages
    /// through and pins the session as unknown.
    pub const fn let_client_go_on(&mut self) {
        self.client = Waiting::No;
    }

    /// Whether the client still waits for the answer; [`Waiting::Yes`] at first.
    #[must_use]
    pub const fn client(&self) -> Waiting {
        self.client
    }

    /// Notes the SQLSTATE of an ErrorResponse that came in place of an answer; it decides whether
    /// the question is repeated: 26000 repeats it once. A later one replaces an earlier one.
    pub const fn refused(&mut self, code: SqlState) {
        self.refusal = Some(Refusal(code));
    }

    /// The error with which the server has refused the question; `None` if no error has come.
    #[must_use]
    pub const fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Whether the question may be repeated after a refusal with 26000: it was asked for the first
    /// time. False after [`Self::last`].
    #[must_use]
    pub fn may_ask_again(&self) -> bool {
        self.attempt == Attempt::First
    }

    /// The kinds of session state that the question asks about; [`Kinds::NONE`] for
    /// [`Self::for_facts`].
    #[must_use]
    pub const fn kinds(&self) -> Kinds {
        self.kinds
    }

    /// The statements of the question in the order in which they are answered, from BEGIN to
    /// COMMIT.
    #[must_use]
    pub fn questions(&self) -> &[Question] {
        &self.list
    }

    /// Appends the messages of the question, from Parse to Sync, to `out`. A statement is parsed
    /// only if `own` (those that the server connection has) lacks it, and is added there. `custom`
    /// are the names of custom settings to ask about, with commas between them; may be empty.
    pub fn write(&self, own: &mut OwnStatements, custom: &[u8], out: &mut Vec<u8>) {
        // A statement is parsed inside the transaction, and all are before they are counted.
        own.close_doubted(out);
        let (begin, rest) = self.list.split_at(1);
        for part in [begin, rest] {
            for question in part.iter().copied().filter(|question| !own.has(*question)) {
                question.write_parse(out);
            }
            for question in part.iter().copied() {
                own.insert(question);
                question.write_execute(custom, out);
            }
        }
        encode::sync(out);
    }

    /// Reads the body of a DataRow into the answer. A row of another form than asked for makes the
    /// whole answer invalid: [`Self::answer`] is then `None`. `body` is that of the message without
    /// tag and length; it is whole unless it is enormous.
    pub fn row(&mut self, body: &[u8]) {
        let question = self.list.get(self.done).copied();
        if question.and_then(|question| self.answer.read(question, body)).is_none() {
            self.broken = true;
        }
    }

    /// Notes a CommandComplete: the rows that come next belong to the next statement of the
    /// question. A settings statement without a row counts as answered: the session has set none.
    pub fn completed(&mut self) {
        if self.list.get(self.done) == Some(&Question::Settings) {
            // It may have no row.
            self.answer.settings.get_or_insert_default();
        }
        self.done += 1;
    }

    /// The server's answer, once its ReadyForQuery has come; `None` if a statement was not answered
    /// (an error came) or a row had an unexpected form. The caller then pins the session as
    /// unknown, or, for [`Self::for_facts`], takes both facts to be true.
    #[must_use]
    pub fn answer(self) -> Option<Answer> {
        (self.done == self.list.len() && !self.broken).then_some(self.answer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::ShownSetting;
    use super::*;

    fn row(columns: &[Option<&str>]) -> Vec<u8> {
        let mut body = (columns.len() as u16).to_be_bytes().to_vec();
        for column in columns {
            match column {
                None => body.extend((-1_i32).to_be_bytes()),
                Some(text) => {
                    body.extend((text.len() as i32).to_be_bytes());
                    body.extend(text.as_bytes());
                }
            }
        }
        body
    }

    #[test]
    fn an_answer_counts_only_when_every_statement_was_answered() {
        let mut asking = Asking::about(Kinds::LOCKS.union(Kinds::SETTINGS));
        assert_eq!(
            asking.questions(),
            [Question::Begin, Question::Settings, Question::Locks, Question::End]
        );
        asking.completed();
        asking.row(&row(&[Some("TimeZone"), Some("555443"), Some("f"), Some("f")]));
        asking.row(&row(&[Some("app.tenant"), None, Some("f"), Some("f")]));
        asking.completed();
        asking.row(&row(&[Some("t")]));
        asking.completed();
        asking.completed();
        let answer = asking.answer().unwrap();
        assert_eq!(answer.shown(), Kinds::LOCKS);
        let expected = ShownSetting {
            name: b"timezone"[..].into(),
            value: b"UTC"[..].into(),
            is_real: false,
            is_default: false,
        };
        assert_eq!(answer.settings.unwrap(), [expected]);
        let mut short = Asking::about(Kinds::LOCKS);
        short.completed();
        assert_eq!(short.answer(), None);
    }

    #[test]
    fn a_row_of_another_form_is_no_answer() {
        for body in [row(&[Some("maybe")]), row(&[None]), Vec::new(), vec![0, 1, 0, 0, 0, 9]] {
            let mut asking = Asking::about(Kinds::LOCKS);
            asking.completed();
            asking.row(&body);
            asking.completed();
            asking.completed();
            assert_eq!(asking.answer(), None, "{body:?}");
        }
    }

    #[test]
    fn a_statement_is_parsed_once_on_a_server_connection() {
        let (asking, mut own) = (Asking::about(Kinds::ROLE), OwnStatements::default());
        let mut first = Vec::new();
        asking.write(&mut own, b"", &mut first);
        assert_eq!(own.count(), 3);
        let mut second = Vec::new();
        asking.write(&mut own, b"", &mut second);
        assert!(second.len() < first.len() / 3);
        assert!(second.ends_with(b"S\0\0\0\x04"));
        own.doubt();
        assert_eq!(own.count(), 0);
        let mut third = Vec::new();
        asking.write(&mut own, b"", &mut third);
        assert!(third.starts_with(b"C") && third.ends_with(&first));
    }
}
