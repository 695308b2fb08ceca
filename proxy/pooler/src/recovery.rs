//! What a client sees when its server connection breaks: nothing, its statement run again, an
//! error, or the end of its own connection. Only what is proven counts.

pub mod aborted;
pub mod block;
pub mod effects;
pub mod in_flight;
pub mod proof;
pub(crate) mod refused;
pub mod rerun;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use pgimbal_wire::encode::{self, TransactionStatus};
use pgimbal_wire::error::{self, Report, Severity, SqlState};

use crate::error::error_body;
use crate::ids::SessionId;
use crate::plan::Plan;
use crate::pool::Pool;
use crate::pool::shared::SharedCluster;
use crate::recovery::aborted::Aborted;
use crate::recovery::block::Block;
use crate::recovery::in_flight::Progress;
use crate::recovery::proof::{Proof, Rerun};
use crate::recovery::rerun::Again;
use crate::server::pending::{OwnQuery, Owner, Pending};
use crate::server::{Commits, Ending, Server};
use crate::session::front::FrontMessage;
use crate::session::sessions::Sessions;
use crate::session::{Link, Phase, Presence, Session};

/// What the driver does with a client whose server connection has broken, from
/// `Pooler::handle_server_gone`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DisconnectOutcome {
    /// The client's connection goes on. What the plan holds is written to it first, which may be
    /// nothing. Also returned if no session had the server connection, or it was gone already.
    Survives,
    /// The client's connection goes on. These bytes, which the client had sent already, are
    /// processed again in front of all others, as if for the first time.
    Again(Vec<u8>),
    /// The client's connection is closed, after what the plan holds was written: a FATAL error, or
    /// nothing (where a message to the client was cut in half, or the client has left).
    Ends,
}

/// Writes what the client of a broken server connection is told, and puts its session in order.
pub(crate) fn on_server_lost(
    session: &mut Session,
    server: &mut Server,
    pool: &mut Pool,
    plan: &mut Plan,
) -> DisconnectOutcome {
    forget_connection(session, server);
    if session.presence() != Presence::Here {
        return DisconnectOutcome::Ends;
    }
    let unbegun = matches!(session.link(), Link::Fresh(_) | Link::Setup(_))
        || rerun::is_still_due(session, server);
    if unbegun && session.aborted().is_none() && !session.pin().is_set() {
        // Nothing of the client's was forwarded: its message goes elsewhere.
        return DisconnectOutcome::Survives;
    }
    // Other bytes may come in front of it.
    *session.front_mut() = FrontMessage::Unread;
    if server.is_passing_to(session.id()) {
        // A message to the client was cut in half: nothing can follow it.
        count(pool, |shared| &shared.failed);
        return DisconnectOutcome::Ends;
    }
    let keeps_state =
        session.pin().is_set() || pool.config().pool.mode == pgimbal_config::PoolMode::Session;
    if keeps_state {
        count(pool, |shared| &shared.failed);
        let error = lost(server, pool);
        count_error(pool, &error);
        plan.make_for_session(session.id(), |out| {
            error::with_severity(&error, Severity::Fatal, out);
        });
        return DisconnectOutcome::Ends;
    }
    session.drop_message_on_its_way();
    if let Some(bytes) = session.routing_mut().and_then(|routing| routing.forget_refused()) {
        // A replica has refused it, and nothing of that was told.
        return DisconnectOutcome::Again(bytes);
    }
    if let Some(bytes) = rollback_in_flight(session, server) {
        // Told to what may stand in front of it in its segment.
        let error = lost(server, pool);
        session.set_aborted(Aborted::lost(Some(error)));
        return DisconnectOutcome::Again(bytes);
    }
    let proof = prove(session, server);
    match rerun::decide(session, server, pool, proof) {
        Again::Afresh(bytes) => return DisconnectOutcome::Again(bytes),
        Again::ReadOnly(bytes) => {
            count(pool, |shared| &shared.rerun);
            return DisconnectOutcome::Again(bytes);
        }
        Again::No => {}
    }
    // What stands behind what was in flight has not begun to count: it goes elsewhere.
    let open = rerun::open_segment(session, server, pool);
    if open.is_some() {
        server.close_segment();
    }
    answer_pending(session, server, pool, proof, plan);
    session.set_rerun(Rerun::No);
    open.map_or(DisconnectOutcome::Survives, DisconnectOutcome::Again)
}

/// Tells the sessions that await replies of a broken server connection without being linked to it.
/// Nothing is kept of what they have sent, so nothing is proven of it.
pub(crate) fn tell_others(
    sessions: &mut Sessions,
    server: &mut Server,
    pool: &mut Pool,
    plan: &mut Plan,
) {
    let linked = server.session();
    let runs = server.pending().front_owner().and_then(Owner::session).or(linked);
    let failed = runs.filter(|_| server.has_failed());
    while let Some(other) = server.pending().first_other(linked) {
        match sessions.get_mut(other) {
            Some(session) => tell_other(session, failed == Some(other), server, pool, plan),
            None => drop(server.pending_mut().take_of(other)),
        }
    }
    if failed != linked {
        server.forget_failure();
    }
}

/// Tells one of them; `failed` if the server has told it the error of what runs.
fn tell_other(
    session: &mut Session,
    failed: bool,
    server: &mut Server,
    pool: &mut Pool,
    plan: &mut Plan,
) {
    forget_connection(session, server);
    if server.is_passing_to(session.id()) {
        // It was to go to the client when it is whole.
        session.output_mut().drop_half();
    }
    if session.phase() == Phase::Barrier {
        session.set_phase(Phase::Open);
    }
    let mut telling = Telling::unproven(session.id(), failed, server, pool);
    let mut awaited = false;
    for entry in server.pending_mut().take_of(session.id()) {
        awaited |= entry.is_awaited();
        if is_clients_end(&entry) {
            awaited = false;
            telling.answer(Block::Same, matches!(entry, Pending::Query(_)), pool, plan);
        }
    }
    if awaited {
        telling.tell(false, pool, plan);
        session.set_phase(Phase::Skipping);
    }
}

/// What was noted ahead for a session, and what holds only on its server connection, is forgotten.
fn forget_connection(session: &mut Session, server: &mut Server) {
    undo_pending(session, server);
    session.forget_connection();
}

/// Counts an error that a client is told, by its code.
fn count_error(pool: &mut Pool, body: &[u8]) {
    if let Ok(fields) = error::ErrorFields::parse(body) {
        pool.stats_mut().error(fields.code);
    }
}

fn count(pool: &Pool, counter: impl Fn(&SharedCluster) -> &AtomicU64) {
    if let Some(shared) = &pool.shared().cluster {
        counter(shared).fetch_add(1, Relaxed);
    }
}

/// A ROLLBACK that was in flight has come true: it is answered without a server.
fn rollback_in_flight(session: &Session, server: &mut Server) -> Option<Vec<u8>> {
    let alone = session.rerun() == Rerun::No
        && server.status() != TransactionStatus::Idle
        && server.ending() == Ending::Rollback
        && server.in_flight().progress() == Progress::Unanswered
        && !server.has_failed();
    server.in_flight().whole().filter(|_| alone)?;
    Some(server.in_flight_mut().take())
}

/// Each Query and each Sync that was sent gets its answer: an error, then whether a transaction
/// has failed with it.
fn answer_pending(
    session: &mut Session,
    server: &mut Server,
    pool: &mut Pool,
    proof: Proof,
    plan: &mut Plan,
) {
    let mut telling = Telling::new(session, server, pool, proof);
    let entries = server.pending_mut().take_of(session.id());
    let answers = entries.iter().filter(|entry| is_clients_end(entry)).count();
    let mut blocks = server.in_flight_mut().take_blocks(answers);
    let mut answered = false;
    // Whether the client waits for something of the segment that is open.
    let mut awaited = false;
    let mut entries = entries.into_iter().peekable();
    while let Some(entry) = entries.next() {
        awaited |= entry.is_awaited();
        let block = match entry {
            Pending::Sync | Pending::Query(_) => blocks.pop_front().unwrap_or_default(),
            // The last of them stands for the client's own.
            Pending::Own(OwnQuery::Restore)
                if !matches!(entries.peek(), Some(Pending::Own(OwnQuery::Restore))) =>
            {
                Block::Same
            }
            Pending::Own(OwnQuery::RerunEnd) if !answered => {
                // What was run again has been answered but for its end.
                plan.make_for_session(telling.client, |out| {
                    encode::ready_for_query(out, telling.status());
                });
                continue;
            }
            _ => continue,
        };
        (answered, awaited) = (true, false);
        telling.answer(block, matches!(entry, Pending::Query(_)), pool, plan);
    }
    if server.has_open_segment() {
        let waits = if awaited { Client::Waits } else { Client::Silent };
        telling.cut_off(session, server, waits, pool, plan);
    }
    if telling.is_open && session.aborted().is_none() {
        if !telling.told {
            count(pool, |shared| &shared.failed);
        }
        session.set_aborted(Aborted::lost((!telling.told).then_some(telling.lost)));
    }
}

const fn is_clients_end(entry: &Pending) -> bool {
    matches!(entry, Pending::Sync | Pending::Query(_))
}

/// Whether a client waits for replies of the segment that is open when the connection breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Waits,
    /// The client has got all that it asked for: it would not expect an error now.
    Silent,
}

/// How far the client of a broken server connection has been told what became of its requests.
struct Telling {
    /// The session whose client is told.
    client: SessionId,
    /// Whether a transaction block is open, as far as the client knows or is going to know.
    is_open: bool,
    /// Whether a COMMIT is among what was sent: if so, the outcome of everything is unknown.
    ending: Ending,
    /// What is proven of statements outside of a transaction block.
    alone: Proof,
    /// The body of the error that tells of a lost transaction.
    lost: Arc<[u8]>,
    /// Whether the client was told that the block is lost.
    told: bool,
    /// Whether the server itself has told the error of what runs now.
    has_failed: bool,
}

impl Telling {
    fn new(session: &Session, server: &Server, pool: &Pool, proof: Proof) -> Self {
        let is_rerun = matches!(session.rerun(), Rerun::Running(_));
        let has_failed = server.has_failed();
        Self {
            client: session.id(),
            is_open: server.status() != TransactionStatus::Idle && !is_rerun,
            ending: server.ending(),
            alone: proof,
            lost: lost(server, pool),
            told: has_failed,
            has_failed,
        }
    }

    /// Telling a session of which nothing is proven.
    fn unproven(client: SessionId, has_failed: bool, server: &Server, pool: &Pool) -> Self {
        Self {
            client,
            is_open: false,
            ending: Ending::No,
            alone: Proof::Unknown,
            lost: lost(server, pool),
            told: has_failed,
            has_failed,
        }
    }

    fn may_commit(&self) -> bool {
        self.ending == Ending::MayCommit
    }

    const fn status(&self) -> TransactionStatus {
        match self.is_open {
            true => TransactionStatus::Failed,
            false => TransactionStatus::Idle,
        }
    }

    /// Answers a segment, or a query, that does this to the transaction block.
    fn answer(&mut self, block: Block, is_query: bool, pool: &mut Pool, plan: &mut Plan) {
        let was_open = self.is_open;
        let failed = std::mem::take(&mut self.has_failed);
        // What has failed has begun no block.
        self.is_open = block.leaves_open(was_open) && (was_open || !failed);
        let rolls_back = was_open && block == Block::Ends && !self.may_commit();
        if rolls_back && is_query && !failed {
            plan.make_for_session(self.client, |out| encode::command_complete(out, "ROLLBACK"));
        } else if !failed {
            self.tell(was_open || self.is_open, pool, plan);
        }
        // The next block is another one.
        self.told = self.is_open;
        plan.make_for_session(self.client, |out| encode::ready_for_query(out, self.status()));
    }

    /// Tells what has become of something inside or outside of a block.
    fn tell(&mut self, in_block: bool, pool: &mut Pool, plan: &mut Plan) {
        count(pool, |shared| &shared.failed);
        let error = self.error(in_block, self.alone, pool);
        count_error(pool, &error);
        plan.make_for_session(self.client, |out| {
            error::with_severity(&error, Severity::Error, out);
        });
        self.told = true;
    }

    /// The error for something inside or outside of a block; `alone` says what is known of the
    /// latter.
    fn error(&self, in_block: bool, alone: Proof, pool: &Pool) -> Arc<[u8]> {
        let in_block = in_block && !self.may_commit();
        if in_block && self.told {
            return error_body(&aborted());
        }
        if !self.may_commit() && (in_block || alone == Proof::RolledBack) {
            return Arc::clone(&self.lost);
        }
        count(pool, |shared| &shared.outcome_unknown);
        error_body(&proof::outcome_unknown())
    }

    /// The client is in the middle of a segment: as after any error, what follows up to Sync is
    /// skipped. Without its Sync nothing of it counts.
    fn cut_off(
        &mut self,
        session: &mut Session,
        server: &Server,
        waits: Client,
        pool: &mut Pool,
        plan: &mut Plan,
    ) {
        let was_open = self.is_open;
        self.is_open = server.in_flight().open_block().leaves_open(was_open);
        if session.phase() == Phase::Skipping {
            self.told = true;
            return;
        }
        let in_block = was_open || self.is_open;
        if waits == Client::Silent && !in_block && server.in_flight().only_prepares() {
            // Its statements are known: the rest of the segment goes elsewhere.
            return;
        }
        // A COMMIT counts when it is executed, as does what a procedure commits by itself.
        let counts_early = server.commits() == Commits::OnItsWay && session.rerun() == Rerun::No;
        let alone = if counts_early { Proof::Unknown } else { Proof::RolledBack };
        let error = self.error(in_block, alone, pool);
        if !self.told {
            count(pool, |shared| &shared.failed);
        }
        if waits == Client::Silent {
            session.set_aborted(match self.is_open {
                true => Aborted::cut(error),
                false => Aborted::refused(error),
            });
            return;
        }
        count_error(pool, &error);
        plan.make_for_session(self.client, |out| {
            error::with_severity(&error, Severity::Error, out);
        });
        session.set_phase(Phase::Skipping);
        // Up to Sync the client is told nothing more.
        self.told = true;
    }
}

/// What is known of what was in flight outside a transaction block.
fn prove(session: &Session, server: &Server) -> Proof {
    if let Some(tries) = session.rerun().tries() {
        return tries.proof();
    }
    if server.ending() != Ending::No {
        return Proof::Unknown;
    }
    let completed = server.in_flight().progress() == Progress::Completed;
    let at_end = server.commits() == Commits::AtEnd;
    let proven = server.shutdown_notice().is_some() && !completed && at_end;
    // A server that still reads COPY data has not committed it.
    let copying = server.copies_in();
    // What only begins like a read may have written.
    let cut_read = server.in_flight().progress() == Progress::Answered
        && rerun::runs_read_only(server)
        && server.in_flight().whole().is_some()
        && server.in_flight().effects().only_reads_or_copies_out();
    match proven || copying || cut_read {
        true => Proof::RolledBack,
        false => Proof::Unknown,
    }
}

/// The error that tells of a lost transaction: the server's own if it sent one, unless the
/// operator has chosen a code for it.
fn lost(server: &Server, pool: &Pool) -> Arc<[u8]> {
    let code = pool.lost_transaction_code();
    match server.shutdown_notice() {
        Some(body) if code == SqlState::ADMIN_SHUTDOWN => body.into(),
        _ => error_body(&proof::rolled_back(code)),
    }
}

const fn aborted() -> Report<'static> {
    Report::error(
        SqlState::IN_FAILED_SQL_TRANSACTION,
        "current transaction is aborted, commands ignored until end of transaction block",
    )
}

/// What was noted ahead for the client's statements is undone: none of it was confirmed.
pub(crate) fn undo_pending(session: &mut Session, server: &mut Server) {
    for entry in server.pending_mut().iter_mut_of(session.id()).rev() {
        let change = match entry {
            Pending::Parse(parse) => parse.change.as_ref(),
            Pending::Closed(change) => Some(&**change),
            Pending::Unnamed(_, Some(before)) => {
                if let Some((unnamed, is_uncached)) = before.client.take() {
                    session.restore_unnamed(unnamed, is_uncached);
                }
                None
            }
            _ => None,
        };
        if let (Some(change), Some(names)) = (change, session.statements_mut()) {
            names.set(&change.name, change.before.clone());
        }
    }
}
