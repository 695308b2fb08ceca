//! SIGUSR2: another process takes the listeners over, and no client is refused meanwhile.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use pgimbal_tests::pgimbal::{Config, program, undisturbed};
use pgimbal_tests::port::free_port;
use pgimbal_tests::process::{Process, directory};
use pgimbal_tests::until::{SOON, always, eventually};
use pgimbal_tests::vault_stand_in::Answer;
use pgimbal_tests::{Login, Pgimbal, Postgres, VaultStandIn, WireClient};
use rustix::process::{Pid, Signal, kill_process};

use super::{farewell, readiness, with_times};

/// The ids of the processes that were started to take over, in their order.
pub(crate) fn successors(log: &str) -> Vec<Pid> {
    let started = log.lines().filter(|line| line.contains("is started to take over"));
    let ids = started.filter_map(|line| line.split("pid=").nth(1)?.split_whitespace().next());
    ids.filter_map(|id| Pid::from_raw(id.parse().ok()?)).collect()
}

fn has_taken_over(proxy: &Pgimbal, times: usize) -> bool {
    proxy.log().matches("another process has taken over").count() == times
}

/// Connects, logs in and asks once.
fn comes_and_goes(connect: impl Fn() -> std::io::Result<WireClient>) -> Result<(), String> {
    let mut client = connect().map_err(|error| format!("refused: {error}"))?;
    let login = Login::new("app", "app", "app-secret");
    client.log_in(&login).map_err(|told| format!("not logged in: {told:?}"))?;
    client.start_query("select 1");
    let told = client.read_to_end_or_ready();
    let answered = told.iter().any(|message| message.tag == b'D');
    client.terminate();
    answered.then_some(()).ok_or_else(|| format!("not answered: {told:?}"))
}

#[test]
fn nobody_is_refused_while_another_process_takes_over() {
    let pg = Postgres::start();
    let sockets = directory("sockets");
    let config = with_times(&pg, "5s", "3s").set("unix_socket_dir", format!("{:?}", &*sockets));
    let mut proxy = config.set("unix_socket_port", 6432).set("workers", 2).start();
    let socket = sockets.join(".s.PGSQL.6432");
    let (over, served) = (AtomicBool::new(false), AtomicU32::new(0));
    let mut open = proxy.client();
    open.ok("begin");
    std::thread::scope(|scope| {
        let storm = |connect: &dyn Fn() -> std::io::Result<WireClient>| {
            while !over.load(Relaxed) {
                comes_and_goes(connect)?;
                served.fetch_add(1, Relaxed);
            }
            Ok::<(), String>(())
        };
        let port = proxy.port;
        let mut threads = Vec::new();
        for _ in 0..3 {
            threads.push(scope.spawn(move || storm(&|| WireClient::try_tcp(port))));
            let socket = &socket;
            threads.push(scope.spawn(move || storm(&|| WireClient::try_unix(socket))));
        }
        // Each from the one before it: four processes in all.
        for times in 1..=3 {
            let running = successors(&proxy.log()).last().copied();
            let pid = running.unwrap_or_else(|| proxy.process().pid());
            kill_process(pid, Signal::USR2).expect("a living process");
            eventually("another one takes over", SOON, || has_taken_over(&proxy, times));
            assert_eq!(readiness(&proxy).0, 200, "probes are answered by the new one");
            let before = served.load(Relaxed);
            eventually("the storm goes on", SOON, || served.load(Relaxed) > before + 50);
        }
        over.store(true, Relaxed);
        for thread in threads {
            assert_eq!(thread.join().expect("a client"), Ok(()));
        }
    });
    assert_eq!(open.ok("commit").commands(), ["COMMIT"], "the first one still serves its own");
    assert_eq!(farewell(&mut open), "57P01");
    eventually("the first one ends", SOON, || proxy.ended() == Some(0));
    assert!(socket.exists(), "the socket is the last one's now");
    let last = *successors(&proxy.log()).last().expect("the last one");
    kill_process(last, Signal::INT).expect("a living process");
    eventually("all have ended", SOON, || !proxy.process().has_group());
    assert!(!socket.exists(), "and is removed by it");
}

#[test]
fn a_new_process_that_cannot_start_leaves_the_old_one_serving() {
    let pg = Postgres::start();
    let config = with_times(&pg, "5s", "2s");
    let mut proxy = config.clone().start();
    let mut client = proxy.client();
    proxy.overwrite_config("pool_size = \"many\"\n");
    proxy.signal(Signal::USR2);
    eventually("it is said", SOON, || proxy.log().contains("this one serves on"));
    assert!(proxy.log().contains("exit status: 78"), "{}", proxy.log());
    assert_eq!(readiness(&proxy).0, 200);
    assert_eq!(client.value("select 1"), "1");
    assert_eq!(proxy.client().value("select 1"), "1");
    // Mended, it works.
    proxy.reload(config);
    proxy.signal(Signal::USR2);
    eventually("another one takes over", SOON, || has_taken_over(&proxy, 1));
    assert_eq!(farewell(&mut client), "57P01");
    eventually("the old one ends", SOON, || proxy.ended() == Some(0));
    assert_eq!(proxy.client().value("select 1"), "1");
}

/// A pgimbal whose successor waits for a Vault that does not answer.
fn whose_successor_waits() -> (VaultStandIn, Pgimbal) {
    let stand_in = VaultStandIn::start();
    let answer = || Answer::role("shop", "secret", "2026-01-01T00:00:00Z", 3600);
    stand_in.role("shop", answer());
    let config = Config::to_nowhere().tables(&stand_in.table(""));
    let config = config.tables("[users.shop]\nvault_role = \"shop\"\n");
    let proxy = config.set("drain_delay", "\"0s\"").start();
    eventually("it serves", SOON, || proxy.log().contains("ready on"));
    stand_in.role("shop", answer().after(Duration::from_secs(60)));
    let asked = stand_in.asked("static-creds/shop");
    proxy.signal(Signal::USR2);
    eventually("Vault is asked", SOON, || stand_in.asked("static-creds/shop") > asked);
    (stand_in, proxy)
}

#[test]
fn only_one_process_takes_over_at_a_time() {
    let (_stand_in, proxy) = whose_successor_waits();
    proxy.signal(Signal::USR2);
    eventually("it is said", SOON, || proxy.log().contains("is starting already"));
    assert_eq!(successors(&proxy.log()).len(), 1);
    always("the old one is the one that is ready", Duration::from_millis(300), || {
        readiness(&proxy).0 == 200
    });
    // The new one is killed: the old one serves on, and may try again.
    kill_process(successors(&proxy.log())[0], Signal::KILL).expect("a living process");
    eventually("it is said", SOON, || proxy.log().contains("this one serves on"));
    proxy.signal(Signal::USR2);
    eventually("another is started", SOON, || successors(&proxy.log()).len() == 2);
}

#[test]
fn who_ends_the_service_during_a_take_over_ends_both() {
    for signal in [Signal::TERM, Signal::INT] {
        let (_stand_in, mut proxy) = whose_successor_waits();
        proxy.signal(signal);
        eventually("the old one ends", SOON, || proxy.ended() == Some(0));
        eventually("so does the new one", SOON, || !proxy.process().has_group());
    }
}

fn copy(from: &Path, to: &Path) {
    // In place of the old one, as a package manager does it: what runs is not written to.
    let part = to.with_extension("part");
    std::fs::copy(from, &part).expect("a copy");
    std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o755)).expect("permissions");
    std::fs::rename(&part, to).expect("in its place");
}

#[test]
fn the_program_that_takes_over_is_the_one_on_disk() {
    let pg = Postgres::start();
    let directory = directory("upgrade");
    let (path, config) = (directory.join("pgimbal"), directory.join("pgimbal.toml"));
    copy(&program(), &path);
    let port = free_port();
    let text = format!(
        "listen = \"127.0.0.1:{port}\"\nauth_type = \"trust\"\n[databases.app]\nhost = \"127.0.0.1\"\nport = {}\n\
         [users.app]\npassword = \"app-secret\"\n",
        pg.port
    );
    std::fs::write(&config, text).expect("a configuration");
    let mut command = undisturbed(&path);
    command.arg("--config").arg(&config);
    let mut old = Process::start(command, &directory, Signal::KILL);
    old.wait_until_it_listens("pgimbal", &[port]);
    eventually("it serves", SOON, || old.log().contains("ready on"));
    copy(&program(), &path);
    let running = |pid: Pid| -> PathBuf {
        std::fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero())).expect("a process")
    };
    assert!(running(old.pid()).to_string_lossy().ends_with("(deleted)"));
    old.signal(Signal::USR2);
    eventually("another one takes over", SOON, || {
        old.log().contains("another process has taken over")
    });
    assert_eq!(running(successors(&old.log())[0]), path);
    eventually("the old one ends", SOON, || old.ended().is_some());
    let login = Login::new("app", "app", "");
    let mut client = WireClient::tcp(port);
    client.log_in(&login).expect("a login");
    assert_eq!(client.value("select 1"), "1");
}
