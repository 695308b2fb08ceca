//! A pgimbal that is configured for one figure.

use crate::client::{Door, Reply};
use crate::http::Api;
use crate::place::{Place, free_port};
use crate::postgres::PASSWORD;
use crate::server::Server;
use crate::{Error, Result};
use rustix::process::Signal;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long anything may take that a figure waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running pgimbal.
#[derive(Debug)]
pub struct Instance {
    /// Where clients connect, on 127.0.0.1.
    pub port: u16,
    /// Where its metrics are.
    pub http: Api,
    server: Server,
}

impl Instance {
    /// Starts `program` with this configuration; where it listens and its console are added.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(place: &Place, program: &Path, top: &str, tables: &str) -> Result<Self> {
        let (port, http) = (free_port()?, free_port()?);
        let text = format!(
            "listen = \"127.0.0.1:{port}\"\nhttp_listen = \"127.0.0.1:{http}\"\n\
             max_client_conn = 12000\nadmin_users = [\"ops\"]\n{top}\n\n\
             [users.ops]\npassword = \"{PASSWORD}\"\n\n{tables}"
        );
        let config = place.write(&format!("figure-{port}.toml"), &text)?;
        let mut command = place.command(program);
        command.args(["run", "--config"]).arg(config);
        let log = place.path().join(format!("figure-{port}.log"));
        let server = Server::start("pgimbal", command, &log, port, Signal::INT)?;
        Ok(Self { port, http: Api::new(http, ""), server })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Its last log lines.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.server.log_tail()
    }

    /// The console's answer to a command.
    ///
    /// # Errors
    /// When the console refuses.
    pub fn console(&self, command: &str) -> Result<Reply> {
        let mut client = Door::new(self.port, "ops").to_database("pgimbal").enter()?;
        let reply = client.question(command)?;
        client.leave()?;
        match reply.error {
            Some(error) => Err(Error::Server(format!("{command}: {}", error.message))),
            None => Ok(reply),
        }
    }

    /// The greatest number of a generation of this user's password, and how many are accepted.
    ///
    /// # Errors
    /// When the console refuses.
    pub fn generations(&self, user: &str) -> Result<(u64, usize)> {
        let reply = self.console("SHOW CREDENTIALS")?;
        let mine = reply.rows.iter().filter(|row| reply.field(row, "user") == user);
        let numbers = mine.map(|row| reply.field(row, "generation").parse().unwrap_or(0));
        let numbers: Vec<u64> = numbers.collect();
        Ok((numbers.iter().copied().max().unwrap_or(0), numbers.len()))
    }

    /// Waits until `holds`.
    ///
    /// # Errors
    /// When it never does; the error carries the end of its log.
    pub fn wait(&self, what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<Instant> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if holds()? {
                return Ok(Instant::now());
            }
            sleep(Duration::from_millis(5));
        }
        Err(Error::Program(format!("waited in vain: {what}\n{}", self.log_tail())))
    }
}
