//! What the driver in `proxy` does, without sockets.

use pgimbal_pooler::arrival::Greeting;
use pgimbal_pooler::cancel::CancelKey;
use pgimbal_pooler::checkout::Checkout;
use pgimbal_pooler::departure::Departure;
use pgimbal_pooler::ids::{ServerId, SessionId};
use pgimbal_pooler::plan::{Piece, Pieces, Plan, Stop};
use pgimbal_pooler::pooler::Action;
use pgimbal_pooler::server::BackendKey;
use pgimbal_pooler::server_life::{Aftermath, Dialed};
use pgimbal_pooler::session::Presence;

use super::{Later, Peer, PeerStage, World};
use crate::client::Stage;
use crate::message;
use crate::postgres::Backend;

/// Steps of one turn; more means that the core goes round in a circle.
const TURN_LIMIT: usize = 20_000;

impl World {
    pub(crate) fn client_logs_in(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let (worker, now) = (client.worker, self.now);
        let id = self.poolers[worker].arrive(self.pool, now, |process| CancelKey::short(process, [7; 32]));
        client.session = Some(id);
        client.stage = Stage::Greeting;
        self.sessions.insert((worker, id.slot, id.serial), number);
        self.greet(number);
    }

    fn greet(&mut self, number: usize) {
        let client = &self.clients[number];
        let (worker, Some(id)) = (client.worker, client.session) else { return };
        let parameters: Vec<_> =
            client.startup.iter().map(|(n, v)| (n.as_bytes().into(), v.as_bytes().into())).collect();
        let greeting = self.poolers[worker].greet(id, &parameters, self.now);
        self.take_actions(worker);
        match greeting {
            Greeting::Ready(bytes) => self.clients[number].receive(&bytes),
            Greeting::Wait => {}
            Greeting::Refused(_) => {
                self.end_session(number);
            }
        }
    }

    /// Judges what a client has sent until nothing more can be done with it.
    pub(crate) fn drive_client(&mut self, number: usize) {
        for _ in 0..TURN_LIMIT {
            let client = &mut self.clients[number];
            let (worker, Some(id)) = (client.worker, client.session) else { return };
            if client.stage == Stage::Greeting {
                return;
            }
            if self.pooler_says_farewell(number) {
                return;
            }
            let Some(session) = self.poolers[worker].session(id) else { return };
            if session.presence != Presence::Here {
                return;
            }
            let server = session.link.server();
            let rest = std::mem::take(&mut self.clients[number].rest);
            let mut plan = std::mem::take(&mut self.plan);
            plan.clear();
            let judged = self.poolers[worker].client_bytes(id, self.now, &rest, &mut plan);
            self.deliver(&plan, &rest, server.map(|server| (worker, server)), Some(number));
            self.plan = plan;
            self.clients[number].rest = rest[judged.taken as usize..].to_vec();
            self.take_actions(worker);
            match judged.stop {
                Stop::Drained | Stop::Full => return,
                Stop::Need(n) => {
                    assert!(n as usize > self.clients[number].rest.len(), "what it needs is there");
                    return;
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
                    let server = server.expect("a server to check in");
                    self.check_in(worker, server);
                    if self.clients[number].rest.is_empty() {
                        let _ = self.pooler_says_farewell(number);
                        return;
                    }
                }
                Stop::Terminate => return self.depart(number, Presence::Terminated),
                Stop::Fault => {
                    self.clients[number].disturb();
                    return self.depart(number, Presence::Vanished);
                }
            }
        }
        panic!("client {number} goes round in a circle\n{}", self.clients[number].story());
    }

    /// A server connection was handed out: has its end come meanwhile?
    fn meet(&mut self, worker: usize, server: ServerId) {
        let at = self.peer_of(worker, server);
        if self.peers[at].backend.closed {
            self.server_ends(at);
        }
    }

    fn pooler_says_farewell(&mut self, number: usize) -> bool {
        let client = &self.clients[number];
        let Some(id) = client.session else { return false };
        let session = self.poolers[client.worker].session(id);
        let Some(farewell) = session.and_then(|session| session.farewell.clone()) else { return false };
        self.clients[number].disturb();
        self.clients[number].receive(&farewell);
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
        let server = self.poolers[worker].session(id).and_then(|session| session.link.server());
        if let Some(server) = server {
            let at = self.peer_of(worker, server);
            self.peers[at].left_by = Some(number);
        }
        let mut plan = std::mem::take(&mut self.plan);
        plan.clear();
        let departure = self.poolers[worker].depart(id, presence, self.now, &mut plan);
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
            self.poolers[worker].end(id);
            self.take_actions(worker);
        }
    }

    /// Judges what a server has sent.
    pub(crate) fn drive_server(&mut self, at: usize) {
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
            let judged = self.poolers[worker].server_bytes(id, self.now, &rest, &mut plan);
            self.deliver(&plan, &rest, Some((worker, id)), number);
            self.plan = plan;
            self.peers[at].rest = rest[judged.taken as usize..].to_vec();
            self.take_actions(worker);
            match judged.stop {
                Stop::Checkin => self.check_in(worker, id),
                Stop::Fault => {
                    let story = number.map(|number| self.clients[number].story()).unwrap_or_default();
                    assert!(self.faults_are_due(number), "a fault of the server:\n{story}");
                    self.server_ends(at);
                }
                _ => {}
            }
            if let Some(number) = number {
                self.go_on_after_server(number);
            }
            if judged.stop != Stop::Checkin || self.peers[at].rest.is_empty() {
                return;
            }
        }
        panic!("a server goes round in a circle");
    }

    fn go_on_after_server(&mut self, number: usize) {
        let client = &self.clients[number];
        let Some(id) = client.session else { return };
        let presence = self.poolers[client.worker].session(id).map(|session| session.presence);
        match presence {
            Some(Presence::Here) => self.drive_client(number),
            Some(presence) => self.depart(number, presence),
            None => {}
        }
    }

    /// A server connection has ended.
    pub(crate) fn server_ends(&mut self, at: usize) {
        self.note_loss(self.peers[at].worker, self.peers[at].id);
        let peer = &mut self.peers[at];
        let (worker, id) = (peer.worker, peer.id);
        peer.stage = PeerStage::Ended;
        peer.backend.die(None);
        peer.down.clear();
        peer.rest.clear();
        let number = self.client_on(worker, id);
        self.by_server.remove(&(worker, id.slot, id.serial));
        let mut plan = std::mem::take(&mut self.plan);
        plan.clear();
        let aftermath = self.poolers[worker].server_gone(id, self.now, &mut plan);
        self.deliver(&plan, &[], None, number);
        self.plan = plan;
        self.take_actions(worker);
        let Some(number) = number else { return };
        match aftermath {
            Aftermath::Survives => self.go_on_after_server(number),
            Aftermath::Ends => {
                self.clients[number].disturb();
                self.depart(number, Presence::Vanished);
            }
        }
    }

    fn check_in(&mut self, worker: usize, server: ServerId) {
        self.check_clean(worker, server);
        self.poolers[worker].checkin(server, self.now);
        self.take_actions(worker);
    }

    /// Writes what a plan holds. A client that has left gets nothing more.
    fn deliver(&mut self, plan: &Plan, buf: &[u8], server: Option<(usize, ServerId)>, client: Option<usize>) {
        let to_server = gather(plan, &plan.to_server, buf);
        if !to_server.is_empty() {
            let (worker, server) = server.expect("a server to write to");
            let at = self.peer_of(worker, server);
            if std::env::var_os("PGIMBAL_SIM_SEED").is_some() {
                println!("server {at}: {}", to_server.escape_ascii());
            }
            self.peers[at].down.extend(to_server);
        }
        let to_client = gather(plan, &plan.to_client, buf);
        let Some(number) = client.filter(|_| !to_client.is_empty()) else { return };
        if matches!(self.clients[number].stage, Stage::Open | Stage::Leaving) {
            self.clients[number].receive(&to_client);
        }
    }

    pub(crate) fn take_actions(&mut self, worker: usize) {
        let mut actions = Vec::new();
        self.poolers[worker].take_actions(&mut actions);
        for action in actions {
            match action {
                Action::Dial(id) => {
                    self.by_server.insert((worker, id.slot, id.serial), self.peers.len());
                    self.later.push(Later::Dialed(self.peers.len()));
                    self.peers.push(Peer {
                        backend: Backend::new(&[]),
                        down: Vec::new(),
                        rest: Vec::new(),
                        worker,
                        id,
                        left_by: None,
                        stage: PeerStage::Dialing,
                    });
                }
                Action::Close(id) => {
                    let at = self.peer_of(worker, id);
                    self.peers[at].stage = PeerStage::Closing;
                    self.peers[at].down.extend(message::terminate());
                    self.note_end(at);
                }
                Action::Cancel(id) => {
                    let peer = self.peer_of(worker, id);
                    let client = self.client_on(worker, id).or(self.peers[peer].left_by);
                    let client = client.expect("a cancel for somebody");
                    self.later.push(Later::Cancel { peer, client });
                }
                Action::Wake(session) => self.later.push(Later::Wake(worker, session)),
                Action::Give(id, to) => {
                    let at = self.peer_of(worker, id);
                    self.check_clean(worker, id);
                    let Some(moving) = self.poolers[worker].give_away(id, to) else {
                        panic!("what was to be given is not there")
                    };
                    self.by_server.remove(&(worker, id.slot, id.serial));
                    self.peers[at].stage = PeerStage::Moving;
                    self.later.push(Later::Arrive { peer: at, moving: Box::new(moving), to });
                }
                Action::Ask(pool, to) => {
                    let by = self.poolers[worker].worker();
                    self.later.push(Later::Ask { to, pool, by });
                }
            }
        }
    }

    pub(crate) fn later_happens(&mut self) -> bool {
        if self.later.is_empty() {
            return false;
        }
        let at = self.random.below(self.later.len());
        match self.later.remove(at) {
            Later::Dialed(at) => self.dial_ends(at),
            Later::Ended(at) => {
                let (worker, id) = (self.peers[at].worker, self.peers[at].id);
                self.peers[at].stage = PeerStage::Ended;
                self.by_server.remove(&(worker, id.slot, id.serial));
                self.poolers[worker].closed(id, self.now);
                self.take_actions(worker);
            }
            Later::Wake(worker, session) => self.woken(worker, session),
            Later::Cancel { peer, client } => self.cancel_arrives(peer, client),
            Later::CancelEnded(at) => {
                let (worker, id) = (self.peers[at].worker, self.peers[at].id);
                self.poolers[worker].cancel_ended(id, self.now);
                self.take_actions(worker);
            }
            Later::Ask { to, pool, by } => {
                self.poolers[usize::from(to.0)].asked(pool, by);
                self.take_actions(usize::from(to.0));
            }
            Later::Arrive { peer, moving, to } => {
                let worker = usize::from(to.0);
                let id = self.poolers[worker].take_in(self.pool, *moving, self.now);
                self.by_server.insert((worker, id.slot, id.serial), peer);
                let taken = &mut self.peers[peer];
                (taken.worker, taken.id, taken.stage) = (worker, id, PeerStage::Open);
                self.poolers[worker].settle_in(id, self.now);
                self.take_actions(worker);
            }
        }
        true
    }

    fn dial_ends(&mut self, at: usize) {
        let (worker, id) = (self.peers[at].worker, self.peers[at].id);
        if self.shape.troubles.dial_failures && self.random.chance(20) {
            self.peers[at].stage = PeerStage::Ended;
            self.peers[at].backend.die(None);
            self.by_server.remove(&(worker, id.slot, id.serial));
            let error = message::report(b'E', "FATAL", "53300", super::REFUSAL);
            self.poolers[worker].dial_failed(id, error[5..].into(), self.now);
        } else {
            self.peers[at].stage = PeerStage::Open;
            let values = self.peers[at].backend.gucs.reported();
            let parameters =
                values.iter().map(|(n, v)| (n.as_bytes().into(), v.as_bytes().into())).collect();
            let backend_key = BackendKey { process_id: at as u32, secret: [1, 2, 3, 4].into() };
            self.poolers[worker].dialed(id, Dialed { backend_key, parameters }, self.now);
        }
        self.take_actions(worker);
    }

    fn woken(&mut self, worker: usize, session: SessionId) {
        let key = (worker, session.slot, session.serial);
        let Some(number) = self.sessions.get(&key).copied() else { return };
        if self.clients[number].stage == Stage::Greeting {
            return self.greet(number);
        }
        let id = self.poolers[worker].session(session).and_then(|session| session.link.server());
        if let Some(id) = id {
            self.meet(worker, id);
        }
        self.drive_client(number);
    }

    /// A backend that has read Terminate is gone.
    pub(crate) fn note_end(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        if peer.stage == PeerStage::Closing && peer.down.is_empty() && peer.backend.asleep.is_none() {
            // In the middle of a message it reads no Terminate, but the end of the stream.
            peer.backend.die(None);
        }
        let told = self.later.iter().any(|later| matches!(later, Later::Ended(other) if *other == at));
        let peer = &self.peers[at];
        if peer.stage == PeerStage::Closing && peer.backend.closed && !told {
            self.later.push(Later::Ended(at));
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
        Piece::Made(range) => plan.scratch[range.start as usize..range.end as usize].to_vec(),
    };
    pieces.pieces().iter().flat_map(bytes).collect()
}
