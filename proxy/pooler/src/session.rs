//! One client session as the core sees it. Its socket is the driver's.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::cancel::CancelKey;
use crate::effect::Effect;
use crate::ids::{PoolId, ServerId, SessionId};
use crate::offline::Offline;
use crate::pin::Pin;
use crate::pooler::error_body;
use crate::prepared::{ClientStatements, StatementKind};
use crate::reported::Reported;
use crate::rerun::{self, Rerun};
use crate::server::{Body, UnnamedStatement};
use crate::settings::ClientSettings;
use crate::text::{Reading, Scanner};

/// A client session. At most 512 bytes, because 10,000 idle ones must fit.
#[derive(Debug)]
pub struct Session {
    /// Its own id.
    pub id: SessionId,
    /// The pool that it belongs to.
    pub pool: PoolId,
    /// The pool whose server connection it has or waits for: that, or one of its replicas.
    pub serving: PoolId,
    /// Its tie to a server connection.
    pub link: Link,
    /// What the extended protocol lets through.
    pub phase: Phase,
    /// Whether the client is still there.
    pub presence: Presence,
    /// The rest of a message that is passing through towards the server.
    pub body: ClientBody,
    /// Why it keeps its server connection beyond a transaction.
    pub pin: Pin,
    /// Its settings.
    pub settings: ClientSettings,
    /// The reported settings as the client knows them.
    pub reported: Rc<Reported>,
    /// How its texts are read, as far as the reported settings say.
    pub reading: Reading,
    /// Its named prepared statements.
    pub statements: Option<Box<ClientStatements>>,
    /// Its unnamed prepared statement.
    pub unnamed: Option<Unnamed>,
    /// Its unnamed statement's text is above the limit, so that one server only has it.
    pub unnamed_is_unkept: bool,
    /// How often that has changed: a server may still have an earlier one.
    pub unnamed_serial: u32,
    /// The portals whose Execute changes session state, and how.
    pub bound_effects: Vec<(Box<[u8]>, Effect)>,
    /// How many statements without a kept text it has had: they are told apart by it.
    pub unkept_serial: u32,
    /// Names to close on the server after the next Sync: probes for duplicates, and names that were
    /// lent.
    pub close_after_sync: Vec<Box<[u8]>>,
    /// Whether its segment is being run again.
    pub rerun: Rerun,
    /// The errors that stand in for a server that is not there.
    pub offline: Option<Box<Offline>>,
    /// The message with which the client's connection is ended, once somebody has decided so.
    pub farewell: Option<Box<[u8]>>,
    /// With what the client may cancel.
    pub key: CancelKey,
    /// When it logged in.
    pub connected_at: Instant,
    /// When the client last said something or was last answered.
    pub active_at: Instant,
    /// Since when the client has not read what was written to it.
    pub stalled_since: Option<Instant>,
}

/// A session's tie to a server connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It needs none.
    Unlinked,
    /// It waits for one since then.
    Waiting(Instant),
    /// It has one, on which its settings are not checked yet.
    Fresh(ServerId),
    /// It has one, on which its settings are being set.
    Setup(ServerId),
    /// It has one, ready for its messages.
    Ready(ServerId),
    /// It is done with one that is being cleaned for the next session.
    Cleaning(ServerId),
}

/// What the extended protocol lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Everything.
    Open,
    /// Nothing until all owed replies have come: the next message depends on them.
    Barrier,
    /// After an error: nothing until Sync.
    Skipping,
}

/// Whether the client is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is.
    Here,
    /// It said Terminate: what it sent before still runs.
    Terminated,
    /// It is gone without a word.
    Vanished,
}

/// The rest of a client's message that is passing through piece by piece.
#[derive(Debug)]
pub enum ClientBody {
    /// Bytes that pass on or are swallowed.
    Plain(Body),
    /// So many bytes of a message of which a text comes next, which is judged while it passes.
    Text(u32, Box<Scanner>),
}

/// A client's unnamed statement: the body of its Parse behind the name.
#[derive(Debug)]
pub struct Unnamed {
    /// Text, NUL, parameter types.
    pub body: Vec<u8>,
    /// Whether executing it changes more than rows.
    pub kind: StatementKind,
}

impl Link {
    /// The server connection, if there is one.
    #[inline]
    #[must_use]
    pub const fn server(self) -> Option<ServerId> {
        match self {
            Self::Fresh(server)
            | Self::Setup(server)
            | Self::Ready(server)
            | Self::Cleaning(server) => Some(server),
            Self::Unlinked | Self::Waiting(_) => None,
        }
    }
}

impl Session {
    /// Its next segment is answered with this error; one that was to be run again, with the truth
    /// that nobody knows what became of it, unless its rollback is proven.
    pub(crate) fn refuse(&mut self, error: Arc<[u8]>) {
        let tries = std::mem::replace(&mut self.rerun, Rerun::No).tries();
        let error = match tries.is_none_or(|tries| tries.rolled_back) {
            true => error,
            false => error_body(&rerun::outcome_unknown()),
        };
        self.offline = Some(Box::new(Offline::refused(error)));
    }

    /// Its unnamed statement is another one from now on, or none.
    pub fn set_unnamed(&mut self, unnamed: Option<Unnamed>) {
        self.unnamed = unnamed;
        self.unnamed_is_unkept = false;
        self.unnamed_serial = self.unnamed_serial.wrapping_add(1);
    }

    /// Its unnamed statement as a server has it.
    #[must_use]
    pub const fn own_unnamed(&self) -> UnnamedStatement {
        UnnamedStatement::Of(self.id, self.unnamed_serial)
    }

    /// Whether the next byte of the client is a tag.
    #[inline]
    #[must_use]
    pub const fn between_messages(&self) -> bool {
        matches!(self.body, ClientBody::Plain(Body::None))
    }
}
