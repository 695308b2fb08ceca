//! A client's turns while its messages are served: what is read and written, in which order.

use std::task::Poll;

use pgimbal_pooler::plan::HOLD_LIMIT;
use pgimbal_pooler::session::{Link, Presence};

use super::client::{InputState, Stage};
use super::turn::{
    Step, Turn, check_in_if_written, flush_client, move_from_server, process_client,
    process_no_input, server_ended,
};

/// A Terminate message, as the last bytes of a client that closes its socket right after it.
const TERMINATE: &[u8] = b"X\0\0\0\x04";

/// Takes one step of serving a client: writes what waits, moves bytes from its server connection to
/// it, then from it to the server. Returns [`Step::Idle`] when nothing could be moved.
pub(super) fn serve(turn: &mut Turn<'_, '_>) -> Step {
    flush_client(turn);
    let mut step = take_output(turn);
    if turn.client.is_serving() && serve_server(turn) == Step::Moved {
        step = Step::Moved;
    }
    if turn.client.is_serving() && serve_client(turn) == Step::Moved {
        step = Step::Moved;
    }
    if turn.client.is_serving() { step } else { Step::Moved }
}

/// Takes what other turns have made for the client, and writes it ahead of what this turn makes.
/// There may be more of it.
fn take_output(turn: &mut Turn<'_, '_>) -> Step {
    if !turn.client.has_output()
        && let Some(output) = turn.state.pooler.poll_output(turn.client.session())
    {
        turn.client.push(&output);
        flush_client(turn);
        return Step::Moved;
    }
    Step::Idle
}

/// Reads from the server and writes what is for the client.
fn serve_server(turn: &mut Turn<'_, '_>) -> Step {
    let link = turn.state.pooler.session(turn.client.session()).map(|session| session.link());
    let Some(server) = link.and_then(Link::server) else { return Step::Idle };
    if turn.state.servers.flush(server, &mut turn.state.free, turn.cx).is_err() {
        server_ended(turn, server);
        return Step::Moved;
    }
    // The client must take what it has before it gets more.
    if turn.client.has_output() {
        return Step::Idle;
    }
    if turn.client.is_checkin_due() && check_in_if_written(turn, server) {
        return Step::Moved;
    }
    move_from_server(turn, server)
}

/// Reads from the client, or takes bytes that it has sent before, and writes what is for the
/// server.
fn serve_client(turn: &mut Turn<'_, '_>) -> Step {
    let session = turn.client.session();
    let link = turn.state.pooler.session(session).map_or(Link::Unlinked, |s| s.link());
    if let Some(server) = link.server()
        && !turn.state.servers.is_flushed(server)
    {
        return Step::Idle;
    }
    // Replies that pgimbal makes itself must not pile up either.
    if turn.client.has_output() {
        return Step::Idle;
    }
    // A server connection has been handed over, or an error is to be told instead.
    if matches!(link, Link::Fresh(_) | Link::Unlinked)
        || (turn.client.input() == InputState::Blocked && turn.state.pooler.take_wait_over(session))
    {
        turn.client.unblock();
    }
    match turn.client.input() {
        InputState::Open if turn.state.pooler.is_on_trial(session) => {
            process_no_input(turn);
            return Step::Moved;
        }
        InputState::Open if !turn.client.inbox().is_empty() => {
            let input = turn.client.inbox().again(turn.buffer);
            process_client(turn, &input);
            return Step::Moved;
        }
        InputState::Blocked if !link.waits() => {
            return Step::Idle;
        }
        InputState::Blocked if turn.client.inbox().held().len() >= HOLD_LIMIT => {
            return Step::Idle;
        }
        _ => {}
    }
    read_client(turn)
}

fn read_client(turn: &mut Turn<'_, '_>) -> Step {
    let input = turn.client.input();
    let Some(read) = turn.client.poll_read(turn.buffer, turn.cx) else {
        if input == InputState::Short {
            // It closed its socket behind half a message.
            turn.client.set_stage(Stage::Departed(Presence::Vanished));
        }
        return Step::Idle;
    };
    match read {
        Poll::Pending => return Step::Idle,
        Poll::Ready(Ok(Some(read))) if input == InputState::Blocked => {
            // It waits; what it sends meanwhile waits behind.
            turn.client.inbox().keep(read.bytes(turn.buffer), &mut turn.state.free);
        }
        Poll::Ready(Ok(Some(read))) => process_client(turn, &read),
        Poll::Ready(Ok(None)) if turn.client.inbox().held().ends_with(TERMINATE) => {
            // What was sent before Terminate still runs.
            turn.client.drop_transport(&mut turn.state.free, turn.cx);
        }
        Poll::Ready(Ok(None) | Err(_)) => {
            turn.client.set_stage(Stage::Departed(Presence::Vanished));
        }
    }
    Step::Moved
}
