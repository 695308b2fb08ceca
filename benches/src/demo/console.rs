//! pgimbal's console, as an operator reads it.

use crate::Result;
use crate::client::{Door, Reply};

/// The way to the console.
#[derive(Debug)]
pub struct Console(pub Door);

/// What `SHOW FAILOVERS` says of the latest one.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Failover {
    /// The clients that waited, that were run again, and that were told an error.
    pub counts: [u64; 3],
    /// From where to where.
    pub way: String,
}

impl Console {
    /// The answer to a command.
    ///
    /// # Errors
    /// When the console cannot be reached.
    pub fn ask(&self, command: &str) -> Result<Reply> {
        let mut client = self.0.enter()?;
        let reply = client.question(command)?;
        client.leave()?;
        Ok(reply)
    }

    /// What state a node is in, and why.
    ///
    /// # Errors
    /// When the console cannot be reached.
    pub fn node(&self, name: &str) -> Result<(String, String)> {
        let reply = self.ask("SHOW NODES")?;
        let row = reply.rows.iter().find(|row| reply.field(row, "node") == name);
        let field = |column| row.map(|row| reply.field(row, column).to_owned());
        Ok((field("state").unwrap_or_default(), field("why").unwrap_or_default()))
    }

    /// The latest failover.
    ///
    /// # Errors
    /// When the console cannot be reached.
    pub fn failover(&self) -> Result<Option<Failover>> {
        let reply = self.ask("SHOW FAILOVERS")?;
        // The one of the longest line of history is the latest, whatever the order.
        let latest = reply.rows.iter().max_by_key(|row| reply.field(row, "started").to_owned());
        Ok(latest.map(|row| {
            let count = |column| reply.field(row, column).parse().unwrap_or(0);
            Failover {
                counts: ["held", "rerun", "failed"].map(count),
                way: format!("{} -> {}", reply.field(row, "from"), reply.field(row, "to")),
            }
        }))
    }

    /// The generations of a user's password that are accepted.
    ///
    /// # Errors
    /// When the console cannot be reached.
    pub fn generations(&self, user: &str) -> Result<usize> {
        let reply = self.ask("SHOW CREDENTIALS")?;
        let rows = reply.rows.iter().filter(|row| reply.field(row, "user") == user);
        let told = rows
            .clone()
            .filter_map(|row| reply.field(row, "accepted_generations").parse::<usize>().ok());
        Ok(told.max().unwrap_or(0).max(rows.count()))
    }
}
