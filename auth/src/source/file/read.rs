//! Reading a small file that may be in the middle of being written.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use pgimbal_config::Secret;
use zeroize::{Zeroize, Zeroizing};

use crate::SourceError;

/// Size limit of a file in bytes: room for the longest password that can be sent, or a few hundred
/// lines of a password file.
const MAX_FILE: u64 = 128 << 10;

/// The text of the file at `path`, without one line end at its end.
pub(crate) fn read_secret(path: &Path) -> Result<Secret, SourceError> {
    read_as(path, path)
}

/// As [`read_secret`], with errors that name the path `shown`.
pub(super) fn read_as(path: &Path, shown: &Path) -> Result<Secret, SourceError> {
    let location = || shown.display().to_string().into();
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => SourceError::MissingFile { location: location() },
        _ => SourceError::Unreadable { location: location(), cause: error.to_string().into() },
    };
    // Before it is opened: opening a pipe would wait for its writer.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        let cause = "it is not a plain file".into();
        return Err(SourceError::Unreadable { location: location(), cause });
    }
    let mut file = File::open(path).map_err(failed)?;
    let before = file.metadata().map_err(failed)?;
    let too_large = || SourceError::TooLarge { location: location(), limit: MAX_FILE as usize };
    if before.len() > MAX_FILE {
        return Err(too_large());
    }
    // One more than there is, so that the end is seen without growing.
    let mut bytes = Zeroizing::new(Vec::with_capacity(before.len() as usize + 1));
    (&mut file).take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(too_large());
    }
    let half_written = |cause| SourceError::HalfWritten { location: location(), cause };
    if stamp(&before) != stamp(&file.metadata().map_err(failed)?) {
        return Err(half_written("it changed while it was read"));
    }
    let text = text(&mut bytes).ok_or_else(|| SourceError::Malformed {
        location: location(),
        cause: "it is not UTF-8".into(),
    })?;
    let line = text.expose().strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    match line.unwrap_or(text.expose()) {
        "" => Err(half_written("it is empty")),
        line => Ok(Secret::from(line)),
    }
}

fn stamp(metadata: &Metadata) -> (u64, i64, i64) {
    (metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}

fn text(bytes: &mut Vec<u8>) -> Option<Secret> {
    String::from_utf8(std::mem::take(bytes))
        .map_err(|error| error.into_bytes().zeroize())
        .ok()
        .map(Secret::new)
}
