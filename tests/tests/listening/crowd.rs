//! Many clients that listen to few channels, and what each of them must hear.

use std::time::Duration;

use pgimbal_tests::http::metric;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Pgimbal, WireClient};

use super::heard;

/// How many clients listen to how many channels.
pub(crate) const CLIENTS: usize = 2000;
pub(crate) const CHANNELS: usize = 50;
/// How many notifications of a channel a client hears each time, in two transactions.
const ROUNDS: usize = 20;

/// Clients of which the one of number n listens to channel n modulo [`CHANNELS`].
pub(crate) struct Crowd {
    pub(crate) clients: Vec<WireClient>,
}

impl Crowd {
    /// Has all of them log in by `log_in` and listen.
    pub(crate) fn join(log_in: impl Fn() -> WireClient) -> Self {
        let listening = |number: usize| {
            let mut client = log_in();
            client.ok(&format!("listen {}", channel(number)));
            client
        };
        Self { clients: (0..CLIENTS).map(listening).collect() }
    }

    /// Notifies each channel of 20 texts that begin with `name`, through `run`, which runs a SQL
    /// text; all clients must hear those of their channel in order and nothing else.
    pub(crate) fn hears(&mut self, name: &str, run: impl Fn(&str)) {
        for (first, last) in [(1, ROUNDS / 2), (ROUNDS / 2 + 1, ROUNDS)] {
            run(&format!(
                "select pg_notify('c' || c, '{name} ' || n) from generate_series({first}, {last}) \
                 n, generate_series(0, {CHANNELS} - 1) c"
            ));
        }
        for (number, client) in self.clients.iter_mut().enumerate() {
            for n in 1..=ROUNDS {
                let expected = (channel(number), format!("{name} {n}"));
                assert_eq!(next(client), expected, "client {number}");
            }
        }
    }

    /// Waits until all of them hear what is notified, after their connection was lost.
    pub(crate) fn wait_until_it_hears(&self, proxy: &Pgimbal, run: impl Fn(&str)) {
        let told = || metric(&proxy.metrics(), "pgimbal_notifications_total", &[]).unwrap_or(0.0);
        let all = f64::from(u32::try_from(CLIENTS).expect("few"));
        eventually("all clients hear", SOON, || {
            let before = told();
            run(&format!(
                "select pg_notify('c' || c, 'probe') from generate_series(0, {CHANNELS} - 1) c"
            ));
            (0..20).any(|_| {
                told() >= before + all || {
                    std::thread::sleep(Duration::from_millis(10));
                    false
                }
            })
        });
    }
}

/// The channel of a client.
pub(crate) fn channel(number: usize) -> String {
    format!("c{}", number % CHANNELS)
}

/// The next notification that is none of [`Crowd::wait_until_it_hears`].
fn next(client: &mut WireClient) -> (String, String) {
    loop {
        let next = heard(client);
        if next.1 != "probe" {
            return next;
        }
    }
}
