//! One client session as the core sees it. Its socket is the driver's.

pub mod arrival;
pub(crate) mod client_turn;
pub(crate) mod delivery;
pub mod departure;
pub(crate) mod dismissal;
pub mod effect;
pub mod front;
pub mod output;
pub mod pin;
pub(crate) mod place;
pub mod sessions;
pub mod settings;
pub(crate) mod setup;
pub mod state;

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
use crate::session::front::FrontMessage;
use crate::session::output::OutputQueue;
use crate::session::pin::{Pin, PinReason};
use crate::session::settings::{ClientSettings, RefusedSettings, SettingsTable};
use crate::session::state::custom::CustomNames;
use crate::session::state::portals::Portals;
use crate::sql::{Kinds, Reading, Scanner};

/// A client session. At most 512 bytes, because 10,000 idle ones must fit.
#[derive(Debug)]
pub struct Session {
    /// Its own id.
    id: SessionId,
    /// The pool that it belongs to.
    pool: PoolId,
    /// The pool whose server connection it has or waits for: that, or one of its replicas.
    serving: PoolId,
    /// Its tie to a server connection.
    link: Link,
    /// What the extended protocol lets through.
    phase: Phase,
    /// Whether the client is still there.
    presence: Presence,
    /// The rest of a message that is passing through towards the server.
    body: ClientBody,
    /// What is known of the message at the front of what the client has sent.
    front: FrontMessage,
    /// Why it keeps its server connection beyond a transaction.
    pin: Pin,
    /// The kinds of state that it may have left on its server connection, which is asked before
    /// anybody else gets it.
    raised: Kinds,
    /// Custom settings that it may have set: the server shows them only to who asks by name.
    custom: CustomNames,
    /// Whether its transaction has settings until its end that no text has shown.
    local: LocalSettings,
    /// Whether the statement that its next message names still is what it was.
    shape: ShapeCheck,
    /// Its settings.
    settings: ClientSettings,
    /// The reported settings as the client knows them.
    reported: Rc<Reported>,
    /// How its texts are read, as far as the reported settings say.
    reading: Reading,
    /// Its named prepared statements.
    statements: Option<Box<ClientStatements>>,
    /// Bytes of the Parses that were sent since nothing was pending.
    parsed_bytes: u32,
    /// Its unnamed prepared statement.
    unnamed: Option<Unnamed>,
    /// Its unnamed statement's text is above the limit, so that one server only has it.
    unnamed_is_unkept: bool,
    /// How often that has changed: a server may still have an earlier one.
    unnamed_serial: u32,
    /// Its portals whose statement is not plain.
    portals: Portals,
    /// How many statements without a kept text it has had: they are told apart by it.
    unkept_serial: u32,
    /// Names to close on the server after the next Sync: probes for duplicates, and names that were
    /// real.
    close_after_sync: ThinVec<NameToClose>,
    /// Whether its segment is being run again.
    rerun: Rerun,
    /// The errors that stand in for a server that is not there.
    aborted: Option<Box<Aborted>>,
    /// Settings that no server connection takes any more.
    refused: Option<Box<RefusedSettings>>,
    /// It has asked for settings at login that a server is to check before it is greeted.
    trial: Trial,
    /// The message with which the client's connection is ended, once somebody has decided so.
    final_error: Option<ThinVec<u8>>,
    /// What other turns than its own have made for its client.
    output: OutputQueue,
    /// With what the client may cancel.
    key: CancelKey,
    /// When it logged in.
    connected_at: Instant,
    /// When the client last said something or was last answered.
    active_at: Instant,
    /// Since when the client has not read what was written to it.
    stalled_since: Option<Instant>,
}

/// A session's tie to a server connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It needs none.
    Unlinked,
    /// It waits for one since then.
    Waiting(Instant),
    /// It waits since then for a place among the pool's pinned sessions.
    AwaitingPlace(Instant),
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
    /// Nothing until all pending replies have come: the next message depends on them.
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
    /// So many bytes of a message of which a text comes next, which is checked while it passes.
    Text(u32, Box<Scanner>),
}

/// A name, as the server has it, that is closed behind the next Sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameToClose {
    /// The name.
    pub name: Box<[u8]>,
    /// Whether it stands for the client's statement in this segment.
    pub is_temporary: bool,
    /// Whether the server has said that it is there.
    pub is_made: bool,
}

/// Whether settings hold until the transaction's end that no text has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalSettings {
    /// No.
    #[default]
    Known,
    /// Perhaps: code has run that no text shows.
    Unknown,
    /// A text names what sets them, and is not followed.
    Named,
}

/// A statement that was reprepared is described, and compared with what its client was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShapeCheck {
    /// None is under way.
    #[default]
    None,
    /// It looks otherwise: the message that waits for this gets PostgreSQL's error.
    Changed,
}

/// Whether the settings of a startup packet have been checked by a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trial {
    /// The session has been greeted, or not begun.
    #[default]
    None,
    /// It will be greeted once a server connection has taken them.
    Due,
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
            Self::Unlinked | Self::Waiting(_) | Self::AwaitingPlace(_) => None,
        }
    }

    /// Whether it waits, for a server connection or for a place among the pinned sessions.
    #[must_use]
    pub const fn waits(self) -> bool {
        matches!(self, Self::Waiting(_) | Self::AwaitingPlace(_))
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
        now: Instant,
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
            pin: Pin::default(),
            raised: Kinds::NONE,
            custom: CustomNames::default(),
            local: LocalSettings::Known,
            shape: ShapeCheck::None,
            settings,
            reported,
            reading,
            statements: None,
            parsed_bytes: 0,
            unnamed: None,
            unnamed_is_unkept: false,
            unnamed_serial: 0,
            portals: Portals::default(),
            unkept_serial: 0,
            close_after_sync: ThinVec::new(),
            rerun: Rerun::No,
            aborted: None,
            refused: None,
            trial: Trial::None,
            final_error: None,
            output: OutputQueue::default(),
            key,
            connected_at: now,
            active_at: now,
            stalled_since: None,
        }
    }

    /// Its own id.
    #[inline]
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// The pool that it belongs to.
    #[inline]
    #[must_use]
    pub const fn pool(&self) -> PoolId {
        self.pool
    }

    /// The pool whose server connection it has or waits for: its own, or one of its replicas.
    #[inline]
    #[must_use]
    pub const fn serving(&self) -> PoolId {
        self.serving
    }

    /// Its tie to a server connection.
    #[inline]
    #[must_use]
    pub const fn link(&self) -> Link {
        self.link
    }

    /// What the extended protocol lets through.
    #[inline]
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether the client is still there.
    #[inline]
    #[must_use]
    pub const fn presence(&self) -> Presence {
        self.presence
    }

    /// Why it keeps its server connection beyond a transaction.
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

    /// The kinds of state that it may have left on its server connection, which is asked before
    /// anybody else gets it.
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

    /// Its settings.
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

    /// The reported settings as the client knows them.
    #[inline]
    #[must_use]
    pub const fn reported(&self) -> &Rc<Reported> {
        &self.reported
    }

    /// Whether its segment is being run again.
    #[inline]
    #[must_use]
    pub const fn rerun(&self) -> Rerun {
        self.rerun
    }

    /// What is known of the message at the front of what the client has sent.
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

    /// Whether a server is to check its settings before it is greeted.
    #[inline]
    pub(crate) const fn trial(&self) -> Trial {
        self.trial
    }

    /// With what the client may cancel.
    #[inline]
    #[must_use]
    pub const fn key(&self) -> &CancelKey {
        &self.key
    }

    /// When it logged in.
    #[inline]
    #[must_use]
    pub const fn connected_at(&self) -> Instant {
        self.connected_at
    }

    /// When the client last said something or was last answered.
    #[inline]
    #[must_use]
    pub const fn active_at(&self) -> Instant {
        self.active_at
    }

    /// Since when the client has not read what was written to it; `None` if it reads.
    #[inline]
    pub(crate) const fn stalled_since(&self) -> Option<Instant> {
        self.stalled_since
    }

    /// Its tie to a server connection is that from now on.
    #[inline]
    pub(crate) const fn set_link(&mut self, link: Link) {
        self.link = link;
    }

    /// It has this server connection of `pool`, on which its settings are not checked yet.
    pub(crate) const fn link_to(&mut self, server: ServerId, pool: PoolId) {
        self.link = Link::Fresh(server);
        self.serving = pool;
    }

    /// It waits for a server connection of `pool` since then.
    pub(crate) const fn begin_wait(&mut self, since: Instant, pool: PoolId) {
        self.link = Link::Waiting(since);
        self.serving = pool;
    }

    /// The extended protocol lets that through from now on.
    #[inline]
    pub(crate) const fn set_phase(&mut self, phase: Phase) {
        self.phase = phase;
    }

    /// The client was answered at `now`.
    #[inline]
    pub(crate) const fn note_active(&mut self, now: Instant) {
        self.active_at = now;
    }

    /// Its named prepared statements; `None` if it has had none.
    #[must_use]
    pub fn statements(&self) -> Option<&ClientStatements> {
        self.statements.as_deref()
    }

    /// As [`Self::statements`], to be changed.
    pub(crate) fn statements_mut(&mut self) -> Option<&mut ClientStatements> {
        self.statements.as_deref_mut()
    }

    /// Its unnamed prepared statement, and the number of its changes.
    pub(crate) const fn unnamed(&self) -> (Option<&Unnamed>, u32) {
        (self.unnamed.as_ref(), self.unnamed_serial)
    }

    /// The client was told what its unnamed statement looks like, if it is still that of this number.
    pub(crate) fn set_unnamed_shape(&mut self, serial: u32, shape: Option<Shape>) {
        if self.unnamed_serial == serial
            && let Some(unnamed) = &mut self.unnamed
        {
            unnamed.shape = shape.map(Box::new);
        }
    }

    /// Its unnamed statement is what it was before a request that did not come to anything;
    /// `is_unkept` says that its text is above the limit.
    pub(crate) fn restore_unnamed(&mut self, unnamed: Option<Unnamed>, is_unkept: bool) {
        self.set_unnamed(unnamed);
        self.unnamed_is_unkept = is_unkept;
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

    /// The errors that stand in for a server that is not there.
    #[must_use]
    pub fn aborted(&self) -> Option<&Aborted> {
        self.aborted.as_deref()
    }

    /// These errors stand in for a server that is not there.
    pub(crate) fn set_aborted(&mut self, aborted: Aborted) {
        self.aborted = Some(Box::new(aborted));
    }

    /// These of its settings no server connection takes any more; `None` if there are none.
    pub(crate) fn set_refused(&mut self, refused: Option<RefusedSettings>) {
        self.refused = refused.map(Box::new);
    }

    /// What other turns than its own have made for its client.
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
        self.pin.drop_unused_place();
        self.refused = None;
    }

    /// Its server connection is gone, and what it had set in the transaction with it.
    pub(crate) fn on_server_gone(&mut self, table: &mut SettingsTable) {
        self.settings.rollback(table);
        if matches!(self.link, Link::Ready(_)) {
            self.pin.drop_unused_place();
        }
        self.link = Link::Unlinked;
    }

    /// The client has, or has not, taken everything that was written to it: since when.
    pub(crate) fn set_stalled(&mut self, since: Option<Instant>) {
        self.stalled_since = since.map(|since| self.stalled_since.unwrap_or(since));
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
        self.refuse(error);
        if let Some(first) = self.aborted.take().and_then(|aborted| aborted.into_error()) {
            self.aborted = Some(Box::new(Aborted::unserved(first, rest)));
        }
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
