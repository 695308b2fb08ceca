//! A crowd of clients with think time, as applications have it: the load of the demonstration.

use crate::client::{Client, Door};
use crate::{Error, Result};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

/// A client's longest pause between two transactions; the mean is half of it.
const PAUSE: Duration = Duration::from_millis(100);
/// Accounts that pgbench made.
const ACCOUNTS: u64 = 1_000_000;
/// Errors whose text is kept.
const KEPT: usize = 5;
/// Enough for a client's thread, which keeps nothing on its stack.
const STACK: usize = 128 * 1024;

/// What the crowd has done so far; shared with its threads.
#[derive(Debug, Default)]
pub struct Crowd {
    stop: AtomicBool,
    connected: AtomicUsize,
    errors: AtomicU64,
    latencies: Mutex<Vec<u32>>,
    messages: Mutex<Vec<String>>,
}

impl Crowd {
    /// Runs `clients` until [`Crowd::stop`], while `watch` runs beside them.
    ///
    /// # Errors
    /// What `watch` returns, or when the system refuses so many threads.
    pub fn run<T>(
        &self,
        door: &Door,
        clients: u32,
        watch: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        thread::scope(|scope| {
            let spawned: std::io::Result<Vec<_>> = (0..clients)
                .map(|number| {
                    thread::Builder::new()
                        .stack_size(STACK)
                        .spawn_scoped(scope, move || self.live(door, number))
                })
                .collect();
            let watched = match spawned {
                Ok(_) => watch(),
                Err(error) => Err(Error::Io("starting the clients' threads".into(), error)),
            };
            self.stop();
            watched
        })
    }

    /// Lets every client finish its transaction and leave.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Clients that are logged in.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    /// Failed logins and transactions.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// The first few errors' texts.
    #[must_use]
    pub fn messages(&self) -> Vec<String> {
        self.messages.lock().map(|messages| messages.clone()).unwrap_or_default()
    }

    /// Microseconds of each transaction since the last call.
    #[must_use]
    pub fn take_latencies(&self) -> Vec<u32> {
        self.latencies
            .lock()
            .map(|mut latencies| std::mem::take(&mut *latencies))
            .unwrap_or_default()
    }

    fn live(&self, door: &Door, number: u32) {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ u64::from(number) << 17);
        while !self.stop.load(Ordering::Relaxed) {
            let Err(error) = self.session(door, &mut dice) else { continue };
            self.errors.fetch_add(1, Ordering::Relaxed);
            if let Ok(mut messages) = self.messages.lock()
                && messages.len() < KEPT
            {
                messages.push(error.to_string());
            }
            sleep(PAUSE);
        }
    }

    fn session(&self, door: &Door, dice: &mut Dice) -> Result<()> {
        let mut client = door.enter()?;
        self.connected.fetch_add(1, Ordering::Relaxed);
        let outcome = self.transactions(&mut client, dice);
        self.connected.fetch_sub(1, Ordering::Relaxed);
        outcome?;
        client.leave()
    }

    fn transactions(&self, client: &mut Client, dice: &mut Dice) -> Result<()> {
        while !self.stop.load(Ordering::Relaxed) {
            sleep(PAUSE.mul_f64(dice.roll(1000) as f64 / 1000.0));
            let account = 1 + dice.roll(ACCOUNTS);
            let start = Instant::now();
            if dice.roll(10) == 0 {
                transfer(client, account)?;
            } else {
                client
                    .ask(&format!("SELECT abalance FROM pgbench_accounts WHERE aid = {account}"))?;
            }
            let micros = u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX);
            if let Ok(mut latencies) = self.latencies.lock() {
                latencies.push(micros);
            }
        }
        Ok(())
    }
}

/// A transaction of several round trips: its server connection must stay the same.
fn transfer(client: &mut Client, account: u64) -> Result<()> {
    client.ask("BEGIN")?;
    client.ask(&format!(
        "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = {account}"
    ))?;
    client.ask(&format!(
        "INSERT INTO pgbench_history (tid, bid, aid, delta) VALUES (1, 1, {account}, 1)"
    ))?;
    client.ask("COMMIT")?;
    Ok(())
}

/// A small generator (xorshift): a demonstration needs variety, not quality.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}
