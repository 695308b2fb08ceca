//! `pgimbal top`: the console of a pgimbal or a PgBouncer, live on a terminal.
//!
//! This module owns the order of steps; `state` has what is shown, `render` draws it.

mod console;
mod history;
mod pane;
mod place;
mod poll;
mod prompt;
mod render;
mod screen;
mod state;
mod table;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use pgimbal_auth::server_login::ServerLoginError;
use tokio::runtime::Runtime;

pub use pane::Pane;
pub use place::Place;

use console::{Console, ConsoleError};
use render::Theme;
use state::State;
use table::harmless;

use crate::dial::{DialError, DialFault, Target};
use crate::serve::environment;

/// How the console is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopOptions {
    /// The table that is shown first, or alone.
    pub pane: Pane,
    /// Whether it is printed once, as where standard output is no terminal.
    pub is_once: bool,
}

/// Shows the console at `place` until a key or signal ends it, or prints one table. The password
/// comes from the place, from libpq's variables and files, or else from the terminal. The exit code
/// is 0, 1 when the console cannot be reached at the start, and 128 and the number of a signal.
#[must_use]
pub fn run(place: &Place, options: TopOptions) -> ExitCode {
    let shown = || -> Result<ExitCode, String> {
        let mut targets = place.targets(environment()).map_err(|error| error.to_string())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let console = log_in(&runtime, &mut targets).map_err(|error| error.to_string())?;
        if options.is_once || !io::stdout().is_terminal() {
            return print(&runtime, console, options.pane).map_err(|error| error.to_string());
        }
        let at = targets.first().map(|target| format!("{}:{}", target.host, target.port));
        let state = State::new(harmless(at.unwrap_or_default().as_bytes()), options.pane);
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let theme = Theme { has_colours: !no_color };
        screen::run(runtime, targets, console, state, theme).map_err(|error| error.to_string())
    };
    shown().unwrap_or_else(|error| {
        eprintln!("pgimbal top: {error}");
        ExitCode::FAILURE
    })
}

/// Connects, and asks for a password when one is needed and none is known.
fn log_in(runtime: &Runtime, targets: &mut [Target]) -> Result<Console, ConsoleError> {
    match runtime.block_on(poll::connect(targets)) {
        Err(ConsoleError::Dial(error)) if needs_password(&error) => {
            let user = targets.first().map(|target| harmless(target.user.as_bytes()));
            let asked = prompt::password(&user.unwrap_or_default());
            let asked = asked.map_err(|error| ConsoleError::Lost(error.to_string()))?;
            let Some(password) = asked else { return Err(error.into()) };
            for target in &mut *targets {
                target.password = Some(password.clone());
            }
            runtime.block_on(poll::connect(targets))
        }
        outcome => outcome,
    }
}

fn needs_password(error: &DialError) -> bool {
    matches!(error.fault(), DialFault::Login(ServerLoginError::NoPassword(_)))
}

/// Prints a pane's table.
fn print(runtime: &Runtime, mut console: Console, pane: Pane) -> Result<ExitCode, ConsoleError> {
    let answer = runtime.block_on(console.ask(pane.command()))?;
    if !pane.is_in(&answer) {
        let text = format!("{} has no table \"{}\"", console.version(), pane.name());
        return Err(ConsoleError::Refused(text));
    }
    // Whoever reads may have read enough.
    let _ = io::stdout().write_all(pane.of(&answer).to_string().as_bytes());
    Ok(ExitCode::SUCCESS)
}
