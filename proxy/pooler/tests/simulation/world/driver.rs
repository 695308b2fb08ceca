//! What the driver in `proxy` does, without sockets.

use pgimbal_pooler::cancel::CancelKey;
use pgimbal_pooler::ids::ServerId;
use pgimbal_pooler::listener::steps::ListenerBytes;
use pgimbal_pooler::plan::{Piece, Pieces, Plan, Stop};
use pgimbal_pooler::pool::checkout::Checkout;
use pgimbal_pooler::recovery::DisconnectOutcome;
use pgimbal_pooler::server::ServerState;
use pgimbal_pooler::session::Presence;
use pgimbal_pooler::session::arrival::Greeting;
use pgimbal_pooler::session::departure::Departure;

use super::{PeerStage, World};
use crate::client::Stage;

/// Steps of one turn; more means that the core goes round in a circle.
const TURN_LIMIT: usize = 20_000;

impl World {
    pub(crate) fn client_logs_in(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let (worker, now) = (client.worker, self.now);
        let process = &mut self.last_process;
        let id = self.poolers[worker].handle_login(self.pool, now, now, || {
            *process += 1;
            CancelKey::short(*process, [7; 32])
        });
        client.session = Some(id);
        client.stage = Stage::Greeting;
        self.sessions.insert((worker, id.slot, id.serial), number);
        self.greet(number);
    }

    pub(crate) fn greet(&mut self, number: usize) {
        let client = &self.clients[number];
        let (worker, Some(id)) = (client.worker, client.session) else { return };
        let parameters: Vec<_> = client
            .startup
            .iter()
            .map(|(n, v)| (n.as_bytes().into(), v.as_bytes().into()))
            .collect();
        let greeting = self.poolers[worker].greet(id, &parameters, self.now);
        self.take_actions(worker);
        match greeting {
            Greeting::Ready(bytes) => self.clients[number].receive(&bytes),
            Greeting::Wait => {}
            Greeting::Try => self.drive_client(number),
            Greeting::Refused(_) => {
                self.end_session(number);
            }
        }
    }

    /// Processes what a client has sent until nothing more can be done with it.
    pub(crate) fn drive_client(&mut self, number: usize) {
        for _ in 0..TURN_LIMIT {
            let client = &mut self.clients[number];
            let (worker, Some(id)) = (client.worker, client.session) else { return };
            let waits = client.stage == Stage::Greeting && !self.poolers[worker].is_on_trial(id);
            if self.pooler_says_farewell(number) || waits {
                return;
            }
            let Some(session) = self.poolers[worker].session(id) else { return };
            if session.presence() != Presence::Here {
                return;
            }
            let server = session.link().server();
            let rest = std::mem::take(&mut self.clients[number].rest);
            let mut plan = std::mem::take(&mut self.plan);
            plan.clear();
            let processed =
                self.poolers[worker].handle_client_bytes(id, self.now, &rest, &mut plan);
            self.deliver(&plan, &rest, server.map(|server| (worker, server)), Some(number));
            self.plan = plan;
            self.clients[number].rest = rest[processed.taken as usize..].to_vec();
            self.take_actions(worker);
            match processed.stop {
                Stop::Drained | Stop::Wait => {
                    // Its settings may have been checked.
                    let _ = self.pooler_says_farewell(number);
                    return;
                }
                Stop::Need(n) => {
                    assert!(n as usize > self.clients[number].rest.len(), "what it needs is there");
                    return;
                }
                Stop::WaitForPlace => {
                    self.check_clean(worker, server.expect("a server to give back"));
                    self.poolers[worker].await_place(id, self.now);
                    return self.take_actions(worker);
                }
                Stop::Checkout => match self.poolers[worker].checkout(id, self.now) {
                    Checkout::Linked(server) => {
                        self.take_actions(worker);
                        self.meet(worker, server);
                    }
                    Checkout::Waiting => return self.take_actions(worker),
                    Checkout::Refused => {}
                },
                Stop::Checkin => {
                    self.check_in(worker, server.expect("a server to check in"));
                    if self.clients[number].rest.is_empty() {
                        let _ = self.pooler_says_farewell(number);
                        return;
                    }
                }
                Stop::Leave => self.check_in(worker, server.expect("a server to leave")),
                Stop::Again => panic!("only a server refuses"),
                Stop::Terminate => return self.depart(number, Presence::Terminated),
                Stop::Fault => {
                    self.clients[number].disturb();
                    return self.depart(number, Presence::Vanished);
                }
            }
        }
        panic!("client {number} goes round in a circle\n{}", self.clients[number].transcript());
    }

    /// A server connection was handed out: has its end come meanwhile?
    pub(crate) fn meet(&mut self, worker: usize, server: ServerId) {
        let at = self.peer_of(worker, server);
        if self.peers[at].backend.closed {
            self.server_ends(at);
        }
    }

    fn pooler_says_farewell(&mut self, number: usize) -> bool {
        let client = &self.clients[number];
        let Some(id) = client.session else { return false };
        let final_error = self.poolers[client.worker].poll_final_error(id);
        let Some(final_error) = final_error else { return false };
        self.clients[number].disturb();
        self.clients[number].receive(&final_error);
        self.depart(number, Presence::Vanished);
        true
    }

    /// The client has gone, or is sent away.
    pub(crate) fn depart(&mut self, number: usize, presence: Presence) {
        let client = &mut self.clients[number];
        let (worker, Some(id)) = (client.worker, client.session) else { return };
        if presence == Presence::Vanished {
            client.stage = Stage::Gone;
            client.disturb();
        }
        let server = self.poolers[worker].session(id).and_then(|session| session.link().server());
        if let Some(server) = server {
            let at = self.peer_of(worker, server);
            self.peers[at].left_by = Some(number);
        }
        let mut plan = std::mem::take(&mut self.plan);
        plan.clear();
        let departure = self.poolers[worker].handle_departure(id, presence, self.now, &mut plan);
        self.deliver(&plan, &[], server.map(|server| (worker, server)), None);
        self.plan = plan;
        self.take_actions(worker);
        if departure == Departure::Over {
            self.end_session(number);
        }
    }

    pub(crate) fn end_session(&mut self, number: usize) {
        let client = &mut self.clients[number];
        client.stage = Stage::Gone;
        if let Some(id) = client.session.take() {
            let worker = client.worker;
            self.sessions.remove(&(worker, id.slot, id.serial));
            self.poolers[worker].forget_session(id);
            self.take_actions(worker);
        }
    }

    /// Processes what a server connection has sent that listens for all clients.
    pub(crate) fn drive_listener(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        if peer.stage != PeerStage::Open {
            return;
        }
        let (worker, id) = (peer.worker, peer.id);
        let rest = std::mem::take(&mut peer.rest);
        let mut plan = std::mem::take(&mut self.plan);
        plan.clear();
        let word = self.poolers[worker].handle_listener_bytes(id, self.now, &rest, &mut plan);
        match word {
            ListenerBytes::Taken(taken) | ListenerBytes::Waits(taken) => {
                self.deliver(&plan, &rest, Some((worker, id)), None);
                self.plan = plan;
                self.peers[at].rest = rest[taken as usize..].to_vec();
                self.take_actions(worker);
            }
            ListenerBytes::Dead => {
                assert!(self.peers[at].backend.closed, "a server that listens is dead");
                self.plan = plan;
                self.server_ends(at);
            }
        }
    }

    /// Processes what a server has sent.
    pub(crate) fn drive_server(&mut self, at: usize) {
        let (worker, id) = (self.peers[at].worker, self.peers[at].id);
        let state = self.poolers[worker].server(id).map(|server| server.state());
        if state == Some(ServerState::Listening) {
            return self.drive_listener(at);
        }
        for _ in 0..TURN_LIMIT {
            let peer = &mut self.peers[at];
            if peer.stage != PeerStage::Open {
                return;
            }
            let (worker, id) = (peer.worker, peer.id);
            let number = self.client_on(worker, id);
            let rest = std::mem::take(&mut self.peers[at].rest);
            let mut plan = std::mem::take(&mut self.plan);
            plan.clear();
            let processed =
                self.poolers[worker].handle_server_bytes(id, self.now, &rest, &mut plan);
            self.deliver(&plan, &rest, Some((worker, id)), number);
            self.plan = plan;
            self.peers[at].rest = rest[processed.taken as usize..].to_vec();
            self.take_actions(worker);
            match processed.stop {
                Stop::Checkin => self.check_in(worker, id),
                Stop::Again => {
                    self.take_refused(number.expect("a client of the server"));
                    self.check_in(worker, id);
                }
                Stop::Fault => {
                    let transcript =
                        number.map(|number| self.clients[number].transcript()).unwrap_or_default();
                    // A server that takes its leave is not listened to until its end.
                    let due = self.peers[at].backend.closed || self.faults_are_due(number);
                    assert!(due, "a fault of the server:\n{transcript}");
                    self.server_ends(at);
                }
                _ => {}
            }
            if let Some(number) = number {
                self.go_on_after_server(number);
            }
            if processed.stop != Stop::Checkin || self.peers[at].rest.is_empty() {
                return;
            }
        }
        panic!("a server goes round in a circle");
    }

    /// What a replica has refused is processed again.
    fn take_refused(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let Some(id) = client.session else { return };
        let mut bytes = self.poolers[client.worker].take_refused(id);
        bytes.append(&mut client.rest);
        client.rest = bytes;
    }

    fn go_on_after_server(&mut self, number: usize) {
        let client = &self.clients[number];
        let Some(id) = client.session else { return };
        let presence = self.poolers[client.worker].session(id).map(|session| session.presence());
        match presence {
            Some(Presence::Here) => self.drive_client(number),
            Some(presence) => self.depart(number, presence),
            None => {}
        }
    }

    /// A server connection has ended.
    pub(crate) fn server_ends(&mut self, at: usize) {
        let (worker, id) = (self.peers[at].worker, self.peers[at].id);
        let loss = self.loses(worker, id);
        let peer = &mut self.peers[at];
        peer.stage = PeerStage::Ended;
        peer.backend.die(None);
        peer.down.clear();
        peer.rest.clear();
        let number = self.client_on(worker, id);
        self.by_server.remove(&(worker, id.slot, id.serial));
        let mut plan = std::mem::take(&mut self.plan);
        plan.clear();
        let outcome = self.poolers[worker].handle_server_gone(id, self.now, &mut plan);
        // What is run again, the client does not notice; a transaction that is lost, it may.
        let again = matches!(outcome, DisconnectOutcome::Again(_)) && !self.is_offline(number);
        if let Some(number) = loss.filter(|_| !again) {
            self.clients[number].disturb();
        }
        self.deliver(&plan, &[], None, number);
        self.plan = plan;
        self.take_actions(worker);
        let Some(number) = number else { return };
        match outcome {
            DisconnectOutcome::Survives => self.go_on_after_server(number),
            DisconnectOutcome::Again(mut bytes) => {
                bytes.append(&mut self.clients[number].rest);
                self.clients[number].rest = bytes;
                self.go_on_after_server(number);
            }
            DisconnectOutcome::Ends => {
                self.clients[number].disturb();
                self.depart(number, Presence::Vanished);
            }
        }
    }

    /// The proxy closes a server connection's socket without a word.
    pub(crate) fn cut(&mut self, worker: usize, id: ServerId) {
        let at = self.peer_of(worker, id);
        self.server_ends(at);
    }

    fn is_offline(&self, number: Option<usize>) -> bool {
        let client = number.map(|number| &self.clients[number]);
        let session = client.and_then(|c| self.poolers[c.worker].session(c.session?));
        session.is_some_and(|session| session.aborted().is_some())
    }

    fn check_in(&mut self, worker: usize, server: ServerId) {
        self.check_clean(worker, server);
        self.poolers[worker].checkin(server, self.now);
        self.take_actions(worker);
    }

    /// Writes what a plan holds. A client that has left gets nothing more.
    fn deliver(
        &mut self,
        plan: &Plan,
        buf: &[u8],
        server: Option<(usize, ServerId)>,
        client: Option<usize>,
    ) {
        let to_server = gather(plan, plan.to_server(), buf);
        if !to_server.is_empty() {
            let (worker, server) = server.expect("a server to write to");
            let at = self.peer_of(worker, server);
            if std::env::var_os("PGIMBAL_SIM_SEED").is_some() {
                println!("server {at}: {}", to_server.escape_ascii());
            }
            self.peers[at].down.extend(to_server);
        }
        for (session, pieces) in plan.to_sessions() {
            let bytes = gather(plan, pieces, buf);
            let Some(number) = client else { continue };
            let own = self.clients[number].session;
            assert_eq!(own, Some(session), "an answer for another client than the one served");
            if matches!(self.clients[number].stage, Stage::Greeting | Stage::Open | Stage::Leaving)
            {
                self.clients[number].receive(&bytes);
            }
        }
    }

    pub(crate) fn peer_of(&self, worker: usize, id: ServerId) -> usize {
        *self.by_server.get(&(worker, id.slot, id.serial)).expect("a known server")
    }

    pub(crate) fn client_on(&self, worker: usize, id: ServerId) -> Option<usize> {
        let session = self.poolers[worker].server(id)?.session()?;
        self.sessions.get(&(worker, session.slot, session.serial)).copied()
    }
}

fn gather(plan: &Plan, pieces: &Pieces, buf: &[u8]) -> Vec<u8> {
    let bytes = |piece: &Piece| match piece {
        Piece::Span(range) => buf[range.start as usize..range.end as usize].to_vec(),
        Piece::Made(range) => plan.made()[range.start as usize..range.end as usize].to_vec(),
    };
    pieces.pieces().iter().flat_map(bytes).collect()
}
