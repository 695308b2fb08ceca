//! The key from which users' salts are made.

use std::io;
use std::path::Path;

use pgimbal_auth::verifier::SaltKey;
use pgimbal_config::Config;
use tracing::error;

use crate::state_dir;

const FILE: &str = "salt-key";

/// The configured key, else the one kept in `state_dir`, else a random one. It must outlive
/// reloads: with it a user's salt stays the same.
#[must_use]
pub fn salt_key(config: &Config) -> SaltKey {
    let credentials = &config.credentials;
    if let Some(key) = &credentials.deployment_key {
        return SaltKey::of_deployment(key);
    }
    let Some(state_dir) = &credentials.state_dir else { return SaltKey::new(rand::random()) };
    kept(state_dir).unwrap_or_else(|cause| {
        let path = state_dir.join(FILE);
        error!(
            "{}: {cause}; salts are new, so the verifiers of the history are worth nothing to \
             users without one",
            path.display()
        );
        SaltKey::new(rand::random())
    })
}

/// The key in the file, made if there is none.
fn kept(state_dir: &Path) -> io::Result<SaltKey> {
    let path = state_dir.join(FILE);
    if let Some(bytes) = state_dir::read(&path)? {
        let key: [u8; 32] = (**bytes)
            .try_into()
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not a key of 32 bytes"))?;
        return Ok(SaltKey::new(key));
    }
    let key: [u8; 32] = rand::random();
    state_dir::write(&path, &key)?;
    Ok(SaltKey::new(key))
}
