//! Signals that come before pgimbal serves: a reload waits, an end is obeyed.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pgimbal_tests::pgimbal::{Config, program, undisturbed};
use pgimbal_tests::port::free_port;
use pgimbal_tests::process::{Directory, Process, directory};
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::vault_stand_in::Answer;
use pgimbal_tests::{Pgimbal, VaultStandIn};
use rustix::process::Signal;

/// Longer than any test takes.
const NEVER: Duration = Duration::from_secs(60);

/// A pgimbal whose ports are open while it waits for a Vault that takes `delay`.
fn waiting_for_a_vault(delay: Duration) -> (VaultStandIn, Pgimbal) {
    let stand_in = VaultStandIn::start();
    let answer = Answer::role("shop", "secret", "2026-01-01T00:00:00Z", 3600).after(delay);
    stand_in.role("shop", answer);
    let config = Config::to_nowhere().tables(&stand_in.table(""));
    let proxy = config.tables("[users.shop]\nvault_role = \"shop\"\n").start();
    eventually("Vault is asked", SOON, || stand_in.asked("static-creds/shop") > 0);
    assert!(!proxy.log().contains("ready on"), "it does not wait: {}", proxy.log());
    (stand_in, proxy)
}

/// A pgimbal that has opened its configuration, which is a pipe, and reads it as it is written.
struct Reading {
    process: Process,
    file: fs::File,
    path: PathBuf,
    directory: Directory,
}

impl Reading {
    fn start() -> Self {
        let directory = directory("starting");
        let path = directory.join("pgimbal.toml");
        let made = Command::new("mkfifo").arg(&path).status().expect("mkfifo");
        assert!(made.success());
        let mut command = undisturbed(program());
        command.arg("--config").arg(&path);
        let process = Process::start(command, &directory, Signal::KILL);
        // This waits until the other end is open.
        let file = OpenOptions::new().write(true).open(&path).expect("the pipe");
        Self { process, file, path, directory }
    }

    fn text(&self) -> String {
        format!(
            "listen = \"127.0.0.1:{}\"\n[databases.app]\n[users.app]\npassword = \"x\"\n",
            free_port()
        )
    }
}

fn is_in(directory: &Path, name: &str) -> bool {
    let names = fs::read_dir(directory).expect("the directory");
    names.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with(name))
}

#[test]
fn a_reload_that_is_wanted_during_the_start_follows_it() {
    let (stand_in, proxy) = waiting_for_a_vault(Duration::from_secs(2));
    proxy.signal(Signal::HUP);
    eventually("it serves and reloads", SOON, || {
        let log = proxy.log();
        log.contains("ready on") && log.contains("configuration reloaded")
    });
    drop(stand_in);
}

#[test]
fn a_reload_that_is_wanted_while_the_configuration_is_read_follows_the_start() {
    let mut reading = Reading::start();
    reading.process.signal(Signal::HUP);
    let text = reading.text();
    reading.file.write_all(text.as_bytes()).expect("it is read");
    // What is read at the reload is a plain file.
    let plain = reading.directory.join("plain");
    fs::write(&plain, &text).expect("a file");
    fs::rename(&plain, &reading.path).expect("in its place");
    drop(reading.file);
    let process = reading.process;
    eventually("it serves and reloads", SOON, || {
        let log = process.log();
        log.contains("ready on") && log.contains("configuration reloaded")
    });
}

#[test]
fn a_start_that_is_told_to_end_ends_well() {
    for signal in [Signal::TERM, Signal::INT] {
        let (_stand_in, mut proxy) = waiting_for_a_vault(NEVER);
        proxy.signal(signal);
        eventually("it ends well", SOON, || proxy.ended().is_some());
        assert_eq!(proxy.ended(), Some(0), "{}", proxy.log());
        assert!(!proxy.log().contains("ready on"), "it did not end before");
        let mut reading = Reading::start();
        reading.process.signal(signal);
        eventually("it ends well", SOON, || reading.process.ended().is_some());
        let code = reading.process.ended().and_then(|status| status.code());
        assert_eq!(code, Some(0), "{}", reading.process.log());
    }
}

#[test]
fn a_start_that_ends_early_leaves_no_socket() {
    let stand_in = VaultStandIn::start();
    let answer = Answer::role("shop", "secret", "2026-01-01T00:00:00Z", 3600).after(NEVER);
    stand_in.role("shop", answer);
    let sockets = directory("sockets");
    let config = Config::to_nowhere().set("unix_socket_dir", format!("{:?}", &*sockets));
    let config = config.tables(&stand_in.table(""));
    let mut proxy = config.tables("[users.shop]\nvault_role = \"shop\"\n").start();
    eventually("Vault is asked", SOON, || stand_in.asked("static-creds/shop") > 0);
    assert!(is_in(&sockets, ".s.PGSQL."));
    proxy.signal(Signal::TERM);
    eventually("it ends well", SOON, || proxy.ended() == Some(0));
    assert!(!is_in(&sockets, ".s.PGSQL."));
}
