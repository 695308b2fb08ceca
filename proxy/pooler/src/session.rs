//! One client session as the core sees it. Its socket is the driver's.

pub mod arrival;
pub mod channels;
pub(crate) mod client_turn;
pub(crate) mod delivery;
pub mod departure;
pub(crate) mod dismissal;
pub mod drain;
pub mod effect;
pub mod front;
pub mod output;
pub mod pin;
pub(crate) mod place;
pub mod routing;
pub mod sessions;
pub mod settings;
pub(crate) mod setup;
pub mod state;
pub(crate) mod writing;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use thin_vec::ThinVec;

use crate::cancel::CancelKey;
use crate::error::error_body;
use crate::ids::{PoolId, ServerId, SessionId};
use crate::plan::Body;
use crate::recovery::aborted::Aborted;
use crate::recovery::proof::{self, Proof, Rerun};
use crate::server::prepared::{ClientStatements, Shape, Unnamed, UnnamedStatement};
use crate::server::reported::Reported;
use crate::session::channels::{Channels, Here};
use crate::session::front::FrontMessage;
use crate::session::output::OutputQueue;
use crate::session::pin::{Pin, PinReason};
use crate::session::routing::Routing;
use crate::session::settings::{ClientSettings, RefusedSettings, SettingsTable};
use crate::session::state::custom::CustomNames;
use crate::session::state::portals::Portals;
use crate::session::writing::Writing;
use crate::sql::{Kinds, Reading, Scanner};

/// The state of one logged-in client in its worker: its pool, its server connection if it has one,
/// its settings, its prepared statements and its place in the message flow. The driver owns the
/// socket. At most 512 bytes, because 10,000 idle sessions must fit.
#[derive(Debug)]
pub struct Session {
    /// The session's own id.
    id: SessionId,
    /// The pool that the session belongs to, by its database and user.
    pool: PoolId,
    /// The pool whose server connection the session has or waits for: `pool`, or one of its
    /// replicas.
    serving: PoolId,
    /// The session's tie to a server connection.
    link: Link,
    /// Which of the client's messages the extended protocol lets through now.
    phase: Phase,
    /// Whether the client is still connected.
    presence: Presence,
    /// The rest of a client's message that is passing through towards the server.
    body: ClientBody,
    /// What is known of the first message that the client has sent and the session has not taken.
    front: FrontMessage,
    /// Where its statements go, if they are sent to the primary or to a replica one by one; `None`
    /// if all go one way.
    routing: Option<Box<Routing>>,
    /// The reasons why the session keeps its server connection beyond a transaction.
    pin: Pin,
    /// The kinds of state that the session may have left on its server connection. The server is
    /// asked about them before another session gets the connection.
    raised: Kinds,
    /// Custom settings that the session may have set: the server shows them only to who asks by
    /// name.
    custom: CustomNames,
    /// Whether the transaction has settings until its end that no text has shown.
    local: LocalSettings,
    /// Whether the statement that the client's next message names still has the shape it was told.
    shape: ShapeCheck,
    /// The client's settings, as the proxy follows them.
    settings: ClientSettings,
    /// What the client listens to over a connection that others share.
    channels: Channels,
    /// The reported settings (ParameterStatus) as the client knows them.
    reported: Rc<Reported>,
    /// How the client's texts are read, as far as the reported settings say.
    reading: Reading,
    /// The client's named prepared statements; `None` if it has none.
    statements: Option<Box<ClientStatements>>,
    /// Bytes of the Parses that were sent since nothing was pending.
    parsed_bytes: u32,
    /// The client's unnamed prepared statement; `None` if it has none, or its text is not kept.
    unnamed: Option<Unnamed>,
    /// Whether the unnamed statement's text is not kept, being too long: only the server connection
    /// that parsed it has it, and the session keeps that connection.
    unnamed_is_uncached: bool,
    /// How often the unnamed statement has changed: a server may still have an earlier one.
    unnamed_serial: u32,
    /// The client's portals whose statement is not plain.
    portals: Portals,
    /// How many statements without a kept text the session has had: this number tells them apart.
    uncached_serial: u32,
    /// Names to close on the server after the next Sync: probes for duplicates, and names that were
    /// real.
    close_after_sync: ThinVec<NameToClose>,
    /// Whether the session's segment is being run again after its server connection broke.
    rerun: Rerun,
    /// The errors that answer the client in place of a server connection that is gone; `None` if
    /// nothing is to be answered so.
    aborted: Option<Box<Aborted>>,
    /// The client's settings that no server connection takes any more; `None` if all are taken.
    refused: Option<Box<RefusedSettings>>,
    /// Whether a server is still to check the settings of the startup packet, before the greeting.
    trial: Trial,
    /// The ErrorResponse with which the client's connection is ended; `None` until the proxy has
    /// decided to end it.
    final_error: Option<ThinVec<u8>>,
    /// Messages for this client that were made in the turn of another session.
    output: OutputQueue,
    /// The process id and secret that the client was given for cancel requests.
    key: CancelKey,
    /// When the client's startup packet had come.
    came_at: Instant,
    /// When the client logged in.
    connected_at: Instant,
    /// When the client last sent something or was last answered.
    active_at: Instant,
    /// What the session has written on a cluster.
    writing: Writing,
    /// Since when the client has not read what was written to it; `None` if it has read all. Few
    /// clients stall, so it takes one pointer.
    stalled_since: Option<Box<Instant>>,
}

/// How a session is tied to a server connection at the moment. In transaction pooling a session is
/// linked for one transaction; a pinned or session-mode session stays linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// The session has no server connection and asks for none, as after login and between
    /// transactions.
    Unlinked,
    /// The session has waited in its pool's queue for a server connection since this time. After
    /// `query_wait_timeout` (53300), or after as long as a hold of its cluster may last (57P03),
    /// the client's messages are answered with an error instead.
    Waiting(Instant),
    /// The session has waited since this time for a place among its pool's pinned sessions
    /// (`max_pinned`). It holds no server connection meanwhile. After `query_wait_timeout` the
    /// client's statement is answered with an error (53400).
    AwaitingPlace(Instant),
    /// The session's read has waited since this time for a replica that shows what it must. It
    /// holds no server connection meanwhile. After `read_wait` the primary serves it.
    AwaitingRead(Instant),
    /// The session has this server connection, whose settings were not yet compared with the
    /// client's. Nothing of the client's was forwarded to it.
    Fresh(ServerId),
    /// The session has this server connection, which is being brought to the client's settings. The
    /// client's messages wait until the server has answered.
    Setup(ServerId),
    /// The session has this server connection, and the client's messages are forwarded to it.
    Ready(ServerId),
    /// The session is done with this server connection, which the proxy cleans for the next
    /// session.
    Cleaning(ServerId),
}

/// Which messages of the extended protocol a session lets through at the moment (PostgreSQL
/// protocol, "Message Flow", Extended Query).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Every message is processed as it comes; the state after login.
    Open,
    /// No message is processed until all pending replies have come, because what to do with the
    /// next one depends on them (for example, which statement a name means).
    Barrier,
    /// An error was told to the client: its messages are dropped up to its next Sync, as a server
    /// does.
    Skipping,
}

/// Whether a session's client is still connected, and how it left. It decides what happens to what
/// still runs for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// The client is connected; every session begins so.
    Here,
    /// The client sent Terminate (protocol, "Termination"). What it sent before still runs; then
    /// its transaction is rolled back, if one is open.
    Terminated,
    /// The client's connection ended without Terminate. What still runs for it is cancelled, if
    /// `on_client_gone` says so, unless that may be a COMMIT.
    Vanished,
}

/// The rest of a client's message whose beginning was processed and that streams to the server.
#[derive(Debug)]
pub enum ClientBody {
    /// Bytes that are forwarded or dropped without a look at them; `Body::None` between two
    /// messages.
    Plain(Body),
    /// The number of missing bytes of a message whose SQL text comes next. The scanner reads the
    /// text while it is forwarded.
    Text(u32, Box<Scanner>),
}

/// A prepared statement's name that was made on the server for one segment (the messages up to a
/// Sync), and that the proxy closes (message Close) behind the client's next Sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameToClose {
    /// The name as the server has it, without a NUL: the client's own, escaped if it looks like the
    /// proxy's.
    pub name: Box<[u8]>,
    /// Whether the name stands for the client's own statement in this segment; false once the
    /// client has deallocated or closed it.
    pub is_temporary: bool,
    /// Whether the server has confirmed that the name exists. After an error, names that were not
    /// confirmed are taken off the list, because the server has skipped them.
    pub is_made: bool,
}

/// Whether the transaction may have settings (until its end, as SET LOCAL makes them) that the
/// proxy has not followed. If so, it is not known under which settings a statement is parsed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalSettings {
    /// No: every such setting is followed, or none was set. Every transaction begins so.
    #[default]
    Known,
    /// Perhaps: code (such as DO or CALL) has run that may set something, and no text shows what. A
    /// statement parsed now is not shared.
    Unknown,
    /// Perhaps: a text names the settings, but is not followed. A statement parsed now is not
    /// shared.
    Named,
}

/// The result of the Describe that follows when a client's statement is parsed again on another
/// server: whether its parameters and rows still look as the client was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShapeCheck {
    /// No difference was found, or no check was made.
    #[default]
    None,
    /// The shape has changed: the client's message that needs the statement is answered with
    /// PostgreSQL's own error (0A000, "cached plan must not change result type").
    Changed,
}

/// Whether a session still waits for a server to check the settings of its startup packet. A trial
/// is needed for settings that no server of the pool has taken yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trial {
    /// No: the client was greeted, or no trial was needed or begun.
    #[default]
    None,
    /// Yes: the client is greeted once a server connection has taken the settings, or dismissed
    /// with the server's error.
    Due,
}

impl Link {
    /// The server connection that the session has, in whatever stage; `None` while it is unlinked
    /// or waits.
    #[inline]
    #[must_use]
    pub const fn server(self) -> Option<ServerId> {
        match self {
            Self::Fresh(server)
            | Self::Setup(server)
            | Self::Ready(server)
            | Self::Cleaning(server) => Some(server),
            Self::Unlinked | Self::Waiting(_) | Self::AwaitingPlace(_) | Self::AwaitingRead(_) => {
                None
            }
        }
    }

    /// Whether the session waits: for a server connection, for a place among the pinned sessions, or
    /// for a replica that shows what its read must show.
    #[must_use]
    pub const fn waits(self) -> bool {
        matches!(self, Self::Waiting(_) | Self::AwaitingPlace(_) | Self::AwaitingRead(_))
    }
}

impl Session {
    /// A session that needs no server connection yet, of a client that has logged in at `now` and
    /// stands at `settings`.
    pub(crate) fn new(
        id: SessionId,
        pool: PoolId,
        key: CancelKey,
        settings: ClientSettings,
        reported: Rc<Reported>,
        reading: Reading,
        (came_at, now): (Instant, Instant),
    ) -> Self {
        Self {
            id,
            pool,
            serving: pool,
            link: Link::Unlinked,
            phase: Phase::Open,
            presence: Presence::Here,
            body: ClientBody::Plain(Body::None),
            front: FrontMessage::Unread,
            routing: None,
            pin: Pin::default(),
            raised: Kinds::NONE,
            custom: CustomNames::default(),
            local: LocalSettings::Known,
            shape: ShapeCheck::None,
            settings,
            channels: Channels::default(),
            reported,
            reading,
            statements: None,
            parsed_bytes: 0,
            unnamed: None,
            unnamed_is_uncached: false,
            unnamed_serial: 0,
            portals: Portals::default(),
            uncached_serial: 0,
            close_after_sync: ThinVec::new(),
            rerun: Rerun::No,
            aborted: None,
            refused: None,
            trial: Trial::None,
            final_error: None,
            output: OutputQueue::default(),
            key,
            came_at,
            connected_at: now,
            active_at: now,
            writing: Writing::default(),
            stalled_since: None,
        }
    }

    /// The session's id: its slot in the worker's table and a serial number, so that the id of a
    /// session that has left finds no other.
    #[inline]
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// The pool that the session belongs to (its database and user), from its login on.
    #[inline]
    #[must_use]
    pub const fn pool(&self) -> PoolId {
        self.pool
    }

    /// The pool whose server connection the session has, had last, or waits for: [`Self::pool`] or
    /// one of its replicas. Before the first, the pool itself.
    #[inline]
    #[must_use]
    pub const fn serving(&self) -> PoolId {
        self.serving
    }

    /// The session's tie to a server connection; [`Link::Unlinked`] after login and between
    /// transactions.
    #[inline]
    #[must_use]
    pub const fn link(&self) -> Link {
        self.link
    }

    /// Which of the client's messages are processed at the moment: all ([`Phase::Open`], also after
    /// login), none before pending replies have come, or none before Sync.
    #[inline]
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether the client is still connected, and how it left; once it has left, this stays. The
    /// driver reports it with `Pooler::handle_departure`.
    #[inline]
    #[must_use]
    pub const fn presence(&self) -> Presence {
        self.presence
    }

    /// The reasons why the session keeps its server connection beyond a transaction; without any
    /// ([`Pin::is_set`] is false) the connection goes back to the pool.
    #[inline]
    #[must_use]
    pub const fn pin(&self) -> &Pin {
        &self.pin
    }

    /// As [`Self::pin`], to be changed.
    #[inline]
    pub(crate) const fn pin_mut(&mut self) -> &mut Pin {
        &mut self.pin
    }

    /// The kinds of state that the session may have left on its server connection, by what it has
    /// run; empty if none. The server is asked about them before another session gets the
    /// connection; an answer takes away the kinds that were asked about. In session pooling nobody
    /// asks.
    #[inline]
    #[must_use]
    pub const fn raised(&self) -> Kinds {
        self.raised
    }

    /// As [`Self::raised`], to be changed.
    #[inline]
    pub(crate) const fn raised_mut(&mut self) -> &mut Kinds {
        &mut self.raised
    }

    /// The client's settings as the proxy follows them (startup packet, SET, RESET), with those of
    /// the transaction that is under way.
    #[inline]
    #[must_use]
    pub const fn settings(&self) -> &ClientSettings {
        &self.settings
    }

    /// As [`Self::settings`], to be changed.
    #[inline]
    pub(crate) const fn settings_mut(&mut self) -> &mut ClientSettings {
        &mut self.settings
    }

    /// What the client listens to over a connection that others share.
    #[inline]
    pub(crate) const fn channels(&self) -> &Channels {
        &self.channels
    }

    /// As [`Self::channels`], to be changed.
    #[inline]
    pub(crate) const fn channels_mut(&mut self) -> &mut Channels {
        &mut self.channels
    }

    /// Whether the transaction that is under way has changed something that its end may undo.
    #[inline]
    pub(crate) fn changed_in_transaction(&self) -> bool {
        self.settings.changed_in_transaction() || self.channels.changed_in_transaction()
    }

    /// The reported settings (ParameterStatus) as the client was last told them; what differs on
    /// another server connection is told to it.
    #[inline]
    #[must_use]
    pub const fn reported(&self) -> &Rc<Reported> {
        &self.reported
    }

    /// Whether the session's segment (its messages up to a Sync, or a simple query) is being run
    /// again after its server connection broke; [`Rerun::No`] normally.
    #[inline]
    #[must_use]
    pub const fn rerun(&self) -> Rerun {
        self.rerun
    }

    /// What is known of the first message that the client has sent and the session has not taken
    /// yet; [`FrontMessage::Unread`] if it was not looked at. By it the server connection is
    /// chosen.
    #[inline]
    #[must_use]
    pub const fn front(&self) -> &FrontMessage {
        &self.front
    }

    /// As [`Self::front`], to be changed.
    #[inline]
    pub(crate) const fn front_mut(&mut self) -> &mut FrontMessage {
        &mut self.front
    }

    /// How the client's texts are read, as far as the reported settings say.
    pub(crate) const fn reading(&self) -> Reading {
        self.reading
    }

    /// Where the session's statements go, if they are sent to the primary or to a replica one by
    /// one; `None` if all go one way.
    #[inline]
    #[must_use]
    pub fn routing(&self) -> Option<&Routing> {
        self.routing.as_deref()
    }

    /// As [`Self::routing`], to be changed.
    #[inline]
    pub(crate) fn routing_mut(&mut self) -> Option<&mut Routing> {
        self.routing.as_deref_mut()
    }

    /// The same, made if there is none yet.
    pub(crate) fn routing_or_new(&mut self) -> &mut Routing {
        self.routing.get_or_insert_default()
    }

    /// Whether the session has a server connection of a replica that was chosen for what it sends.
    #[inline]
    pub(crate) fn reads_elsewhere(&self) -> bool {
        self.serving != self.pool
            && self.routing().is_some_and(|routing| routing.chosen().is_some())
    }

    /// Whether a server is still to check the client's startup settings before it is greeted.
    #[inline]
    pub(crate) const fn trial(&self) -> Trial {
        self.trial
    }

    /// The process id and secret that the client was given in BackendKeyData. A cancel request must
    /// carry both.
    #[inline]
    #[must_use]
    pub const fn key(&self) -> &CancelKey {
        &self.key
    }

    /// When the client logged in (was authenticated); not when its connection was accepted.
    #[inline]
    #[must_use]
    pub const fn connected_at(&self) -> Instant {
        self.connected_at
    }

    /// When the client last sent something or was last answered; the idle timeout counts from here.
    #[inline]
    #[must_use]
    pub const fn active_at(&self) -> Instant {
        self.active_at
    }

    /// Since when the client has not read what was written to it; `None` if it reads.
    #[inline]
    pub(crate) fn stalled_since(&self) -> Option<Instant> {
        self.stalled_since.as_deref().copied()
    }

    /// Notes the session's new tie to a server connection.
    #[inline]
    pub(crate) const fn set_link(&mut self, link: Link) {
        self.link = link;
    }

    /// It has this server connection of `pool`, on which its settings are not checked yet.
    pub(crate) const fn link_to(&mut self, server: ServerId, pool: PoolId) {
        self.link = Link::Fresh(server);
        self.serving = pool;
        self.writing.end_read();
    }

    /// It waits for a server connection of `pool` since then.
    pub(crate) const fn begin_wait(&mut self, since: Instant, pool: PoolId) {
        self.link = Link::Waiting(since);
        self.serving = pool;
    }

    /// Its read has waited since then for a replica that shows what it must.
    pub(crate) const fn await_read(&mut self, since: Instant) {
        self.link = Link::AwaitingRead(since);
        self.writing.begin_read(since);
    }

    /// Notes which messages the extended protocol lets through from now on.
    #[inline]
    pub(crate) const fn set_phase(&mut self, phase: Phase) {
        self.phase = phase;
    }

    /// The client was answered at `now`.
    #[inline]
    pub(crate) const fn note_active(&mut self, now: Instant) {
        self.active_at = now;
    }

    /// The client's named prepared statements; `None` if it has named none since its login or its
    /// last DISCARD ALL or DEALLOCATE ALL. Statements of SQL PREPARE are among them, where their
    /// text was read.
    #[must_use]
    pub fn statements(&self) -> Option<&ClientStatements> {
        self.statements.as_deref()
    }

    /// As [`Self::statements`], to be changed.
    pub(crate) fn statements_mut(&mut self) -> Option<&mut ClientStatements> {
        self.statements.as_deref_mut()
    }

    /// The client's unnamed prepared statement, and the number of its changes.
    pub(crate) const fn unnamed(&self) -> (Option<&Unnamed>, u32) {
        (self.unnamed.as_ref(), self.unnamed_serial)
    }

    /// Notes the shape that the client was told of its unnamed statement, if that is still the
    /// statement of this number.
    pub(crate) fn set_unnamed_shape(&mut self, serial: u32, shape: Option<Shape>) {
        if self.unnamed_serial == serial
            && let Some(unnamed) = &mut self.unnamed
        {
            unnamed.shape = shape.map(Box::new);
        }
    }

    /// Its unnamed statement is what it was before a request that did not come to anything;
    /// `is_uncached` says that its text is above the limit.
    pub(crate) fn restore_unnamed(&mut self, unnamed: Option<Unnamed>, is_uncached: bool) {
        self.set_unnamed(unnamed);
        self.unnamed_is_uncached = is_uncached;
    }

    /// A statement that was reprepared looks otherwise than its client was told.
    pub(crate) const fn note_changed_shape(&mut self) {
        self.shape = ShapeCheck::Changed;
    }

    /// The server has said that a name is there which is closed behind the next Sync.
    pub(crate) fn note_made(&mut self, name: &[u8]) {
        let names = self.close_after_sync.iter_mut().filter(|known| *known.name == *name);
        names.for_each(|known| known.is_made = true);
    }

    /// An error makes the server skip up to a Sync that was not sent: what was not made is not
    /// there to be closed.
    pub(crate) fn skip_to_sync(&mut self) {
        // A statement of such a name is the server connection's own.
        self.close_after_sync.retain(|name| name.is_made);
        self.phase = Phase::Skipping;
    }

    /// A transaction has ended, and nothing of the client's is on its way.
    pub(crate) fn on_transaction_end(&mut self) {
        self.local = LocalSettings::Known;
        self.portals.clear();
        // What a question has not been answered about is asked about again.
        if self.raised.is_empty() && !self.pin.has(PinReason::Unknown) {
            self.custom.clear();
        }
    }

    /// What it has written on a cluster.
    pub(crate) const fn writing(&self) -> Writing {
        self.writing
    }

    /// As [`Self::writing`], to be changed.
    pub(crate) const fn writing_mut(&mut self) -> &mut Writing {
        &mut self.writing
    }

    /// What holds only on its server connection is forgotten with that.
    pub(crate) fn forget_connection(&mut self) {
        self.portals.clear();
        self.raised = Kinds::NONE;
        self.local = LocalSettings::Known;
        self.shape = ShapeCheck::None;
        self.close_after_sync.clear();
    }

    /// The message that streams to a server connection which is gone is dropped instead, and the
    /// next one waits for nothing.
    pub(crate) fn drop_message_on_its_way(&mut self) {
        if let ClientBody::Plain(Body::Forward(missing)) | ClientBody::Text(missing, _) = self.body
        {
            self.body = ClientBody::Plain(Body::Drop(missing));
        }
        if self.phase == Phase::Barrier {
            self.phase = Phase::Open;
        }
    }

    /// Its segment is, or is not, being run again.
    pub(crate) const fn set_rerun(&mut self, rerun: Rerun) {
        self.rerun = rerun;
    }

    /// The errors that answer the client while it has no server connection, because that broke,
    /// none was to be had, or a statement was refused; `None` if the client is served normally.
    /// They end at the next Sync or Query, unless a transaction was lost (until its COMMIT or
    /// ROLLBACK) or the client has pipelined more behind it.
    #[must_use]
    pub fn aborted(&self) -> Option<&Aborted> {
        self.aborted.as_deref()
    }

    /// From now on these errors answer the client in place of a server connection.
    pub(crate) fn set_aborted(&mut self, aborted: Aborted) {
        self.aborted = Some(Box::new(aborted));
    }

    /// These of its settings no server connection takes any more; `None` if there are none.
    pub(crate) fn set_refused(&mut self, refused: Option<RefusedSettings>) {
        self.refused = refused.map(Box::new);
    }

    /// Messages for this client that were made in the turn of another session.
    pub(crate) const fn output_mut(&mut self) -> &mut OutputQueue {
        &mut self.output
    }

    /// Takes the message with which the client's connection is ended.
    pub(crate) const fn take_final_error(&mut self) -> Option<ThinVec<u8>> {
        self.final_error.take()
    }

    /// Its server connection goes back to the pool.
    pub(crate) fn on_checkin(&mut self) {
        self.link = Link::Unlinked;
        self.portals.clear();
        self.channels.set_here(Here::No);
        self.pin.drop_unused_place();
        self.refused = None;
    }

    /// Its server connection is gone, and what it had set in the transaction with it.
    pub(crate) fn on_server_gone(&mut self, table: &mut SettingsTable) {
        self.settings.rollback(table);
        self.channels.rollback();
        self.channels.on_transaction_end();
        self.channels.set_here(Here::No);
        if matches!(self.link, Link::Ready(_)) {
            self.pin.drop_unused_place();
        }
        self.link = Link::Unlinked;
    }

    /// The client has, or has not, taken everything that was written to it: since when.
    pub(crate) fn set_stalled(&mut self, since: Option<Instant>) {
        self.stalled_since =
            since.map(|since| self.stalled_since.take().unwrap_or_else(|| Box::new(since)));
    }

    /// Its next segment is answered with this error; one that was to be run again, with the truth
    /// that nobody knows what became of it, unless its rollback is proven.
    pub(crate) fn refuse(&mut self, error: Arc<[u8]>) {
        let tries = std::mem::replace(&mut self.rerun, Rerun::No).tries();
        let error = match tries.is_none_or(|tries| tries.proof() == Proof::RolledBack) {
            true => error,
            false => error_body(&proof::outcome_unknown()),
        };
        self.aborted = Some(Box::new(Aborted::refused(error)));
    }

    /// There is no server connection for what the client has sent: as [`Self::refuse`], and what it
    /// has pipelined behind its next segment gets the error `rest`.
    pub(crate) fn serve_none(&mut self, error: Arc<[u8]>, rest: Option<Arc<[u8]>>) {
        self.writing.end_read();
        self.refuse(error);
        if let Some(first) = self.aborted.take().and_then(|aborted| aborted.into_error()) {
            self.aborted = Some(Box::new(Aborted::unserved(first, rest)));
        }
    }

    /// Notes that the client's unnamed statement is now this one, or none (`None`: it was closed,
    /// or its text is not kept). A server connection that has the earlier one no longer counts as
    /// having it, because the number in [`Self::own_unnamed`] grows by one. Nothing is sent.
    pub fn set_unnamed(&mut self, unnamed: Option<Unnamed>) {
        self.unnamed = unnamed;
        self.unnamed_is_uncached = false;
        self.unnamed_serial = self.unnamed_serial.wrapping_add(1);
    }

    /// The mark that a server connection bears whose unnamed statement is this session's present
    /// one: the session's id and the number of changes so far. Where another mark stands, the
    /// statement is parsed again before it is bound.
    #[must_use]
    pub const fn own_unnamed(&self) -> UnnamedStatement {
        UnnamedStatement::Of(self.id, self.unnamed_serial)
    }

    /// Whether the client's last message was taken whole, so that its next byte is a message tag;
    /// also true before the first message. False while the rest of a message is still to be
    /// forwarded or dropped.
    #[inline]
    #[must_use]
    pub const fn between_messages(&self) -> bool {
        matches!(self.body, ClientBody::Plain(Body::None))
    }
}
