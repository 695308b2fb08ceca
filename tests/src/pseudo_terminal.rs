//! A program on a pseudo-terminal, with what its screen shows.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::OpenptFlags;
use rustix::termios::{LocalModes, Winsize};

use crate::until::eventually;

/// Time limit for a screen that shows what it should.
const LIMIT: Duration = Duration::from_secs(60);

/// A program on a pseudo-terminal of its own. It is killed when this is dropped.
pub struct PseudoTerminal {
    child: Child,
    program: File,
    /// The program's side, kept open so that its settings can be read after the program's end.
    other_side: OwnedFd,
    screen: Arc<Mutex<Screen>>,
}

struct Screen {
    parser: vt100::Parser,
    bytes: Vec<u8>,
}

impl PseudoTerminal {
    /// Starts the program with its arguments and environment, as the leader of a session whose
    /// terminal has this many rows and columns.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(command: &Command, rows: u16, columns: u16) -> Self {
        let program = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)
            .and_then(|fd| rustix::pty::grantpt(&fd).map(|()| fd))
            .and_then(|fd| rustix::pty::unlockpt(&fd).map(|()| fd))
            .expect("a pseudo-terminal");
        let name = rustix::pty::ptsname(&program, Vec::new()).expect("its name");
        let other_side = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty())
            .expect("its other side");
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&other_side, size).expect("its size");
        let side = || other_side.try_clone().expect("a handle");
        // Without a terminal of its own it would find that of the tests.
        let mut started = Command::new("setsid");
        started.arg("--ctty").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => started.env(name, value),
                None => started.env_remove(name),
            };
        }
        let child = started
            .env("TERM", "xterm-256color")
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .expect("setsid");
        let parser = vt100::Parser::new(rows, columns, 0);
        let screen = Arc::new(Mutex::new(Screen { parser, bytes: Vec::new() }));
        let program = File::from(program);
        let (reader, shown) = (program.try_clone().expect("a handle"), Arc::clone(&screen));
        std::thread::spawn(move || follow(reader, &shown));
        Self { child, program, other_side, screen }
    }

    /// The lines of the screen.
    #[must_use]
    pub fn text(&self) -> String {
        self.screen.lock().expect("the screen").parser.screen().contents()
    }

    /// All bytes that the program has written, as text.
    #[must_use]
    pub fn written(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().expect("the screen").bytes).into_owned()
    }

    /// Waits until the screen is as `condition` wants it.
    ///
    /// # Panics
    /// When it is not within a minute; the message has the screen and `what`.
    pub fn wait_for(&self, what: &str, condition: impl Fn(&str) -> bool) {
        let start = std::time::Instant::now();
        while !condition(&self.text()) {
            assert!(start.elapsed() < LIMIT, "{what} is not shown:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the screen holds `text`.
    ///
    /// # Panics
    /// As for [`Self::wait_for`].
    pub fn wait_for_text(&self, text: &str) {
        self.wait_for(text, |screen| screen.contains(text));
    }

    /// Presses keys, given as the bytes that a terminal sends for them.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn press(&self, keys: &str) {
        (&self.program).write_all(keys.as_bytes()).expect("the keys");
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Waits until the program ends, and returns its status.
    ///
    /// # Panics
    /// When it does not within a minute.
    pub fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the program ends", LIMIT, || {
            status = self.child.try_wait().expect("wait");
            status.is_some()
        });
        status.expect("a status")
    }

    /// Whether the terminal echoes what is typed and waits for whole lines, as a shell needs it.
    ///
    /// # Panics
    /// When the terminal does not tell.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        let settings = rustix::termios::tcgetattr(&self.other_side).expect("its settings");
        settings.local_modes.contains(LocalModes::ECHO | LocalModes::ICANON)
    }

    /// Waits until the screen is the usual one, with the cursor, and the settings are usual too.
    ///
    /// # Panics
    /// When this is not so within a minute.
    pub fn wait_until_restored(&self) {
        eventually("the terminal is given back", LIMIT, || {
            let screen = self.screen.lock().expect("the screen");
            let shown = screen.parser.screen();
            !shown.alternate_screen() && !shown.hide_cursor() && self.is_usual()
        });
    }
}

impl Drop for PseudoTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends when nobody has the terminal open any more.
fn follow(mut reader: File, screen: &Mutex<Screen>) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = reader.read(&mut bytes) {
        let mut screen = screen.lock().expect("the screen");
        screen.parser.process(&bytes[..count]);
        screen.bytes.extend_from_slice(&bytes[..count]);
    }
}
