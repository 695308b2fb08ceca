//! `state_dir`: the only directory that pgimbal writes to. Its files decide who may log in and
//! which server is trusted, so nobody else may write there, and no file is read or written through
//! a symbolic link.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, OFlags};
use thiserror::Error;
use zeroize::Zeroizing;

/// Limit of a file's size in bytes; more than a thousand users with many generations need.
const LARGEST: u64 = 64 << 20;

/// Bits of a mode by which others than the owner may write.
const OTHERS_WRITE: u32 = 0o022;
/// Bits of a mode by which others than the owner may do anything.
const OTHERS: u32 = 0o077;

/// Names of pgimbal's files, other than those of clusters.
const FILES: [&str; 4] = ["credentials", "passwords", "salt-key", "store"];
/// Prefix of the file of a cluster.
const CLUSTER: &str = "cluster-";

/// The reason for which `state_dir` cannot be used, with its path.
#[derive(Debug, Error)]
#[error("state_dir = {path:?}: {fault}", path = path.display().to_string())]
pub struct StateDirError {
    path: PathBuf,
    fault: Fault,
}

#[derive(Debug, Error)]
enum Fault {
    #[error("cannot be used: {0}")]
    Unusable(io::Error),
    #[error("cannot be made: {0}")]
    NotMade(io::Error),
    #[error("is not a directory")]
    NoDirectory,
    #[error("cannot be written to by this user: {0}")]
    NotWritable(io::Error),
    #[error(
        "others may write there (mode {0:04o}), and so decide who may log in: chmod 0700, or name \
         a directory inside it, which pgimbal makes for itself"
    )]
    Lax(u32),
    #[error("belongs to user {0}, who could decide who may log in: chown it")]
    Foreign(u32),
    #[error("{0} in it is a symbolic link: pgimbal writes no file through one; remove it")]
    Link(String),
    #[error("{0} in it is not a plain file; remove it")]
    NoFile(String),
    #[error("{0} in it is open to others (mode {1:04o}): if nobody has changed it, chmod 0600")]
    LaxFile(String, u32),
    #[error("{0} in it belongs to user {1}: chown it, or remove it")]
    ForeignFile(String, u32),
}

/// Makes the directory with its missing parents, mode 0700, if it does not exist, and checks it and
/// the files in it that bear names of pgimbal's. Called at the start, before any file is read.
///
/// # Errors
/// [`StateDirError`] when the directory cannot be made or written to, belongs to another user, is
/// writable for others, or holds files of pgimbal's with such faults.
pub fn prepare(path: &Path) -> Result<(), StateDirError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(Fault::NotMade).and_then(|()| check(path)).map_err(|fault| fault.at(path))
}

/// Checks the directory without making anything, for `pgimbal check`; a directory that does not
/// exist passes if this user may write to its nearest parent that exists.
///
/// # Errors
/// [`StateDirError`] as for [`prepare`].
pub fn examine(path: &Path) -> Result<(), StateDirError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let there = path.ancestors().skip(1).find(|above| above.exists());
            let there = there.filter(|above| !above.as_os_str().is_empty());
            may_write(there.unwrap_or(Path::new("."))).map_err(Fault::NotMade)
        }
        _ => check(path),
    }
    .map_err(|fault| fault.at(path))
}

impl Fault {
    fn at(self, path: &Path) -> StateDirError {
        StateDirError { path: path.to_owned(), fault: self }
    }
}

fn check(path: &Path) -> Result<(), Fault> {
    let directory = fs::metadata(path).map_err(Fault::Unusable)?;
    if !directory.is_dir() {
        return Err(Fault::NoDirectory);
    }
    if let Some(owner) = foreign_owner(&directory) {
        return Err(Fault::Foreign(owner));
    }
    if directory.mode() & OTHERS_WRITE != 0 {
        return Err(Fault::Lax(directory.mode() & 0o7777));
    }
    may_write(path).map_err(Fault::NotWritable)?;
    for entry in fs::read_dir(path).map_err(Fault::Unusable)? {
        let entry = entry.map_err(Fault::Unusable)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_ours = FILES.iter().any(|file| name.split('.').next() == Some(file));
        if is_ours || name.starts_with(CLUSTER) {
            check_file(name, &entry.metadata().map_err(Fault::Unusable)?)?;
        }
    }
    Ok(())
}

/// `found` is of the file itself, not of what a link leads to.
fn check_file(name: String, found: &Metadata) -> Result<(), Fault> {
    if found.is_symlink() {
        return Err(Fault::Link(name));
    }
    if !found.is_file() {
        return Err(Fault::NoFile(name));
    }
    if let Some(owner) = foreign_owner(found) {
        return Err(Fault::ForeignFile(name, owner));
    }
    match found.mode() & OTHERS {
        0 => Ok(()),
        _ => Err(Fault::LaxFile(name, found.mode() & 0o7777)),
    }
}

/// The owner, when it is neither this user nor root. Root itself may look after another's files:
/// `sudo pgimbal check`.
fn foreign_owner(found: &Metadata) -> Option<u32> {
    let us = rustix::process::geteuid();
    (found.uid() != 0 && found.uid() != us.as_raw() && !us.is_root()).then_some(found.uid())
}

/// Whether this user may make files there; a file system that is read-only counts too.
fn may_write(directory: &Path) -> io::Result<()> {
    let access = Access::WRITE_OK | Access::EXEC_OK;
    Ok(rustix::fs::accessat(CWD, directory, access, AtFlags::EACCESS)?)
}

/// Reads a file of the directory, which is wiped from memory when dropped; `None` when it does not
/// exist.
///
/// # Errors
/// The operating system's error, also when the path is a symbolic link;
/// [`io::ErrorKind::FileTooLarge`] above 64 MiB.
pub fn read(path: &Path) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let Some(file) = open(path)? else { return Ok(None) };
    let size = file.metadata()?.len();
    if size > LARGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than any of ours"));
    }
    // Read into its final size: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(size as usize + 1));
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Opens a file of the directory to be read; `None` when it does not exist. It may be anything but
/// a symbolic link; a pipe does not hold the process up.
///
/// # Errors
/// The operating system's error, also when the path is a symbolic link.
pub fn open(path: &Path) -> io::Result<Option<File>> {
    let flags = no_links() | OFlags::NONBLOCK.bits().cast_signed();
    match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(cause),
    }
}

/// Opens the file of a lock between processes, and makes it with mode 0600 when it does not exist.
/// It is empty, and stays: who removed it would not meet who holds it.
///
/// # Errors
/// The operating system's error, also when the path is a symbolic link.
pub fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(no_links());
    options.open(path)
}

/// Writes a file of the directory with mode 0600, atomically and durably: the file with the
/// extension `new` is written, synced and renamed over `path`. Such a file that a crash has left is
/// removed first. A missing directory is made with its parents, mode 0700.
///
/// # Errors
/// The operating system's error of the file or the directory. The file at `path` is then as before,
/// unless only the last sync, of the directory, failed.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    if !directory.exists() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let new = path.with_extension("new");
    let open = || {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).custom_flags(no_links()).open(&new)
    };
    let mut file = match open() {
        // What a crash has left, or what somebody has put there: it is removed, not followed.
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(&new)?;
            open()?
        }
        opened => opened?,
    };
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(directory)?.sync_all()
}

/// Renames a file that cannot be used, such as a history that cannot be parsed, so that an operator
/// can examine it and it is not overwritten. A file at `aside` is replaced.
///
/// # Errors
/// The operating system's error.
pub fn set_aside(path: &Path, aside: &Path) -> io::Result<()> {
    fs::rename(path, aside)
}

fn no_links() -> i32 {
    OFlags::NOFOLLOW.bits().cast_signed()
}

#[cfg(test)]
mod tests;
