//! Replicas that meet over loopback, and strangers at their port.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::AtomicU64;

use pgimbal_config::{CredentialConfig, PeersConfig, Secret};
use rustls::pki_types::ServerName;

use super::*;

mod hostile;

const KEY: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
const OTHER: &str = "ffeeddccbbaa99887766554433221100";
const SOON: Duration = Duration::from_secs(40);
/// Patience that no test uses up, on a loaded machine either.
const LONG: Duration = Duration::from_secs(120);

fn credentials(key: &str, previous: Option<&str>) -> CredentialConfig {
    CredentialConfig {
        deployment_key: Some(Secret::from(key)),
        deployment_key_previous: previous.map(Secret::from),
        ..CredentialConfig::default()
    }
}

/// A replica on a free port of 127.0.0.1 whose peers are at `addresses`.
struct Replica {
    peers: Peers,
    port: u16,
}

impl Replica {
    fn new(name: &str, credentials: CredentialConfig, ports: &[u16], handlers: Handlers) -> Self {
        Self::with_peer_id(name, credentials, ports, handlers, None)
    }

    fn with_peer_id(
        name: &str,
        credentials: CredentialConfig,
        ports: &[u16],
        handlers: Handlers,
        peer_id: Option<u16>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let place = |port: &u16| PeerAddress { host: "127.0.0.1".to_owned(), port: *port };
        let config = Config {
            peers: PeersConfig {
                listen: listener.local_addr().ok(),
                addresses: ports.iter().chain([&port]).map(place).collect(),
                replica_name: Some(name.to_owned()),
                peer_id,
                ..PeersConfig::default()
            },
            credentials,
            ..Config::default()
        };
        Self { peers: Peers::start(&config, listener, handlers, None).unwrap(), port }
    }

    fn with(name: &str, ports: &[u16]) -> Self {
        Self::new(name, credentials(KEY, None), ports, Handlers::default())
    }

    async fn until(&self, what: &str, is: impl Fn(&[PeerStatus]) -> bool) -> Vec<PeerStatus> {
        let mut changed = self.peers.changed().unwrap();
        let found = tokio::time::timeout(SOON, async {
            loop {
                let members = self.peers.members();
                if is(&members) {
                    return members;
                }
                changed.changed().await.unwrap();
            }
        });
        found.await.unwrap_or_else(|_| panic!("{what}: {:?}", self.peers.members()))
    }

    async fn meets(&self, names: &[&str]) -> Vec<PeerStatus> {
        self.until(&format!("meets {names:?}"), |members| {
            members.iter().map(|peer| &*peer.name).eq(names.iter().copied())
                && members.iter().all(PeerStatus::is_alive)
        })
        .await
    }

    /// Waits until so many strangers have been counted: their side may see the end first.
    async fn until_strangers(&self, why: Stranger, least: u64) {
        let begun = Instant::now();
        while self.strangers(why) < least {
            assert!(begun.elapsed() < SOON, "{:?}", self.peers.snapshot().strangers);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn strangers(&self, why: Stranger) -> u64 {
        let counts = self.peers.snapshot().strangers;
        counts.iter().find(|(one, _)| *one == why).unwrap().1
    }

    /// Waits for a peer with this id, again and again on a machine that is slow.
    async fn owners(&self, id: u16) -> Vec<InstanceId> {
        let begun = Instant::now();
        loop {
            let owners = self.peers.owners(Some(id)).await;
            if !owners.is_empty() || begun.elapsed() > LONG {
                return owners;
            }
        }
    }

    fn instance(&self) -> InstanceId {
        self.peers.instance().unwrap()
    }
}

/// Answers each request with what it was asked, and counts the requests.
fn echo(handlers: &mut Handlers, kind: Kind) -> Arc<AtomicU16> {
    let mut requests = handlers.on(kind);
    let count = Arc::new(AtomicU16::new(0));
    let counter = Arc::clone(&count);
    tokio::spawn(async move {
        while let Some(asked) = requests.recv().await {
            counter.fetch_add(1, Relaxed);
            asked.reply.send(Ok(asked.body.to_vec()));
        }
    });
    count
}

#[tokio::test]
async fn replicas_meet_say_what_they_are_and_ask_each_other() {
    let mut handlers = Handlers::default();
    let count = echo(&mut handlers, Kind::Facts);
    let a = Replica::new("a", credentials(KEY, None), &[], handlers);
    let b = Replica::with("b", &[a.port]);
    let c = Replica::with("c", &[a.port, b.port]);
    b.peers.set_peer_id(Some(7));
    b.peers.set_heartbeat(b"beat".to_vec());
    b.peers.set_ready(true);
    // `a` lists itself alone: the others are known by their hellos.
    let members = a.until("b and c", |members| {
        members.len() == 2 && members[0].peer_id == Some(7) && members[0].ready
    });
    let members = members.await;
    assert_eq!((&*members[0].name, &*members[0].heartbeat), ("b", &b"beat"[..]));
    assert_eq!(members[0].version, env!("CARGO_PKG_VERSION"));
    c.meets(&["a", "b"]).await;
    assert_eq!(a.peers.own_address(), Some(([127, 0, 0, 1], a.port).into()));
    assert_eq!(a.peers.owners(Some(7)).await, [b.instance()]);
    assert_eq!(a.peers.owners(None).await.len(), 2);
    let big = vec![b'x'; 1 << 20];
    let answer = b.peers.ask(a.instance(), Kind::Facts, big.clone(), SOON).await;
    assert_eq!(answer.as_deref(), Ok(&*big));
    let longer = b.peers.ask(a.instance(), Kind::Facts, vec![0; (1 << 20) + 1], SOON).await;
    assert!(longer.is_err(), "{longer:?}");
    let none = b.peers.ask(a.instance(), Kind::Budget, vec![], SOON).await;
    assert!(matches!(none, Err(AskError::Refused(_))), "{none:?}");
    let nobody = b.peers.ask(InstanceId(1), Kind::Facts, vec![], SOON).await;
    assert_eq!(nobody, Err(AskError::Gone));
    let answers = c.peers.ask_all(Kind::Facts, b"y", SOON).await;
    let names: Vec<_> =
        answers.iter().map(|(peer, answer)| (&*peer.name, answer.is_ok())).collect();
    assert_eq!(names, [("a", true), ("b", false)], "b has no handler: {answers:?}");
    assert_eq!(count.load(Relaxed), 2);
    // Former ids are told too, and both replicas of one id.
    b.peers.set_peer_id(Some(8));
    a.until("b's new id", |members| members[0].former == [7]).await;
    assert_eq!(a.peers.owners(Some(7)).await, [b.instance()]);
    assert!(b.peers.is_own_peer_id(7) && b.peers.is_own_peer_id(8) && !b.peers.is_own_peer_id(9));
    c.peers.set_peer_id(Some(8));
    let same = a.until("one id twice", |members| members[0].why.contains("peer id 8, as c")).await;
    assert!(same[1].why.contains("peer id 8, as b"), "{same:?}");
}

#[tokio::test]
async fn the_slot_does_not_change_a_configured_peer_id() {
    let key = credentials(KEY, None);
    let a = Replica::with_peer_id("a", key, &[], Handlers::default(), Some(7));
    for slot in [Some(3), None] {
        a.peers.set_peer_id(slot);
        assert_eq!(a.peers.peer_id(), Some(7));
        assert!(a.peers.is_own_peer_id(7) && !a.peers.is_own_peer_id(3));
    }
}

#[tokio::test]
async fn a_peer_that_has_a_key_is_waited_for_until_it_is_met() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let a = Replica::with("a", &[listener.local_addr().unwrap().port()]);
    // Nobody answers there; it is not known whose the key is.
    a.until("an address", |members| members.len() == 1).await;
    assert!(a.peers.may_be_more());
    let met = async {
        let b = Replica::with("b", &[a.port]);
        b.peers.set_peer_id(Some(7));
        b.meets(&["a"]).await;
        b
    };
    let (owners, b) = tokio::join!(a.owners(7), met);
    assert_eq!(owners, [b.instance()]);
    drop(listener);
}

#[tokio::test]
async fn a_slow_handler_is_asked_again_and_acts_once() {
    let mut handlers = Handlers::default();
    let mut requests = handlers.on(Kind::Command);
    let a = Replica::new("a", credentials(KEY, None), &[], handlers);
    let b = Replica::with("b", &[a.port]);
    b.meets(&["a"]).await;
    let ask = b.peers.ask(a.instance(), Kind::Command, b"x".to_vec(), SOON);
    let serve = async {
        let asked = requests.recv().await.unwrap();
        assert_eq!(asked.from, b.instance());
        // Longer than one request may take.
        tokio::time::sleep(Duration::from_millis(3500)).await;
        asked.reply.send(Ok(b"done".to_vec()));
    };
    let (answer, ()) = tokio::join!(ask, serve);
    assert_eq!(answer.as_deref(), Ok(&b"done"[..]));
    assert!(requests.try_recv().is_err(), "it was handled once");
    let impatient =
        b.peers.ask(a.instance(), Kind::Command, b"x".to_vec(), Duration::from_secs(1)).await;
    assert_eq!(impatient, Err(AskError::Timeout));
}

#[tokio::test]
async fn slow_requests_keep_no_connection_from_the_others() {
    let mut handlers = Handlers::default();
    let mut requests = handlers.on(Kind::Cancel);
    let a = Replica::new("a", credentials(KEY, None), &[], handlers);
    let b = Replica::with("b", &[a.port]);
    b.meets(&["a"]).await;
    tokio::spawn(async move {
        let mut slow = Vec::new();
        while let Some(asked) = requests.recv().await {
            match &*asked.body {
                b"quick" => asked.reply.send(Ok(vec![])),
                _ => slow.push(asked),
            }
        }
    });
    let (peer, patience) = (a.instance(), Duration::from_secs(3));
    let slow: Vec<_> = (0..40)
        .map(|_| {
            let peers = b.peers.clone();
            tokio::spawn(async move { peers.ask(peer, Kind::Cancel, vec![], patience).await })
        })
        .collect();
    let begun = Instant::now();
    for _ in 0..5 {
        let quick = b.peers.ask(peer, Kind::Cancel, b"quick".to_vec(), SOON).await;
        assert!(quick.is_ok(), "{quick:?}");
    }
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    for one in slow {
        assert_eq!(one.await.unwrap(), Err(AskError::Timeout));
    }
    // None of them has cost another its connection.
    b.meets(&["a"]).await;
    let failed = |(kind, outcome, count): &(Kind, Outcome, u64)| {
        *kind == Kind::Cancel && *outcome == Outcome::Failed && *count > 0
    };
    assert!(!b.peers.snapshot().sent.iter().any(failed), "{:?}", b.peers.snapshot().sent);
}

#[tokio::test]
async fn another_deployments_key_is_refused_and_the_previous_one_is_not() {
    let a = Replica::with("a", &[]);
    let stranger = Replica::new("s", credentials(OTHER, None), &[a.port], Handlers::default());
    let seen = stranger.until("a reason", |members| {
        members.first().is_some_and(|peer| peer.why.contains("deployment_key"))
    });
    seen.await;
    a.until_strangers(Stranger::Handshake, 1).await;
    // Its own address is listed, and is nobody once it has answered itself there.
    a.until("alone", <[PeerStatus]>::is_empty).await;
    // A roll that changes the key: `new` knows both, and they meet in both directions.
    let new = Replica::new("n", credentials(OTHER, Some(KEY)), &[a.port], Handlers::default());
    new.meets(&["a"]).await;
    a.meets(&["n"]).await;
    let answer = a.peers.ask(new.instance(), Kind::Facts, vec![], SOON).await;
    assert!(matches!(answer, Err(AskError::Refused(_))), "it was asked: {answer:?}");
    // The next one of the roll meets both.
    let next =
        Replica::new("o", credentials(OTHER, Some(KEY)), &[a.port, new.port], Handlers::default());
    next.meets(&["a", "n"]).await;
}

#[tokio::test]
async fn a_replica_that_ends_is_silent_and_asked_nothing() {
    let a = Replica::with("a", &[]);
    // A peer that says hello once, and of which nothing is heard again.
    let (hello, port) = (hello_of(InstanceId(5), 1), a.port);
    let said = tokio::task::spawn_blocking(move || request(port, "hello", &[], &hello));
    assert!(said.await.unwrap().starts_with("HTTP/1.1 200"));
    let members = a.until("known", |members| members.len() == 1).await;
    assert!(members[0].is_alive());
    let silent = a.until("silent", |members| members.first().is_some_and(|peer| !peer.is_alive()));
    silent.await;
    let answers = a.peers.ask_all(Kind::Command, b"", SOON).await;
    assert!(matches!(&answers[..], [(_, Err(AskError::Silent))]), "{answers:?}");
    // It may have sessions, though.
    assert_eq!(a.peers.owners(None).await, [InstanceId(5)]);
}

fn hello_of(instance: InstanceId, port: u16) -> Vec<u8> {
    let hello = Hello {
        instance,
        name: "fake".to_owned(),
        version: "0".to_owned(),
        listen: ([0, 0, 0, 0], port).into(),
        number: 0,
        before: None,
        moved: false,
        you: None,
        ready: true,
        peer_id: None,
        former: vec![],
    };
    hello.to_bytes(b"")
}

type Tls = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

/// A connection with the right key.
fn connect(port: u16) -> Tls {
    let tls = PeerTls::new(&credentials(KEY, None)).unwrap();
    let (connector, name) = &tls.connectors()[0];
    let connection =
        rustls::ClientConnection::new(Arc::clone(connector.config()), name.clone()).unwrap();
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    rustls::StreamOwned::new(connection, stream)
}

fn head(kind: &str, headers: &[(&str, String)], length: usize) -> String {
    let mut head = format!(
        "POST /{kind} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n{FROM}: 0000000000000005\r\n",
        FROM = client::FROM
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head + "\r\n"
}

/// Sends a request with the right key and returns the answer, headers and body.
fn request(port: u16, kind: &str, headers: &[(&str, String)], body: &[u8]) -> String {
    let mut tls = connect(port);
    let mut headers = headers.to_vec();
    headers.push(("connection", "close".to_owned()));
    tls.write_all(head(kind, &headers, body.len()).as_bytes()).unwrap();
    // A request that is refused is not read to its end.
    let _ = tls.write_all(body);
    read_to_end(&mut tls)
}

/// All that comes until the connection ends, in whichever way.
fn read_to_end(stream: &mut impl Read) -> String {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        all.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn a_request_that_is_replayed_with_its_id_acts_once() {
    let mut handlers = Handlers::default();
    let count = echo(&mut handlers, Kind::Facts);
    let a = Replica::new("a", credentials(KEY, None), &[], handlers);
    let port = a.port;
    let replay = tokio::task::spawn_blocking(move || {
        let id = [(client::ID, format!("{:032x}", 9))];
        for _ in 0..3 {
            let answer = request(port, "facts", &id, b"body");
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("body"), "{answer}");
        }
        assert!(request(port, "facts", &[], b"").starts_with("HTTP/1.1 400"), "without an id");
    });
    replay.await.unwrap();
    assert_eq!(count.load(Relaxed), 1);
}

#[tokio::test]
async fn wrong_requests_of_a_peer_are_refused_and_cost_little() {
    let a = Replica::with("a", &[]);
    let port = a.port;
    let wrong = tokio::task::spawn_blocking(move || {
        let status = |kind: &str, headers: &[(&str, String)], body: &[u8]| {
            request(port, kind, headers, body).get(9..12).map(str::to_owned)
        };
        let is = |status: Option<String>, code: &str| assert_eq!(status.as_deref(), Some(code));
        is(status("nonsense", &[], b""), "404");
        is(status("hello", &[], b"{\"instance\":"), "400");
        is(status("hello", &[(client::ID, "7".to_owned())], b""), "400");
        is(status("hello", &[(client::TO, "7".to_owned())], b""), "421");
        is(status("hello", &[("x", "y".repeat(10_000))], b""), "431");
        let many: Vec<_> = (0..40).map(|_| ("x", "y".to_owned())).collect();
        is(status("hello", &many, b""), "431");
        // 100 MB, by what the head says and in chunks without an end.
        let mut tls = connect(port);
        tls.write_all(head("hello", &[], 100 << 20).as_bytes()).unwrap();
        assert_eq!(&read_to_end(&mut tls)[9..12], "413");
        let mut tls = connect(port);
        let head = head("hello", &[("transfer-encoding", "chunked".to_owned())], 0);
        tls.write_all(head.replace("content-length: 0\r\n", "").as_bytes()).unwrap();
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        let sent = (0..1600).take_while(|_| tls.write_all(chunk.as_bytes()).is_ok()).count();
        assert!(sent < 200, "{sent} of 1600 chunks were taken");
        // A body that does not come.
        let mut tls = connect(port);
        tls.write_all(super::tests::head("hello", &[], 10).as_bytes()).unwrap();
        let begun = Instant::now();
        assert_eq!(&read_to_end(&mut tls)[9..12], "408");
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    });
    wrong.await.unwrap();
    assert!(a.peers.members().is_empty());
}

#[tokio::test]
async fn strangers_at_the_port_are_counted_and_closed() {
    let a = Replica::with("a", &[]);
    let port = a.port;
    let strangers = tokio::task::spawn_blocking(move || {
        // No TLS at all.
        let mut plain = TcpStream::connect(("127.0.0.1", port)).unwrap();
        plain.set_read_timeout(Some(SOON)).unwrap();
        plain.write_all(b"POST /hello HTTP/1.1\r\n\r\n").unwrap();
        assert!(!read_to_end(&mut plain).contains("HTTP"));
        let provider = || Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let anonymous = |versions: &[&'static rustls::SupportedProtocolVersion]| {
            let config = rustls::ClientConfig::builder_with_provider(provider())
                .with_protocol_versions(versions)
                .unwrap()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            let name = ServerName::try_from("a.example").unwrap();
            let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
            let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            let mut tls = rustls::StreamOwned::new(connection, stream);
            let error = tls.write_all(b"POST /hello HTTP/1.1\r\n\r\n").unwrap_err();
            error.to_string()
        };
        let refused = anonymous(&[&rustls::version::TLS12]);
        assert!(refused.contains("ProtocolVersion"), "{refused}");
        anonymous(&[&rustls::version::TLS13]);
    });
    strangers.await.unwrap();
    a.until_strangers(Stranger::Handshake, 3).await;
}

#[tokio::test]
async fn slow_strangers_do_not_keep_peers_out() {
    let a = Replica::with("a", &[]);
    let b = Replica::with("b", &[a.port]);
    b.meets(&["a"]).await;
    let port = a.port;
    let slow = tokio::task::spawn_blocking(move || {
        // 40 connections with half a record each.
        let open = |_| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            stream.write_all(b"\x16\x03\x01").unwrap();
            stream
        };
        (0..40).map(open).collect::<Vec<_>>()
    });
    let slow = slow.await.unwrap();
    // A new replica comes in among them.
    let c = Replica::with("c", &[a.port]);
    c.meets(&["a"]).await;
    let answer = b.peers.ask(a.instance(), Kind::Rows, vec![], SOON).await;
    assert!(matches!(answer, Err(AskError::Refused(_))), "{answer:?}");
    let ended = tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        for mut stream in slow {
            read_to_end(&mut stream);
        }
        begun.elapsed()
    });
    let ended = ended.await.unwrap();
    assert!(ended < Duration::from_secs(4), "{ended:?}");
    let told = a.strangers(Stranger::Timeout) + a.strangers(Stranger::CrowdedOut);
    assert!(told >= 40, "{told}");
}

/// Connects to the port from other loopback addresses, as fast as it can, until it is dropped.
struct Flood {
    ends: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
    connections: Arc<AtomicU64>,
}

impl Flood {
    fn start(port: u16) -> Self {
        let (ends, connections) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let thread = |number: u8| {
            let (ends, connections) = (Arc::clone(&ends), Arc::clone(&connections));
            std::thread::spawn(move || {
                let mut builder = tokio::runtime::Builder::new_current_thread();
                builder.enable_all().build().unwrap().block_on(async {
                    let mut held = VecDeque::new();
                    while !ends.load(Relaxed) {
                        for host in 0..50 {
                            let socket = tokio::net::TcpSocket::new_v4().unwrap();
                            socket.bind(([127, 0, 10 + number, 1 + host], 0).into()).unwrap();
                            let to = ([127, 0, 0, 1], port).into();
                            // A flood may fill the queue of the port, and one's own descriptors.
                            let connecting = socket.connect(to);
                            let connected = tokio::time::timeout(SOON, connecting).await;
                            held.extend(connected.ok().and_then(Result::ok));
                            connections.fetch_add(1, Relaxed);
                        }
                        held.drain(..held.len().saturating_sub(100));
                    }
                });
            })
        };
        let threads = (0..4).map(thread).collect();
        Self { ends, threads, connections }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.ends.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[tokio::test]
async fn a_flood_of_strangers_keeps_no_replica_from_meeting() {
    let a = Replica::with("a", &[]);
    let flood = Flood::start(a.port);
    a.until_strangers(Stranger::Rate, 1000).await;
    // A new replica comes while it goes on.
    let new = Replica::with("b", &[a.port]);
    new.meets(&["a"]).await;
    a.meets(&["b"]).await;
    let answer = new.peers.ask(a.instance(), Kind::Facts, vec![], LONG).await;
    assert!(matches!(answer, Err(AskError::Refused(_))), "it was asked: {answer:?}");
    // Nearly every connection gets through, where a stranger's has hardly a chance; a loaded machine
    // may need more than the time of a handshake.
    let port = a.port;
    let served = tokio::task::spawn_blocking(move || {
        let serves = |_: &usize| {
            let mut tls = connect(port);
            let sent = tls.write_all(&[head("hello", &[], 1).as_bytes(), b"x"].concat());
            sent.is_ok() && tls.read(&mut [0; 1000]).is_ok_and(|count| count > 0)
        };
        (0..40).filter(serves).count()
    });
    let served = served.await.unwrap();
    assert!(served >= 30, "{served} of 40 connections were served");
    let before = flood.connections.load(Relaxed);
    a.until_strangers(Stranger::Rate, a.strangers(Stranger::Rate) + 1000).await;
    assert!(flood.connections.load(Relaxed) > before, "the flood went on");
}

#[tokio::test]
async fn a_peers_connections_have_a_limit() {
    let a = Replica::with("a", &[]);
    let port = a.port;
    let many = tokio::task::spawn_blocking(move || {
        let mut held = Vec::new();
        for _ in 0..40 {
            let mut tls = connect(port);
            tls.write_all(&[head("hello", &[], 1).as_bytes(), b"x"].concat()).unwrap();
            let mut buffer = [0; 1000];
            assert!(tls.read(&mut buffer).unwrap() > 0);
            held.push(tls);
        }
        let ended = |mut tls: Tls| {
            tls.sock.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
            let end = tls.read(&mut [0; 1000]);
            !end.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        };
        held.into_iter().map(ended).collect::<Vec<bool>>()
    });
    let ended = many.await.unwrap();
    assert_eq!(ended.iter().filter(|ended| **ended).count(), 8, "the oldest: {ended:?}");
    assert!(ended[..8].iter().all(|ended| *ended));
}

/// A fake replica with the right key that answers hellos well, and all else with `answer`.
fn fake(answer: impl Fn(&mut dyn Write) + Send + Sync + 'static) -> u16 {
    fake_by_kind(move |tls, _| answer(tls))
}

/// The same; `answer` is told the kind that was asked.
fn fake_by_kind(answer: impl Fn(&mut dyn Write, &str) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let tls = PeerTls::new(&credentials(KEY, None)).unwrap();
    let config = Arc::clone(tls.acceptor().config());
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (config, answer) = (Arc::clone(&config), Arc::clone(&answer));
            std::thread::spawn(move || {
                let connection = rustls::ServerConnection::new(config).unwrap();
                let mut tls = rustls::StreamOwned::new(connection, stream);
                let mut buffer = vec![0; 1 << 16];
                let mut text = String::new();
                while let Ok(count @ 1..) = tls.read(&mut buffer) {
                    text.push_str(&String::from_utf8_lossy(&buffer[..count]));
                    let Some(end) = text.find("\r\n\r\n") else { continue };
                    if text.starts_with("POST /hello") {
                        // Its body is the next read, or came along.
                        if end + 4 == text.len() {
                            let _ = tls.read(&mut buffer);
                        }
                        let body = hello_of(InstanceId(5), port);
                        let head =
                            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                        if tls.write_all(&[head.as_bytes(), &body].concat()).is_err() {
                            return;
                        }
                    } else {
                        let path = text.split(' ').nth(1).unwrap_or_default();
                        answer(&mut tls, path.trim_start_matches('/'));
                        return;
                    }
                    text.clear();
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn wrong_answers_of_a_peer_are_errors_in_time() {
    let rows = |body: String| {
        move |tls: &mut dyn Write| {
            let _ = tls.write_all(body.as_bytes());
        }
    };
    let long =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {0}\r\n\r\n{1}", 2 << 20, "x".repeat(2 << 20));
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"half\":".to_owned();
    let cases = [
        (fake(rows(long)), "longer than 1 MiB"),
        (fake(rows(half)), "broken off"),
        (fake(rows("garbage\r\n\r\n".to_owned())), ""),
        (
            fake(|_: &mut dyn Write| std::thread::sleep(Duration::from_secs(10))),
            "no answer in time",
        ),
        (fake(rows("HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno".to_owned())), "no"),
    ];
    for (port, why) in cases {
        let a = Replica::with("a", &[port]);
        a.meets(&["fake"]).await;
        let begun = Instant::now();
        let answer = a.peers.ask(InstanceId(5), Kind::Rows, vec![], SOON).await;
        let error = answer.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{why}: {:?}", begun.elapsed());
    }
}

/// A fake replica that answers with `wrong` so many times, and well then; and the number of
/// requests that it has had.
fn fake_that_recovers(
    times: u16,
    wrong: impl Fn(&mut dyn Write) + Send + Sync + 'static,
) -> (u16, Arc<AtomicU16>) {
    let count = Arc::new(AtomicU16::new(0));
    let counter = Arc::clone(&count);
    let port = fake(move |tls| match counter.fetch_add(1, Relaxed) < times {
        true => wrong(tls),
        false => {
            let _ = tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone");
        }
    });
    (port, count)
}

fn says(head: &'static str) -> impl Fn(&mut dyn Write) + Send + Sync + 'static {
    move |tls| {
        let _ = tls.write_all(format!("HTTP/1.1 {head}\r\n\r\n").as_bytes());
    }
}

#[tokio::test]
async fn a_request_with_an_id_is_sent_until_it_is_answered() {
    let cases = [
        ("closed", fake_that_recovers(8, |_| {})),
        ("half an answer", fake_that_recovers(8, says("200 OK\r\ncontent-length: 9\r\n\r\nhalf"))),
        ("busy", fake_that_recovers(8, says("503 Busy\r\ncontent-length: 0"))),
        ("another process", fake_that_recovers(8, says("421 Other\r\ncontent-length: 0"))),
        ("no answer", fake_that_recovers(1, |_| std::thread::sleep(2 * client::REQUEST_TIME))),
    ];
    for (what, (port, count)) in cases {
        let a = Replica::with("a", &[port]);
        a.meets(&["fake"]).await;
        let answer = a.peers.ask(InstanceId(5), Kind::Cancel, vec![], LONG).await;
        assert_eq!(answer.as_deref(), Ok(&b"done"[..]), "{what}");
        assert!(count.load(Relaxed) > 1, "{what}");
    }
}

#[tokio::test]
async fn a_request_without_an_id_is_sent_again_only_if_it_had_no_effect() {
    let again = [says("503 Busy\r\ncontent-length: 0"), says("421 Other\r\ncontent-length: 0")];
    for wrong in again {
        let (port, _) = fake_that_recovers(8, wrong);
        let a = Replica::with("a", &[port]);
        a.meets(&["fake"]).await;
        let answer = a.peers.ask(InstanceId(5), Kind::Rows, vec![], LONG).await;
        assert_eq!(answer.as_deref(), Ok(&b"done"[..]));
    }
    let (port, count) = fake_that_recovers(8, says("504 Slow\r\ncontent-length: 0"));
    let a = Replica::with("a", &[port]);
    a.meets(&["fake"]).await;
    let answer = a.peers.ask(InstanceId(5), Kind::Rows, vec![], LONG).await;
    assert!(matches!(answer, Err(AskError::Refused(_))), "{answer:?}");
    assert_eq!(count.load(Relaxed), 1);
}

#[tokio::test]
async fn nobody_waits_for_a_peer_that_has_fallen_silent() {
    let a = Replica::with("a", &[]);
    // Nobody is at port 1.
    let (hello, port) = (hello_of(InstanceId(5), 1), a.port);
    let said = tokio::task::spawn_blocking(move || request(port, "hello", &[], &hello));
    assert!(said.await.unwrap().starts_with("HTTP/1.1 200"));
    let ask = a.peers.ask(InstanceId(5), Kind::Cancel, vec![], 100 * LONG);
    let answer = tokio::time::timeout(LONG, ask).await.expect("it ends");
    assert!(matches!(answer, Err(AskError::Unreachable(_))), "{answer:?}");
    assert!(a.peers.members().iter().all(|peer| !peer.is_alive()));
}
