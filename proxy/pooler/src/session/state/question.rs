//! What the server is asked about a session.
//!
//! A question is one segment of the extended protocol under statement names of pgimbal's own: a
//! simple query would destroy the client's unnamed statement. The transaction around it is READ
//! COMMITTED, because under `default_transaction_deferrable` any SELECT may wait for all
//! serializable writers. Nothing that the client did can answer in PostgreSQL's place: every name
//! is qualified, and only counts, booleans and hexadecimal digits come back.

use pgimbal_wire::encode::{self, NameKind};
use pgimbal_wire::tag::frontend;

use crate::plan::Plan;
use crate::sql::Kinds;

/// One statement of a question that the proxy asks a server about a session's state. Each is a
/// prepared statement under a name of the proxy's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// BEGIN (READ COMMITTED READ ONLY), so that no answer waits for other transactions; no rows.
    Begin,
    /// The role, the session's user, and whether there are temporary objects, channels and cursors
    /// WITH HOLD; with them the two facts about the database. One row of seven columns.
    Session,
    /// The settings that the session has set (`pg_settings`), and custom ones by name. One row for
    /// each, or none.
    Settings,
    /// Whether the session has session-level advisory locks (`pg_locks`); one row. Asked by itself:
    /// other sessions' locks make it slow.
    Locks,
    /// How many prepared statements the server connection has (`pg_prepared_statements`); one row.
    Statements,
    /// Whether the session has set up a replication origin
    /// (`pg_replication_origin_session_is_setup`); one row.
    Origin,
    /// Whether the session has temporary replication slots (`pg_replication_slots`); one row.
    Slots,
    /// COMMIT of the transaction around the others; no rows.
    End,
}

/// The proxy's own prepared statements (for questions) that a server connection has: a set of
/// [`Question`]s. Empty on a fresh connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnStatements {
    there: u8,
    /// Those that may be there: they were parsed, and an error came. They are closed before they
    /// are parsed again.
    doubted: u8,
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
     , (SELECT pg_catalog.string_agg(",
    in_hex!("c"),
    ", ',') FROM pg_catalog.pg_listening_channels() c)\
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
    ", s.vartype OPERATOR(pg_catalog.=) 'real', \
     COALESCE(s.setting OPERATOR(pg_catalog.=) s.reset_val, false) FROM pg_catalog.pg_show_all_settings() s \
     WHERE s.source OPERATOR(pg_catalog.=) 'session' UNION ALL SELECT n.name, ",
    in_hex!("pg_catalog.current_setting(n.name, true)"),
    ", false, false FROM pg_catalog.unnest(pg_catalog.string_to_array($1, ',')) n(name)",
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
    /// The name of the prepared statement on every server, without a NUL: `pgimbal_ask_` and a word
    /// (such as `session`). Parse, Bind and Close of a question carry it.
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

    /// The label under which the statement is counted in the metrics, each time it is sent: the
    /// last word of [`Self::name`]. `None` for BEGIN and COMMIT, which are not counted.
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

    /// Appends the Parse of this statement.
    pub(super) fn write_parse(self, out: &mut Vec<u8>) {
        let with_text = [&[0, 1][..], &TEXT_OID].concat();
        let types = if self.has_parameter() { &with_text[..] } else { &[0, 0] };
        encode::parse(out, self.name(), self.text().as_bytes(), types);
    }

    /// Appends a Bind to the unnamed portal, and an Execute of all its rows.
    pub(super) fn write_execute(self, custom: &[u8], out: &mut Vec<u8>) {
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
    pub(super) const fn kinds(self) -> Kinds {
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

    /// Those that tell something.
    pub(super) const ALL: [Self; 6] =
        [Self::Session, Self::Settings, Self::Locks, Self::Statements, Self::Origin, Self::Slots];
}

impl OwnStatements {
    /// How many of the proxy's own statements the server connection surely has (0 to 8), without
    /// the doubtful ones ([`Self::doubt`]). The proxy expects that many of its own in
    /// `pg_prepared_statements`.
    #[must_use]
    pub const fn count(self) -> u64 {
        self.there.count_ones() as u64
    }

    /// Writes a Parse of [`Question::Begin`], without a Sync, ahead of a client's code that may
    /// deallocate all statements: if the statement is missing afterwards (26000), the code did.
    /// Statements of which an error left it unknown whether they exist ([`Self::doubt`]) are closed
    /// first, and [`Question::Begin`] counts as there from now on. Returns how many replies the
    /// server will send (a CloseComplete for each, and one ParseComplete), which the caller must
    /// await and keep from the client.
    pub fn write_witness(&mut self, plan: &mut Plan) -> u32 {
        let mut closed = 0;
        plan.make_for_server(|out| {
            closed = self.close_doubted(out);
            Question::Begin.write_parse(out);
        });
        self.insert(Question::Begin);
        closed + 1
    }

    /// Notes that an error has come in a question or witness, after which it is not known which
    /// statements were parsed: [`Self::count`] is 0 from now on, and all are closed (message Close)
    /// before they are parsed again. Nothing is sent here.
    pub const fn doubt(&mut self) {
        self.doubted |= self.there;
        self.there = 0;
    }

    /// Appends a Close of each statement that may be there. Returns how many replies that has.
    pub(super) fn close_doubted(&mut self, out: &mut Vec<u8>) -> u32 {
        let doubted = std::mem::take(&mut self.doubted);
        for question in Question::EVERY {
            if doubted & (1 << question as u8) != 0 {
                encode::close(out, NameKind::Statement, question.name());
            }
        }
        doubted.count_ones()
    }

    /// Whether `question` is among them.
    pub(super) const fn has(self, question: Question) -> bool {
        self.there & (1 << question as u8) != 0
    }

    /// `question` is there from now on.
    pub(super) const fn insert(&mut self, question: Question) {
        self.there |= 1 << question as u8;
    }
}
