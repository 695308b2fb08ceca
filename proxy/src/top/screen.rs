//! The terminal: taken at the start, given back however the program ends.

use std::io;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::console::Console;
use super::pane::Pane;
use super::poll::{self, Event};
use super::render::{self, Theme};
use super::state::{Outcome, State};
use crate::dial::Target;

/// Events that may wait for the screen; who sends more waits.
const EVENTS: usize = 64;

/// Shows the console until a key or a signal ends it, and gives the terminal back. A panic gives it
/// back too, before it is printed.
///
/// # Errors
/// Of the terminal.
pub(super) fn run(
    runtime: Runtime,
    targets: Vec<Target>,
    console: Console,
    mut state: State,
    theme: Theme,
) -> io::Result<ExitCode> {
    let (send, events) = sync_channel(EVENTS);
    let (want, wanted) = watch::channel(state.selected());
    let terminal = ratatui::try_init()?;
    let keys = EndsWithThread(send.clone());
    std::thread::spawn(move || read_keys(&keys.0));
    let asks = EndsWithThread(send);
    std::thread::spawn(move || {
        runtime.block_on(poll::run(targets, console, wanted, asks.0.clone()));
    });
    let outcome = show(terminal, &events, &want, &mut state, theme);
    ratatui::try_restore()?;
    outcome
}

/// Ends the screen when the thread that owns this ends, by a panic too.
struct EndsWithThread(SyncSender<Event>);

impl Drop for EndsWithThread {
    fn drop(&mut self) {
        // A full queue means that the screen ends already, or still has something to show.
        let _ = self.0.try_send(Event::End(1));
    }
}

fn read_keys(screen: &SyncSender<Event>) {
    while let Ok(event) = event::read() {
        if screen.send(Event::Terminal(event)).is_err() {
            return;
        }
    }
}

fn show(
    mut terminal: DefaultTerminal,
    events: &Receiver<Event>,
    want: &watch::Sender<Pane>,
    state: &mut State,
    theme: Theme,
) -> io::Result<ExitCode> {
    let start = Instant::now();
    loop {
        terminal.draw(|frame| render::render(frame, state, theme))?;
        // Both threads send an end before they let go of the queue.
        let Ok(event) = events.recv() else { return Ok(ExitCode::FAILURE) };
        match event {
            Event::Connected(version, panes) => state.handle_connected(version, panes),
            Event::Answer(answer) => state.handle_answer(answer, start.elapsed()),
            Event::Lost(why) => state.handle_lost(why),
            Event::End(code) => return Ok(ExitCode::from(code)),
            Event::Terminal(event::Event::Key(key)) if key.is_press() => {
                if state.handle_key(key) == Outcome::Quit {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            Event::Terminal(_) => {}
        }
        want.send_if_modified(|pane| std::mem::replace(pane, state.selected()) != state.selected());
    }
}
