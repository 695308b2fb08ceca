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

/// One entry in a server connection's queue of replies: what kind of reply comes next, and what the
/// proxy does with it. "Passes" means that the reply goes to the client, "is swallowed" that it
/// does not (protocol, "Message Flow").
#[derive(Debug)]
pub enum Pending {
    /// This many final replies of extended-protocol messages, which pass to the client.
    Pass(u32),
    /// This many final replies to messages that the proxy added; they are swallowed.
    Swallow(u32),
    /// A CloseComplete that the proxy itself sends when its turn comes: the statement stays on the
    /// server for other clients, and only the client's name of it is gone. The change is undone if
    /// an earlier error skips it.
    Closed(Box<NameChange>),
    /// The reply to a Parse or Close of the unnamed statement. The second field is what an error in
    /// front of it brings back; `None` where nothing can skip the request.
    Unnamed(Origin, Option<Box<UnnamedBefore>>),
    /// No reply: this many CopyDone or CopyFail that were forwarded before the server had said that
    /// it reads COPY data.
    CopyEnd(u32),
    /// The reply to a Parse of a named statement, from the client or added by the proxy; or to the
    /// client's Close of one that only this server has, because that is undone in the same way.
    Parse(Box<ParseInFlight>),
    /// The replies to a Describe that the proxy added behind a client's Parse; they are swallowed.
    /// The statement's shape is learned from them.
    Describe(Box<DescribeInFlight>),
    /// The reply to a Close that the proxy added to free a place among the server's prepared
    /// statements (`max_prepared_statements`); it is swallowed.
    Evict(Box<StatementId>),
    /// The reply to a message that makes a client's own name of a statement exist on the server for
    /// the text behind it, or takes it away, or tries it; it is swallowed. The bytes are the name
    /// that the message makes; `None` where it makes none.
    TemporaryName(NameFor, Option<Bytes>),
    /// The reply to a message that has a statement of the proxy's questions parsed, ahead of code
    /// that may deallocate all; it is swallowed.
    Witness(NameFor),
    /// The replies to a Describe of a named statement that was parsed again on this server; they
    /// are swallowed. The result is compared with what the client was told.
    ShapeCheck(Box<DescribeInFlight>),
    /// The reply to a Describe of the client's unnamed statement; it passes. The number tells which
    /// of the client's unnamed statements it was; the bytes are the parameter types, once they have
    /// come.
    DescribeUnnamed(u32, Option<Box<[u8]>>),
    /// The replies to a Describe of the client's unnamed statement that was parsed again on this
    /// server; they are swallowed. Fields as in [`Pending::DescribeUnnamed`].
    UnnamedCheck(u32, Option<Box<[u8]>>),
    /// An error that the proxy provokes on the server, in place of which the client is told that
    /// its statement's shape has changed.
    Changed,
    /// An error that the proxy provokes on the server, in place of which the client is told this
    /// body of an ErrorResponse: its own message was not sent.
    Refused(Arc<[u8]>),
    /// The last reply (such as CommandComplete) to an Execute whose effects on the session are then
    /// noted; it passes.
    Execute(Box<Script>),
    /// The ReadyForQuery for the client's Sync; it passes, and ends what an error has skipped.
    Sync,
    /// The ReadyForQuery for a Sync that the proxy added behind messages of its own; it is
    /// swallowed.
    OwnSync,
    /// All replies to a simple query or function call of the client, up to ReadyForQuery; they
    /// pass. `None` where no effect on the session is followed.
    Query(Option<Box<Script>>),
    /// All replies to a simple query of the proxy's own, or to a question, up to ReadyForQuery.
    Own(OwnQuery),
}

/// What a client's name of a statement is made to exist on the server for. It decides how an error
/// is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFor {
    /// A simple query, in a segment in front of it: an error of that segment is told in place of
    /// the one that follows from it in the query.
    Query,
    /// A message of the same segment: an error fails that segment, and passes as its error.
    Segment,
    /// The client's Parse behind it, whose text and name it tries: its notices and errors are told
    /// as those of that Parse.
    Probe,
}

/// Whether a message to the server is the client's own or was added by the proxy; that decides
/// whether its reply goes to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The client has sent the message: the reply passes.
    Client,
    /// The proxy has added the message: the reply is swallowed.
    Proxy,
}

/// What the unnamed statement was before a Parse or Close, which the server skips if an earlier
/// message of the segment fails. Then this is brought back.
#[derive(Debug)]
pub struct UnnamedBefore {
    /// The client's unnamed statement, and whether its text was not kept; `None` where the request
    /// was the proxy's and the client's statement is unchanged.
    pub client: Option<(Option<Unnamed>, bool)>,
    /// Which session the server's unnamed statement belonged to before; this is brought back if the
    /// request is skipped. A Parse that itself fails leaves none ([`UnnamedStatement::Absent`]).
    pub server: UnnamedStatement,
}

/// What the queue of replies says of a COPY FROM STDIN that the server has just begun
/// (CopyInResponse).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyBegun {
    /// Whether the CopyDone or CopyFail of the COPY was forwarded already, before the server asked
    /// for data.
    pub ended: bool,
    /// Whether the server has ignored the Sync behind the COPY, and the client has sent no other
    /// since.
    pub lost_sync: bool,
}

/// The purpose of a simple query, or question, that the proxy sends by itself. It decides what
/// happens when ReadyForQuery has come. An error closes the server connection, unless the purpose
/// says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnQuery {
    /// Brings the connection's settings to the client's: before its first message is forwarded, or
    /// after a question has shown others. If the server refuses, the settings are set one by one.
    Setup,
    /// The first of two queries for that: it changes `client_encoding`; [`OwnQuery::Setup`] is the
    /// second. An error is treated as that of the second.
    SetupFirst,
    /// Brings settings back to the client's startup values after its RESET. An error is allowed
    /// outside a transaction only.
    Restore,
    /// Takes away what the session before may have left, before the settings are brought to the
    /// client's. An error closes the connection.
    ResetAhead,
    /// Brings everything back to the server's defaults, after the server has refused settings. An
    /// error closes the connection.
    Heal,
    /// Sets one setting of the client's by itself, to find out which the server refuses. An error
    /// is noted as a refused setting.
    SetupOne,
    /// Asks the server what state the session has left. After an error the session is pinned as
    /// unknown.
    Question,
    /// Asks the server for the two facts about its database. After an error both count as true for
    /// 60 s.
    Facts,
    /// Reads the database's catalog, by which texts are found to be reads. After an error what was
    /// known before holds.
    Catalog,
    /// Listens to the channels that a shared connection carries for the session, so that code and
    /// queries about them find what PostgreSQL would show. An error changes nothing.
    Listen,
    /// Deallocates all prepared statements (DEALLOCATE ALL), because what the proxy believes of
    /// them is wrong.
    Deallocate,
    /// Takes away what a client that has left may have left behind, before its session is
    /// forgotten.
    Clean,
    /// Takes the client's `idle_session_timeout` off, which would end the connection while it is
    /// idle.
    Untimed,
    /// Rolls back a transaction that a client which has left, or a failed question, has left open.
    Rollback,
    /// The operator's own `reset_query`, where that is not `DISCARD ALL`; `DISCARD ALL` follows it.
    CustomReset,
    /// `DISCARD ALL`, before the connection serves another session. Afterwards the server has no
    /// settings and no prepared statements.
    Reset,
    /// Begins the READ ONLY transaction in which a segment is run again; the client does not see
    /// it.
    RerunBegin,
    /// Ends (COMMIT) the transaction of a statement that is run again: its ReadyForQuery passes to
    /// the client.
    RerunEnd,
}

impl OwnQuery {
    /// Whether it concerns the server connection alone, so that its answer means nothing to the
    /// session that is linked.
    pub(crate) const fn is_of_no_session(self) -> bool {
        matches!(
            self,
            Self::Catalog
                | Self::Deallocate
                | Self::Clean
                | Self::Untimed
                | Self::CustomReset
                | Self::Reset
        )
    }
}

/// A Parse of a named statement, or a Close of one that only this server has, that was sent and is
/// not answered yet.
#[derive(Debug)]
pub struct ParseInFlight {
    /// The statement that is parsed; `None` where the server's list of statements is not concerned
    /// (a Close, or a Parse in session mode).
    pub statement: Option<Rc<Statement>>,
    /// How to undo the change of the client's name if the request fails; `None` if the proxy added
    /// the Parse.
    pub change: Option<NameChange>,
    /// Whether a probe in front of it has told the client everything but the ParseComplete: what
    /// else the server says of this one is swallowed.
    pub is_probed: bool,
}

/// A Describe of a named statement that the proxy has added and that is not answered yet. Its
/// ParameterDescription and RowDescription (or NoData) give the statement's shape.
#[derive(Debug)]
pub struct DescribeInFlight {
    /// The client's name of the statement, without a NUL; as the client knows it, not as the server
    /// does.
    pub name: Box<[u8]>,
    /// The statement that is described, whose shape is noted or compared when the reply has come.
    pub statement: Rc<Statement>,
    /// The parameter types from the server's ParameterDescription: a count of 2 bytes, then a type
    /// OID of 4 bytes each; `None` until it has come.
    pub parameters: Option<Box<[u8]>>,
}

/// A change of what a client's name of a statement means that was noted when the request was sent;
/// it is undone if the request fails.
#[derive(Debug)]
pub struct NameChange {
    /// The client's name of the statement, without a NUL; not the name on the server.
    pub name: Box<[u8]>,
    /// The statement that the name meant before; `None` if it meant none, so that undoing takes it
    /// away.
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

/// The request to which a final reply is the answer, as [`PendingReplies::take_reply`] takes it off
/// the queue.
#[derive(Debug)]
pub enum Reply {
    /// A message of the client's, or an error that the proxy has provoked in place of one
    /// ([`Pending::Changed`], [`Pending::Refused`]): the reply passes.
    Pass,
    /// A message of the proxy's that leaves nothing to note, or of which all is noted already: the
    /// reply is swallowed.
    Swallow,
    /// A Parse of a named statement, or a Close of one that only this server has.
    Parse(Box<ParseInFlight>),
    /// A Describe that the proxy added behind a client's Parse: the reply is swallowed.
    Describe(Box<DescribeInFlight>),
    /// A Close that the proxy added to free a place: the reply is swallowed.
    Evict(Box<StatementId>),
    /// A message that makes this name of a client's exist on the server: the reply is swallowed.
    TemporaryName(Bytes),
    /// A Describe of a named statement that was parsed again: the reply is swallowed.
    ShapeCheck(Box<DescribeInFlight>),
    /// A Describe of the client's unnamed statement of this number: the reply passes. The bytes are
    /// the parameter types, as in [`Pending::DescribeUnnamed`]; `None` if they have not come.
    DescribeUnnamed(u32, Option<Box<[u8]>>),
    /// A Describe of the client's unnamed statement of this number, parsed again: the reply is
    /// swallowed.
    UnnamedCheck(u32, Option<Box<[u8]>>),
    /// An Execute with effects on the session, which are noted; the reply passes.
    Execute(Box<Script>),
}
