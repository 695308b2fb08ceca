//! The task that asks the console once a second, and connects again when it is gone.

use std::sync::mpsc::SyncSender;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::console::{Console, ConsoleError};
use super::history::Sample;
use super::pane::Pane;
use super::state::Answer;
use super::table::Table;
use crate::dial::Target;

/// Time between two answers, and between two attempts to connect.
const INTERVAL: Duration = Duration::from_secs(1);

/// What the screen is told.
#[derive(Debug)]
pub(super) enum Event {
    /// There is a connection, to a program of this version with these panes.
    Connected(String, Vec<Pane>),
    /// A pane's table.
    Answer(Answer),
    /// There is no connection, for this reason.
    Lost(String),
    /// A key, or the terminal has another size.
    Terminal(ratatui::crossterm::event::Event),
    /// The program ends, with this exit code.
    End(u8),
}

/// The screen is gone, and nobody takes events any more.
struct Gone;

/// Connects at the first of the targets that leads to a console.
///
/// # Errors
/// The error of the first target.
pub(super) async fn connect(targets: &[Target]) -> Result<Console, ConsoleError> {
    let mut first = None;
    for target in targets {
        match Console::connect(target).await {
            Ok(console) => return Ok(console),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| ConsoleError::Lost("there is nowhere to connect to".to_owned())))
}

/// The panes that the console has: those whose command it does not refuse.
///
/// # Errors
/// [`ConsoleError`] when the connection is lost.
pub(super) async fn panes(console: &mut Console) -> Result<Vec<Pane>, ConsoleError> {
    let mut panes = Vec::new();
    for pane in Pane::ALL {
        match console.ask(pane.command()).await {
            Ok(answer) if pane.is_in(&answer) => panes.push(pane),
            Ok(_) | Err(ConsoleError::Refused(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(panes)
}

/// Tells the screen of `console` and of those that follow it, until the screen is gone or a signal
/// ends the program: SIGTERM, SIGINT or SIGHUP, with the exit code of a shell, 128 and the signal's
/// number. `wanted` is the pane that is shown.
pub(super) async fn run(
    targets: Vec<Target>,
    console: Console,
    mut wanted: watch::Receiver<Pane>,
    screen: SyncSender<Event>,
) {
    let tell = |event| screen.send(event).map_err(|_| Gone);
    let asking = async {
        let mut next = Some(console);
        loop {
            let outcome = match next.take() {
                Some(mut console) => follow(&mut console, &mut wanted, &tell).await?,
                None => match connect(&targets).await {
                    Ok(console) => {
                        next = Some(console);
                        continue;
                    }
                    Err(error) => error,
                },
            };
            tell(Event::Lost(outcome.to_string()))?;
            tokio::time::sleep(INTERVAL).await;
        }
    };
    let end = tokio::select! {
        outcome = asking => {
            let (Ok(()) | Err(Gone)) = outcome;
            0
        }
        number = signals() => 128 + number,
    };
    // Without a screen there is nothing to end.
    let _ = screen.send(Event::End(end));
}

/// Asks until the console does not answer any more, and returns why.
async fn follow(
    console: &mut Console,
    wanted: &mut watch::Receiver<Pane>,
    tell: &impl Fn(Event) -> Result<(), Gone>,
) -> Result<ConsoleError, Gone> {
    match panes(console).await {
        Ok(panes) => tell(Event::Connected(console.version().to_owned(), panes))?,
        Err(error) => return Ok(error),
    }
    loop {
        let pane = *wanted.borrow_and_update();
        match answer(console, pane).await {
            Ok(answer) => tell(Event::Answer(answer))?,
            // The screen has not seen yet which panes there are.
            Err(ConsoleError::Refused(_)) => {}
            Err(error) => return Ok(error),
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            changed = wanted.changed() => changed.map_err(|_| Gone)?,
        }
    }
}

async fn answer(console: &mut Console, pane: Pane) -> Result<Answer, ConsoleError> {
    let pools = console.ask(Pane::Pools.command()).await?;
    let stats = console.ask(Pane::Stats.command()).await?;
    let sample = Sample::of(&pools, &stats);
    let table: Table = match pane {
        Pane::Pools => pools,
        Pane::Stats => stats,
        pane => console.ask(pane.command()).await?,
    };
    Ok(Answer { pane, table: pane.of(&table), sample })
}

/// The number of the first signal that ends the program.
async fn signals() -> u8 {
    let ended = async |kind: SignalKind| match signal(kind) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        // The signal then ends the process at once.
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = ended(SignalKind::hangup()) => 1,
        () = ended(SignalKind::interrupt()) => 2,
        () = ended(SignalKind::terminate()) => 15,
    }
}
