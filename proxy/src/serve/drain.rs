//! The end of the process: who is still accepted, how long clients have, what is cut.

use std::time::Duration;

use pgimbal_pooler::session::drain::time::DrainTime;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::Workers;
use crate::accept::Accepting;
use crate::admin::collect::ProcessStats;
use crate::admin::console::{ControlRequest, Pace};
use crate::signals::{SignalRequest, Signals};
use crate::worker::Message;

/// Interval at which a drain checks whether all clients have disconnected.
const LOOK: Duration = Duration::from_millis(20);

/// How long clients that are cut off may take to read why.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why the process ends, and so how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// SIGTERM, or SHUTDOWN on the console: clients are let go at this pace.
    Drain(Pace),
    /// SIGUSR2: another process accepts clients now; those of this one are let go as on SIGTERM.
    TakenOver,
    /// SIGINT: at once.
    Stop,
}

/// What the main task is asked for.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) signals: Signals,
    pub(super) control: mpsc::Receiver<ControlRequest>,
}

/// How long clients are accepted, and how long they then have.
#[derive(Clone, Copy, Debug)]
pub(super) struct DrainTimes {
    /// `drain_delay`; not waited for when another process accepts.
    pub(super) delay: Duration,
    /// `shutdown_grace`.
    pub(super) grace: Duration,
}

/// What speeds a drain up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Haste {
    /// SHUTDOWN: those between transactions go at once.
    Quick,
    /// SIGINT: everything ends at once.
    Stop,
}

/// Lets the clients go, closes the listeners meanwhile, and ends the workers.
pub(super) async fn drain(
    workers: Workers,
    ending: Ending,
    accepting: Accepting,
    times: DrainTimes,
    mut requests: Requests,
    process: &ProcessStats,
) {
    let (delay, mut pace) = match ending {
        Ending::Drain(Pace::Unnoticed) => (times.delay, Pace::Unnoticed),
        Ending::Drain(Pace::Quick) => (Duration::ZERO, Pace::Quick),
        Ending::TakenOver => (Duration::ZERO, Pace::Unnoticed),
        Ending::Stop => (Duration::ZERO, Pace::Quick),
    };
    tracing::info!(
        clients = process.clients(),
        drain_delay_seconds = delay.as_secs(),
        grace_seconds = if ending == Ending::Stop { 0 } else { times.grace.as_secs() },
        "shutting down"
    );
    let mut is_stopped = ending == Ending::Stop;
    if !delay.is_zero() {
        tokio::select! {
            () = sleep(delay) => {}
            haste = requests.haste(&workers) => {
                pace = Pace::Quick;
                is_stopped = haste == Haste::Stop;
            }
        }
    }
    drop(accepting);
    let begin = Instant::now();
    let end = begin + if is_stopped { Duration::ZERO } else { times.grace };
    let_go(&workers, begin, if pace == Pace::Quick { begin } else { end });
    while !is_stopped && process.clients_to_drain() > 0 && Instant::now() < end {
        tokio::select! {
            () = sleep_until(end.min(Instant::now() + LOOK)) => {}
            haste = requests.haste(&workers) => {
                is_stopped = haste == Haste::Stop;
                let now = Instant::now();
                let_go(&workers, now, now);
            }
        }
    }
    if !is_stopped {
        cut_off(&workers, process).await;
    }
    workers.end().await;
}

/// Clients go within this time.
fn let_go(workers: &Workers, begin: Instant, end: Instant) {
    let time = DrainTime { begin: begin.into_std(), end: end.into_std() };
    workers.tell_all(|| Message::Drain(time));
}

/// The time is over: tells the clients that are left, and gives them a moment to read it.
async fn cut_off(workers: &Workers, process: &ProcessStats) {
    if process.clients_to_drain() == 0 {
        return;
    }
    tracing::warn!(
        clients = process.clients_to_drain(),
        "shutdown_grace is over: the last clients are cut off"
    );
    workers.tell_all(|| Message::CutOff);
    let end = Instant::now() + FAREWELL;
    while process.clients_to_drain() > 0 && Instant::now() < end {
        sleep(LOOK).await;
    }
}

impl Requests {
    /// Serves what still can be asked for during a drain, until somebody asks to hurry.
    /// Cancel-safe.
    async fn haste(&mut self, workers: &Workers) -> Haste {
        loop {
            tokio::select! {
                signal = self.signals.next() => match signal {
                    SignalRequest::Stop => return Haste::Stop,
                    SignalRequest::Drain => {}
                    SignalRequest::Reload | SignalRequest::TakeOver => {
                        tracing::warn!("shutting down: SIGHUP and SIGUSR2 come too late");
                    }
                },
                Some(request) = self.control.recv() => match request {
                    // Its sender tells the console that the process ends.
                    ControlRequest::Reload(_) => {}
                    ControlRequest::Renew(database, how, reply) => {
                        workers.renew(database.as_ref(), how, &reply);
                    }
                    ControlRequest::ExplainRoute(text, reply) => {
                        workers.explain_route(&text, &reply);
                    }
                    ControlRequest::Shutdown(pace, reply) => {
                        let _ = reply.send(());
                        if pace == Pace::Quick {
                            return Haste::Quick;
                        }
                    }
                },
            }
        }
    }
}
