//! What systemd sees and gives: notifications, a watchdog, sockets.

use std::collections::VecDeque;
use std::os::unix::net::UnixDatagram;
use std::time::Instant;

use pgimbal_tests::Postgres;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::process::{Directory, directory};
use pgimbal_tests::until::{SOON, eventually};
use rustix::process::{Signal, kill_process};

use super::take_over::successors;
use super::with_times;

/// A service manager's end of `NOTIFY_SOCKET`.
struct Manager {
    socket: UnixDatagram,
    directory: Directory,
    lines: VecDeque<String>,
}

impl Manager {
    fn new() -> Self {
        let directory = directory("notify");
        let socket = UnixDatagram::bind(directory.join("notify")).expect("a socket");
        socket.set_read_timeout(Some(SOON)).expect("a limit");
        Self { socket, directory, lines: VecDeque::new() }
    }

    /// Starts pgimbal with these variables and the socket's.
    fn start(&self, config: Config, variables: &[&str]) -> pgimbal_tests::Pgimbal {
        let socket = format!("NOTIFY_SOCKET={}", self.directory.join("notify").display());
        config.through(&[&["env", &socket], variables].concat()).start()
    }

    /// The next line that is no beat of the watchdog.
    fn next(&mut self) -> String {
        loop {
            let line = self.next_of_any();
            if line != "WATCHDOG=1" {
                return line;
            }
        }
    }

    fn next_of_any(&mut self) -> String {
        while self.lines.is_empty() {
            let mut buffer = [0; 4096];
            let length = self.socket.recv(&mut buffer).expect("a notification in time");
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            self.lines.extend(text.lines().map(str::to_owned));
        }
        self.lines.pop_front().expect("a line")
    }

    #[track_caller]
    fn sees_a_reload_begin(&mut self) {
        assert_eq!(self.next(), "RELOADING=1");
        let since = self.next();
        let micros = since.strip_prefix("MONOTONIC_USEC=").expect("a time");
        assert!(micros.parse::<u64>().is_ok_and(|micros| micros > 0), "{since}");
    }
}

#[test]
fn a_service_manager_is_told_each_step() {
    let pg = Postgres::start();
    let mut manager = Manager::new();
    let mut proxy = manager.start(with_times(&pg, "0s", "2s"), &[]);
    assert_eq!(manager.next(), "READY=1");
    proxy.signal(Signal::HUP);
    manager.sees_a_reload_begin();
    assert_eq!(manager.next(), "READY=1");

    proxy.signal(Signal::USR2);
    manager.sees_a_reload_begin();
    assert_eq!(manager.next(), "READY=1", "of the new process");
    let new = successors(&proxy.log())[0];
    assert_eq!(manager.next(), format!("MAINPID={}", new.as_raw_nonzero()));
    assert_eq!(manager.next(), "READY=1");
    eventually("the old one ends", SOON, || proxy.ended() == Some(0));
    kill_process(new, Signal::TERM).expect("a living process");
    assert_eq!(manager.next(), "STOPPING=1", "of the new one; the old one's end is no stop");

    // A take-over that fails is a reload that has ended.
    let proxy = manager.start(with_times(&pg, "0s", "2s"), &[]);
    assert_eq!(manager.next(), "READY=1");
    proxy.overwrite_config("broken");
    proxy.signal(Signal::USR2);
    manager.sees_a_reload_begin();
    assert_eq!(manager.next(), "READY=1");
    proxy.signal(Signal::TERM);
    assert_eq!(manager.next(), "STOPPING=1");
}

#[test]
fn a_watchdog_is_fed_by_whichever_process_serves() {
    let pg = Postgres::start();
    let mut manager = Manager::new();
    let begun = Instant::now();
    let limit = ["WATCHDOG_USEC=400000"];
    let mut proxy = manager.start(with_times(&pg, "0s", "1s"), &limit);
    let mut beats = |count: usize| {
        let mut seen = 0;
        while seen < count {
            seen += usize::from(manager.next_of_any() == "WATCHDOG=1");
        }
    };
    beats(5);
    assert!(begun.elapsed().as_millis() >= 700, "more often than asked");
    proxy.signal(Signal::USR2);
    eventually("the old one ends", SOON, || proxy.ended() == Some(0));
    beats(10);
}

#[test]
fn sockets_of_systemd_are_used() {
    let pg = Postgres::start();
    let activate = ["systemd-socket-activate", "-l", "127.0.0.1:PORT", "-l", "127.0.0.1:HTTP_PORT"];
    let mut proxy = with_times(&pg, "0s", "1s").through(&activate).start();
    eventually("it serves", SOON, || proxy.log().contains("ready on"));
    assert_eq!(proxy.client().value("select 1"), "1");
    assert_eq!(super::readiness(&proxy).0, 200);
    proxy.signal(Signal::USR2);
    eventually("the old one ends", SOON, || proxy.ended() == Some(0));
    assert_eq!(proxy.client().value("select 1"), "1");
}

#[test]
fn a_socket_that_no_option_names_is_said() {
    let pg = Postgres::start();
    let other = format!("127.0.0.1:{}", pgimbal_tests::port::free_port());
    let activate = ["systemd-socket-activate", "-l", "127.0.0.1:PORT", "-l", &other];
    let proxy = with_times(&pg, "0s", "1s").through(&activate).start();
    eventually("it is said", SOON, || {
        proxy.log().lines().any(|line| line.contains("no option names it") && line.contains(&other))
    });
    assert_eq!(proxy.client().value("select 1"), "1");
}
