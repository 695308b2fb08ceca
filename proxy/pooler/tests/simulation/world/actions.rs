//! What the core asks for, and when it happens.

use std::rc::Rc;

use pgimbal_pooler::action::Action;
use pgimbal_pooler::ids::{ServerId, SessionId};
use pgimbal_pooler::server::BackendKey;
use pgimbal_pooler::server::life::{DialFailure, Dialed};

use super::{Later, Peer, PeerStage, REFUSAL, World};
use crate::client::Stage;
use crate::message;
use crate::postgres::Backend;

impl World {
    pub(crate) fn take_actions(&mut self, worker: usize) {
        let mut actions = Vec::new();
        self.poolers[worker].poll_actions(&mut actions);
        for action in actions {
            match action {
                Action::QuestionDenied(_, kinds) => panic!("denied: {kinds:?}"),
                Action::ConnectionRejected(_) => panic!("a connection refuses to be reset"),
                Action::Dial(id) => self.begin_dial(worker, id),
                Action::Drive(id) => self.later.push(Later::Drive(self.peer_of(worker, id))),
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
                    let pool = self.poolers[worker].server(id).map_or(self.pool, |s| s.pool());
                    let Some(moving) = self.poolers[worker].migrate_out(id, to) else {
                        panic!("what was to be given is not there")
                    };
                    self.by_server.remove(&(worker, id.slot, id.serial));
                    self.peers[at].stage = PeerStage::Migration;
                    self.later.push(Later::Arrive { peer: at, moving: Box::new(moving), pool, to });
                }
                Action::Retired(_) | Action::AskForIdle(_) => {}
                Action::Parse => self.later.push(Later::Parse(worker)),
                Action::Trace => panic!("nothing is to be traced"),
                Action::Cut(id) => self.cut(worker, id),
                Action::ProbeHint(_, probe_hint) => self.probe_hints.push(probe_hint),
                Action::Ask(pool, to) => {
                    let by = self.poolers[worker].worker();
                    self.later.push(Later::Ask { to, pool, by });
                }
            }
        }
    }

    fn begin_dial(&mut self, worker: usize, id: ServerId) {
        self.by_server.insert((worker, id.slot, id.serial), self.peers.len());
        self.later.push(Later::Dialed(self.peers.len()));
        let found = self.would_find(worker, id);
        let mut backend = Backend::new(&[]);
        if let (Some(nodes), Some(found)) = (&self.nodes, found) {
            backend.node = Some((Rc::clone(nodes), found.node.index()));
        }
        self.peers.push(Peer {
            backend,
            down: Vec::new(),
            rest: Vec::new(),
            worker,
            id,
            left_by: None,
            found,
            stage: PeerStage::Dialing,
        });
    }

    pub(crate) fn later_happens(&mut self) -> bool {
        if self.later.is_empty() {
            return false;
        }
        let at = self.random.below(self.later.len());
        self.later_at(at);
        true
    }

    /// One of the things to come happens.
    pub(crate) fn later_at(&mut self, at: usize) {
        match self.later.remove(at) {
            Later::Dialed(at) => self.dial_ends(at),
            Later::Ended(at) => {
                let (worker, id) = (self.peers[at].worker, self.peers[at].id);
                self.peers[at].stage = PeerStage::Ended;
                self.by_server.remove(&(worker, id.slot, id.serial));
                self.poolers[worker].handle_closed(id, self.now);
                self.take_actions(worker);
            }
            Later::Wake(worker, session) => self.woken(worker, session),
            Later::Drive(at) => self.drive_listener(at),
            Later::Parse(worker) => {
                while let Some(job) = self.poolers[worker].take_parse_job() {
                    self.poolers[worker].handle_parsed(Some(job.run()));
                    self.take_actions(worker);
                }
            }
            Later::Cancel { peer, client } => self.cancel_arrives(peer, client),
            Later::CancelEnded(at) => {
                let (worker, id) = (self.peers[at].worker, self.peers[at].id);
                self.poolers[worker].handle_cancel_ended(id, self.now);
                self.take_actions(worker);
            }
            Later::Ask { to, pool, by } => {
                self.poolers[usize::from(to.0)].handle_migration_request(pool, by);
                self.take_actions(usize::from(to.0));
            }
            Later::Arrive { peer, moving, pool, to } => {
                let worker = usize::from(to.0);
                let id = self.poolers[worker].migrate_in(pool, *moving, self.now);
                self.by_server.insert((worker, id.slot, id.serial), peer);
                let taken = &mut self.peers[peer];
                (taken.worker, taken.id, taken.stage) = (worker, id, PeerStage::Open);
                self.poolers[worker].finish_migration(id, self.now);
                self.take_actions(worker);
            }
        }
    }

    fn dial_ends(&mut self, at: usize) {
        let (worker, id) = (self.peers[at].worker, self.peers[at].id);
        let mut found = self.peers[at].found;
        if let (Some(nodes), Some(found)) = (&self.nodes, &mut found) {
            // Asked on the connection itself; the node may have been started again meanwhile.
            found.report = nodes.borrow().report(found.node.index());
        }
        let dead = found.is_some_and(|found| self.dead.contains(&found.node));
        if dead || self.random.chance(self.dials_refused) {
            self.peers[at].stage = PeerStage::Ended;
            self.peers[at].backend.die(None);
            self.by_server.remove(&(worker, id.slot, id.serial));
            let error = message::report(b'E', "FATAL", "53300", REFUSAL);
            self.poolers[worker].handle_dial_failed(
                id,
                error[5..].into(),
                if dead { DialFailure::Unreachable } else { DialFailure::Refused },
                self.now,
            );
        } else {
            self.peers[at].stage = PeerStage::Open;
            let values = self.peers[at].backend.gucs.reported();
            let parameters =
                values.iter().map(|(n, v)| (n.as_bytes().into(), v.as_bytes().into())).collect();
            let backend_key = BackendKey { process_id: at as u32, secret: [1, 2, 3, 4].into() };
            self.poolers[worker].handle_dialed(
                id,
                Dialed { backend_key, parameters, found },
                self.now,
            );
        }
        self.take_actions(worker);
    }

    fn woken(&mut self, worker: usize, session: SessionId) {
        let key = (worker, session.slot, session.serial);
        let Some(number) = self.sessions.get(&key).copied() else { return };
        if self.clients[number].stage == Stage::Greeting
            && !self.poolers[worker].is_on_trial(session)
        {
            return self.greet(number);
        }
        let id = self.poolers[worker].session(session).and_then(|session| session.link().server());
        if let Some(id) = id {
            self.meet(worker, id);
        }
        let _ = self.poolers[worker].take_wait_over(session);
        while let Some(output) = self.poolers[worker].poll_output(session) {
            self.clients[number].receive(&output);
        }
        self.drive_client(number);
    }

    /// A backend that has read Terminate is gone.
    pub(crate) fn note_end(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        if peer.stage == PeerStage::Closing && peer.down.is_empty() && peer.backend.asleep.is_none()
        {
            // In the middle of a message it reads no Terminate, but the end of the stream.
            peer.backend.die(None);
        }
        let told =
            self.later.iter().any(|later| matches!(later, Later::Ended(other) if *other == at));
        let peer = &self.peers[at];
        if peer.stage == PeerStage::Closing && peer.backend.closed && !told {
            self.later.push(Later::Ended(at));
        }
    }
}
