//! The figure of one connection that listens for many clients.

use crate::client::{Client, Endpoint};
use crate::figures::Figure;
use crate::postgres::ROLE;
use crate::usage::with_ended_threads;
use crate::{Error, Result};
use pgimbal_tests::http::metric;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::{Pgimbal, Postgres};
use std::thread;
use std::time::Instant;

/// How many clients listen.
const CLIENTS: u32 = 100;
/// How many transactions make a load's notifications.
const TRANSACTIONS: u32 = 200;
/// Notifications per second that the connection must carry.
const BOUND: f64 = 50_000.0;

/// Who hears the notifications of a load.
#[derive(Clone, Copy)]
enum Load {
    /// Each client has a channel of its own, and each transaction notifies all of them.
    OneClient,
    /// All clients have one channel.
    AllClients,
}

impl Load {
    /// How many notifications there are.
    const fn notifications(self) -> u32 {
        match self {
            Self::OneClient => 1_000_000,
            Self::AllClients => 100_000,
        }
    }

    /// The channel of a client.
    fn channel(self, client: u32) -> String {
        match self {
            Self::OneClient => format!("c{client}"),
            Self::AllClients => "everybody".to_owned(),
        }
    }

    /// The channel of the notification `n`, in SQL.
    fn notified(self) -> String {
        match self {
            Self::OneClient => format!("'c' || n % {CLIENTS}"),
            Self::AllClients => "'everybody'".to_owned(),
        }
    }

    /// The notifications that a client hears, in their order.
    fn heard_by(self, client: u32) -> impl Iterator<Item = u32> {
        let (first, step) = match self {
            Self::OneClient => (client, CLIENTS as usize),
            Self::AllClients => (0, 1),
        };
        (first..self.notifications()).step_by(step)
    }
}

/// Measures how fast notifications come to their clients when they are made as fast as PostgreSQL
/// does, and how many are lost or out of order: to one client each, and to all of them.
///
/// # Errors
/// When a client is refused or its connection ends.
pub fn measure(postgres: &Postgres) -> Result<Vec<Figure>> {
    let mut figures = run(postgres, Load::OneClient, "each to one client")?;
    figures.extend(run(postgres, Load::AllClients, "each to all clients")?);
    Ok(figures)
}

fn run(postgres: &Postgres, load: Load, named: &str) -> Result<Vec<Figure>> {
    let config = Config::before(postgres).set("workers", 1).set("pool_size", 5);
    let pgimbal = config.start();
    let endpoint = Endpoint::new(pgimbal.port, ROLE);
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let mut client = endpoint.log_in()?;
        client.discard(&format!("listen {}", load.channel(number)))?;
        clients.push(client);
    }
    let connections = metric(&pgimbal.metrics(), "pgimbal_servers_listening", &[]);
    let cpu = with_ended_threads(pgimbal.process().id());
    let start = Instant::now();
    let lost = hear(clients, load, || notify(&Endpoint::new(postgres.port, ROLE), load))?;
    let seconds = start.elapsed().as_secs_f64();
    let spent = (with_ended_threads(pgimbal.process().id()) - cpu).as_secs_f64();
    let all = f64::from(load.notifications());
    let told_of: f64 = (0..CLIENTS).map(|client| load.heard_by(client).count() as f64).sum();
    let is_one = connections == Some(1.0) && told(&pgimbal) == Some(told_of);
    let mut figures = vec![
        Figure::at_least(
            &format!("one connection listens for 100 clients: notifications, {named}"),
            "per second",
            BOUND,
            all / seconds,
        ),
        Figure::number(
            &format!("… of {told_of} that clients must hear, lost or out of order"),
            "notifications",
            0.0,
            lost,
        ),
        Figure::number("… CPU time of pgimbal for each heard", "us", 5.0, spent / told_of * 1e6),
    ];
    if !is_one {
        figures.push(Figure::missing("LISTEN", "it was not one connection that carried them"));
    }
    Ok(figures)
}

/// How many notifications pgimbal says to have told clients of.
fn told(pgimbal: &Pgimbal) -> Option<f64> {
    metric(&pgimbal.metrics(), "pgimbal_notifications_total", &[])
}

/// Makes the notifications: the numbers of each channel in order.
fn notify(server: &Endpoint, load: Load) -> Result<()> {
    let mut notifier = server.log_in()?;
    let channel = load.notified();
    let each = load.notifications() / TRANSACTIONS;
    for transaction in 0..TRANSACTIONS {
        let first = transaction * each;
        notifier.discard(&format!(
            "select pg_notify({channel}, n::text) from generate_series({first}, {first} + {each} \
             - 1) n"
        ))?;
    }
    Ok(())
}

/// Lets the clients hear what `notify` makes. Returns how many notifications were not the next of
/// their channel.
fn hear(
    clients: Vec<Client>,
    load: Load,
    notify: impl FnOnce() -> Result<()> + Send,
) -> Result<f64> {
    thread::scope(|scope| {
        let notifier = scope.spawn(notify);
        let hearing = (0..).zip(clients).map(|(number, mut client)| {
            scope.spawn(move || -> Result<u32> {
                let mut wrong = 0;
                for n in load.heard_by(number) {
                    wrong += u32::from(client.notification()? != n.to_string());
                }
                Ok(wrong)
            })
        });
        let hearing: Vec<_> = hearing.collect();
        let panicked = |_| Error::Program("a client of the load".to_owned());
        let mut wrong = 0;
        for client in hearing {
            wrong += client.join().map_err(panicked)??;
        }
        notifier.join().map_err(panicked)??;
        Ok(f64::from(wrong))
    })
}
