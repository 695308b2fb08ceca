//! What is under `deploy/docker` and `deploy/systemd`, used as a platform team uses it.
//!
//! The program is the one under test; the image with the released one is `make image`'s.
#![allow(missing_docs, reason = "a test's name is its documentation")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test a failed expectation is the point"
)]

#[path = "packaging/debian.rs"]
mod debian;
#[path = "packaging/image.rs"]
mod image;
#[path = "packaging/manual.rs"]
mod manual;
#[path = "packaging/units.rs"]
mod units;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pgimbal_tests::process::{Directory, Process, directory};
use pgimbal_tests::program::run;
use pgimbal_tests::sources::root;
use pgimbal_tests::until::{SOON, eventually};
use rustix::process::{Pid, Signal, kill_process};

/// Time limit of a program that packs or installs something.
const LIMIT: Duration = Duration::from_secs(120);

fn deploy(path: &str) -> PathBuf {
    root().join("deploy").join(path)
}

fn text_of(path: &str) -> String {
    std::fs::read_to_string(deploy(path)).expect("a file of deploy")
}

/// `program` as root, through sudo for whoever is not.
fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}

/// The program under test without its debug information, which is most of it.
fn stripped_program(folder: &Path) -> PathBuf {
    let program = folder.join("pgimbal");
    let mut command = Command::new("strip");
    command.arg("-o").arg(&program).arg(pgimbal_tests::pgimbal::program());
    let _ = run(&mut command, LIMIT).succeeded();
    program
}

/// The first child of a process.
fn child_of(pid: u32) -> Option<Pid> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
}

/// A pgimbal inside of bubblewrap, which stays its parent.
struct Confined {
    process: Process,
    _directory: Directory,
}

impl Confined {
    /// Starts bubblewrap with `command`, and returns when these ports are listened at.
    fn start(command: Command, ports: &[u16]) -> Self {
        let directory = directory("confined");
        let mut process = Process::start(command, &directory, Signal::KILL);
        process.wait_until_it_listens("pgimbal", ports);
        Self { process, _directory: directory }
    }

    /// The process id of pgimbal itself.
    fn pid(&self) -> Pid {
        child_of(self.process.id()).expect("a living bubblewrap")
    }

    /// Sends SIGTERM, and returns the exit code.
    fn drain(&mut self) -> Option<i32> {
        kill_process(self.pid(), Signal::TERM).expect("a living process");
        let mut status = None;
        eventually("it ends", SOON, || {
            status = self.process.ended();
            status.is_some()
        });
        status.and_then(|status| status.code())
    }
}
