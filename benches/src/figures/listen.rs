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

/// How many clients listen, each to a channel of its own.
const CLIENTS: u32 = 100;
/// How many notifications there are, and in how many transactions: of one, 50 for each client.
const NOTIFICATIONS: u32 = 1_000_000;
const TRANSACTIONS: u32 = 200;
/// Notifications per second that the connection must carry.
const BOUND: f64 = 50_000.0;

/// Measures how fast notifications come to their clients when they are made as fast as PostgreSQL
/// does, and how many are lost or out of order.
///
/// # Errors
/// When a client is refused or its connection ends.
pub fn measure(postgres: &Postgres) -> Result<Vec<Figure>> {
    let config = Config::before(postgres).set("workers", 1).set("pool_size", 5);
    let pgimbal = config.start();
    let endpoint = Endpoint::new(pgimbal.port, ROLE);
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let mut client = endpoint.log_in()?;
        client.discard(&format!("listen c{number}"))?;
        clients.push(client);
    }
    let connections = metric(&pgimbal.metrics(), "pgimbal_servers_listening", &[]);
    let cpu = with_ended_threads(pgimbal.process().id());
    let start = Instant::now();
    let lost = hear(clients, || notify(&Endpoint::new(postgres.port, ROLE)))?;
    let seconds = start.elapsed().as_secs_f64();
    let spent = (with_ended_threads(pgimbal.process().id()) - cpu).as_secs_f64();
    let all = f64::from(NOTIFICATIONS);
    let is_one = connections == Some(1.0) && told(&pgimbal) == Some(all);
    let mut figures = vec![
        Figure::at_least(
            "one connection listens for 100 clients: notifications that come to them",
            "per second",
            BOUND,
            all / seconds,
        ),
        Figure::number("… of 1,000,000, lost or out of order", "notifications", 0.0, lost),
        Figure::number("… CPU time of pgimbal", "us each", 5.0, spent / all * 1e6),
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
fn notify(server: &Endpoint) -> Result<()> {
    let mut notifier = server.log_in()?;
    let each = NOTIFICATIONS / TRANSACTIONS;
    for transaction in 0..TRANSACTIONS {
        let first = transaction * each;
        notifier.discard(&format!(
            "select pg_notify('c' || n % {CLIENTS}, n::text) from generate_series({first}, \
             {first} + {each} - 1) n"
        ))?;
    }
    Ok(())
}

/// Lets the clients hear what `notify` makes. Returns how many notifications were not the next of
/// their channel.
fn hear(clients: Vec<Client>, notify: impl FnOnce() -> Result<()> + Send) -> Result<f64> {
    thread::scope(|scope| {
        let notifier = scope.spawn(notify);
        let hearing = (0..).zip(clients).map(|(number, mut client)| {
            scope.spawn(move || -> Result<u32> {
                let mut wrong = 0;
                for n in (number..NOTIFICATIONS).step_by(CLIENTS as usize) {
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
