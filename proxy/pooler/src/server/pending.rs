//! The replies that a server connection has still to send: one entry for a run of alike replies.
//!
//! It is the only record of what a server will say, and its order is the order of the replies. A
//! reply that pgimbal makes itself has an entry too (CloseComplete for a statement that stays on
//! the server for other clients: [`Pending::Closed`]), so it comes in its place. When the queue is
//! full, the client is not read, and the server gets a Flush so that it sends what it has.
//!
//! Each entry has an `Owner`. Several sessions may await replies on one server connection, as long
//! as no segment of one is in the middle of another's: what the server skips after an error is one
//! owner's. The entries of a session that has left stay, because their replies still come.

mod queue;

use std::rc::Rc;
use std::sync::Arc;

pub use queue::{PENDING_LIMIT, PendingReplies};

use crate::ids::SessionId;
use crate::server::prepared::Unnamed;
use crate::server::prepared::UnnamedStatement;
use crate::server::prepared::{Statement, StatementId};
use crate::session::effect::{Bytes, Script};

/// Whose a reply is: it passes to that session, and has its effects there.
///
/// One number, because it is compared for each message: slot and serial of the session, 0 for
/// pgimbal. No session has the serial number 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(u64);

impl Owner {
    /// pgimbal, on behalf of no session.
    pub(crate) const PGIMBAL: Self = Self(0);

    /// A session, for what its client has sent and for what pgimbal has added on its behalf.
    pub(crate) const fn of(session: SessionId) -> Self {
        Self((session.slot as u64) << 32 | session.serial as u64)
    }

    /// The session; `None` where it is pgimbal's own. It may have left.
    #[inline]
    pub(crate) fn session(self) -> Option<SessionId> {
        let id = SessionId { slot: (self.0 >> 32) as u32, serial: self.0 as u32 };
        (self != Self::PGIMBAL).then_some(id)
    }
}

/// One entry of the queue.
#[derive(Debug)]
pub enum Pending {
    /// So many final replies of extended-protocol messages, which pass to the client.
    Pass(u32),
    /// So many final replies to messages that the proxy added; they are swallowed.
    Swallow(u32),
    /// A CloseComplete that the proxy makes when its turn comes: the statement stays on the server,
    /// the client's name of it is gone.
    Closed(Box<NameChange>),
    /// The reply to a Parse or Close of the unnamed statement.
    Unnamed(Origin, Option<Box<UnnamedBefore>>),
    /// No reply: so many CopyDone or CopyFail that were forwarded before the server had said that
    /// it reads COPY data.
    CopyEnd(u32),
    /// The reply to a Parse that was forwarded or added.
    Parse(Box<ParseInFlight>),
    /// The replies to a Describe of a statement that the client has just parsed; they are
    /// swallowed.
    Describe(Box<DescribeInFlight>),
    /// The reply to a Close that frees a place among the server's prepared statements.
    Evict(Box<StatementId>),
    /// The reply to a message that makes a client's own name of a statement real for the text
    /// behind it; it is swallowed.
    TemporaryName(NameFor, Option<Bytes>),
    /// The reply to a message that has a statement of a question's parsed ahead of code that may
    /// deallocate all; it is swallowed.
    Witness(NameFor),
    /// The replies to a Describe of a statement that was reprepared; they are swallowed.
    ShapeCheck(Box<DescribeInFlight>),
    /// The reply to a Describe of the client's unnamed statement, of this number; it passes.
    DescribeUnnamed(u32, Option<Box<[u8]>>),
    /// The replies to a Describe of the unnamed statement, of this number, that was reprepared;
    /// they are swallowed.
    UnnamedCheck(u32, Option<Box<[u8]>>),
    /// The error that a statement is to be told whose shape has changed.
    Changed,
    /// The error, as the body of an ErrorResponse, that a message is told which the server was not
    /// sent.
    Refused(Arc<[u8]>),
    /// The last reply to an Execute that changes session state.
    Execute(Box<Script>),
    /// ReadyForQuery for the client's Sync.
    Sync,
    /// ReadyForQuery for a Sync that the proxy added.
    OwnSync,
    /// All replies to a simple query or function call of the client, up to ReadyForQuery.
    Query(Option<Box<Script>>),
    /// All replies to a simple query of the proxy's own, up to ReadyForQuery.
    Own(OwnQuery),
}

/// What a name is made real for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFor {
    /// A simple query, in a segment in front of it: an error is told in place of the one that
    /// follows from it.
    Query,
    /// A message of the same segment: an error is that of the segment.
    Segment,
    /// The Parse behind it, whose text and name it tries: its notices and errors are those.
    Probe,
}

/// Whose a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The client's: the reply passes.
    Client,
    /// The proxy's: the reply is swallowed.
    Proxy,
}

/// What the unnamed statement was before a request that an earlier error may skip.
#[derive(Debug)]
pub struct UnnamedBefore {
    /// To the client, and whether its text was not kept; `None` where the request was the proxy's.
    pub client: Option<(Option<Unnamed>, bool)>,
    /// To the server.
    pub server: UnnamedStatement,
}

/// Where a COPY FROM STDIN that has just begun stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyBegun {
    /// Its end was forwarded already.
    pub ended: bool,
    /// The Sync that ended its segment was ignored, and none has followed.
    pub lost_sync: bool,
}

/// Why the proxy sent a simple query of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnQuery {
    /// Settings are brought to the client's before its first message is forwarded.
    Setup,
    /// As `Setup`, the first of two queries.
    SetupFirst,
    /// Settings are brought back to the client's startup values after its RESET.
    Restore,
    /// What the session before may have left is taken off, before the settings are brought to the
    /// client's.
    ResetAhead,
    /// Settings were refused: everything is brought back to the server's defaults.
    Heal,
    /// One setting of the client's by itself.
    SetupOne,
    /// The server is asked what the session has left.
    Question,
    /// The server is asked about its database.
    Facts,
    /// All prepared statements are taken away, because what is known of them is wrong.
    Deallocate,
    /// What a client that has left may have left behind is taken off.
    Clean,
    /// A limit of the client's on idle time is taken off before the connection is idle.
    Untimed,
    /// A transaction that its client left open, or that a question has, is rolled back.
    Rollback,
    /// The operator's own reset query, where that is not `DISCARD ALL`.
    CustomReset,
    /// `DISCARD ALL`, before the connection serves somebody else.
    Reset,
    /// A READ ONLY transaction begins, in which a statement is run again.
    RerunBegin,
    /// It ends: its ReadyForQuery is the client's.
    RerunEnd,
}

impl OwnQuery {
    /// Whether it concerns the server connection alone, so that its answer means nothing to the
    /// session that is linked.
    pub(crate) const fn is_of_no_session(self) -> bool {
        matches!(
            self,
            Self::Deallocate | Self::Clean | Self::Untimed | Self::CustomReset | Self::Reset
        )
    }
}

/// A Parse on its way.
#[derive(Debug)]
pub struct ParseInFlight {
    /// What is parsed; `None` where the server's list is not concerned (a probe for a duplicate).
    pub statement: Option<Rc<Statement>>,
    /// How to undo the client's name when the Parse fails; `None` when the proxy put it in.
    pub change: Option<NameChange>,
    /// Whether a probe in front of it has told the client everything but that it is done.
    pub is_probed: bool,
}

/// A Describe of the proxy's own on its way.
#[derive(Debug)]
pub struct DescribeInFlight {
    /// The client's name of the statement.
    pub name: Box<[u8]>,
    /// What is described.
    pub statement: Rc<Statement>,
    /// The parameter types that the server has told: a count of 2 bytes, then 4 bytes each.
    pub parameters: Option<Box<[u8]>>,
}

/// How a name of the client's looked before a request that has not succeeded yet.
#[derive(Debug)]
pub struct NameChange {
    /// The client's name of the statement.
    pub name: Box<[u8]>,
    /// What it meant before.
    pub before: Option<Rc<Statement>>,
}

impl Pending {
    /// Whether the client waits for it.
    pub(crate) fn is_awaited(&self) -> bool {
        match self {
            Self::Pass(_)
            | Self::Closed(_)
            | Self::Unnamed(Origin::Client, _)
            | Self::DescribeUnnamed(..)
            | Self::Execute(_)
            | Self::Changed
            | Self::Refused(_) => true,
            Self::Parse(parse) => parse.change.is_some(),
            _ => false,
        }
    }

    /// Whether it would be undone if it were skipped.
    const fn is_change(&self) -> bool {
        match self {
            Self::Parse(parse) => parse.change.is_some(),
            Self::Closed(_) | Self::Unnamed(..) => true,
            _ => false,
        }
    }
}

/// What a final reply was the answer to.
#[derive(Debug)]
pub enum Reply {
    /// A message of the client's: it passes.
    Pass,
    /// A message of the proxy's: it is swallowed.
    Swallow,
    /// A Parse.
    Parse(Box<ParseInFlight>),
    /// A Describe that the proxy added.
    Describe(Box<DescribeInFlight>),
    /// A Close that the proxy added.
    Evict(Box<StatementId>),
    /// What makes a client's own name real: it is swallowed.
    TemporaryName(Bytes),
    /// A Describe of a statement that was reprepared.
    ShapeCheck(Box<DescribeInFlight>),
    /// A Describe of the client's unnamed statement: it passes.
    DescribeUnnamed(u32, Option<Box<[u8]>>),
    /// A Describe of the unnamed statement that was reprepared.
    UnnamedCheck(u32, Option<Box<[u8]>>),
    /// An Execute with an effect: it passes.
    Execute(Box<Script>),
}
