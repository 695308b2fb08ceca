//! Failures of a node, and its promotion.

use std::path::PathBuf;

use rustix::process::Signal;

use super::{Node, processes};
use crate::until::{SOON, eventually};

/// The mode in which a server is shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Fast shutdown (SIGINT): backends end with a FATAL, 57P01.
    Fast,
    /// Immediate shutdown (SIGQUIT): backends stop where they are, with a WARNING at most.
    Immediate,
}

/// The stopped processes (SIGSTOP) of a node, which continue when this is dropped.
#[must_use]
pub struct Frozen(PathBuf);

impl Node {
    /// Promotes the node, a standby, and returns when it accepts writes.
    ///
    /// # Panics
    /// When the promotion fails.
    pub fn promote(&self) {
        let mut superuser = self.superuser();
        assert_eq!(superuser.value("select pg_promote(true, 30)"), "t", "{}", self.name);
        eventually("it accepts writes", SOON, || {
            superuser.value("select pg_is_in_recovery()") == "f"
        });
    }

    /// Sends SIGKILL to the postmaster and every backend, and waits for their end.
    ///
    /// # Panics
    /// When the node does not run.
    pub fn kill(&mut self) {
        // A postmaster that stands still starts no other backend meanwhile.
        self.process.as_ref().expect("a running node").signal(Signal::STOP);
        self.obliterate();
    }

    /// Sends SIGKILL to the postmaster only. Its backends notice when they next wait for a client,
    /// and until then run on and commit.
    ///
    /// # Panics
    /// When the node does not run.
    pub fn kill_postmaster(&mut self) {
        let mut process = self.process.take().expect("a running node");
        process.signal(Signal::KILL);
        eventually("the postmaster ends", SOON, || process.ended().is_some());
        // Dropping it now would signal nobody: it has ended.
    }

    /// Whether any process of the node is alive, even one whose postmaster was killed.
    #[must_use]
    pub fn lives(&self) -> bool {
        !processes::of(&self.data()).is_empty()
    }

    /// Shuts the node down and waits for its end.
    ///
    /// # Panics
    /// When the node does not run or does not end.
    pub fn end(&mut self, end: End) {
        self.begin_end(end);
        self.wait_until_ended();
    }

    /// Begins to shut the node down, without waiting.
    ///
    /// # Panics
    /// When the node does not run.
    pub fn begin_end(&self, end: End) {
        let signal = match end {
            End::Fast => Signal::INT,
            End::Immediate => Signal::QUIT,
        };
        self.process.as_ref().expect("a running node").signal(signal);
    }

    /// Waits for the end of a shutdown.
    ///
    /// # Panics
    /// When the node does not end in time.
    pub fn wait_until_ended(&mut self) {
        let mut process = self.process.take().expect("a running node");
        eventually("PostgreSQL ends", SOON, || process.ended().is_some());
    }

    /// Waits until the only backends of clients are those whose commit waits for a replica; the
    /// others have sent their last messages by then.
    ///
    /// # Panics
    /// When another backend stays.
    pub fn wait_for_sync_waiters_only(&self) {
        let is_left = |title: &String| {
            title.contains('(') && !title.contains("walsender") && !title.contains("waiting for")
        };
        eventually("only those are left who await a replica", SOON, || {
            !processes::titles(&self.data()).iter().any(is_left)
        });
    }

    /// Sends SIGSTOP to all processes of the node: its sockets stay open and send nothing.
    ///
    /// # Panics
    /// When the node does not run.
    pub fn freeze(&self) -> Frozen {
        self.process.as_ref().expect("a running node").signal(Signal::STOP);
        assert!(processes::signal(&self.data(), Signal::STOP) > 1, "backends stand still");
        Frozen(self.data())
    }

    /// Kills all processes of the node and removes what they leave outside of its directory.
    pub(super) fn obliterate(&mut self) {
        let data = self.data();
        eventually("all processes end", SOON, || {
            if let Some(process) = &mut self.process {
                process.signal(Signal::KILL);
                let _ = process.ended();
            }
            processes::signal(&data, Signal::KILL) == 0
        });
        self.process = None;
        processes::forget(&data);
    }
}

impl Frozen {
    /// Lets the processes continue (SIGCONT).
    pub fn thaw(self) {}
}

impl Drop for Frozen {
    fn drop(&mut self) {
        processes::signal(&self.0, Signal::CONT);
    }
}
