//! The applications: they have one host name and the first password, and never look back.

use crate::client::{Client, Door};
use crate::demo::ledger::{Ledger, Told, Trade};
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
/// Enough for a thread that keeps nothing on its stack.
const STACK: usize = 128 * 1024;
/// Rows that transactions change.
pub(super) const ACCOUNTS: u64 = 10_000;

/// The applications, while they run.
#[derive(Debug, Default)]
pub struct Applications {
    /// What they have seen.
    pub ledger: Ledger,
    stop: AtomicBool,
    connected: AtomicUsize,
}

impl Applications {
    /// Runs `count` applications while `scenario` is told.
    ///
    /// # Errors
    /// When the system refuses so many threads.
    pub fn run<T>(
        &self,
        count: u32,
        door: impl Fn() -> Door,
        scenario: impl FnOnce() -> T,
    ) -> Result<T> {
        let plain = door();
        let replicas = door().with_options("-c pgimbal.route=replica");
        thread::scope(|scope| {
            let spawned: std::io::Result<Vec<_>> = (0..count)
                .map(|number| {
                    let trade = trade(number);
                    let door = if trade == Trade::ReplicaReads { &replicas } else { &plain };
                    thread::Builder::new()
                        .stack_size(STACK)
                        .spawn_scoped(scope, move || self.live(door, number, trade))
                })
                .collect();
            let spawned = spawned.during("starting the applications' threads");
            // A panic of the scenario stops them too.
            let _stop = RaiseOnDrop(&self.stop);
            spawned.map(|_| scenario())
        })
    }

    /// Applications that are logged in.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn live(&self, door: &Door, number: u32, trade: Trade) {
        let mut life = Life { number, trade, step: 0, dice: Dice::new(number) };
        while !self.stopped() {
            if let Err(error) = self.session(door, &mut life) {
                self.ledger.seen().accident(format!("{}: {error}", trade.name()));
                sleep(PAUSE);
            }
        }
    }

    fn session(&self, door: &Door, life: &mut Life) -> Result<()> {
        let mut client =
            door.enter().map_err(|error| Error::Program(format!("a login failed: {error}")))?;
        self.ledger.seen().logins += 1;
        self.connected.fetch_add(1, Ordering::Relaxed);
        let outcome = self.work(&mut client, life);
        self.connected.fetch_sub(1, Ordering::Relaxed);
        outcome.map_err(|error| Error::Program(format!("a connection was closed: {error}")))?;
        client.leave()
    }

    fn work(&self, client: &mut Client, life: &mut Life) -> Result<()> {
        let comes_again = life.number.is_multiple_of(10);
        let mut stayed = 0;
        while !(self.stopped() || comes_again && stayed == STAY) {
            sleep(PAUSE.mul_f64(life.dice.roll(1000) as f64 / 1000.0));
            stayed += 1;
            life.step += 1;
            let start = Instant::now();
            if life.transact(client, &self.ledger)? {
                self.ledger.seen().succeeded(life.trade, start.elapsed());
            }
        }
        Ok(())
    }
}

/// Every tenth application comes again and again, whatever its trade is.
const fn trade(number: u32) -> Trade {
    match number % 7 {
        0 | 1 => Trade::Writes,
        2 | 3 => Trade::Transactions,
        4 => Trade::Reads,
        _ => Trade::ReplicaReads,
    }
}

/// One application.
struct Life {
    number: u32,
    trade: Trade,
    step: u64,
    dice: Dice,
}

impl Life {
    /// One transaction; whether it succeeded. An error that leaves the connection open is noted.
    fn transact(&mut self, client: &mut Client, ledger: &Ledger) -> Result<bool> {
        let id = format!("{}-{}", self.number, self.step);
        let insert = format!("INSERT INTO work VALUES ('{id}')");
        let told = match self.trade {
            Trade::Writes => self.ask(client, &insert, ledger)?.1,
            Trade::Transactions => self.transfer(client, &insert, ledger)?,
            Trade::Reads | Trade::ReplicaReads => return self.read(client, ledger),
        };
        ledger.seen().wrote(id, told);
        Ok(told == Told::Done)
    }

    fn read(&mut self, client: &mut Client, ledger: &Ledger) -> Result<bool> {
        let wanted = self.dice.roll(self.step.max(1));
        let select =
            format!("SELECT pg_is_in_recovery(), count(*) FROM work WHERE id = '1-{wanted}'");
        let (reply, told) = self.ask(client, &select, ledger)?;
        if let Some(standby) = reply.texts().first().and_then(|row| row.first())
            && self.trade == Trade::ReplicaReads
        {
            ledger.seen().read(standby == "t");
        }
        Ok(told == Told::Done)
    }

    fn transfer(&mut self, client: &mut Client, insert: &str, ledger: &Ledger) -> Result<Told> {
        let account = 1 + self.dice.roll(ACCOUNTS);
        let update = format!("UPDATE accounts SET balance = balance + 1 WHERE id = {account}");
        for statement in ["BEGIN", &update, insert] {
            let (reply, told) = self.ask(client, statement, ledger)?;
            if told != Told::Done {
                if reply.status() != 'I' {
                    self.ask(client, "ROLLBACK", ledger)?;
                }
                return Ok(Told::RolledBack);
            }
        }
        let (reply, told) = self.ask(client, "COMMIT", ledger)?;
        if told == Told::Done && reply.commands() != ["COMMIT"] {
            let words = format!("COMMIT was answered {:?}", reply.commands());
            ledger.seen().accident(words);
            return Ok(Told::RolledBack);
        }
        Ok(told)
    }

    /// The answer to a statement, and what it says of it.
    fn ask(&self, client: &mut Client, text: &str, ledger: &Ledger) -> Result<(Reply, Told)> {
        let reply = client.question(text)?;
        let Some(error) = reply.errors().pop() else { return Ok((reply, Told::Done)) };
        ledger.seen().refused(self.trade, &error.code, &error.message);
        let told = if error.code == "08007" { Told::Unknown } else { Told::RolledBack };
        Ok((reply, told))
    }
}

/// A small generator (xorshift): a demonstration needs variety, not quality.
struct Dice(u64);

impl Dice {
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
