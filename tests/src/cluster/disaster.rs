//! What befalls a node, and its promotion.

use std::path::PathBuf;

use rustix::process::Signal;

use super::{Node, processes};
use crate::until::{SOON, eventually};

/// How a server is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its backends say goodbye, with 57P01.
    Fast,
    /// Its backends stop where they are, with a notice at most.
    Immediate,
}

/// All processes of a node that stand still until this is dropped or [`Frozen::thaw`]ed.
#[must_use]
pub struct Frozen(PathBuf);

impl Node {
    /// Promotes it and returns when it accepts writes.
    ///
    /// # Panics
    /// When it refuses.
    pub fn promote(&self) {
        let mut superuser = self.superuser();
        assert_eq!(superuser.value("select pg_promote(true, 30)"), "t", "{}", self.name);
        eventually("it accepts writes", SOON, || {
            superuser.value("select pg_is_in_recovery()") == "f"
        });
    }

    /// SIGKILL for its postmaster and every backend.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        // A postmaster that stands still starts no other backend meanwhile.
        self.process.as_ref().expect("a running node").signal(Signal::STOP);
        self.obliterate();
    }

    /// SIGKILL for its postmaster alone: its backends notice when they next wait for a client,
    /// and until then go on and commit.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill_postmaster(&mut self) {
        let mut process = self.process.take().expect("a running node");
        process.signal(Signal::KILL);
        eventually("the postmaster ends", SOON, || process.ended().is_some());
        // Dropping it now would signal nobody: it has ended.
    }

    /// Whether any process of it lives, be it one whose postmaster was killed.
    #[must_use]
    pub fn lives(&self) -> bool {
        !processes::of(&self.data()).is_empty()
    }

    /// Tells it to end and waits until it has.
    ///
    /// # Panics
    /// When it does not run or does not end.
    pub fn end(&mut self, end: End) {
        self.begin_end(end);
        self.wait_until_ended();
    }

    /// Tells it to end.
    ///
    /// # Panics
    /// When it does not run.
    pub fn begin_end(&self, end: End) {
        let signal = match end {
            End::Fast => Signal::INT,
            End::Immediate => Signal::QUIT,
        };
        self.process.as_ref().expect("a running node").signal(signal);
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait_until_ended(&mut self) {
        let mut process = self.process.take().expect("a running node");
        eventually("PostgreSQL ends", SOON, || process.ended().is_some());
    }

    /// Waits until no backend of a client is left but those whose commit awaits a replica: the
    /// others have said what they had to say.
    ///
    /// # Panics
    /// When another one stays.
    pub fn wait_until_the_rest_has_left(&self) {
        let is_left = |title: &String| {
            title.contains('(') && !title.contains("walsender") && !title.contains("waiting for")
        };
        eventually("only those are left who await a replica", SOON, || {
            !processes::titles(&self.data()).iter().any(is_left)
        });
    }

    /// SIGSTOP for all its processes: its sockets stay open and say nothing.
    ///
    /// # Panics
    /// When it does not run.
    pub fn freeze(&self) -> Frozen {
        self.process.as_ref().expect("a running node").signal(Signal::STOP);
        assert!(processes::signal(&self.data(), Signal::STOP) > 1, "backends stand still");
        Frozen(self.data())
    }

    /// Ends all of it at once, leaving nothing outside its directory.
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
    /// Lets them go on.
    pub fn thaw(self) {}
}

impl Drop for Frozen {
    fn drop(&mut self) {
        processes::signal(&self.0, Signal::CONT);
    }
}
