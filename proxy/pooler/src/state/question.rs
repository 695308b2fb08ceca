//! What the server is asked about a session, and what it has answered.
//!
//! A question is one segment of the extended protocol under statement names of pgimbal's own: a
//! simple query would destroy the client's unnamed statement. The transaction around it is READ
//! COMMITTED, because under `default_transaction_deferrable` any SELECT may wait for all
//! serializable writers. Nothing that the client did can answer in PostgreSQL's place: every name
//! is qualified, and only counts, booleans and hexadecimal digits come back.

use pgimbal_wire::encode::{self, NameKind};
use pgimbal_wire::error::SqlState;
use pgimbal_wire::tag::frontend;

use crate::effect::Bytes;
use crate::plan::Plan;
use crate::sql::Kinds;

/// One statement of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// BEGIN; answered with nothing.
    Begin,
    /// Role, temporary objects, channels and cursors; two facts about the database with them.
    Session,
    /// Settings of the session, custom ones by name.
    Settings,
    /// Session-level advisory locks. Asked by itself: other sessions' locks make it slow.
    Locks,
    /// Prepared statements.
    Statements,
    /// The replication origin.
    Origin,
    /// Temporary replication slots.
    Slots,
    /// COMMIT; answered with nothing.
    End,
}

/// The statements of questions that a server connection has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnStatements {
    there: u8,
    /// May be there: they were asked for, and an error came. They are closed before they are parsed.
    doubted: u8,
}

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

/// What a server has said of a session; `None` where it was not asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Role, session user and what the session has.
    pub session: Option<SessionState>,
    /// Settings of the session.
    pub settings: Option<Vec<ShownSetting>>,
    /// Whether it holds a session-level advisory lock.
    pub locks: Option<bool>,
    /// Its prepared statements.
    pub statements: Option<StatementCounts>,
    /// Whether a replication origin is set up.
    pub origin: Option<bool>,
    /// Whether it has a temporary replication slot.
    pub slots: Option<bool>,
}

/// What a server has said of the state of a session that is no setting.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "the columns of one row")]
pub struct SessionState {
    /// The value of `role`, in the database's encoding; `none` if it is not set.
    pub role: Bytes,
    /// The session's user, in the database's encoding.
    pub session_user: Bytes,
    /// It has temporary objects.
    pub temporary: bool,
    /// It listens to a channel.
    pub channels: bool,
    /// It has a cursor WITH HOLD.
    pub cursors: bool,
    /// The database has an event trigger that is not disabled.
    pub event_triggers: bool,
    /// The database has a function `set_config` outside `pg_catalog`.
    pub other_set_config: bool,
}

/// A setting as a server shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownSetting {
    /// Its name in lower case.
    pub name: Bytes,
    /// Its value in the database's encoding.
    pub value: Bytes,
    /// Whether it is a number of which not all digits are shown (`%g`).
    pub is_real: bool,
}

/// How many prepared statements a server connection has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatementCounts {
    /// Made by Parse.
    pub parsed: u64,
    /// Made by SQL PREPARE.
    pub from_sql: u64,
}

macro_rules! in_hex {
    ($value:literal) => {
        concat!(
            "pg_catalog.encode(pg_catalog.convert_to(",
            $value,
            ", pg_catalog.getdatabaseencoding()), 'hex')"
        )
    };
}

const SESSION: &str = concat!(
    "SELECT ",
    in_hex!("pg_catalog.current_setting('role')"),
    ", ",
    in_hex!("pg_catalog.current_setting('session_authorization')"),
    // 2615 is pg_namespace: whatever stands in the temporary schema depends on it. The schema
    // itself stays when it has become empty.
    ", EXISTS (SELECT FROM pg_catalog.pg_depend d \
       WHERE d.refclassid OPERATOR(pg_catalog.=) 2615 \
       AND d.refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())\
     , EXISTS (SELECT FROM pg_catalog.pg_listening_channels())\
     , EXISTS (SELECT FROM pg_catalog.pg_cursor() c WHERE c.is_holdable)\
     , EXISTS (SELECT FROM pg_catalog.pg_event_trigger t \
       WHERE t.evtenabled OPERATOR(pg_catalog.<>) 'D')\
     , EXISTS (SELECT FROM pg_catalog.pg_proc p \
       WHERE p.proname OPERATOR(pg_catalog.=) 'set_config' \
       AND p.pronamespace OPERATOR(pg_catalog.<>) 11)",
);

const SETTINGS: &str = concat!(
    "SELECT s.name, ",
    in_hex!("pg_catalog.current_setting(s.name)"),
    ", s.vartype OPERATOR(pg_catalog.=) 'real' FROM pg_catalog.pg_show_all_settings() s \
     WHERE s.source OPERATOR(pg_catalog.=) 'session' UNION ALL SELECT n.name, ",
    in_hex!("pg_catalog.current_setting(n.name, true)"),
    ", false FROM pg_catalog.unnest(pg_catalog.string_to_array($1, ',')) n(name)",
);

const LOCKS: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_lock_status() l \
     WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory' \
     AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())";

const STATEMENTS: &str = "SELECT pg_catalog.count(*) FILTER (WHERE NOT s.from_sql), \
     pg_catalog.count(*) FILTER (WHERE s.from_sql) FROM pg_catalog.pg_prepared_statement() s";

const ORIGIN: &str = "SELECT pg_catalog.pg_replication_origin_session_is_setup()";

const SLOTS: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_get_replication_slots() r \
     WHERE r.temporary AND r.active_pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())";

/// Type OID of `text`.
const TEXT_OID: [u8; 4] = 25_u32.to_be_bytes();

impl Question {
    /// Its name on a server, without a NUL.
    #[must_use]
    pub const fn name(self) -> &'static [u8] {
        match self {
            Self::Begin => b"pgimbal_ask_begin",
            Self::Session => b"pgimbal_ask_session",
            Self::Settings => b"pgimbal_ask_settings",
            Self::Locks => b"pgimbal_ask_locks",
            Self::Statements => b"pgimbal_ask_statements",
            Self::Origin => b"pgimbal_ask_origin",
            Self::Slots => b"pgimbal_ask_slots",
            Self::End => b"pgimbal_ask_end",
        }
    }

    /// What it is counted as; `None` for the transaction around the others.
    #[must_use]
    pub const fn label(self) -> Option<&'static str> {
        match self {
            Self::Begin | Self::End => None,
            Self::Session => Some("session"),
            Self::Settings => Some("settings"),
            Self::Locks => Some("locks"),
            Self::Statements => Some("statements"),
            Self::Origin => Some("origin"),
            Self::Slots => Some("slots"),
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Begin => "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY",
            Self::Session => SESSION,
            Self::Settings => SETTINGS,
            Self::Locks => LOCKS,
            Self::Statements => STATEMENTS,
            Self::Origin => ORIGIN,
            Self::Slots => SLOTS,
            Self::End => "COMMIT",
        }
    }

    fn write_parse(self, out: &mut Vec<u8>) {
        let with_text = [&[0, 1][..], &TEXT_OID].concat();
        let types = if self.has_parameter() { &with_text[..] } else { &[0, 0] };
        encode::parse(out, self.name(), self.text().as_bytes(), types);
    }

    /// Bind to the unnamed portal, and Execute of all its rows.
    fn write_execute(self, custom: &[u8], out: &mut Vec<u8>) {
        let rest = if self.has_parameter() { 6 + 4 + custom.len() } else { 6 };
        encode::bind_head(out, b"", self.name(), rest as u32);
        out.extend_from_slice(&[0, 0]);
        if self.has_parameter() {
            out.extend_from_slice(&[0, 1]);
            out.extend_from_slice(&(custom.len() as u32).to_be_bytes());
            out.extend_from_slice(custom);
        } else {
            out.extend_from_slice(&[0, 0]);
        }
        out.extend_from_slice(&[0, 0]);
        encode::message(out, frontend::EXECUTE, |out| out.extend_from_slice(&[0; 5]));
    }

    /// Whether it takes the names of custom settings.
    fn has_parameter(self) -> bool {
        self == Self::Settings
    }

    /// The kinds that it tells of.
    const fn kinds(self) -> Kinds {
        match self {
            Self::Begin | Self::End => Kinds::NONE,
            Self::Session => {
                Kinds::ROLE.union(Kinds::TEMPORARY).union(Kinds::CHANNELS).union(Kinds::CURSORS)
            }
            Self::Settings => Kinds::SETTINGS,
            Self::Locks => Kinds::LOCKS,
            Self::Statements => Kinds::STATEMENTS,
            Self::Origin => Kinds::ORIGIN,
            Self::Slots => Kinds::SLOTS,
        }
    }

    const EVERY: [Self; 8] = [
        Self::Begin,
        Self::Session,
        Self::Settings,
        Self::Locks,
        Self::Statements,
        Self::Origin,
        Self::Slots,
        Self::End,
    ];

    const ALL: [Self; 6] =
        [Self::Session, Self::Settings, Self::Locks, Self::Statements, Self::Origin, Self::Slots];
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

impl OwnStatements {
    /// How many they are.
    #[must_use]
    pub const fn count(self) -> u64 {
        self.there.count_ones() as u64
    }

    /// Has the first of them parsed. Returns how many replies that has.
    pub fn write_witness(&mut self, plan: &mut Plan) -> u32 {
        let mut closed = 0;
        plan.make_for_server(|out| {
            closed = self.close_doubted(out);
            Question::Begin.write_parse(out);
        });
        self.insert(Question::Begin);
        closed + 1
    }

    /// An error came: nobody knows which of them were parsed.
    pub const fn doubt(&mut self) {
        self.doubted |= self.there;
        self.there = 0;
    }

    /// Closes what may be there. Returns how many replies that has.
    fn close_doubted(&mut self, out: &mut Vec<u8>) -> u32 {
        let doubted = std::mem::take(&mut self.doubted);
        for question in Question::EVERY {
            if doubted & (1 << question as u8) != 0 {
                encode::close(out, NameKind::Statement, question.name());
            }
        }
        doubted.count_ones()
    }

    const fn has(self, question: Question) -> bool {
        self.there & (1 << question as u8) != 0
    }

    const fn insert(&mut self, question: Question) {
        self.there |= 1 << question as u8;
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

impl Answer {
    /// Takes one row of the answer to `question`; `None` if it is not of its form.
    fn read(&mut self, question: Question, body: &[u8]) -> Option<()> {
        let mut row = Row::new(body)?;
        match question {
            Question::Begin | Question::End => return None,
            Question::Session => {
                self.session = Some(SessionState {
                    role: row.hex()??,
                    session_user: row.hex()??,
                    temporary: row.boolean()?,
                    channels: row.boolean()?,
                    cursors: row.boolean()?,
                    event_triggers: row.boolean()?,
                    other_set_config: row.boolean()?,
                });
            }
            Question::Settings => {
                let name = row.text()??.to_ascii_lowercase().into();
                let value = row.hex()?;
                let is_real = row.boolean()?;
                let settings = self.settings.get_or_insert_default();
                // NULL: a custom setting that has never been set on this server connection.
                if let Some(value) = value {
                    settings.push(ShownSetting { name, value, is_real });
                }
            }
            Question::Locks => self.locks = Some(row.boolean()?),
            Question::Statements => {
                let (parsed, from_sql) = (row.number()?, row.number()?);
                self.statements = Some(StatementCounts { parsed, from_sql });
            }
            Question::Origin => self.origin = Some(row.boolean()?),
            Question::Slots => self.slots = Some(row.boolean()?),
        }
        Some(())
    }

    /// The kinds of state that keep a session on its server connection and that it shows.
    #[must_use]
    pub fn shown(&self) -> Kinds {
        let session = self.session.as_ref();
        [
            (session.is_some_and(|s| s.temporary), Kinds::TEMPORARY),
            (session.is_some_and(|s| s.channels), Kinds::CHANNELS),
            (session.is_some_and(|s| s.cursors), Kinds::CURSORS),
            (self.locks == Some(true), Kinds::LOCKS),
            (self.statements.is_some_and(|counts| counts.from_sql > 0), Kinds::STATEMENTS),
            (self.origin == Some(true), Kinds::ORIGIN),
            (self.slots == Some(true), Kinds::SLOTS),
        ]
        .into_iter()
        .fold(Kinds::NONE, |all, (is, kind)| if is { all.union(kind) } else { all })
    }
}

/// The columns of a DataRow in text format.
struct Row<'a>(&'a [u8]);

impl<'a> Row<'a> {
    fn new(body: &'a [u8]) -> Option<Self> {
        body.get(2..).map(Self)
    }

    /// The next column; `Some(None)` for NULL.
    fn text(&mut self) -> Option<Option<&'a [u8]>> {
        let length = i32::from_be_bytes(*self.0.first_chunk()?);
        self.0 = &self.0[4..];
        let Ok(length) = usize::try_from(length) else { return Some(None) };
        let value = self.0.get(..length)?;
        self.0 = &self.0[length..];
        Some(Some(value))
    }

    fn boolean(&mut self) -> Option<bool> {
        match self.text()?? {
            b"t" => Some(true),
            b"f" => Some(false),
            _ => None,
        }
    }

    fn number(&mut self) -> Option<u64> {
        std::str::from_utf8(self.text()??).ok()?.parse().ok()
    }

    fn hex(&mut self) -> Option<Option<Bytes>> {
        let Some(digits) = self.text()? else { return Some(None) };
        if digits.len() % 2 != 0 {
            return None;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        let bytes = digits.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?));
        Some(Some(bytes.collect::<Option<Vec<u8>>>()?.into()))
    }
}

#[cfg(test)]
mod tests {
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
        asking.row(&row(&[Some("TimeZone"), Some("555443"), Some("f")]));
        asking.row(&row(&[Some("app.tenant"), None, Some("f")]));
        asking.completed();
        asking.row(&row(&[Some("t")]));
        asking.completed();
        asking.completed();
        let answer = asking.answer().unwrap();
        assert_eq!(answer.shown(), Kinds::LOCKS);
        let expected =
            ShownSetting { name: b"timezone"[..].into(), value: b"UTC"[..].into(), is_real: false };
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
