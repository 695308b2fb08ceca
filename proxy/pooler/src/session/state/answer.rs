//! What a server has said of a session, read from the rows of its answer.

use super::question::Question;
use crate::session::effect::Bytes;
use crate::sql::Kinds;

/// A server's answer to a question about a session: one field per statement of the question; `None`
/// if it was not asked. Filled row by row, from DataRow messages in text format.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The role, the session's user, and objects that the session has (answer to
    /// [`Question::Session`]).
    pub session: Option<SessionState>,
    /// The settings of the session (`pg_settings` with source `session`, and custom ones asked for
    /// by name); empty if it has set none.
    pub settings: Option<Vec<ShownSetting>>,
    /// Whether the session holds a session-level advisory lock (`pg_locks`).
    pub locks: Option<bool>,
    /// How many prepared statements the server connection has, the proxy's own included.
    pub statements: Option<StatementCounts>,
    /// Whether the session has set up a replication origin
    /// (`pg_replication_origin_session_is_setup`).
    pub origin: Option<bool>,
    /// Whether the session has a temporary replication slot (`pg_replication_slots`).
    pub slots: Option<bool>,
}

/// The part of an answer that comes as one row: the session's role, user and objects, and two facts
/// about the database.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "the columns of one row")]
pub struct SessionState {
    /// The value of the setting `role` in the database's encoding; `none` if no role is set (SET
    /// ROLE).
    pub role: Bytes,
    /// The value of the setting `session_authorization`, in the database's encoding: the login user
    /// unless SET SESSION AUTHORIZATION has changed it.
    pub session_user: Bytes,
    /// Whether the session has temporary objects: something depends on its temporary schema. The
    /// session is pinned if so.
    pub temporary: bool,
    /// The channels that the session listens to on this server connection
    /// (`pg_listening_channels`), in the database's encoding. The session is pinned for those that
    /// no shared connection carries.
    pub channels: Vec<Bytes>,
    /// Whether the session has a cursor WITH HOLD (`pg_cursors`). The session is pinned if so.
    pub cursors: bool,
    /// Whether the database has an event trigger that is not disabled (`pg_event_trigger`): then
    /// DDL may run code that no text shows.
    pub event_triggers: bool,
    /// Whether the database has a function named `set_config` outside `pg_catalog` (`pg_proc`):
    /// then a call without the schema may run that one.
    pub other_set_config: bool,
}

/// One setting of a session as the server has shown it (`pg_settings`, source `session`, or asked
/// for by its name).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownSetting {
    /// The setting's name in lower case, as in `pg_settings` or asked for.
    pub name: Bytes,
    /// The setting's value in the database's encoding, as `current_setting` gives it; may be empty.
    pub value: Bytes,
    /// Whether the setting is a floating-point number, of which the server shows six digits (`%g`).
    pub is_real: bool,
    /// Whether the value equals the server's default. A RESET ALL behind a SET in the same
    /// transaction leaves such a setting as one of the session.
    pub is_default: bool,
}

/// How many prepared statements a server connection has (`pg_prepared_statements`), by how they
/// were made; the unnamed statement is not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatementCounts {
    /// The number made by a Parse message, the proxy's own included. If it is not what the proxy
    /// believes, all statements of the server connection are deallocated, and parsed
    /// again when they are needed.
    pub parsed: u64,
    /// The number made by SQL PREPARE. The session is pinned if it is not 0.
    pub from_sql: u64,
}

impl Answer {
    /// Reads one row of the answer to `question`; `None` if it is not of the expected form.
    pub(super) fn read(&mut self, question: Question, body: &[u8]) -> Option<()> {
        let mut row = Row::new(body)?;
        match question {
            Question::Begin | Question::End => return None,
            Question::Session => {
                self.session = Some(SessionState {
                    role: row.hex()??,
                    session_user: row.hex()??,
                    temporary: row.boolean()?,
                    channels: row.list()?,
                    cursors: row.boolean()?,
                    event_triggers: row.boolean()?,
                    other_set_config: row.boolean()?,
                });
            }
            Question::Settings => {
                let name = row.text()??.to_ascii_lowercase().into();
                let value = row.hex()?;
                let (is_real, is_default) = (row.boolean()?, row.boolean()?);
                let settings = self.settings.get_or_insert_default();
                // NULL: a custom setting that has never been set on this server connection.
                if let Some(value) = value {
                    settings.push(ShownSetting { name, value, is_real, is_default });
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

    /// The kinds of state that the answer shows and that pin a session to its server connection;
    /// empty if there are none, or nothing was asked. Settings and the role are not among them, nor
    /// statements made by Parse. [`Pin::show`](crate::session::pin::Pin::show) takes them.
    #[must_use]
    pub fn shown(&self) -> Kinds {
        let session = self.session.as_ref();
        [
            (session.is_some_and(|s| s.temporary), Kinds::TEMPORARY),
            (session.is_some_and(|s| !s.channels.is_empty()), Kinds::CHANNELS),
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
        Some(Some(from_hex(digits)?))
    }

    /// Several values in hexadecimal digits, with commas between them; NULL for none.
    fn list(&mut self) -> Option<Vec<Bytes>> {
        let Some(list) = self.text()? else { return Some(Vec::new()) };
        list.split(|&byte| byte == b',').map(from_hex).collect()
    }
}

fn from_hex(digits: &[u8]) -> Option<Bytes> {
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let bytes = digits.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?));
    Some(bytes.collect::<Option<Vec<u8>>>()?.into())
}
