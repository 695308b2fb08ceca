//! The question for a password at the terminal.

use std::io::{self, Write};

use pgimbal_config::Secret;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Asks for the user's password on standard error and reads it from the terminal at standard input,
/// without echo. `None` when standard input is no terminal.
///
/// # Errors
/// Of the terminal.
pub(super) fn password(user: &str) -> io::Result<Option<Secret>> {
    let stdin = io::stdin();
    let Ok(before) = tcgetattr(&stdin) else { return Ok(None) };
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    silent.local_modes.insert(LocalModes::ECHONL);
    eprint!("Password for user {user}: ");
    io::stderr().flush()?;
    let _restore = Restore(before);
    tcsetattr(&stdin, OptionalActions::Flush, &silent)?;
    let mut line = String::new();
    stdin.read_line(&mut line)?;
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Ok(Some(Secret::new(line)))
}

/// Gives the terminal its echo back.
struct Restore(Termios);

impl Drop for Restore {
    fn drop(&mut self) {
        // Nothing is left to do where the terminal is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}
