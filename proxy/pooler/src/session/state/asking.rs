//! A question on its way: which statements it has, how far it is answered, whether it was refused.

use pgimbal_wire::encode;
use pgimbal_wire::error::SqlState;

use super::answer::Answer;
use super::question::{OwnStatements, Question};
use crate::sql::Kinds;

/// A question that is being answered.
#[derive(Debug)]
pub struct Asking {
    /// The kinds that are asked about.
    kinds: Kinds,
    list: Vec<Question>,
    /// How many of the list are answered.
    done: usize,
    answer: Answer,
    broken: bool,
    refusal: Option<Refusal>,
    attempt: Attempt,
    client: Waiting,
}

/// Whether the client of a question waits for its answer before it sends anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Yes.
    Yes,
    /// No more: the answer is late.
    No,
}

/// The error with which a question was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal(SqlState);

/// Which attempt at a question it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    First,
    Last,
}

impl Refusal {
    /// A statement of pgimbal's own is not there any more: the client has taken all away.
    #[must_use]
    pub fn is_missing_statement(self) -> bool {
        self.0 == SqlState::INVALID_SQL_STATEMENT_NAME
    }

    /// The user may not ask.
    #[must_use]
    pub fn is_denied(self) -> bool {
        self.0 == SqlState::INSUFFICIENT_PRIVILEGE
    }
}

impl Asking {
    /// A question about `kinds`.
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

    /// The question that tells about the database only.
    #[must_use]
    pub fn for_facts() -> Self {
        Self { kinds: Kinds::NONE, ..Self::about(Kinds::ROLE) }
    }

    /// The same, which is not repeated.
    #[must_use]
    pub fn last(self) -> Self {
        Self { attempt: Attempt::Last, ..self }
    }

    /// Its client waits no longer.
    pub const fn let_client_go_on(&mut self) {
        self.client = Waiting::No;
    }

    /// Whether its client waits.
    #[must_use]
    pub const fn client(&self) -> Waiting {
        self.client
    }

    /// An ErrorResponse has come with this code.
    pub const fn refused(&mut self, code: SqlState) {
        self.refusal = Some(Refusal(code));
    }

    /// The error that has come, if one has.
    #[must_use]
    pub const fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Whether it may be asked once more.
    #[must_use]
    pub fn may_ask_again(&self) -> bool {
        self.attempt == Attempt::First
    }

    /// The kinds that it asks about.
    #[must_use]
    pub const fn kinds(&self) -> Kinds {
        self.kinds
    }

    /// The statements that it consists of.
    #[must_use]
    pub fn questions(&self) -> &[Question] {
        &self.list
    }

    /// Appends the messages, up to Sync. `own` are the statements that the server connection has
    /// already, `custom` the names of custom settings with commas between them.
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

    /// A DataRow has come; `body` is whole unless it is enormous.
    pub fn row(&mut self, body: &[u8]) {
        let question = self.list.get(self.done).copied();
        if question.and_then(|question| self.answer.read(question, body)).is_none() {
            self.broken = true;
        }
    }

    /// A CommandComplete has come.
    pub fn completed(&mut self) {
        if self.list.get(self.done) == Some(&Question::Settings) {
            // It may have no row.
            self.answer.settings.get_or_insert_default();
        }
        self.done += 1;
    }

    /// What was answered, if everything was.
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
