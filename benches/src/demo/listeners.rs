//! Clients that listen in transaction mode, and one that notifies them all the time.

use crate::Result;
use crate::client::{Client, Endpoint};
use crate::demo::observations::{Observations, Workload};
use std::collections::HashSet;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle, sleep};
use std::time::{Duration, Instant};

/// How many clients listen.
pub const LISTENERS: u64 = 5;
/// The pause between two notifications.
const PAUSE: Duration = Duration::from_millis(20);
/// PostgreSQL hands a notification on only after its commit: one that is younger than this when the
/// primary dies may have reached nobody.
const ON_ITS_WAY: Duration = Duration::from_secs(1);
/// The payload of the last notification.
const END: &str = "end";

/// What has become of the notifications, each of which is due to every client that listens.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Notifications {
    /// In an unchanged cluster.
    pub calm: Deliveries,
    /// Around a failover, when what the old primary had not handed on is lost, and what is
    /// notified before somebody listens on the new one.
    pub failover: Deliveries,
    /// How many came a second time, or behind a later one.
    pub unordered: u64,
}

/// How many notifications were due, and how many of them came.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Deliveries {
    /// Those of acknowledged statements, once for each client that listens.
    pub due: u64,
    /// Those that the clients have heard.
    pub heard: u64,
}

/// One notification, as its sender knows it.
struct Sent {
    at: Instant,
    acknowledged: bool,
    disturbed: bool,
}

/// Listens and notifies until `stop` is raised, and says what was heard.
///
/// # Errors
/// When a client cannot log in, or the one that notifies loses its connection.
pub fn run(
    endpoint: &Endpoint,
    observations: &Observations,
    stop: &AtomicBool,
) -> Result<Notifications> {
    let mut clients = Vec::new();
    for _ in 0..LISTENERS {
        let mut client = endpoint.log_in()?;
        client.value("LISTEN news")?;
        clients.push(client);
    }
    let mut sender = endpoint.log_in()?;
    thread::scope(|scope| {
        let listening: Vec<_> =
            clients.into_iter().map(|client| scope.spawn(|| hear(client, observations))).collect();
        let is_over = || listening.iter().all(ScopedJoinHandle::is_finished);
        let sent = send(&mut sender, observations, stop, is_over);
        let heard: Vec<Vec<usize>> = listening
            .into_iter()
            .map(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect();
        Ok(compare(&sent?, &heard))
    })
}

/// The numbers of the notifications that a client hears, up to the last one.
fn hear(mut client: Client, observations: &Observations) -> Vec<usize> {
    let mut heard = Vec::new();
    loop {
        match client.notification() {
            Ok(payload) if payload == END => return heard,
            Ok(payload) => heard.push(payload.parse().unwrap_or(usize::MAX)),
            Err(error) => {
                observations.seen().accident(format!("a client that listens: {error}"));
                return heard;
            }
        }
    }
}

/// Notifies, each time with the next number, until `stop` is raised; then with the last
/// notification until it has come everywhere.
fn send(
    sender: &mut Client,
    observations: &Observations,
    stop: &AtomicBool,
    is_over: impl Fn() -> bool,
) -> Result<Vec<Sent>> {
    let mut sent = Vec::new();
    while !stop.load(Ordering::Relaxed) && !is_over() {
        sleep(PAUSE);
        let at = Instant::now();
        let reply = sender.query(&format!("SELECT pg_notify('news', '{}')", sent.len()))?;
        let mut seen = observations.seen();
        let errors = reply.errors();
        match errors.first() {
            Some(error) => seen.refused(Workload::Notifications, &error.code, &error.message),
            None => seen.succeeded(Workload::Notifications, at.elapsed()),
        }
        let (acknowledged, disturbed) = (errors.is_empty(), seen.is_disturbed());
        sent.push(Sent { at, acknowledged, disturbed });
    }
    while !is_over() {
        sender.query(&format!("SELECT pg_notify('news', '{END}')"))?;
        sleep(PAUSE);
    }
    Ok(sent)
}

/// Compares what was notified with what each client has heard.
fn compare(sent: &[Sent], heard: &[Vec<usize>]) -> Notifications {
    let mut all = Notifications::default();
    let sets: Vec<HashSet<usize>> =
        heard.iter().map(|heard| heard.iter().copied().collect()).collect();
    for (number, one) in sent.iter().enumerate().filter(|(_, one)| one.acknowledged) {
        let mut soon = sent[number..].iter().take_while(|next| next.at <= one.at + ON_ITS_WAY);
        let of = if soon.any(|next| next.disturbed) { &mut all.failover } else { &mut all.calm };
        of.due += sets.len() as u64;
        of.heard += sets.iter().filter(|set| set.contains(&number)).count() as u64;
    }
    let unordered = heard.iter().flat_map(|heard| heard.windows(2)).filter(|two| two[0] >= two[1]);
    all.unordered = unordered.count() as u64;
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_told_apart_by_whether_the_primary_was_dying() {
        let start = Instant::now();
        let one = |second: u64, acknowledged, disturbed| Sent {
            at: start + Duration::from_secs(second),
            acknowledged,
            disturbed,
        };
        // The fourth is on its way when the primary dies, the fifth is not acknowledged.
        let mut sent: Vec<Sent> = (0..4).map(|second| one(second, true, false)).collect();
        sent.extend([one(4, false, true), one(6, true, true), one(9, true, false)]);
        let heard = [vec![0, 1, 2, 5, 6], vec![0, 2, 1, 3, 3, 5]];
        let expected = Notifications {
            calm: Deliveries { due: 8, heard: 7 },
            failover: Deliveries { due: 4, heard: 3 },
            unordered: 2,
        };
        assert_eq!(compare(&sent, &heard), expected);
    }
}
