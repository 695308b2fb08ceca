//! What befalls the primary, step by step, and when each step was through.

use crate::demo::applications::Applications;
use crate::demo::pgimbal::Pgimbal;
use crate::demo::schedule::Schedule;
use pgimbal_tests::Cluster;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long pgimbal may take to see what a node has become.
const PATIENCE: Duration = Duration::from_secs(15);
/// After a new primary is there, errors are explained by the old one's end for so long.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// The scenario while it is told.
pub struct Scenario<'a> {
    /// The primary and its replica.
    pub cluster: &'a mut Cluster,
    /// What must see it.
    pub pgimbal: &'a Pgimbal,
    /// Who must not notice.
    pub applications: &'a Applications,
    /// When what happens.
    pub schedule: Schedule,
    /// The port of the node that is the primary.
    pub primary: &'a AtomicU16,
    /// Raised by Ctrl-C.
    pub enough: &'a AtomicBool,
    /// When it began.
    pub start: Instant,
}

/// What has happened; what has not yet is `None`.
#[derive(Debug, Default)]
pub struct Events {
    /// From the kill to the promoted node accepting writes.
    pub promoted: Option<Duration>,
    /// pgimbal's reason for quarantining the old primary.
    pub quarantined: Option<String>,
    /// The old primary is read from, as a replica.
    pub rejoined: bool,
    /// It was ended by hand before all was told.
    pub interrupted: bool,
}

impl Scenario<'_> {
    /// Tells it to its end.
    ///
    /// # Panics
    /// When a server does not do what it is told.
    pub fn run(&mut self) -> Events {
        let mut told = Events::default();
        told.interrupted = !self.steps(&mut told);
        told
    }

    /// Whether all steps were made.
    fn steps(&mut self, told: &mut Events) -> bool {
        if !self.wait_until(self.schedule.kill) {
            return false;
        }
        self.say("SIGKILL for the primary n1, all of it; n2 is promoted");
        self.applications.observations.seen().disturbed(true);
        let killed = Instant::now();
        self.cluster.nodes[0].kill();
        self.cluster.nodes[1].promote();
        self.primary.store(self.cluster.nodes[1].port, Ordering::Relaxed);
        told.promoted = Some(killed.elapsed());
        let after = self.start.elapsed() + SETTLE_TIME;
        let calm = self.wait_until(self.schedule.comeback.max(after));
        self.applications.observations.seen().disturbed(false);
        if !calm {
            return false;
        }
        self.say("n1 is started as it was: a second primary, on the old timeline");
        self.cluster.nodes[0].start();
        told.quarantined = self.wait_for("quarantined");
        self.say(match told.quarantined {
            Some(_) => "pgimbal has n1 in quarantine; CHECKPOINT on n2, pg_rewind for n1",
            None => "pgimbal has n1 NOT in quarantine",
        });
        self.cluster.rejoin(0, 1);
        told.rejoined = self.wait_for("replica").is_some();
        self.say(if told.rejoined { "n1 is back, as a replica" } else { "n1 is NOT back" });
        let end = self.schedule.end.unwrap_or(Duration::MAX);
        self.wait_until(end);
        true
    }

    /// Waits until this time of the scenario; whether it came before Ctrl-C.
    fn wait_until(&self, time: Duration) -> bool {
        while !self.enough.load(Ordering::Relaxed) {
            if self.start.elapsed() >= time {
                return true;
            }
            sleep(Duration::from_millis(10));
        }
        false
    }

    /// Waits until the old primary is in this state; the reason that pgimbal gives.
    fn wait_for(&self, state: &str) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let (now, why) = self.pgimbal.node(&self.cluster.nodes[0].name);
            if now == state {
                return Some(why);
            }
            sleep(Duration::from_millis(50));
        }
        None
    }

    fn say(&self, words: &str) {
        println!("\r{:>4} s  >> {words}", self.start.elapsed().as_secs());
        let _ = std::io::stdout().flush();
    }
}
