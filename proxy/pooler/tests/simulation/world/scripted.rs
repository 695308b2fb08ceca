//! A world without chance, for statements about one thing: who says what when is the test's to say.

use std::time::Duration;

use pgimbal_config::{PoolConfig, ResolvedCluster};
use pgimbal_pooler::plan::Plan;
use pgimbal_pooler::server::{Server, ServerState};
use pgimbal_pooler::session::{Presence, Session};

use super::{Peer, PeerStage, Shape, Troubles, World};
use crate::client::{Client, Stage};
use crate::postgres::Backend;

impl World {
    /// One worker, a pool, and clients 0 to 9, of whom nobody is there yet.
    pub(crate) fn scripted(pool: PoolConfig) -> Self {
        Self::desk_before(pool, None)
    }

    /// The same before a cluster.
    pub(crate) fn desk_before(pool: PoolConfig, cluster: Option<ResolvedCluster>) -> Self {
        let troubles = Troubles {
            kills: false,
            vanishings: false,
            cancels: true,
            dial_failures: false,
            balks: false,
            failovers: false,
        };
        let shape = Shape {
            workers: 1,
            clients: 10,
            steps: 1,
            pool,
            max_pinned: 100,
            chunk: 1,
            troubles,
            cluster,
        };
        Self::desk_of(shape)
    }

    pub(crate) fn desk_of(shape: Shape) -> Self {
        let mut world = Self::new(1, shape);
        for number in 0..world.clients.len() {
            world.clients[number] = Client::new(number, 0, Vec::new(), 0);
            world.clients[number].ready_spare = usize::MAX / 2;
        }
        world
    }

    /// A client logs in.
    pub(crate) fn join(&mut self, number: usize) {
        self.client_logs_in(number);
        self.settle();
        assert_eq!(self.clients[number].stage, Stage::Open);
        self.clients[number].seen.clear();
    }

    /// A client sends this, everything runs its course; returns what the client gets.
    pub(crate) fn say(&mut self, number: usize, bytes: &[u8]) -> Vec<String> {
        self.say_only(number, bytes);
        self.settle();
        self.heard(number)
    }

    /// A client sends this, and the proxy deals with it; the servers have not heard of it.
    pub(crate) fn say_only(&mut self, number: usize, bytes: &[u8]) {
        self.clients[number].send(bytes);
        self.arrive(number, usize::MAX);
    }

    /// Up to `most` bytes of what a client has sent reach the proxy.
    pub(crate) fn arrive(&mut self, number: usize, most: usize) {
        let client = &mut self.clients[number];
        let length = most.min(client.up.len());
        let piece: Vec<u8> = client.up.drain(..length).collect();
        client.rest.extend(piece);
        self.drive_client(number);
    }

    /// What a client got since this was last asked.
    pub(crate) fn heard(&mut self, number: usize) -> Vec<String> {
        let lines = std::mem::take(&mut self.clients[number].seen);
        lines.iter().filter_map(|line| line.strip_prefix("< ").map(str::to_owned)).collect()
    }

    /// A client vanishes without a word.
    pub(crate) fn vanish(&mut self, number: usize) {
        self.depart(number, Presence::Vanished);
    }

    /// Lets everything that is under way come to its end, in order.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut busy = false;
            for at in 0..self.peers.len() {
                busy |= self.serve(at);
            }
            if !self.later.is_empty() {
                self.later_at(0);
                busy = true;
            }
            self.check();
            if !busy {
                return;
            }
        }
    }

    /// One of the things that are under way happens, by chance.
    pub(crate) fn one_step(&mut self) {
        match self.random.below(3) {
            0 => drop(self.later_happens()),
            1 => drop(self.bytes_reach_backend()),
            _ => drop(self.bytes_leave_backend()),
        }
    }

    /// A server reads what was sent to it and answers.
    fn serve(&mut self, at: usize) -> bool {
        let down = std::mem::take(&mut self.peers[at].down);
        if !down.is_empty() && !self.peers[at].backend.closed {
            self.peers[at].backend.feed(&down);
            self.spread_notifications(at);
            self.note_end(at);
        }
        let peer = &mut self.peers[at];
        if peer.stage != PeerStage::Open {
            return !down.is_empty();
        }
        let output = std::mem::take(&mut peer.backend.output);
        if !output.is_empty() {
            peer.rest.extend(&output);
            self.drive_server(at);
        } else if peer.backend.closed {
            self.server_ends(at);
            return true;
        }
        !down.is_empty() || !output.is_empty()
    }

    /// What runs comes to its end.
    pub(crate) fn wake_all(&mut self) {
        while self.sleeper_wakes() {}
        self.settle();
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.poolers[0].handle_timeout(self.now);
        self.take_actions(0);
    }

    pub(crate) fn session(&self, number: usize) -> &Session {
        let id = self.clients[number].session.expect("a session");
        self.poolers[0].session(id).expect("a session")
    }

    /// The server connection that serves a client.
    pub(crate) fn server_of(&self, number: usize) -> Option<&Server> {
        self.poolers[0].server(self.session(number).link().server()?)
    }

    /// Server connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.peers.iter().filter(|peer| peer.stage != PeerStage::Ended).count()
    }

    /// Server connections that are idle.
    pub(crate) fn idle(&self) -> usize {
        let servers = self.peers.iter().filter(|peer| peer.stage == PeerStage::Open);
        let states = servers.filter_map(|peer| self.poolers[peer.worker].server(peer.id));
        states.filter(|server| matches!(server.state(), ServerState::Idle(_))).count()
    }

    /// The client's own cancel request reaches the proxy.
    pub(crate) fn cancel_of(&mut self, number: usize) {
        let process_id = self.session(number).key().process_id;
        self.poolers[0].handle_cancel_request(process_id, &[7; 4]);
        self.take_actions(0);
    }

    /// The statement with this constant comes to its end.
    pub(crate) fn finish(&mut self, token: &str) {
        for peer in &mut self.peers {
            if peer.backend.asleep.as_ref().is_some_and(|asleep| asleep.token == token) {
                peer.backend.wake();
            }
        }
        self.resolve(token, false);
    }

    /// What servers have said reaches the proxy; nothing else happens.
    pub(crate) fn deliver_output(&mut self) {
        for at in 0..self.peers.len() {
            self.serve(at);
        }
    }

    /// No server lets anybody in from now on.
    pub(crate) fn refuse_dials(&mut self) {
        self.dials_refused = 100;
    }

    /// The server that a client of another worker has.
    pub(crate) fn server_of_worker(&self, worker: usize, number: usize) -> Option<&Server> {
        let id = self.clients[number].session?;
        self.poolers[worker].server(self.poolers[worker].session(id)?.link().server()?)
    }

    /// Dials that are under way land, and clients that waited for them send what they have.
    pub(crate) fn land_dials(&mut self) {
        while !self.later.is_empty() {
            self.later_at(0);
        }
    }

    /// The backend of the server connection that was opened last, and what was sent to it.
    pub(crate) fn last_backend(&mut self) -> (&mut Backend, Vec<u8>) {
        let open = |peer: &&mut Peer| peer.stage == PeerStage::Open;
        let peer = self.peers.iter_mut().rfind(open).expect("one that is open");
        (&mut peer.backend, std::mem::take(&mut peer.down))
    }

    /// What the backend that was opened last has said reaches the proxy, without the client's turn.
    pub(crate) fn hear_last_backend(&mut self) {
        let at = self.peers.iter().rposition(|peer| peer.stage == PeerStage::Open).expect("one");
        let output = std::mem::take(&mut self.peers[at].backend.output);
        let (worker, id, mut plan) = (self.peers[at].worker, self.peers[at].id, Plan::default());
        let _ = self.poolers[worker].handle_server_bytes(id, self.now, &output, &mut plan);
    }
}
