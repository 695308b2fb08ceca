//! Everything around the core: clients, sockets, servers, workers and time, in an order that a
//! seed decides. [`World::drive_client`] and [`World::drive_server`] keep the driver's contract.

mod actions;
mod chaos;
mod check;
mod cluster;
mod driver;
mod scripted;
mod shape;
pub(crate) use cluster::Leadership;
use shape::startup;

pub(crate) use shape::{Shape, Troubles, pool, resolved};

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgimbal_config::PoolMode;
use pgimbal_pooler::cluster::DialedNode;
use pgimbal_pooler::ids::{PoolId, ServerId, SessionId, WorkerId};
use pgimbal_pooler::plan::Plan;
use pgimbal_pooler::pool::shared::SharedPool;
use pgimbal_pooler::pool::{Place, PoolKey};
use pgimbal_pooler::pooler::Pooler;
use pgimbal_pooler::server::migration::Migration;
use pgimbal_pooler::server::prepared::StatementKey;
use pgimbal_pooler::session::sessions::SessionOptions;
use pgimbal_pooler::topology::{NodeId, ProbeHint};

use crate::client::{Client, Stage};
use crate::nodes::Nodes;
use crate::postgres::Backend;
use crate::random::Random;
use crate::script;

/// The error of a server that cannot be reached.
pub(crate) const REFUSAL: &str = "refused by the simulation";

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) now: Instant,
    pub(crate) poolers: Vec<Pooler>,
    pub(crate) shared: Arc<SharedPool>,
    pub(crate) pool: PoolId,
    pub(crate) shape: Shape,
    pub(crate) clients: Vec<Client>,
    /// Clients by worker and slot of their sessions.
    sessions: BTreeMap<(usize, u32, u32), usize>,
    pub(crate) peers: Vec<Peer>,
    by_server: BTreeMap<(usize, u32, u32), usize>,
    later: Vec<Later>,
    plan: Plan,
    /// How many dials in a hundred fail.
    dials_refused: usize,
    pub(crate) steps: usize,
    /// The process id that a client was told last.
    last_process: u32,
    pub(crate) probe_hints: Vec<ProbeHint>,
    /// Nodes that let nobody in.
    pub(crate) dead: Vec<NodeId>,
    /// Where the transcript of the cluster stands.
    pub(crate) leadership: Leadership,
    /// What the nodes of the cluster have, where that matters.
    pub(crate) nodes: Option<Rc<RefCell<Nodes>>>,
}

/// A server connection as the driver has it, and the backend behind it.
pub(crate) struct Peer {
    pub(crate) backend: Backend,
    /// Written by the proxy, not read by the backend.
    down: Vec<u8>,
    /// Read by the proxy, not dealt with.
    rest: Vec<u8>,
    worker: usize,
    id: ServerId,
    /// The last client that has left while it was linked.
    left_by: Option<usize>,
    /// Where it leads, in a world with a cluster.
    found: Option<DialedNode>,
    stage: PeerStage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PeerStage {
    Dialing,
    Open,
    /// The proxy has said Terminate.
    Closing,
    /// Between two workers.
    Migration,
    Ended,
}

impl Peer {
    fn worker(&self) -> usize {
        self.worker
    }

    pub(crate) fn id(&self) -> ServerId {
        self.id
    }
}

/// What happens at some time.
enum Later {
    Dialed(usize),
    Ended(usize),
    Wake(usize, SessionId),
    /// Another thread does what this worker has for it.
    Parse(usize),
    /// The task of a server connection that listens runs.
    Drive(usize),
    /// A cancel request on its way, and for which client it was made.
    Cancel {
        peer: usize,
        client: usize,
    },
    CancelEnded(usize),
    Ask {
        to: WorkerId,
        pool: PoolId,
        by: WorkerId,
    },
    Arrive {
        peer: usize,
        moving: Box<Migration>,
        pool: PoolId,
        to: WorkerId,
    },
}

impl World {
    pub(crate) fn new(seed: u64, shape: Shape) -> Self {
        let mut random = Random::new(seed);
        let refuses = shape.troubles.dial_failures;
        let now = Instant::now() + Duration::from_secs(10);
        let shared = SharedPool::new(usize::from(shape.workers), Arc::default(), Arc::default());
        let shared = Arc::new(match shape.cluster {
            Some(_) => shared.of_cluster(Arc::default()),
            None => shared,
        });
        let options = SessionOptions {
            client_idle_timeout: None,
            client_stall_timeout: Duration::from_secs(60),
        };
        let key = PoolKey { database: "db".into(), user: "user".into(), place: Place::Primary };
        let config = Arc::new(resolved(&shape));
        let mut pool = PoolId(0);
        let poolers = (0..shape.workers)
            .map(|worker| {
                let key_of_statements = StatementKey([seed as u8; 16]);
                let mut pooler =
                    Pooler::new(WorkerId(worker), shape.workers, key_of_statements, options);
                pool = pooler.pool(&key, || (Arc::clone(&config), Arc::clone(&shared)));
                pooler
            })
            .collect();
        let clients = (0..shape.clients)
            .map(|number| {
                let worker = random.below(usize::from(shape.workers));
                let steps = 1 + random.below(shape.steps);
                let startup = startup(&mut random);
                let mut client = Client::new(number, worker, startup, steps);
                client.session_mode = shape.pool.mode == PoolMode::Session;
                client
            })
            .collect();
        let mut world = Self {
            random,
            now,
            poolers,
            shared,
            pool,
            shape,
            clients,
            sessions: BTreeMap::new(),
            peers: Vec::new(),
            by_server: BTreeMap::new(),
            later: Vec::new(),
            plan: Plan::default(),
            dials_refused: if refuses { 20 } else { 0 },
            steps: 0,
            last_process: 0,
            probe_hints: Vec::new(),
            dead: Vec::new(),
            leadership: Leadership::default(),
            nodes: None,
        };
        if world.shape.cluster.is_some() {
            world.add_replicas();
        }
        world
    }

    /// Lets every client do all it has to do, then looks whether everything has come to its end.
    pub(crate) fn run(&mut self) {
        let mut quiet = 0;
        while quiet < 1500 {
            self.steps += 1;
            assert!(self.steps < 200_000, "the run does not end");
            let happened = self.step() || (quiet == 1000 && self.ends_vacancy());
            quiet = if happened { 0 } else { quiet + 1 };
            self.check();
        }
        self.check_end();
    }

    /// One event. Says whether anything happened but the passing of time.
    fn step(&mut self) -> bool {
        match self.random.below(100) {
            0..20 => self.client_acts(),
            20..42 => self.client_arrives(),
            42..62 => self.bytes_reach_backend(),
            62..82 => self.bytes_leave_backend(),
            82..92 => self.later_happens(),
            92..94 => self.sleeper_wakes(),
            94..97 => {
                self.time_passes();
                false
            }
            _ => self.trouble(),
        }
    }

    fn client_acts(&mut self) -> bool {
        let number = self.random.below(self.clients.len());
        match self.clients[number].stage {
            Stage::Away => {
                self.client_logs_in(number);
                true
            }
            Stage::Open if self.clients[number].session.is_some() => self.client_goes_on(number),
            _ => false,
        }
    }

    fn client_goes_on(&mut self, number: usize) -> bool {
        let is_settled = self.is_settled(number);
        let client = &mut self.clients[number];
        let pipelines = self.random.chance(15) && !client.waits;
        let waits = !client.is_answered() && !pipelines;
        if waits || client.up.len() > 200_000 {
            return false;
        }
        client.waits = false;
        if client.steps_left == 0 {
            if !client.is_answered() && self.random.chance(80) {
                return false;
            }
            // What is wrong must not be forgotten when it leaves.
            if client.is_answered()
                && is_settled
                && let Some(complaint) = client.complaint()
            {
                panic!("{complaint}");
            }
            client.send(&crate::message::terminate());
            client.stage = Stage::Leaving;
            return true;
        }
        client.steps_left -= 1;
        let step = script::next(&mut self.random, client);
        client.ready_due += step.ready;
        client.ready_spare += step.spare;
        client.send(&step.bytes);
        true
    }

    /// Whether nothing of the proxy's own is under way for a client.
    fn is_settled(&self, number: usize) -> bool {
        let client = &self.clients[number];
        let pooler = &self.poolers[client.worker];
        let session = client.session.and_then(|id| pooler.session(id));
        let server = session.and_then(|session| pooler.server(session.link().server()?));
        server.is_none_or(|server| server.pending().is_empty())
    }

    /// A piece of what a client has sent reaches the proxy.
    fn client_arrives(&mut self) -> bool {
        let number = self.random.below(self.clients.len());
        let client = &mut self.clients[number];
        if client.up.is_empty() || client.session.is_none() || client.rest.len() > 5_000_000 {
            return false;
        }
        let piece = piece(&mut self.random, self.shape.chunk, &mut client.up);
        client.rest.extend(piece);
        self.drive_client(number);
        true
    }

    fn bytes_reach_backend(&mut self) -> bool {
        let Some(at) = self.pick_peer(|peer| !peer.down.is_empty()) else { return false };
        let peer = &mut self.peers[at];
        let piece = piece(&mut self.random, self.shape.chunk, &mut peer.down);
        if !peer.backend.closed {
            peer.backend.feed(&piece);
        }
        self.spread_notifications(at);
        self.note_end(at);
        true
    }

    /// What a backend has notified reaches all that listen.
    fn spread_notifications(&mut self, at: usize) {
        for channel in std::mem::take(&mut self.peers[at].backend.notified) {
            self.notify(&channel, "");
        }
    }

    /// Somebody notifies a channel.
    pub(crate) fn notify(&mut self, channel: &str, payload: &str) {
        for peer in self.peers.iter_mut().filter(|peer| peer.stage == PeerStage::Open) {
            peer.backend.hear(channel, payload);
        }
    }

    fn bytes_leave_backend(&mut self) -> bool {
        let wanted = |peer: &Peer| {
            peer.stage == PeerStage::Open
                && (!peer.backend.output.is_empty() || peer.backend.closed)
        };
        let Some(at) = self.pick_peer(wanted) else { return false };
        let peer = &mut self.peers[at];
        if peer.backend.output.is_empty() {
            self.server_ends(at);
            return true;
        }
        let piece = piece(&mut self.random, self.shape.chunk, &mut peer.backend.output);
        peer.rest.extend(piece);
        self.drive_server(at);
        true
    }

    fn sleeper_wakes(&mut self) -> bool {
        let Some(at) = self.pick_peer(|peer| peer.backend.asleep.is_some()) else { return false };
        let token = self.peers[at].backend.asleep.as_ref().map(|asleep| asleep.token.clone());
        self.peers[at].backend.wake();
        self.resolve(&token.unwrap_or_default(), false);
        self.note_end(at);
        true
    }

    fn resolve(&mut self, token: &str, cancelled: bool) {
        let number = owner(token);
        self.clients[number].resolve(token, cancelled);
    }

    fn pick_peer(&mut self, wanted: impl Fn(&Peer) -> bool) -> Option<usize> {
        let found: Vec<usize> =
            (0..self.peers.len()).filter(|at| wanted(&self.peers[*at])).collect();
        (!found.is_empty()).then(|| self.random.pick(&found))
    }

    fn time_passes(&mut self) {
        let micros = self.random.pick(&[100, 1_000, 1_000, 5_000, 50_000, 150_000]);
        self.now += Duration::from_micros(micros);
        for worker in 0..self.poolers.len() {
            self.poolers[worker].handle_timeout(self.now);
            self.take_actions(worker);
        }
    }
}

/// The client whose constant this is.
pub(crate) fn owner(token: &str) -> usize {
    let number = token.trim_start_matches('c').split('.').next().unwrap_or_default();
    number.parse().expect("a constant of a client")
}

/// Takes what arrives at once off a stream.
fn piece(random: &mut Random, chunk: usize, stream: &mut Vec<u8>) -> Vec<u8> {
    let length = match random.below(3) {
        0 => stream.len(),
        1 => 1 + random.below(chunk),
        _ => 1 + random.below(chunk.min(40)),
    };
    stream.drain(..length.min(stream.len())).collect()
}
