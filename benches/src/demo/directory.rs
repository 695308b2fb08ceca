//! A directory with a password, laid out as a mounted Kubernetes Secret, and its rotation.

use crate::demo::APPLICATION;
use crate::demo::credentials::random_password;
use crate::{During, Error, Result};
use pgimbal_tests::process::{Directory, directory};
use pgimbal_tests::{Cluster, Login, WireClient};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A watched directory with the password of [`APPLICATION`].
pub struct Secret {
    /// The password that the role had at the start, before any rotation.
    pub first_password: String,
    folder: Directory,
    period: Duration,
}

impl Secret {
    /// Makes the directory, and gives the role its first password on the server. `period` is the
    /// time between two rotations.
    ///
    /// # Errors
    /// When the directory or its files cannot be written.
    pub fn start(cluster: &Cluster, period: Duration) -> Result<Self> {
        let first_password = random_password()?;
        let secret = Self { first_password, folder: directory("secret"), period };
        alter_role(cluster.nodes[0].port, &secret.first_password)?;
        secret.put(&secret.first_password)?;
        Ok(secret)
    }

    /// The tables of pgimbal's configuration for this directory.
    #[must_use]
    pub fn tables(&self) -> String {
        format!("[users.{APPLICATION}]\npassword_file = \"{}\"\n", self.folder.display())
    }

    /// Rotates the role's password once each period until `stop` is true: first on the node at port
    /// `primary`, then in the directory. Counts in `rotations`.
    pub fn rotate(&self, primary: &AtomicU16, rotations: &AtomicUsize, stop: &AtomicBool) {
        let mut next = Instant::now() + self.period;
        while !stop.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(50));
            if Instant::now() < next {
                continue;
            }
            // A password whose ALTER ROLE has no answer is tried again, not given up: it may
            // be the one that the server has.
            let Ok(password) = random_password() else { continue };
            while !stop.load(Ordering::Relaxed) {
                let done = alter_role(primary.load(Ordering::Relaxed), &password);
                if done.and_then(|()| self.put(&password)).is_ok() {
                    rotations.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                sleep(Duration::from_millis(200));
            }
            next += self.period;
        }
    }

    fn put(&self, password: &str) -> Result<()> {
        let (file, next) = (self.folder.join("password"), self.folder.join(".password.next"));
        fs::write(&next, password).during("writing a password")?;
        fs::rename(&next, &file).during("replacing a password")
    }
}

/// Changes the role's password on the node at `port`.
fn alter_role(port: u16, password: &str) -> Result<()> {
    let mut client = WireClient::try_tcp(port).during("connecting to a node")?;
    client
        .log_in(&Login::new("postgres", "app", ""))
        .map_err(|told| Error::Server(format!("{told:?}")))?;
    let sql = format!("alter role {APPLICATION} password '{password}'");
    let reply = client.try_query(&sql).during("changing a password")?;
    match reply.errors().pop() {
        Some(error) => Err(Error::Server(error.message)),
        None => Ok(()),
    }
}
