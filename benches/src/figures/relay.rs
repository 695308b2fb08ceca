//! A relay in front of a server, which can swallow all bytes as a broken network does, its sockets
//! left open.

use crate::{During, Result};
use pgimbal_tests::port::free_port;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

/// A TCP relay to one server; its threads end with the process.
#[derive(Debug)]
pub struct Relay {
    /// The port on 127.0.0.1 on which the relay listens.
    pub port: u16,
    swallows: Arc<AtomicBool>,
}

impl Relay {
    /// Starts a relay to the server at `target`, a port on 127.0.0.1.
    ///
    /// # Errors
    /// When the relay cannot listen, or its thread cannot be started.
    pub fn start(target: u16) -> Result<Self> {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).during("listening as a relay")?;
        let swallows = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&swallows);
        let accept = move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                let pairs = [(client.try_clone(), server.try_clone()), (Ok(server), Ok(client))];
                for (from, to) in pairs {
                    let (Ok(from), Ok(to)) = (from, to) else { continue };
                    let swallows = Arc::clone(&shared);
                    thread::spawn(move || pump(from, to, &swallows));
                }
            }
        };
        thread::Builder::new().spawn(accept).during("starting a thread")?;
        Ok(Self { port, swallows })
    }

    /// Sets whether the relay swallows everything from now on. Swallowed bytes come through when it
    /// ends, as TCP would send them again.
    pub fn swallow(&self, all: bool) {
        self.swallows.store(all, Ordering::Relaxed);
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, swallows: &AtomicBool) {
    let _ = to.set_nodelay(true);
    let mut buffer = [0; 16 * 1024];
    while let Ok(count) = from.read(&mut buffer) {
        while swallows.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(1));
        }
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
