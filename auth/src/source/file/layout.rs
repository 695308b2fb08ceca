//! The layout of password files: their names and their content.

use std::fs;
use std::path::{Path, PathBuf};

use pgimbal_config::Secret;

use super::read::{read_as, read_secret};
use crate::{SourceError, SourcePassword};

/// The link that a Kubernetes volume swaps to replace all its files at once.
const DATA: &str = "..data";
/// The names of files in a directory that hold a password or user name, as External Secrets,
/// CloudNativePG and people call them.
pub(super) const NAMES: [&str; 7] =
    ["password", "username", "user", "pgpass", ".pgpass", "uri", DATA];
/// A Kubernetes volume is replaced once a minute at most.
const ATTEMPTS: u32 = 3;

/// Reads the password of `user` from the file or directory at `path`. Blocks on the file system.
pub(super) fn answer(path: &Path, user: &str) -> Result<SourcePassword, SourceError> {
    if !path.is_dir() {
        return file(path, read_secret(path)?, user);
    }
    for _ in 0..ATTEMPTS {
        // All files out of one generation: a password must not meet another one's username.
        let generation = fs::canonicalize(path.join(DATA)).ok();
        let root = generation.as_deref().unwrap_or(path);
        let found = directory(root, path, user);
        if fs::canonicalize(path.join(DATA)).ok() == generation {
            return found;
        }
    }
    Err(half_written(path.to_owned(), "it was replaced each time it was read"))
}

/// Reads the files of `root`; errors call it `shown`.
fn directory(root: &Path, shown: &Path, user: &str) -> Result<SourcePassword, SourceError> {
    let read = |name: &str| match read_as(&root.join(name), &shown.join(name)) {
        Err(SourceError::MissingFile { .. }) => Ok(None),
        found => found.map(Some),
    };
    let mut username = read("username")?;
    if username.is_none() {
        username = read("user")?;
    }
    if let Some(password) = read("password")? {
        let mut answer =
            SourcePassword::new(&shown.join("password").display().to_string(), password)?;
        answer.username = username.map(|name| name.expose().into());
        return Ok(answer);
    }
    for name in ["pgpass", ".pgpass", "uri"] {
        if let Some(text) = read(name)? {
            return file(&shown.join(name), text, user);
        }
    }
    if username.is_some() {
        return Err(half_written(shown.join("password"), "there is a username and no password"));
    }
    let location = format!("{}: password, pgpass, .pgpass, uri", shown.display());
    Err(SourceError::MissingFile { location: location.into() })
}

/// Reads a file's text: a libpq password file by its name, a connection URI by its beginning, else
/// the text is the password.
fn file(path: &Path, text: Secret, user: &str) -> Result<SourcePassword, SourceError> {
    let location = path.display().to_string();
    let malformed = |cause: String| SourceError::Malformed {
        location: location.as_str().into(),
        cause: cause.into(),
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.ends_with("pgpass") || name.ends_with("pgpass.conf") {
        let password = pgimbal_config::password_in_pgpass(text.expose(), user)
            .ok_or_else(|| malformed(format!("no line in it is for user \"{user}\"")))?;
        return SourcePassword::new(&location, password);
    }
    if ["postgres://", "postgresql://"].iter().any(|scheme| text.expose().starts_with(scheme)) {
        let (username, password) =
            pgimbal_config::credentials_in_uri(text.expose()).map_err(malformed)?;
        let password = password.ok_or_else(|| malformed("its URI has no password".to_owned()))?;
        let mut answer = SourcePassword::new(&location, password)?;
        answer.username = username.map(|name| name.expose().into());
        return Ok(answer);
    }
    SourcePassword::new(&location, text)
}

fn half_written(path: PathBuf, cause: &'static str) -> SourceError {
    SourceError::HalfWritten { location: path.display().to_string().into(), cause }
}

#[cfg(test)]
mod tests;
