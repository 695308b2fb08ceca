//! The scenario of the primary: it is killed, replaced and comes back, at the times of the
//! schedule.

use crate::demo::applications::Applications;
use crate::demo::pgimbal::Pgimbal;
use crate::demo::schedule::Schedule;
use pgimbal_tests::Cluster;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Time limit within which pgimbal must see what a node has become.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long after a new primary is there errors are still explained by the loss of the old one.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// The scenario, with everything that it acts on.
pub struct Scenario<'a> {
    /// The primary and its replica.
    pub cluster: &'a mut Cluster,
    /// The pgimbal that must notice what happens to the nodes.
    pub pgimbal: &'a Pgimbal,
    /// The applications, which must not notice.
    pub applications: &'a Applications,
    /// The times at which the primary is killed and comes back.
    pub schedule: Schedule,
    /// The port of the node that is the primary now; the scenario changes it at the promotion.
    pub primary: &'a AtomicU16,
    /// Whether the user has pressed Ctrl-C; the scenario ends early then.
    pub enough: &'a AtomicBool,
    /// The time at which the scenario began.
    pub start: Instant,
}

/// What has happened in the scenario; `None` or false for what has not.
#[derive(Debug, Default)]
pub struct Events {
    /// Time from the kill of the primary until the promoted node accepted writes.
    pub promoted: Option<Duration>,
    /// pgimbal's reason for quarantining the old primary.
    pub quarantined: Option<String>,
    /// Whether the old primary serves reads again, as a replica.
    pub rejoined: bool,
    /// Whether Ctrl-C ended the scenario before its last step.
    pub interrupted: bool,
}

impl Scenario<'_> {
    /// Runs the scenario to its end, or until Ctrl-C.
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
