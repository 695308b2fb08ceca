//! The steps of a pool's listener that touch sessions and server connections too.

use std::rc::Rc;
use std::time::Instant;

use pgimbal_config::ListenMode;
use pgimbal_wire::error::{ErrorFields, Severity, SqlState};
use pgimbal_wire::frame::{self, HEADER_LEN};
use pgimbal_wire::tag::backend;

use super::successor::Overdue;
use super::{Answered, Listener, Meaning};
use crate::action::Action;
use crate::cluster::Gate;
use crate::core::Core;
use crate::ids::{PoolId, ServerId, SessionId};
use crate::plan::Plan;
use crate::pool::dial::{self, ListenerDial};
use crate::pool::shared::Audience;
use crate::server::reported::Reported;
use crate::server::server_turn::replies;
use crate::session::channels::{Channel, Offered};
use crate::session::{Link, dismissal};

/// The longest message on a connection that listens: a notification has at most 8,000 bytes of
/// payload, a reported setting some hundred.
const LONGEST_MESSAGE: u32 = 64 * 1024;

/// What the bytes mean that have come on a connection that listens, from
/// `Pooler::handle_listener_bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerBytes {
    /// So many bytes were taken; the rest is the beginning of a message, which the driver keeps in
    /// front of what comes next.
    Taken(u32),
    /// So many bytes were taken; the rest waits, and nothing more is read, until the connection is
    /// driven again ([`Action::Drive`]).
    Waits(u32),
    /// The connection cannot be used any more, or is none that listens: the driver calls
    /// `Pooler::handle_server_gone`.
    Dead,
}

/// Does what the last step has left to do.
pub(crate) fn settle(core: &mut Core) {
    let work = &mut core.tables.channel_work;
    if work.is_empty() {
        return;
    }
    let now = work.now();
    let (sessions, mut pools) = work.take();
    for id in sessions {
        let Some(session) = core.sessions.get_mut(id) else { continue };
        let released = session.channels_mut().take_released();
        let is_told = session.channels().has_notifications();
        let is_behind = session.channels().is_behind();
        let pool = session.pool();
        if is_told {
            core.actions.wake(id);
        }
        if !is_behind {
            read_on(core, pool, |listener| listener.pace.caught_up(id));
        }
        if let Some(listener) = core.pools[pool].listener_mut().filter(|_| !released.is_empty()) {
            listener.release(id, &released);
            pools.push(pool);
        }
    }
    pools.sort_unstable_by_key(|pool| pool.0);
    pools.dedup();
    for pool in pools {
        work_on(core, pool, now);
    }
}

/// Has the connection read again if it is not to wait for a client any more.
fn read_on(core: &mut Core, pool: PoolId, is_free: impl FnOnce(&mut Listener) -> bool) {
    let Some(listener) = core.pools[pool].listener_mut() else { return };
    if is_free(listener) {
        core.actions.extend_drive(listener.server());
        core.actions.extend_drive(listener.successor());
    }
}

/// A session has ended that was counted for these channels.
pub(crate) fn forget_session(core: &mut Core, pool: PoolId, id: SessionId, channels: &[Channel]) {
    let Some(listener) = core.pools[pool].listener_mut().filter(|_| !channels.is_empty()) else {
        return;
    };
    listener.forget_request(id);
    listener.release(id, channels);
    core.tables.channel_work.note_left(pool);
    read_on(core, pool, |listener| listener.pace.caught_up(id));
}

/// Opens the connection if it is wanted, or has it do what is due. Nothing is opened without a
/// time.
fn work_on(core: &mut Core, id: PoolId, now: Option<Instant>) {
    let Some(listener) = core.pools[id].listener_mut() else { return };
    match (listener.server(), now) {
        (Some(_), _) => {
            if let Some(server) = listener.pump() {
                core.actions.push(Action::Drive(server));
            }
        }
        (None, Some(now)) => open(core, id, now),
        (None, None) => {}
    }
}

/// Opens the connection, unless it must not be now: then the next tick tries again.
pub(crate) fn open(core: &mut Core, id: PoolId, now: Instant) {
    let wanted = core.pools[id].listener().is_some_and(|listener| listener.wants_line(now));
    if !wanted || core.clusters.gate(&core.pools[id]) != Gate::Open {
        return;
    }
    match dial::dial_listener(core, id, now) {
        ListenerDial::Begun(server) => {
            if let Some(listener) = core.pools[id].listener_mut() {
                listener.begin_dial(server);
            }
        }
        ListenerDial::Later => {}
        // Who waits does without it.
        ListenerDial::Full => give_up(core, id, now),
    }
}

/// The connection is open.
pub(crate) fn opened(core: &mut Core, id: ServerId, now: Instant) {
    let Some(server) = core.servers.get_mut(id) else { return };
    server.begin_to_listen();
    let (pool, first) = (server.pool(), first_sql(server.reported()));
    let process_id = server.backend_key().process_id;
    let Some(listener) = core.pools[pool].listener_mut() else {
        return dial::close_server(&mut core.servers, &mut core.pools, &mut core.actions, id);
    };
    if listener.awaits_successor(id) {
        listener.successor_opened(process_id, &first, now);
        return core.actions.push(Action::Drive(id));
    }
    if !listener.awaits(id) {
        return dial::close_server(&mut core.servers, &mut core.pools, &mut core.actions, id);
    }
    if let Some(listener) = core.pools[pool].listener_mut() {
        listener.opened(id, &first, now);
        // Its task begins.
        core.actions.push(Action::Drive(id));
        listener.pump();
    }
}

/// What the connection runs before its first LISTEN: names and payloads come in the encoding of
/// the database, and no limit of the role's or database's ends a connection that only listens.
fn first_sql(reported: &Reported) -> Vec<u8> {
    let mut text = Vec::new();
    if let Some(encoding) = reported.get(b"server_encoding") {
        text.extend_from_slice(b"SET client_encoding TO '");
        text.extend(encoding.iter().filter(|byte| **byte != b'\'' && **byte != b'\\'));
        text.extend_from_slice(b"';");
    }
    let version = reported.get(b"server_version").unwrap_or_default();
    let major = version.split(|byte| !byte.is_ascii_digit()).next().unwrap_or_default();
    let major = std::str::from_utf8(major).ok().and_then(|major| major.parse::<u32>().ok());
    // The setting is PostgreSQL 14's.
    if major.is_some_and(|major| major >= 14) {
        text.extend_from_slice(b"SET idle_session_timeout TO 0;");
    }
    text
}

/// The connection could not be opened. Who waits for it does without if clients are told of such a
/// failure.
pub(crate) fn not_opened(
    core: &mut Core,
    pool: PoolId,
    id: ServerId,
    told: Audience,
    now: Instant,
) {
    gone(core, pool, id, now);
    if told == Audience::Waiters {
        give_up(core, pool, now);
    }
}

/// The connection is gone, or about to be closed.
pub(crate) fn gone(core: &mut Core, pool: PoolId, id: ServerId, now: Instant) {
    let ends = core.pools[pool].config().pool.listen_mode == ListenMode::Close;
    let Some(listener) = core.pools[pool].listener_mut() else { return };
    if listener.successor() == Some(id) {
        listener.end_succession(now);
    }
    if listener.server() != Some(id) {
        return;
    }
    let successor = listener.successor();
    let was_open = listener.lose(now);
    let told: Vec<SessionId> = match was_open && ends {
        true => listener.sessions().collect(),
        false => Vec::new(),
    };
    if let Some(successor) = successor {
        dial::close_server(&mut core.servers, &mut core.pools, &mut core.actions, successor);
    }
    for session in told {
        let text = "the connection that listened for this client was lost (listen_mode)";
        dismissal::dismiss(core, session, SqlState::ADMIN_SHUTDOWN, text);
    }
    core.tables.channel_work.note_pool(pool, now);
}

/// As [`Pooler::handle_listener_bytes`](crate::pooler::Pooler::handle_listener_bytes).
pub(crate) fn process(
    core: &mut Core,
    id: ServerId,
    now: Instant,
    buf: &[u8],
    plan: &mut Plan,
) -> ListenerBytes {
    let Some(server) = core.servers.get(id) else { return ListenerBytes::Dead };
    if !server.is_listening() {
        // Nothing of one that is being closed counts.
        return ListenerBytes::Waits(buf.len() as u32);
    }
    let pool = server.pool();
    let mut at = 0;
    let waits =
        |core: &Core| core.pools[pool].listener().is_some_and(|listener| listener.is_held_back(id));
    while !waits(core) {
        let rest = &buf[at..];
        let Ok(header) = frame::peek(rest) else { return ListenerBytes::Dead };
        let Some(header) = header else { break };
        if header.total > LONGEST_MESSAGE {
            return ListenerBytes::Dead;
        }
        let Some(message) = rest.get(..header.total as usize) else { break };
        if !process_message(core, pool, id, now, header.tag, message) {
            return ListenerBytes::Dead;
        }
        at += message.len();
    }
    let is_held_back = waits(core);
    let pool = &mut core.pools[pool];
    pool.stats_mut().server_bytes_in += at as u64;
    if let Some(listener) = pool.listener_mut() {
        let out = listener.take_output_of(id);
        pool.stats_mut().server_bytes_out += out.len() as u64;
        plan.make_for_server(|bytes| bytes.extend_from_slice(&out));
    }
    match is_held_back {
        true => ListenerBytes::Waits(at as u32),
        false => ListenerBytes::Taken(at as u32),
    }
}

/// Processes one message. Returns whether the connection can go on.
fn process_message(
    core: &mut Core,
    pool: PoolId,
    id: ServerId,
    now: Instant,
    tag: u8,
    message: &[u8],
) -> bool {
    let body = &message[HEADER_LEN..];
    match tag {
        backend::NOTIFICATION_RESPONSE => notified(core, pool, id, now, message),
        backend::READY_FOR_QUERY => ready(core, pool, id, now),
        backend::ERROR_RESPONSE => {
            let ends = |error: &ErrorFields<'_>| {
                matches!(error.severity, Severity::Fatal | Severity::Panic)
            };
            let is_end = ErrorFields::parse(body).map_or(true, |error| ends(&error));
            if is_end {
                return false;
            }
            let listener = core.pools[pool].listener_mut();
            let Some(listener) = listener.filter(|it| it.server() == Some(id)) else {
                // One that takes over does so without an error, or not at all.
                return false;
            };
            listener.note_failed();
            true
        }
        backend::PARAMETER_STATUS => {
            let mut parts = body.split(|&byte| byte == 0);
            let (Some(name), Some(value)) = (parts.next(), parts.next()) else { return false };
            if let Some(server) = core.servers.get_mut(id) {
                replies::note_reported(server, &mut core.tables, name, value);
            }
            true
        }
        backend::COMMAND_COMPLETE | backend::NOTICE_RESPONSE | backend::EMPTY_QUERY_RESPONSE => {
            true
        }
        _ => false,
    }
}

/// A notification has come on one of the connections. Returns whether it is one.
fn notified(core: &mut Core, pool: PoolId, id: ServerId, now: Instant, message: &[u8]) -> bool {
    // The sender's process id stands in front of the channel's name.
    let Some(named) = message.get(HEADER_LEN + 4..) else { return false };
    let name = named.split(|&byte| byte == 0).next().unwrap_or_default();
    let Some(listener) = core.pools[pool].listener_mut() else { return true };
    match listener.meaning(id, name) {
        Meaning::Told => deliver(core, pool, (name, message), now),
        Meaning::Nothing => {}
        Meaning::TakeOver => take_over(core, pool, now),
    }
    true
}

/// The connection that was to take over does so, and the other one is closed.
fn take_over(core: &mut Core, pool: PoolId, now: Instant) {
    let Some(listener) = core.pools[pool].listener_mut() else { return };
    let old = listener.take_over(now);
    core.actions.extend_drive(listener.server());
    if let Some(old) = old {
        dial::close_server(&mut core.servers, &mut core.pools, &mut core.actions, old);
    }
    core.tables.channel_work.note_pool(pool, now);
}

/// Gives a notification, which has come at `now`, to every session that listens to its channel.
/// What was written in its transaction, they read from then on as if it were their own.
fn deliver(core: &mut Core, pool: PoolId, (name, message): (&[u8], &[u8]), now: Instant) {
    let Core { pools, sessions, actions, .. } = &mut *core;
    let pool = &mut pools[pool];
    let listener = pool.listener_mut();
    let Some((channel, listening)) = listener.and_then(|it| it.note_notification(name)) else {
        return;
    };
    let message: Rc<[u8]> = message.into();
    let (mut given, mut behind, mut full) = (0, Vec::new(), Vec::new());
    for id in listening {
        let Some(session) = sessions.get_mut(*id) else { continue };
        match session.channels_mut().offer(channel, &message) {
            Ok(Offered::NotHeard) => continue,
            Ok(Offered::First) => actions.wake(*id),
            Ok(Offered::Next) => {}
            Ok(Offered::FellBehind) => behind.push(*id),
            Err(_) => {
                full.push(*id);
                continue;
            }
        }
        given += 1;
        session.writing_mut().note(now);
    }
    if let Some(listener) = pool.listener_mut() {
        behind.into_iter().for_each(|id| listener.pace.fell_behind(id, now));
    }
    pool.stats_mut().notifications += given;
    pool.stats_mut().client_bytes_out += given * message.len() as u64;
    for id in full {
        let text = "too many notifications wait for the client: it does not read them, or its \
                    transaction lasts too long";
        dismissal::dismiss(core, id, SqlState::CONFIGURATION_LIMIT_EXCEEDED, text);
    }
}

/// A query of one of the connections is answered. Returns whether one was on its way.
fn ready(core: &mut Core, pool: PoolId, id: ServerId, now: Instant) -> bool {
    let Some(listener) = core.pools[pool].listener_mut() else { return false };
    if listener.successor() == Some(id) {
        let other = listener.successor_answered();
        core.actions.extend_drive(other);
        return true;
    }
    let goes_on = answered(core, pool, now);
    if let Some(listener) = core.pools[pool].listener_mut() {
        listener.pump();
        let other = listener.old_answered();
        core.actions.extend_drive(other);
    }
    goes_on
}

/// A query of the connection's is answered: who waited for it goes on. Returns whether one was.
fn answered(core: &mut Core, pool: PoolId, now: Instant) -> bool {
    let Some(listener) = core.pools[pool].listener_mut() else { return false };
    match listener.answered() {
        None => return false,
        Some(Answered::Done) => {
            for (session, channels) in listener.take_granted() {
                grant(core, session, &channels);
            }
        }
        Some(Answered::Refused) => {
            // The server tells the clients itself why, on connections of their own.
            give_up(core, pool, now);
            return false;
        }
    }
    true
}

/// The next message of a session may be sent: the connection listens.
fn grant(core: &mut Core, id: SessionId, channels: &[Channel]) {
    core.tables.channel_work.note_session(id);
    let Some(session) = core.sessions.get_mut(id) else { return };
    if !session.channels().waits() {
        return;
    }
    session.channels_mut().grant(channels);
    if matches!(session.link(), Link::AwaitingPlace(_)) {
        session.set_link(Link::Unlinked);
    }
    core.actions.wake(id);
}

/// Everybody who waits goes on without the connection.
fn give_up(core: &mut Core, pool: PoolId, now: Instant) {
    give_up_older(core, pool, now);
}

/// Who has waited since `since` or longer goes on without the connection.
fn give_up_older(core: &mut Core, pool: PoolId, since: Instant) {
    let Some(listener) = core.pools[pool].listener_mut() else { return };
    for (id, _) in listener.take_refused(since) {
        core.tables.channel_work.note_session(id);
        let Some(session) = core.sessions.get_mut(id) else { continue };
        if !session.channels().waits() {
            continue;
        }
        session.channels_mut().give_up();
        if matches!(session.link(), Link::AwaitingPlace(_)) {
            session.set_link(Link::Unlinked);
        }
        core.actions.wake(id);
    }
}

/// Does what is due at `now` for the listener of a pool.
pub(crate) fn tick(core: &mut Core, id: PoolId, now: Instant) {
    let config = &core.pools[id].config().pool;
    let (idle_limit, wait_limit) = (config.server_idle_timeout, config.query_wait_timeout);
    let Some(listener) = core.pools[id].listener_mut() else { return };
    let server = listener.server().and_then(|server| core.servers.get(server));
    // One that nobody needs is not replaced.
    let ends = server.is_some_and(|server| server.retire_at() <= now);
    if listener.unused_for(now).is_some_and(|unused| ends || unused >= idle_limit) {
        let servers = [listener.server(), listener.successor()];
        core.pools[id].drop_listener();
        for server in servers.into_iter().flatten() {
            dial::close_server(&mut core.servers, &mut core.pools, &mut core.actions, server);
        }
        return;
    }
    if let Some(since) = now.checked_sub(wait_limit) {
        give_up_older(core, id, since);
    }
    leave_behind(core, id, now);
    open(core, id, now);
    renew(core, id, now);
}

/// The connection is read again although clients are behind that it has waited for long enough.
fn leave_behind(core: &mut Core, pool: PoolId, now: Instant) {
    let late = core.pools[pool].listener_mut().map(|listener| listener.pace.take_late(now));
    for id in late.into_iter().flatten() {
        if let Some(session) = core.sessions.get_mut(id) {
            session.channels_mut().leave_behind();
        }
        read_on(core, pool, |listener| !listener.pace.is_held());
    }
}

/// Has another connection take over from one that is to be replaced.
fn renew(core: &mut Core, id: PoolId, now: Instant) {
    let Some(listener) = core.pools[id].listener() else { return };
    match (listener.successor(), listener.overdue(now)) {
        (Some(_), Overdue::No) => {}
        (Some(_), Overdue::TakeOver) => take_over(core, id, now),
        (Some(server), Overdue::GiveUp) => {
            if let Some(listener) = core.pools[id].listener_mut() {
                listener.end_succession(now);
            }
            dial::close_server(&mut core.servers, &mut core.pools, &mut core.actions, server);
        }
        (None, _) => {
            let server = listener.server().and_then(|server| core.servers.get(server));
            let retires = server.is_some_and(|it| it.is_listening() && it.retire_at() <= now);
            let may = retires && listener.may_retry(now);
            let pool = &core.pools[id];
            if !may || core.lockouts.of(pool).is_some() || core.clusters.gate(pool) != Gate::Open {
                return;
            }
            if let ListenerDial::Begun(server) = dial::dial_listener(core, id, now)
                && let Some(listener) = core.pools[id].listener_mut()
            {
                listener.begin_succession(server, now);
            }
        }
    }
}
