//! A client's turns before its first message and after its last: greeting, final_error, departure.

use std::task::Poll;

use pgimbal_pooler::session::Presence;
use pgimbal_pooler::session::arrival::Greeting;
use pgimbal_pooler::session::departure::Departure;
use pgimbal_wire::error::{Severity, with_severity};

use super::client::Stage;
use super::inbox::Inbox;
use super::turn::{Step, Turn};

impl Turn<'_, '_> {
    /// Somebody has decided that the client's connection ends.
    pub(super) fn dismissed(&mut self) -> bool {
        let final_error = self.state.pooler.poll_final_error(self.client.session);
        if let Some(final_error) = &final_error {
            self.client.outbox.push(final_error);
            self.client.stage = Stage::Closing;
        }
        final_error.is_some()
    }

    pub(super) fn greet(&mut self) -> Step {
        let Stage::Greeting(arriving) = &mut self.client.stage else { return Step::Moved };
        match self.state.pooler.greet(self.client.session, &arriving.parameters, self.now) {
            Greeting::Wait => {
                // A client that leaves while it waits must not keep its place.
                let gone = self.client.transport.as_mut().is_some_and(|transport| {
                    let mut nothing = Inbox::default();
                    match nothing.poll_read(transport, self.buffer, self.cx) {
                        Poll::Ready(Ok(None) | Err(_)) => true,
                        Poll::Ready(Ok(Some(input))) => {
                            self.client.inbox.append(input.bytes(self.buffer));
                            false
                        }
                        Poll::Pending => false,
                    }
                });
                if !gone {
                    return Step::Idle;
                }
                self.client.stage = Stage::Departed(Presence::Vanished);
            }
            Greeting::Ready(messages) => {
                self.client.outbox.push(&arriving.pending_output);
                self.client.outbox.push(&messages);
                self.client.stage = Stage::Serving;
            }
            Greeting::Try => {
                let pending = std::mem::take(&mut arriving.pending_output);
                self.client.outbox.push(&pending);
                self.client.stage = Stage::Serving;
                self.process_timeout();
            }
            Greeting::Refused(error) => {
                let mut message = Vec::new();
                with_severity(&error, Severity::Fatal, &mut message);
                self.client.outbox.push(&message);
                self.client.stage = Stage::Closing;
            }
        }
        Step::Moved
    }

    /// The final error to the client; it leaves when it has that, or will not take it.
    pub(super) fn close(&mut self) -> Step {
        self.flush_client();
        if !self.client.outbox.is_empty() && matches!(self.client.stage, Stage::Closing) {
            // A client that takes nothing must not keep a server connection by it.
            if self.client.goodbye_tried {
                self.client.stage = Stage::Departed(Presence::Vanished);
                return Step::Moved;
            }
            self.client.goodbye_tried = true;
            return Step::Moved;
        }
        self.client.stage = Stage::Departed(Presence::Vanished);
        Step::Moved
    }

    /// The client has left; its server connection is brought to an end that is clean.
    pub(super) fn depart(&mut self, presence: Presence) -> Step {
        self.client.drop_transport(self.state, self.cx);
        let session = self.client.session;
        let server = self.state.pooler.session(session).and_then(|session| session.link().server());
        if let Some(server) = server {
            if self.state.servers.flush(server, &mut self.state.free, self.cx).is_err() {
                self.server_ended(server);
                return Step::Moved;
            }
            if !self.state.servers.is_flushed(server) {
                return Step::Idle;
            }
        }
        self.state.plan.clear();
        let departure =
            self.state.pooler.handle_departure(session, presence, self.now, &mut self.state.plan);
        if let Some(server) = server {
            self.state.send_to_server(server, self.cx, &[]);
        }
        match (departure, server) {
            (Departure::Later, Some(server)) => match self.read_server(server) {
                Poll::Pending => Step::Idle,
                Poll::Ready(Some(input)) => {
                    self.process_server(server, &input);
                    Step::Moved
                }
                Poll::Ready(None) => {
                    self.server_ended(server);
                    Step::Moved
                }
            },
            (Departure::Over, _) | (Departure::Later, None) => {
                self.state.pooler.forget_session(session);
                self.state.unwatch(session);
                self.client.stage = Stage::Over;
                Step::Moved
            }
        }
    }
}
