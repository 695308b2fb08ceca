//! What systemd reads: the service, its sockets, its user and its directories.

use std::collections::VecDeque;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use pgimbal_tests::certificates::Certificates;
use pgimbal_tests::http::get;
use pgimbal_tests::library::system_python;
use pgimbal_tests::pgimbal::{Config, program, undisturbed};
use pgimbal_tests::port::free_port;
use pgimbal_tests::process::{Directory, Process, directory};
use pgimbal_tests::program::run;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Login, Postgres, WireClient};
use rustix::process::Signal;

use super::{LIMIT, as_root, deploy, text_of};

/// The units in a folder, with the program under test in place of the installed one.
fn units() -> Directory {
    let folder = directory("units");
    for unit in ["pgimbal.service", "pgimbal.socket"] {
        let text = text_of(&format!("systemd/{unit}"));
        let text = text.replace("=/usr/bin/pgimbal ", &format!("={} ", program().display()));
        std::fs::write(folder.join(unit), text).expect("a unit");
    }
    folder
}

/// The values of a key in a unit.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    let lines = unit.lines().filter_map(|line| line.split_once('='));
    lines.filter(|(found, _)| *found == key).map(|(_, value)| value).collect()
}

#[test]
fn systemd_finds_no_fault_in_the_units() {
    let units = units();
    let mut command = Command::new("systemd-analyze");
    // The pages are in the package.
    command.args(["verify", "--man=no"]);
    command.args([units.join("pgimbal.service"), units.join("pgimbal.socket")]);
    let finished = run(&mut command, LIMIT).succeeded();
    assert!(!finished.stderr.contains("pgimbal"), "{}", finished.stderr);
    std::fs::write(units.join("pgimbal.service"), "[Service]\nExecStart=/no/such\nTypo=1\n")
        .expect("a unit");
    let finished = run(&mut command, LIMIT);
    assert!(finished.stderr.contains("Typo"), "the check finds faults: {}", finished.stderr);
}

#[test]
fn the_service_exposes_little() {
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=true", "--no-pager"]);
    let finished = run(command.arg(deploy("systemd/pgimbal.service")), LIMIT).succeeded();
    let verdict = finished.stdout.lines().find(|line| line.contains("Overall exposure level"));
    let verdict = verdict.expect("a verdict");
    let level = verdict.split(':').nth(1).and_then(|words| words.split_whitespace().next());
    let level: f64 = level.expect("a level").parse().expect("a number");
    assert!(level < 2.0, "{verdict}");
}

#[test]
fn the_service_waits_for_what_the_program_promises() {
    let unit = text_of("systemd/pgimbal.service");
    assert_eq!(values(&unit, "Type"), ["notify"]);
    assert!(!values(&unit, "WatchdogSec").is_empty());
    assert_eq!(values(&unit, "RestartPreventExitStatus"), ["78"]);
    // SIGTERM goes to the main process alone: a process that takes over is another one.
    assert_eq!(values(&unit, "KillMode"), ["mixed"]);
}

#[test]
fn the_user_and_the_directories_are_made() {
    let folder = directory("users");
    let root = folder.join("root");
    std::fs::create_dir_all(root.join("etc")).expect("a folder");
    let mut users = as_root("systemd-sysusers");
    users.arg(format!("--root={}", root.display())).arg(deploy("systemd/pgimbal.sysusers"));
    let _ = run(&mut users, LIMIT).succeeded();
    let passwd = std::fs::read_to_string(root.join("etc/passwd")).expect("users");
    let line = passwd.lines().find(|line| line.starts_with("pgimbal:")).expect("the user");
    let [_, _, user, group, _, home, shell] = line.split(':').collect::<Vec<_>>()[..] else {
        panic!("{line}")
    };
    assert_eq!((home, shell), ("/var/lib/pgimbal", "/usr/sbin/nologin"));
    assert!(user.parse::<u32>().is_ok_and(|user| user > 0), "{line}");

    let mut directories = as_root("systemd-tmpfiles");
    directories.arg(format!("--root={}", root.display())).arg("--create");
    let _ = run(directories.arg(deploy("systemd/pgimbal.tmpfiles")), LIMIT).succeeded();
    for (path, mode) in [("run/pgimbal", 0o755), ("var/lib/pgimbal", 0o700)] {
        let meta = std::fs::metadata(root.join(path)).expect(path);
        assert_eq!(meta.permissions().mode() & 0o7777, mode, "{path}");
        let owner = (meta.uid().to_string(), meta.gid().to_string());
        assert_eq!(owner, (user.to_owned(), group.to_owned()), "{path}");
        let unit = text_of("systemd/pgimbal.service");
        let writable = values(&unit, "ReadWritePaths").join(" ");
        assert!(writable.contains(&format!("-/{path}")), "{writable}");
    }
    let _ = run(as_root("rm").arg("-rf").arg(&root), LIMIT);
}

#[test]
fn the_program_needs_no_system_call_that_the_service_denies() {
    let pg = Postgres::start();
    let sockets = directory("sockets");
    let unit = deploy("systemd/pgimbal.service").display().to_string();
    let python = system_python("with_syscall_filter.py");
    let words: Vec<String> = std::iter::once(python.get_program())
        .chain(python.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .chain([unit])
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let certificates = Certificates::new();
    let config = Config::before(&pg).with_state_dir().set("workers", 2);
    let config = config.set("shutdown_grace", "\"2s\"").set("drain_delay", "\"0s\"");
    let config = config.set("unix_socket_dir", format!("{:?}", &*sockets));
    let config = config.client_tls(&certificates, "allow").set("credential_history", "\"file\"");
    let mut proxy = config.set("unix_socket_port", 6432).through(&words).start();
    let status = proxy.process().id();
    let status = std::fs::read_to_string(format!("/proc/{status}/status")).expect("a process");
    assert!(status.contains("Seccomp:\t2"), "{status}");
    let works = |proxy: &pgimbal_tests::Pgimbal| {
        assert_eq!(proxy.client().value("select 1"), "1");
        let mut local = WireClient::unix(&sockets.join(".s.PGSQL.6432"));
        local.log_in(&Login::new("app", "app", "app-secret")).expect("a login");
        assert_eq!(local.value("select 2"), "2");
        assert_eq!(get(proxy.http_port, "/metrics").0, 200);
    };
    works(&proxy);
    proxy.signal(Signal::HUP);
    eventually("it reloads", SOON, || proxy.log().contains("reload"));
    works(&proxy);
    proxy.signal(Signal::USR2);
    eventually("another process takes over", SOON, || proxy.ended() == Some(0));
    works(&proxy);
}

/// The shipped configuration and sockets, moved into a folder and to free ports.
struct Installed {
    folder: Directory,
    ports: [(&'static str, u16); 2],
}

impl Installed {
    fn new(pg: &Postgres) -> Self {
        let ports = [("6432", free_port()), ("9127", free_port())];
        let installed = Self { folder: directory("installed"), ports };
        std::fs::create_dir(installed.folder.join("run")).expect("a folder");
        let text = installed.moved(&text_of("systemd/pgimbal.toml"));
        let to_socket = "host = \"/var/run/postgresql\"";
        assert!(text.contains(to_socket), "{text}");
        let text = text.replace(to_socket, &format!("host = \"127.0.0.1\"\nport = {}", pg.port));
        let text = format!("{text}\n[users.app]\npassword = \"app-secret\"\n");
        std::fs::write(installed.config(), text).expect("a configuration");
        installed
    }

    fn config(&self) -> std::path::PathBuf {
        self.folder.join("pgimbal.toml")
    }

    fn moved(&self, text: &str) -> String {
        let text = text.replace("/run/pgimbal", &self.folder.join("run").display().to_string());
        let state = self.folder.join("state").display().to_string();
        let text = text.replace("/var/lib/pgimbal", &state);
        let text = text.replace("/etc/pgimbal/pgimbal.toml", &self.config().display().to_string());
        let text = text.replace("=/usr/bin/pgimbal ", &format!("={} ", program().display()));
        self.ports.iter().fold(text, |text, (from, to)| text.replace(from, &to.to_string()))
    }

    /// What the service starts, through `launcher`.
    fn command(&self, launcher: &[String]) -> Command {
        let unit = self.moved(&text_of("systemd/pgimbal.service"));
        let start = values(&unit, "ExecStart")[0];
        let words = launcher.iter().map(String::as_str).chain(start.split(' '));
        let words: Vec<&str> = words.collect();
        let mut command = undisturbed(words[0]);
        command.args(&words[1..]);
        command
    }
}

fn notifications(folder: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(folder.join("notify")).expect("a socket");
    socket.set_read_timeout(Some(SOON)).expect("a limit");
    socket
}

#[test]
fn the_shipped_sockets_are_those_of_the_shipped_configuration() {
    let pg = Postgres::start();
    let installed = Installed::new(&pg);
    let notify = notifications(&installed.folder);
    let sockets = installed.moved(&text_of("systemd/pgimbal.socket"));
    let mut launcher = vec!["systemd-socket-activate".to_owned()];
    for address in values(&sockets, "ListenStream") {
        launcher.extend(["-l".to_owned(), address.to_owned()]);
    }
    assert!(launcher.len() > 4, "{launcher:?}");
    launcher.push(format!("-ENOTIFY_SOCKET={}", installed.folder.join("notify").display()));
    let command = installed.command(&launcher);
    let mut process = Process::start(command, &installed.folder, Signal::KILL);
    let [(_, port), (_, http_port)] = installed.ports;
    process.wait_until_it_listens("systemd-socket-activate", &[port]);
    let login = Login::new("app", "app", "app-secret");
    let mut client = WireClient::tcp(port);
    client.log_in(&login).expect("a login");
    assert_eq!(client.value("select 1"), "1");
    let mut local = WireClient::unix(&installed.folder.join(format!("run/.s.PGSQL.{port}")));
    local.log_in(&login).expect("a login");
    assert_eq!(local.value("select 2"), "2");
    assert_eq!(get(http_port, "/readyz").0, 200);
    let mut lines = VecDeque::new();
    while !lines.contains(&"READY=1".to_owned()) {
        let mut buffer = [0; 4096];
        let length = notify.recv(&mut buffer).expect("a notification in time");
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        lines.extend(text.lines().map(str::to_owned));
    }
    let log = process.log();
    assert!(!log.contains("no option names it"), "{log}");
    assert!(installed.folder.join("state").is_dir(), "state_dir is made");
}
