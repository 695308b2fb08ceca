//! A real Vault (or OpenBao) in memory, whose database secrets engine rotates the applications'
//! role.

use crate::demo::APPLICATION;
use crate::{During, Result};
use pgimbal_tests::Cluster;
use pgimbal_tests::vault::{Vault as Server, find_program};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

/// A running Vault, which ends when this is dropped.
pub struct Vault {
    /// The version that the program prints.
    pub version: String,
    /// The password that Vault gave the role at first, before any rotation that is counted.
    pub first_password: String,
    server: Server,
}

impl Vault {
    /// Starts Vault, and has it rotate the role every `period`; `None` when no Vault is installed.
    ///
    /// # Errors
    /// When its program does not run.
    ///
    /// # Panics
    /// When it does not start or refuses a request.
    pub fn start(cluster: &Cluster, period: Duration) -> Result<Option<Self>> {
        let Some(program) = find_program() else { return Ok(None) };
        let said =
            Command::new(program).arg("version").output().during("asking Vault's version")?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        // `Vault v1.21.0`, without what follows.
        let words: Vec<&str> = said.split_whitespace().take(2).collect();
        let version = format!("a real Vault ({})", words.join(" ").trim_end_matches(','));
        let server = Server::start();
        // The replica first, so that the old primary is not taken for the new one when it returns.
        server.serve_any(&[cluster.nodes[1].port, cluster.nodes[0].port]);
        server.static_role(APPLICATION, u32::try_from(period.as_secs()).unwrap_or(u32::MAX));
        let first_password = server.role(APPLICATION).password;
        Ok(Some(Self { version, first_password, server }))
    }

    /// The tables of pgimbal's configuration for this Vault.
    #[must_use]
    pub fn tables(&self) -> String {
        let vault = self.server.table(&self.server.reader());
        format!("{vault}\n[users.{APPLICATION}]\nvault_role = \"{APPLICATION}\"\n")
    }

    /// Counts Vault's rotations in `rotations` until `stop` is true.
    pub fn watch(&self, rotations: &AtomicUsize, stop: &AtomicBool) {
        let mut last = self.first_password.clone();
        while !stop.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(200));
            if let Some(role) = self.server.try_role(APPLICATION)
                && role.password != last
            {
                rotations.fetch_add(1, Ordering::Relaxed);
                last = role.password;
            }
        }
    }
}
