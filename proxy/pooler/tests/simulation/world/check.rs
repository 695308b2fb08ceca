//! What must hold after each step, at each check-in, and at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use pgimbal_pooler::ids::ServerId;
use pgimbal_pooler::server::pending::PENDING_LIMIT;
use pgimbal_pooler::server::{Server, ServerState};
use pgimbal_pooler::session::Link;
use pgimbal_pooler::sql::Kinds;

use super::{Later, Peer, PeerStage, World, owner};
use crate::client::Stage;
use crate::message;

/// Entries that one message may add to a full queue.
const OWED_SLACK: usize = 16;

impl World {
    pub(crate) fn check(&self) {
        let mut open = 0;
        for peer in &self.peers {
            // What listens counts apart from the pool.
            let server = self.poolers[peer.worker].server(peer.id);
            let listens = server.is_some_and(Server::serves_listener);
            open += u32::from(peer.stage != PeerStage::Ended && !listens);
        }
        assert!(
            open <= (self.shape.pool.size + self.shape.pool.reserve_size) * self.places(),
            "{open} servers are open"
        );
        let mut served = BTreeSet::new();
        for client in &self.clients {
            let Some(id) = client.session else { continue };
            let pooler = &self.poolers[client.worker];
            let session = pooler.session(id).expect("a session");
            let is_idle = session.link() == Link::Unlinked && client.rest.is_empty();
            let holds = session.pin().has_slot() && !session.pin().is_set();
            assert!(!is_idle || !holds, "client {} keeps a place for nothing", client.number);
            let Some(server) = session.link().server() else { continue };
            let linked = pooler.server(server).expect("a server");
            assert_eq!(linked.session(), Some(id), "client {} is not its server's", client.number);
            assert!(served.insert((client.worker, server.slot)), "a server has two clients");
            assert!(
                linked.pending().len() <= PENDING_LIMIT + OWED_SLACK,
                "{} are pending",
                linked.pending().len()
            );
        }
    }

    /// A server connection is about to be given to somebody else.
    pub(crate) fn check_clean(&self, worker: usize, id: ServerId) {
        let at = self.peer_of(worker, id);
        let peer = &self.peers[at];
        let number = self.client_on(worker, id);
        let transcript =
            || number.map(|number| self.clients[number].transcript()).unwrap_or_default();
        if peer.backend.closed {
            return;
        }
        // A Flush may be on its way, or COPY data that nobody waits for.
        let unread = [&peer.backend.input[..], &peer.down].concat();
        let matters = |(tag, _): &(u8, Vec<u8>)| !matches!(tag, b'H' | b'd' | b'c' | b'f');
        let unread = message::all(&unread).into_iter().any(|message| matters(&message));
        assert!(!unread, "checked in before the server has read all:\n{}", transcript());
        assert!(peer.rest.is_empty(), "checked in with unread answers:\n{}", transcript());
        if let Some(why) = peer.backend.unclean() {
            panic!("checked in with {why}:\n{}", transcript());
        }
        let server = self.poolers[worker].server(id).expect("a server");
        let left = [
            (!peer.backend.temporary.is_empty(), Kinds::TEMPORARY, "a temporary table"),
            (!peer.backend.channels.is_empty(), Kinds::CHANNELS, "a channel"),
            (peer.backend.locks > 0, Kinds::LOCKS, "a lock"),
        ];
        for (is_there, kind, what) in left {
            let is_carried = server.residue().meets(kind);
            assert!(!is_there || is_carried, "checked in with {what}:\n{}", transcript());
        }
        self.check_settings(number, peer, server);
        let is_foreign = |name: &&String| !name.is_empty() && !name.starts_with("pgimbal_");
        if let Some(name) = peer.backend.statements.keys().find(is_foreign) {
            panic!("checked in with a statement {name}:\n{}", transcript());
        }
        let shared = peer.backend.statements.keys().filter(|name| name.len() == 40).count();
        // As many more as one transaction has needed at once.
        let limit = self.shape.pool.max_prepared_statements as usize + 4;
        assert!(shared <= limit, "{shared} statements on a server:\n{}", transcript());
        assert_eq!(
            shared,
            server.statements().len(),
            "statements that nobody knows of:\n{}",
            transcript()
        );
        let temporary = peer.backend.statements.contains_key("pgimbal_temporary");
        assert!(!temporary, "a temporary statement is still there:\n{}", transcript());
    }

    /// The server connection of a client that has got all its answers stands where the client
    /// believes to stand, unless it is reset before it serves anybody else.
    fn check_settings(&self, number: Option<usize>, peer: &Peer, server: &Server) {
        let Some(client) = number.map(|number| &self.clients[number]) else { return };
        let knows = client.stage == Stage::Open
            && !client.disturbed
            && client.up.is_empty()
            && client.rest.is_empty()
            && client.reference.asleep.is_none()
            && !client.reference.in_block();
        if !knows || server.residue().meets(Kinds::SETTINGS) || self.shape.pool.reset_query_always {
            return;
        }
        let (stands, believed) = (peer.backend.gucs.shown(), client.reference.gucs.shown());
        assert_eq!(stands, believed, "what is set at check-in:\n{}", client.transcript());
    }

    /// Everything has come to its end.
    pub(crate) fn check_end(&mut self) {
        for client in &self.clients {
            if let Some(complaint) = client.complaint() {
                panic!("{complaint}");
            }
            assert_eq!(
                client.stage,
                Stage::Gone,
                "client {} has not left: {:?}\n{}",
                client.number,
                client.session.map(|id| self.poolers[client.worker].session(id)),
                client.transcript()
            );
        }
        self.check_inserted();
        for worker in 0..self.poolers.len() {
            assert!(!self.poolers[worker].has_sessions());
            let pool = self.poolers[worker].pool_of(self.pool);
            assert_eq!((pool.waiting(), pool.sessions()), (0, 0));
            assert!(pool.logins().is_empty() && pool.queued() <= 16);
            let share = self.shared.share(self.poolers[worker].worker());
            assert_eq!(share.sessions.load(Relaxed), 0);
            assert_eq!(share.idle.load(Relaxed) as usize, pool.idle().len());
        }
        assert_eq!(self.shared.pinned_count(), 0, "places of pinned sessions");
        self.close_idle();
        assert_eq!(self.shared.open_count(), 0, "places of server connections");
        assert_eq!(self.shared.database.open.get(), 0);
        assert_eq!(self.shared.user_open.get(), 0);
    }

    /// What was inserted: all of it once for those who left in peace, none of it twice.
    fn check_inserted(&self) {
        let mut inserted: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for token in self.peers.iter().flat_map(|peer| &peer.backend.committed) {
            let token = token.trim_end().to_owned();
            assert!(seen.insert(token.clone()), "{token} was inserted twice");
            inserted.entry(owner(&token)).or_default().push(token);
        }
        for client in self.clients.iter().filter(|client| !client.disturbed) {
            let mut mine = inserted.remove(&client.number).unwrap_or_default();
            let mut due: Vec<String> = client
                .reference
                .committed
                .iter()
                .map(|token| token.trim_end().to_owned())
                .collect();
            mine.sort();
            due.sort();
            assert_eq!(
                mine,
                due,
                "what client {} inserted\n{}",
                client.number,
                client.transcript()
            );
        }
    }

    /// Time passes until the last idle server connection is closed.
    fn close_idle(&mut self) {
        self.now += self.shape.pool.server_idle_timeout + Duration::from_secs(3600);
        for round in 0..10_000 {
            for worker in 0..self.poolers.len() {
                self.now += Duration::from_millis(200);
                self.poolers[worker].handle_timeout(self.now);
                self.take_actions(worker);
            }
            self.dials_refused = 0;
            let busy = [
                self.later_happens(),
                self.bytes_reach_backend(),
                self.bytes_leave_backend(),
                self.sleeper_wakes(),
            ];
            let open = self.peers.iter().any(|peer| peer.stage != PeerStage::Ended);
            if !open && !busy.contains(&true) && self.later.is_empty() {
                return;
            }
            assert!(round < 9_999, "a server connection stays open: {}", self.stuck());
        }
    }

    fn stuck(&self) -> String {
        let mut list = Vec::new();
        for peer in self.peers.iter().filter(|peer| peer.stage != PeerStage::Ended) {
            let state: Option<ServerState> =
                self.poolers[peer.worker].server(peer.id).map(|server| server.state());
            list.push(format!("{:?} {state:?}", peer.stage));
        }
        let later = self.later.iter().filter(|later| matches!(later, Later::Ended(_))).count();
        format!("{list:?}, {later} ends to come")
    }
}
