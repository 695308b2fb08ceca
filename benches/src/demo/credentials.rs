//! The source of the applications' password, and who rotates it.

use crate::demo::directory::Secret;
use crate::demo::vault::Vault;
use crate::{During, Error, Result};
use pgimbal_tests::Cluster;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize};
use std::time::Duration;

/// The source of the applications' password.
pub enum Credentials {
    /// A real Vault, which rotates the password by itself.
    Vault(Vault),
    /// A watched directory, in which the demonstration rotates the password.
    Directory(Secret),
}

impl Credentials {
    /// Starts a Vault if one is installed, or else makes a directory; the variable
    /// `DEMO_CREDENTIALS` (`vault` or `directory`) chooses one of them. `rotation` is the time
    /// between two rotations.
    ///
    /// # Errors
    /// When the variable has another value, Vault is wanted and missing, or files cannot be
    /// written.
    ///
    /// # Panics
    /// When Vault does not start.
    pub fn start(cluster: &Cluster, rotation: Duration) -> Result<Self> {
        let wanted = std::env::var("DEMO_CREDENTIALS").unwrap_or_default();
        let vault = match wanted.as_str() {
            "" | "vault" => Vault::start(cluster, rotation)?,
            "directory" => None,
            _ => {
                return Err(Error::Program(format!(
                    "DEMO_CREDENTIALS={wanted} is neither vault nor directory"
                )));
            }
        };
        match vault {
            Some(vault) => Ok(Self::Vault(vault)),
            None if wanted == "vault" => {
                Err(Error::Program("there is no Vault: make demo-vault".into()))
            }
            None => Ok(Self::Directory(Secret::start(cluster, rotation)?)),
        }
    }

    /// The name of the source in the report.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Vault(vault) => &vault.version,
            Self::Directory(_) => "a watched directory (make demo-vault builds a Vault first)",
        }
    }

    /// The password with which the applications begin, and which they keep.
    #[must_use]
    pub fn first_password(&self) -> &str {
        match self {
            Self::Vault(vault) => &vault.first_password,
            Self::Directory(directory) => &directory.first_password,
        }
    }

    /// The tables of pgimbal's configuration for this source, the user's table last.
    #[must_use]
    pub fn tables(&self) -> String {
        match self {
            Self::Vault(vault) => vault.tables(),
            Self::Directory(directory) => directory.tables(),
        }
    }

    /// Rotates the password, or watches Vault rotate it, until `stop` is true; counts in
    /// `rotations`. `primary` has the port of the node that is the primary at any time.
    pub fn rotate(&self, primary: &AtomicU16, rotations: &AtomicUsize, stop: &AtomicBool) {
        match self {
            Self::Vault(vault) => vault.watch(rotations, stop),
            Self::Directory(directory) => directory.rotate(primary, rotations, stop),
        }
    }
}

/// Makes a random password.
pub(super) fn random_password() -> Result<String> {
    use std::io::Read;
    let mut bytes = [0; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.during("reading /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
