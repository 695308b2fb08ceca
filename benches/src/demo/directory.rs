//! A directory with a password, as a mounted Secret is one, and its rotation.

use crate::client::Door;
use crate::demo::APPLICATION;
use crate::demo::cluster::Cluster;
use crate::demo::credentials::random_password;
use crate::place::Place;
use crate::postgres::ROLE;
use crate::{During, Error, Result};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The directory.
pub struct Directory {
    /// The password at the start.
    pub first_password: String,
    folder: PathBuf,
    period: Duration,
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Directory({})", self.folder.display())
    }
}

impl Directory {
    /// Makes the directory and gives the role its first password.
    ///
    /// # Errors
    /// When that fails.
    pub fn start(place: &Place, cluster: &Cluster, period: Duration) -> Result<Self> {
        let folder = place.folder("secret")?;
        let first_password = random_password()?;
        alter_role(cluster.nodes[0].port, &first_password)?;
        place.write("secret/password", &first_password)?;
        Ok(Self { first_password, folder, period })
    }

    /// pgimbal's tables for it.
    #[must_use]
    pub fn tables(&self) -> String {
        format!("[users.{APPLICATION}]\npassword_file = \"{}\"\n", self.folder.display())
    }

    /// Gives the role another password each period, first on the server, then in the directory.
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
        let metadata = fs::metadata(&file).during("looking at the password's file")?;
        fs::write(&next, password).during("writing a password")?;
        fs::set_permissions(&next, metadata.permissions()).during("setting permissions")?;
        // Its readers run as the servers' user.
        use std::os::unix::fs::MetadataExt;
        std::os::unix::fs::chown(&next, Some(metadata.uid()), Some(metadata.gid()))
            .during("giving the password's file away")?;
        fs::rename(&next, &file).during("replacing a password")
    }
}

fn alter_role(port: u16, password: &str) -> Result<()> {
    let mut client = Door::new(port, ROLE).to_database("postgres").enter()?;
    let reply = client.question(&format!("ALTER ROLE {APPLICATION} PASSWORD '{password}'"))?;
    if let Some(error) = reply.error {
        return Err(Error::Server(error.message));
    }
    client.leave()
}
