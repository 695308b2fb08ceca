//! A client's turns before its first message and after its last: greeting, final error, departure.

use pgimbal_pooler::session::Presence;
use pgimbal_pooler::session::arrival::Greeting;
use pgimbal_pooler::session::departure::Departure;
use pgimbal_wire::error::{Severity, with_severity};

use super::client::Stage;
use super::turn::{
    Step, Turn, flush_client, move_from_server, process_no_input, send_to_server, server_ended,
};

/// Takes the FATAL of a session that the core has decided to end (timeout, drain, KILL), and begins
/// to close the client. Returns whether there was one.
pub(super) fn take_final_error(turn: &mut Turn<'_, '_>) -> bool {
    let final_error = turn.state.pooler.poll_final_error(turn.client.session());
    if let Some(final_error) = &final_error {
        turn.client.push(final_error);
        turn.client.set_stage(Stage::Closing);
    }
    final_error.is_some()
}

/// Asks the core for the messages that greet the client after its login, and queues them. While the
/// core waits for a server connection, bytes of the client are only kept. A refused client gets a
/// FATAL.
pub(super) fn greet(turn: &mut Turn<'_, '_>) -> Step {
    let client = &mut *turn.client;
    let Stage::Greeting(arriving) = client.stage() else { return Step::Moved };
    match turn.state.pooler.greet(client.session(), &arriving.parameters, turn.now) {
        Greeting::Wait => {
            // A client that leaves while it waits must not keep its place.
            if client.read_ahead(turn.buffer, turn.cx) {
                return Step::Idle;
            }
            client.set_stage(Stage::Departed(Presence::Vanished));
        }
        Greeting::Ready(messages) => {
            client.begin_serving();
            client.push(&messages);
        }
        Greeting::Try => {
            client.begin_serving();
            process_no_input(turn);
        }
        Greeting::Refused(error) => {
            let mut message = Vec::new();
            with_severity(&error, Severity::Fatal, &mut message);
            client.push(&message);
            client.set_stage(Stage::Closing);
        }
    }
    Step::Moved
}

/// Writes the final error to the client. The client departs when everything is written, or at its
/// second turn in this stage if it does not read.
pub(super) fn close(turn: &mut Turn<'_, '_>) -> Step {
    flush_client(turn);
    let waits = turn.client.has_output() && matches!(turn.client.stage(), Stage::Closing);
    // A client that takes nothing must not keep a server connection by it.
    if !waits || turn.client.try_final_error() {
        turn.client.set_stage(Stage::Departed(Presence::Vanished));
    }
    Step::Moved
}

/// Ends a session whose client has left: writes what its server connection still needs, has the
/// core roll back or close it, and forgets the session once the core says that it is over.
pub(super) fn depart(turn: &mut Turn<'_, '_>, presence: Presence) -> Step {
    turn.client.drop_transport(&mut turn.state.free, turn.cx);
    let session = turn.client.session();
    let server = turn.state.pooler.session(session).and_then(|session| session.link().server());
    if let Some(server) = server {
        if turn.state.servers.flush(server, &mut turn.state.free, turn.cx).is_err() {
            server_ended(turn, server);
            return Step::Moved;
        }
        if !turn.state.servers.is_flushed(server) {
            return Step::Idle;
        }
    }
    turn.state.plan.clear();
    let departure =
        turn.state.pooler.handle_departure(session, presence, turn.now, &mut turn.state.plan);
    if let Some(server) = server {
        send_to_server(turn.state, server, turn.cx, &[]);
    }
    match (departure, server) {
        (Departure::Later, Some(server)) => move_from_server(turn, server),
        (Departure::Over, _) | (Departure::Later, None) => {
            turn.state.pooler.forget_session(session);
            turn.state.clients.remove(session);
            turn.client.set_stage(Stage::Over);
            Step::Moved
        }
    }
}
