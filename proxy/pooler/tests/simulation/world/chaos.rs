//! What goes wrong: servers die, clients vanish, cancel requests come at any time.

use pgimbal_pooler::ids::ServerId;
use pgimbal_pooler::server::Setup;
use pgimbal_pooler::server::pending::{OwnQuery, Pending};
use pgimbal_pooler::session::{Link, Presence};

use super::{Later, PeerStage, World, owner};
use crate::client::Stage;
use crate::postgres::Balk;

impl World {
    pub(crate) fn trouble(&mut self) -> bool {
        let troubles = self.shape.troubles;
        match self.random.below(8) {
            0 if troubles.kills => self.server_dies(),
            1 if troubles.vanishings => self.client_vanishes(),
            2..5 if troubles.cancels => self.client_cancels(),
            5 if troubles.failovers => self.leadership_changes(),
            6 if troubles.balks => self.own_query_fails(),
            _ => false,
        }
    }

    fn server_dies(&mut self) -> bool {
        if self.clients.iter().all(|client| client.stage == Stage::Gone) {
            return false;
        }
        let Some(at) = self.pick_peer(|peer| peer.stage == PeerStage::Open && !peer.backend.closed)
        else {
            return false;
        };
        let (worker, id) = (self.peers[at].worker, self.peers[at].id);
        if let Some(number) = self.loses(worker, id) {
            self.clients[number].disturb();
        }
        if self.random.chance(50) {
            self.peers[at].backend.output.clear();
        }
        let word = self.random.chance(50).then_some("terminating connection by the simulation");
        // Half a message is not followed by another.
        let whole = self.peers[at].rest.is_empty() && self.peers[at].backend.output.is_empty();
        self.peers[at].backend.die(word.filter(|_| whole));
        self.peers[at].down.clear();
        true
    }

    /// What the proxy asks of a server on its own account is refused, as by a cancel that comes
    /// late or a privilege that is gone: nobody notices.
    fn own_query_fails(&mut self) -> bool {
        let poolers = &self.poolers;
        let fails = |peer: &super::Peer| {
            let server = poolers[peer.worker()].server(peer.id())?;
            let is_due = peer.stage == PeerStage::Open
                && peer.backend.balks.is_none()
                && !peer.down.is_empty()
                && server.pending().len() == 1;
            match server.pending().front().filter(|_| is_due)? {
                Pending::Own(OwnQuery::Question | OwnQuery::Facts) => Some(Balk::Question("57014")),
                Pending::Own(OwnQuery::Setup) if matches!(server.setup(), Setup::Whole) => {
                    Some(Balk::Settings("42501"))
                }
                _ => None,
            }
        };
        let list = self.peers.iter().enumerate();
        let list: Vec<_> = list.filter_map(|(at, peer)| Some((at, fails(peer)?))).collect();
        let Some((at, balk)) = (!list.is_empty()).then(|| self.random.pick(&list)) else {
            return false;
        };
        self.peers[at].backend.balks = Some(balk);
        true
    }

    /// The client on a server connection, which may see more than its reference knows of.
    pub(crate) fn loses(&self, worker: usize, id: ServerId) -> Option<usize> {
        let number = self.client_on(worker, id)?;
        let session = self.poolers[worker].session(self.clients[number].session?)?;
        matches!(session.link(), Link::Ready(_) | Link::Cleaning(_)).then_some(number)
    }

    fn client_vanishes(&mut self) -> bool {
        let number = self.random.below(self.clients.len());
        let client = &mut self.clients[number];
        if !matches!(client.stage, Stage::Open | Stage::Greeting) || client.session.is_none() {
            return false;
        }
        client.disturb();
        if self.random.chance(50) {
            let rest = std::mem::take(&mut self.clients[number].up);
            self.clients[number].rest.extend(rest);
            self.drive_client(number);
        }
        self.depart(number, Presence::Vanished);
        true
    }

    fn client_cancels(&mut self) -> bool {
        let number = self.random.below(self.clients.len());
        let client = &self.clients[number];
        let (worker, Some(id)) = (client.worker, client.session) else { return false };
        let Some(session) = self.poolers[worker].session(id) else { return false };
        if client.is_answered() || client.stage != Stage::Open {
            return false;
        }
        let waits = session.link().waits();
        let process_id = session.key().process_id;
        if waits {
            // Cancelled before it has begun: its reference would have begun.
            self.clients[number].disturb();
        }
        self.poolers[worker].handle_cancel_request(process_id, &[7; 4]);
        self.take_actions(worker);
        true
    }

    pub(crate) fn cancel_arrives(&mut self, peer: usize, client: usize) {
        if let Some(token) = self.peers[peer].backend.cancel() {
            assert_eq!(
                owner(&token),
                client,
                "a cancel has hit {token}, a statement of another client"
            );
            self.resolve(&token, true);
            self.note_end(peer);
        }
        self.later.push(Later::CancelEnded(peer));
    }

    /// Only what was cancelled or killed may go wrong on a server.
    pub(crate) fn faults_are_due(&self, number: Option<usize>) -> bool {
        number.is_none_or(|number| self.clients[number].disturbed || self.shape.troubles.cancels)
    }
}
