//! LISTEN of a client whose pool listens over a connection that its clients share.

use pgimbal_config::{ListenMode, PoolMode};

use super::turn::{ClientTurn, Step};
use crate::listener::listen_sql;
use crate::plan::Stop;
use crate::server::pending::OwnQuery;
use crate::session::channels::{Channel, Here};
use crate::session::{Phase, Session, setup};
use crate::sql::{self, Classified, Form, Kinds};

/// Lets the shared connection listen first, if a text that is to be sent listens to something.
/// Where that cannot be, the text is sent as it is, and pins its session.
///
/// # Errors
/// [`Stop::WaitForPlace`] or [`Stop::Wait`] until the shared connection listens, or it is known
/// that it will not.
pub(super) fn await_channels(turn: &mut ClientTurn<'_>, classified: &Classified) -> Step {
    let listens = |step: &sql::Step| matches!(step.form, Form::Listen(_));
    if !classified.steps().iter().any(listens)
        || !are_shared(turn)
        || turn.session.channels.is_given_up()
    {
        return Ok(());
    }
    if turn.session.channels.waits() {
        return Err(stop(turn));
    }
    let name_of = |step: &sql::Step| match &step.form {
        Form::Listen(name) if !turn.session.channels.carries(name) => Some(name.clone()),
        _ => None,
    };
    let mut names: Vec<Box<[u8]>> = classified.steps().iter().filter_map(name_of).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty()
        || turn.session.channels.are_too_many(names.len())
        || !is_in_database_encoding(turn.session)
    {
        return Ok(());
    }
    let listener = turn.pool.listener_or_new();
    let channels: Vec<Channel> = names.iter().map(|name| listener.channel(name)).collect();
    listener.request(turn.session.id, channels.clone(), turn.now);
    turn.session.channels.begin_wait(&channels);
    turn.tables.channel_work.note_pool(turn.pool.id(), turn.now);
    Err(stop(turn))
}

/// Whether nothing but LISTEN raises [`Kinds::CHANNELS`] in a text, and the shared connection
/// carries all that it listens to.
pub(super) fn carries_all(turn: &ClientTurn<'_>, classified: &Classified) -> bool {
    classified.steps().iter().all(|step| match &step.form {
        Form::Listen(name) => turn.session.channels.carries(name),
        _ => !step.raises.meets(Kinds::CHANNELS),
    })
}

/// Has the server connection listen to what the session listens to, before a text that may look at
/// that or change it in a way that is not followed.
///
/// # Errors
/// [`Stop::Wait`] until it does.
pub(super) fn bring_here(turn: &mut ClientTurn<'_>, classified: &Classified, text: &[u8]) -> Step {
    let channels = &turn.session.channels;
    if channels.held().is_empty() || channels.here() != Here::No {
        return Ok(());
    }
    let is_followed = |step: &sql::Step| {
        matches!(step.form, Form::Listen(_) | Form::Unlisten(_) | Form::UnlistenAll)
    };
    let only_followed =
        !classified.steps().is_empty() && classified.steps().iter().all(is_followed);
    let matters = !classified.is_plain() && !only_followed;
    // On a replica nobody listens.
    let is_home = turn.session.serving == turn.session.pool;
    if !is_home || !(matters || sql::has_word(text, b"pg_listening_channels")) {
        return Ok(());
    }
    if turn.server.as_deref().is_some_and(|server| !server.has_open_segment()) {
        // Whether a transaction is open, the replies tell.
        turn.await_replies()?;
    }
    if !turn.is_fresh() {
        return Ok(());
    }
    let text = listen_sql(turn.session.channels.held());
    let server = turn.server()?;
    server.residue_mut().insert(Kinds::CHANNELS);
    if let Some(server) = turn.server.as_deref_mut() {
        setup::send_own(server, OwnQuery::Listen, &text, turn.plan);
    }
    turn.session.channels.set_here(Here::Perhaps);
    turn.session.phase = Phase::Barrier;
    Err(Stop::Wait)
}

/// A session that holds nothing waits without a server connection.
fn stop(turn: &ClientTurn<'_>) -> Stop {
    match turn.is_fresh() && !turn.session.pin.is_set() {
        true => Stop::WaitForPlace,
        false => Stop::Wait,
    }
}

/// Whether the clients of the pool share a connection to listen.
fn are_shared(turn: &ClientTurn<'_>) -> bool {
    let config = &turn.pool.config().pool;
    config.mode != PoolMode::Session && config.listen_mode != ListenMode::Pin
}

/// Whether names and payloads mean the same to the client and to the shared connection, which has
/// them in the encoding of the database.
fn is_in_database_encoding(session: &Session) -> bool {
    let client = session.reported.get(b"client_encoding");
    client.is_some() && client == session.reported.get(b"server_encoding")
}
