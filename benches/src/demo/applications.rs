//! The applications of the demonstration: they keep one host name and the first password for ever.

use crate::client::{Client, Endpoint};
use crate::demo::observations::{Observations, Workload, WriteOutcome};
use crate::threads::RaiseOnDrop;
use crate::{During, Error, Result};
use pgimbal_tests::Reply;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

/// The longest pause between two transactions of an application; the mean is half of it.
const PAUSE: Duration = Duration::from_millis(200);
/// Transactions after which one in ten applications connects anew.
const STAY: u32 = 15;
/// Size of a thread's stack: enough for one that keeps nothing on it.
const STACK: usize = 128 * 1024;
/// One in so many transactions of those that read back what they write is a write.
const WRITE_EVERY: u64 = 4;
/// Rows that transactions change.
pub(super) const ACCOUNTS: u64 = 10_000;

/// The applications, one thread each, while they run.
#[derive(Debug, Default)]
pub struct Applications {
    /// Everything that the applications have seen, shared by their threads.
    pub observations: Observations,
    stop: AtomicBool,
    connected: AtomicUsize,
}

impl Applications {
    /// Runs `count` applications until `scenario` has returned, and returns its result. `endpoint`
    /// makes the endpoint at which they log in; those that read from replicas add a startup option
    /// to it.
    ///
    /// # Errors
    /// [`Error`] when the system refuses so many threads.
    pub fn run<T>(
        &self,
        count: u32,
        endpoint: impl Fn() -> Endpoint,
        scenario: impl FnOnce() -> T,
    ) -> Result<T> {
        let plain = endpoint();
        let replicas = endpoint().with_options("-c pgimbal.route=replica");
        let auto = endpoint().with_options("-c pgimbal.route=auto");
        thread::scope(|scope| {
            let spawned: std::io::Result<Vec<_>> = (0..count)
                .map(|number| {
                    let workload = workload(number);
                    let endpoint = match workload {
                        Workload::ReplicaReads => &replicas,
                        Workload::OwnWrites => &auto,
                        _ => &plain,
                    };
                    thread::Builder::new()
                        .stack_size(STACK)
                        .spawn_scoped(scope, move || self.live(endpoint, number, workload))
                })
                .collect();
            let spawned = spawned.during("starting the applications' threads");
            // A panic of the scenario stops them too.
            let _stop = RaiseOnDrop(&self.stop);
            spawned.map(|_| scenario())
        })
    }

    /// Number of applications that are logged in now.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn live(&self, endpoint: &Endpoint, number: u32, workload: Workload) {
        let mut application =
            Application { number, workload, step: 0, random: Random::new(number), own: None };
        while !self.stopped() {
            if let Err(error) = self.session(endpoint, &mut application) {
                self.observations.seen().accident(format!("{}: {error}", workload.name()));
                sleep(PAUSE);
            }
        }
    }

    fn session(&self, endpoint: &Endpoint, application: &mut Application) -> Result<()> {
        let mut client = endpoint
            .log_in()
            .map_err(|error| Error::Program(format!("a login failed: {error}")))?;
        self.observations.seen().logins += 1;
        self.connected.fetch_add(1, Ordering::Relaxed);
        // What was written on the connection before may be on no replica yet.
        application.own = None;
        let outcome = self.work(&mut client, application);
        self.connected.fetch_sub(1, Ordering::Relaxed);
        outcome.map_err(|error| Error::Program(format!("a connection was closed: {error}")))?;
        client.close()
    }

    fn work(&self, client: &mut Client, application: &mut Application) -> Result<()> {
        let comes_again = application.number.is_multiple_of(10);
        let mut stayed = 0;
        while !(self.stopped() || comes_again && stayed == STAY) {
            sleep(PAUSE.mul_f64(application.random.roll(1000) as f64 / 1000.0));
            stayed += 1;
            application.step += 1;
            let start = Instant::now();
            if application.transact(client, &self.observations)? {
                self.observations.seen().succeeded(application.workload, start.elapsed());
            }
        }
        Ok(())
    }
}

/// Every tenth application comes again and again, whatever its workload is.
const fn workload(number: u32) -> Workload {
    match number % 7 {
        0 | 1 => Workload::Writes,
        2 | 3 => Workload::Transactions,
        4 => Workload::Reads,
        5 => Workload::ReplicaReads,
        _ => Workload::OwnWrites,
    }
}

/// What one application is and where it stands.
struct Application {
    number: u32,
    workload: Workload,
    step: u64,
    random: Random,
    /// The id of its latest write, if that was acknowledged on the connection that it has.
    own: Option<String>,
}

impl Application {
    /// One transaction; whether it succeeded. An error that leaves the connection open is noted.
    fn transact(&mut self, client: &mut Client, observations: &Observations) -> Result<bool> {
        let id = format!("{}-{}", self.number, self.step);
        let insert = format!("INSERT INTO work VALUES ('{id}')");
        let told = match self.workload {
            Workload::Writes => self.ask(client, &insert, observations)?.1,
            Workload::Transactions => self.transfer(client, &insert, observations)?,
            Workload::Reads | Workload::ReplicaReads => return self.read(client, observations),
            Workload::OwnWrites if self.own.is_some() && self.random.roll(WRITE_EVERY) > 0 => {
                return self.read_back(client, observations);
            }
            Workload::OwnWrites | Workload::Notifications => {
                self.ask(client, &insert, observations)?.1
            }
        };
        observations.seen().wrote(id.clone(), told);
        if self.workload != Workload::OwnWrites {
            return Ok(told == WriteOutcome::Done);
        }
        self.own = (told == WriteOutcome::Done).then_some(id);
        // It asks for what it has just written, before any replica can have it for certain.
        Ok(self.own.is_some() && self.read_back(client, observations)?)
    }

    /// Reads its own latest write; whether the read succeeded.
    fn read_back(&mut self, client: &mut Client, observations: &Observations) -> Result<bool> {
        let Some(own) = &self.own else { return Ok(false) };
        let select = format!("SELECT on_replica(), count(*) FROM work WHERE id = '{own}'");
        let (reply, told) = self.ask(client, &select, observations)?;
        if let Some([replica, count]) = reply.texts().first().map(Vec::as_slice) {
            observations.seen().own.read(replica == "t", count != "0");
        }
        Ok(told == WriteOutcome::Done)
    }

    fn read(&mut self, client: &mut Client, observations: &Observations) -> Result<bool> {
        let wanted = self.random.roll(self.step.max(1));
        let select =
            format!("SELECT pg_is_in_recovery(), count(*) FROM work WHERE id = '1-{wanted}'");
        let (reply, told) = self.ask(client, &select, observations)?;
        if let Some(standby) = reply.texts().first().and_then(|row| row.first())
            && self.workload == Workload::ReplicaReads
        {
            observations.seen().read(standby == "t");
        }
        Ok(told == WriteOutcome::Done)
    }

    fn transfer(
        &mut self,
        client: &mut Client,
        insert: &str,
        observations: &Observations,
    ) -> Result<WriteOutcome> {
        let account = 1 + self.random.roll(ACCOUNTS);
        let update = format!("UPDATE accounts SET balance = balance + 1 WHERE id = {account}");
        for statement in ["BEGIN", &update, insert] {
            let (reply, told) = self.ask(client, statement, observations)?;
            if told != WriteOutcome::Done {
                if reply.status() != 'I' {
                    self.ask(client, "ROLLBACK", observations)?;
                }
                return Ok(WriteOutcome::RolledBack);
            }
        }
        let (reply, told) = self.ask(client, "COMMIT", observations)?;
        if told == WriteOutcome::Done && reply.commands() != ["COMMIT"] {
            let words = format!("COMMIT was answered {:?}", reply.commands());
            observations.seen().accident(words);
            return Ok(WriteOutcome::RolledBack);
        }
        Ok(told)
    }

    /// The answer to a statement, and what it says of it.
    fn ask(
        &self,
        client: &mut Client,
        text: &str,
        observations: &Observations,
    ) -> Result<(Reply, WriteOutcome)> {
        let reply = client.query(text)?;
        let Some(error) = reply.errors().pop() else { return Ok((reply, WriteOutcome::Done)) };
        observations.seen().refused(self.workload, &error.code, &error.message);
        let told =
            if error.code == "08007" { WriteOutcome::Unknown } else { WriteOutcome::RolledBack };
        Ok((reply, told))
    }
}

/// A small generator (xorshift): a demonstration needs variety, not quality.
struct Random(u64);

impl Random {
    fn new(number: u32) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ u64::from(number) << 17)
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}
