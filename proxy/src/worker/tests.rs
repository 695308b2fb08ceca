//! What the driver owes its clients when it breaks itself.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use pgimbal_auth::verifier::SaltKey;
use pgimbal_config::{Config, Overrides, Secret};
use pgimbal_pooler::action::Action;
use pgimbal_pooler::cancel::{CancelKey, LONG_SECRET};
use pgimbal_pooler::ids::{ServerId, SessionId, WorkerId};
use pgimbal_pooler::pool::checkout::Checkout;
use pgimbal_pooler::pool::{Place, PoolKey};
use pgimbal_pooler::server::life::Dialed;
use pgimbal_pooler::server::prepared::StatementKey;
use pgimbal_pooler::server::{BackendKey, ServerState};
use pgimbal_pooler::session::arrival::Greeting;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

use super::actions::run_actions;
use super::client::{Arriving, Client};
use super::client_task::ClientTask;
use super::inbox::ReadBuffer;
use super::pools;
use super::servers::{ServerIo, ServerSocket};
use super::shared::{Common, Worker};
use crate::admin::collect::{Collector, ProcessStats};
use crate::admin::console::{Console, Control};
use crate::dial::Address;
use crate::directory::PoolDirectory;
use crate::login::{CurrentLoginContext, LoginContext};
use crate::transport::{Socket, Transport};

/// A worker without threads, and the counters of its process.
fn worker() -> Rc<Worker> {
    let overrides = Overrides {
        upstream: Some(Secret::new("postgres://app:app@127.0.0.1:1/app".to_owned())),
        ..Overrides::default()
    };
    let config: Arc<Config> =
        Arc::new(pgimbal_config::load(&overrides, std::iter::empty()).expect("a configuration"));
    let directory = PoolDirectory::new(Arc::clone(&config), 1).expect("a directory");
    let salts = SaltKey::new([0; 32]);
    let login = LoginContext::new(Arc::clone(&config), salts).expect("a login context");
    let process = Arc::new(ProcessStats::new(SystemTime::now(), 10));
    let collector = Collector::new(Vec::new(), Arc::clone(&process));
    let (_, configs) = watch::channel(Arc::clone(&config));
    let console = Arc::new(Console::new(collector, configs, Control::new(mpsc::channel(1).0)));
    let common = Common {
        directory: Arc::new(directory),
        login: CurrentLoginContext::new(login),
        workers: Arc::from([]),
        process,
        console,
        clusters: crate::topology::Clusters::default(),
        peers: Default::default(),
        cancel_keys: Arc::default(),
        credentials: crate::credentials::CredentialManager::idle(),
        traces: Default::default(),
        inherited_tcp: config.clients.tcp.clone(),
        key: StatementKey([0; 16]),
    };
    Rc::new(Worker::new(WorkerId(0), common))
}

/// A client of the worker, its task not yet running, and the application's end of its socket.
fn client(worker: &Rc<Worker>) -> (Client, UnixStream) {
    let key = PoolKey { database: "app".into(), user: "app".into(), place: Place::Primary };
    let pool = pools::open(&mut worker.state_mut(), &key).expect("a pool");
    let cancel_key = || CancelKey::short(rand::random(), [7; LONG_SECRET]);
    let now = Instant::now();
    let session = worker.state_mut().pooler.handle_login(pool, now, now, cancel_key);
    let (ours, theirs) = UnixStream::pair().expect("two sockets");
    let arriving = Arriving { parameters: Vec::new(), pending_output: Vec::new() };
    let connected = worker.common().process.client_accepted();
    let transport = Transport::Plain(Socket::Unix(ours));
    (Client::new(session, transport, Vec::new(), arriving, (connected, None)), theirs)
}

/// Links the session to a server connection that was just opened; also the server's end of it.
fn link(worker: &Worker, session: SessionId) -> (ServerId, UnixStream) {
    let now = Instant::now();
    let mut state = worker.state_mut();
    assert_eq!(state.pooler.greet(session, &[], now), Greeting::Wait);
    assert_eq!(state.pooler.checkout(session, now), Checkout::Waiting);
    let mut actions = Vec::new();
    state.pooler.poll_actions(&mut actions);
    let dialed = Dialed { backend_key: BackendKey::default(), parameters: Vec::new(), found: None };
    let server = actions.iter().find_map(|action| match action {
        Action::Dial(server) => Some(*server),
        _ => None,
    });
    let server = server.expect("a dial");
    let (ours, theirs) = UnixStream::pair().expect("two sockets");
    let pool = state.pooler.server(server).expect("a server").pool();
    let target = pools::target(&state, pool).expect("a target");
    let transport = Transport::Plain(Socket::Unix(ours));
    let address = Address::Unix("server".into());
    let socket = ServerSocket { transport, address, target, cancel: None, generation: None };
    state.servers.insert(server, ServerIo::new(socket, Vec::new()));
    state.pooler.handle_dialed(server, dialed, now);
    assert_eq!(state.pooler.server(server).and_then(|server| server.session()), Some(session));
    (server, theirs)
}

#[test]
fn a_panic_ends_one_client_and_never_hands_its_server_connection_on() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build_local(Default::default()).expect("a runtime");
    runtime.block_on(async {
        let worker = worker();
        let (unlucky, _socket) = client(&worker);
        let (other, _other_socket) = client(&worker);
        let (unlucky_session, other_session) = (unlucky.session(), other.session());
        let (server, _server_socket) = link(&worker, unlucky_session);
        // A buffer without room makes the next read go wrong.
        worker.state_mut().buffer.give_back(ReadBuffer::broken());
        let task = ClientTask::new(Rc::clone(&worker), unlucky);
        let ended = tokio::task::spawn_local(task).await;
        assert!(ended.is_err_and(|error| error.is_panic()));

        let mut state = worker.state_mut();
        assert_eq!(state.panics, 1);
        assert!(state.pooler.session(unlucky_session).is_none());
        assert!(state.pooler.session(other_session).is_some());
        let state_of_server = state.pooler.server(server).map(|server| server.state());
        assert_eq!(state_of_server, Some(ServerState::Closing));
        assert_eq!(state.pooler.idle_servers().count(), 0);
        let mut actions = Vec::new();
        state.pooler.poll_actions(&mut actions);
        assert!(actions.contains(&Action::Close(server)), "{actions:?}");
        assert_eq!(worker.common().process.clients(), 1, "the other client stays");
        // The buffer that went down with the task is replaced.
        let (mut fresh, mut nobody) = (state.buffer.lend(), super::inbox::Inbox::default());
        assert!(nobody.again(&mut fresh).bytes(&fresh).is_empty());
    });
}

#[test]
fn what_another_turn_has_made_reaches_a_client_through_its_own_task() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build_local(Default::default()).expect("a runtime");
    runtime.block_on(async {
        let worker = worker();
        let (client, mut socket) = client(&worker);
        let session = client.session();
        let (_, _server_socket) = link(&worker, session);
        let task = ClientTask::new(Rc::clone(&worker), client);
        let task = tokio::task::spawn_local(task);
        let mut received = vec![0; 1000];
        let greeting = socket.read(&mut received).await.expect("a greeting");
        assert_eq!(&received[greeting - 6..greeting], b"Z\0\0\0\x05I");

        let notice = b"N\0\0\0\x06SN";
        let whole_and_half = [&notice[..], &notice[..3]].concat();
        let parts = [&whole_and_half[..4], &whole_and_half[4..]];
        worker.state_mut().pooler.queue_output(session, parts.into_iter());
        run_actions(&worker);
        let length = socket.read(&mut received).await.expect("a notice");
        assert_eq!(&received[..length], notice, "half a message waits for its other half");
        let gone = SessionId { serial: session.serial + 1, ..session };
        let queue = |id, bytes: &'static [u8]| {
            worker.state_mut().pooler.queue_output(id, std::iter::once(bytes));
            run_actions(&worker);
        };
        queue(gone, b"N\0\0\0\x04");
        queue(session, &notice[3..]);
        let length = socket.read(&mut received).await.expect("a notice");
        assert_eq!(
            &received[..length],
            notice,
            "the tenant of a slot gets nothing of the last one"
        );
        task.abort();
    });
}
