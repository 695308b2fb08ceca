//! What the sockets are like and what they hold: statements 44, 56, 57, 59.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Login, Pgimbal, Pipeline, Postgres, WireClient};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::{SockRef, Socket};

/// A copy of each connected TCP socket of the proxy.
fn sockets(proxy: &Pgimbal) -> Vec<(SocketAddr, SocketAddr, Socket)> {
    let pid = proxy.process().pid();
    let process = pidfd_open(pid, PidfdFlags::empty()).expect("a pidfd");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).expect("its files")
    {
        let entry = entry.expect("an entry");
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        if !target.to_string_lossy().starts_with("socket:") {
            continue;
        }
        let number = entry.file_name().to_string_lossy().parse().expect("a number");
        let Ok(copy) = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) else { continue };
        let socket = Socket::from(copy);
        let address = |address: std::io::Result<socket2::SockAddr>| address.ok()?.as_socket();
        if let (Some(local), Some(peer)) =
            (address(socket.local_addr()), address(socket.peer_addr()))
        {
            found.push((local, peer, socket));
        }
    }
    found
}

#[test]
fn behaviour_56_tcp_options_are_set_on_both_sides() {
    let pg = Postgres::start();
    let config = Config::before(&pg).set("tcp_keepalive_idle", "\"41s\"");
    let config = config.set("tcp_keepalive_interval", "\"7s\"").set("tcp_keepalive_count", 5);
    let proxy = config.set("tcp_user_timeout", "\"43s\"").start();
    let mut client = proxy.client();
    client.ok("begin");
    let sockets = sockets(&proxy);
    let to_server = sockets.iter().filter(|(_, peer, _)| peer.port() == pg.port);
    let to_client = sockets.iter().filter(|(local, _, _)| local.port() == proxy.port);
    let (to_server, to_client) = (to_server.collect::<Vec<_>>(), to_client.collect::<Vec<_>>());
    assert_eq!((to_server.len(), to_client.len()), (1, 1), "{sockets:?}");
    for (_, peer, socket) in to_server.into_iter().chain(to_client) {
        let socket = SockRef::from(socket);
        assert!(socket.tcp_nodelay().expect("TCP_NODELAY"), "{peer}");
        assert!(socket.keepalive().expect("SO_KEEPALIVE"), "{peer}");
        assert_eq!(socket.tcp_keepalive_time().expect("TCP_KEEPIDLE").as_secs(), 41, "{peer}");
        assert_eq!(socket.tcp_keepalive_interval().expect("TCP_KEEPINTVL").as_secs(), 7, "{peer}");
        assert_eq!(socket.tcp_keepalive_retries().expect("TCP_KEEPCNT"), 5, "{peer}");
        let user = socket.tcp_user_timeout().expect("TCP_USER_TIMEOUT");
        assert_eq!(user, Some(Duration::from_secs(43)), "{peer}");
    }
}

#[test]
fn behaviour_57_a_byte_that_trickles_in_holds_no_server() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("pool_size", 1).start();
    let mut other = proxy.client();
    let query = Pipeline::new().query("select 'slow typist'");
    let parse = Pipeline::new().run("select 'slow typist'").sync();
    for pipeline in [query, parse] {
        let mut slow = proxy.client();
        for (position, byte) in pipeline.bytes().iter().enumerate() {
            // A byte of its own needs a moment of its own, or the kernel joins them.
            slow.send(&[*byte]);
            if position < 20 && position + 1 < pipeline.bytes().len() {
                assert_eq!(other.value("select 1"), "1", "a server is held after byte {position}");
            }
        }
        assert_eq!(slow.read_reply().value(), "slow typist");
    }
}

#[test]
fn behaviour_59_a_client_that_does_not_read_loses_its_server() {
    let pg = Postgres::start();
    let config = Config::before(&pg).set("pool_size", 1);
    let proxy = config.set("client_stall_timeout", "\"1500ms\"").start();
    let (mut lazy, mut other) = (proxy.client(), proxy.client());
    lazy.start_query("select repeat('x', 10000) from generate_series(1, 100000)");
    eventually("the query runs", SOON, || pg.running("repeat") == 1);
    let start = Instant::now();
    other.start_query("select 'served'");
    assert_eq!(other.read_reply().value(), "served");
    let waited = start.elapsed();
    assert!(waited > Duration::from_millis(1000), "the server was taken after {waited:?}");
    assert!(pg.backends() <= 1);
}

#[test]
fn behaviour_59_a_client_that_reads_slowly_keeps_its_server() {
    let pg = Postgres::start();
    let config = Config::before(&pg).set("pool_size", 1);
    let proxy = config.set("client_stall_timeout", "\"1s\"").start();
    let mut slow = proxy.client();
    slow.start_query("select repeat('x', 10000) from generate_series(1, 8000)");
    let mut left = 80_000_000_usize;
    let mut chunk = vec![0; 8_000_000];
    while left > 0 {
        slow.read_bytes(&mut chunk).expect("more of the result");
        left -= chunk.len();
        // Slower than the limit in all, never as long as the limit at once.
        std::thread::sleep(Duration::from_millis(250));
    }
}

#[test]
fn behaviour_44_out_of_file_descriptors() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).through(&["prlimit", "--nofile=48:48"]).start();
    let mut client = proxy.client();
    let mut crowd: Vec<WireClient> = (0..80).map(|_| WireClient::tcp(proxy.port)).collect();
    eventually("the log says so", SOON, || proxy.log().contains("open files"));
    let busy = cpu_ticks(&proxy);
    let span = Instant::now();
    while span.elapsed() < Duration::from_secs(1) {
        assert_eq!(client.value("select 1"), "1", "a client suffers");
        std::thread::sleep(Duration::from_millis(50));
    }
    let burnt = cpu_ticks(&proxy) - busy;
    assert!(burnt < 40, "the proxy spins: {burnt} ticks of 10 ms in a second");
    let lines = proxy.log().matches("open files").count();
    assert!(lines < 40, "the log is flooded with {lines} lines");
    crowd.clear();
    eventually("a new client is served", SOON, || {
        let mut late = proxy.connect();
        late.set_timeout(Duration::from_secs(1));
        late.log_in(&Login::new("app", "app", "")).is_ok() && late.value("select 1") == "1"
    });
    assert_eq!(client.value("select 1"), "1");
}

/// User and system time of the proxy in clock ticks.
fn cpu_ticks(proxy: &Pgimbal) -> u64 {
    let pid = proxy.process().pid().as_raw_nonzero();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a living process");
    let after_name = stat.rsplit(')').next().expect("fields");
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
}
