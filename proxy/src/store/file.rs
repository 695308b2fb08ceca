//! The store of the processes of one host: a file, written under a lock and renamed into place.
//!
//! The lock is a file of its own beside it, for the document's file is another one after each
//! write. It is the kernel's (flock), so that it ends with the process that holds it.

use std::fs::{File, Metadata, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pgimbal_config::Config;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::document::{LIMIT, MAX_DOCUMENT, Stored, Version, VersionOf, names_aside};
use super::error::StoreError;
use crate::state_dir;

/// The file's name in `state_dir`.
const NAME: &str = "store";
/// How often a lock that another process holds is tried again; it is held for a write, which takes
/// milliseconds.
const LOCK_LOOK: Duration = Duration::from_millis(5);
/// How long a lock is waited for: less than the call may take, so that nothing is written after the
/// call has ended.
const LOCK_LIMIT: Duration = LIMIT.saturating_sub(Duration::from_secs(1));
/// How often [`FileStore::changed`] looks whether the file is another one.
const LOOK: Duration = Duration::from_secs(1);
/// Bits of a mode by which others than the owner may do anything.
const OTHERS: u32 = 0o077;

/// A document in a file.
#[derive(Debug)]
pub(super) struct FileStore {
    place: Arc<Place>,
    /// One call at a time, so that a file system that hangs takes one thread and no more.
    calls: Arc<Semaphore>,
}

#[derive(Debug)]
struct Place {
    path: PathBuf,
    location: Box<str>,
    /// The file that was read or written last.
    seen: Mutex<Option<Seen>>,
}

/// What tells one file from the one that was renamed over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    inode: u64,
    written: (i64, i64),
    length: u64,
}

impl FileStore {
    /// The file that the configuration names. Its directory must be this user's alone. While it is
    /// not there, the store is away: a shared directory that is not mounted must not become one for
    /// each host.
    pub(super) fn new(config: &Config) -> Result<Self, StoreError> {
        let in_state_dir = config.credentials.state_dir.as_ref().map(|dir| dir.join(NAME));
        let path = config.store.file.clone().or(in_state_dir);
        let path = path.ok_or_else(|| StoreError::unusable("store", "it names no file"))?;
        let location: Box<str> = format!("file {}", path.display()).into();
        let place = Arc::new(Place { path, location, seen: Mutex::default() });
        match place.check_directory() {
            Err(error) if !error.is_away() => return Err(error),
            _ => {}
        }
        Ok(Self { place, calls: Arc::new(Semaphore::new(1)) })
    }

    /// Its place in words.
    pub(super) fn location(&self) -> &str {
        &self.place.location
    }

    /// Reads the file; one that is not there is empty.
    pub(super) async fn read(&self) -> Result<Stored, StoreError> {
        self.blocking(|place| {
            let bytes = place.read(&place.path)?;
            let version = VersionOf::Hash(hash(&bytes));
            Ok(Stored::new(bytes, version))
        })
        .await
    }

    /// Writes the file if its bytes are still those of `at`.
    pub(super) async fn replace(&self, bytes: &[u8], at: &Version) -> Result<Version, StoreError> {
        let (bytes, at) = (Zeroizing::new(bytes.to_vec()), at.clone());
        self.blocking(move |place| {
            let _lock = place.lock()?;
            if at.0 != VersionOf::Hash(hash(&place.read(&place.path)?)) {
                return Err(StoreError::Conflict { location: place.location.clone() });
            }
            state_dir::write(&place.path, &bytes).map_err(|error| place.fault(&error))?;
            place.note_seen(std::fs::metadata(&place.path).ok().as_ref());
            Ok(Version(VersionOf::Hash(hash(&bytes))))
        })
        .await
    }

    /// Writes a file beside it.
    pub(super) async fn set_aside(&self, bytes: &[u8]) -> Result<String, StoreError> {
        let bytes = Zeroizing::new(bytes.to_vec());
        self.blocking(move |place| {
            let _lock = place.lock()?;
            for name in names_aside() {
                let path = place.beside(&name);
                let shown = path.display().to_string();
                if !path.exists() {
                    state_dir::write(&path, &bytes).map_err(|error| place.fault(&error))?;
                    return Ok(shown);
                }
                if *place.open_and_read(&path)?.1 == *bytes {
                    return Ok(shown);
                }
            }
            Err(StoreError::all_taken(&place.location))
        })
        .await
    }

    /// Returns once the file is another one than that which was read or written last.
    pub(super) async fn changed(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let look = self.blocking(|place| {
                let found = std::fs::metadata(&place.path).ok().map(|found| Seen::of(&found));
                let mut seen = place.seen.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(std::mem::replace(&mut *seen, found) != found)
            });
            if matches!(tokio::time::timeout(LIMIT, look).await, Ok(Ok(true))) {
                return;
            }
        }
    }

    /// Runs `call` on a thread that may block, after the calls before it.
    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Place) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let stopped = || StoreError::unusable(&self.place.location, "the process is ending");
        let permit = Arc::clone(&self.calls).acquire_owned().await.map_err(|_| stopped())?;
        let place = Arc::clone(&self.place);
        let call = move || {
            let _permit = permit;
            call(&place)
        };
        tokio::task::spawn_blocking(call).await.map_err(|_| stopped())?
    }
}

impl Place {
    /// The bytes of `path`, none when it is not there. Notes which file it was.
    fn read(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        self.check_directory()?;
        let (found, bytes) = self.open_and_read(path)?;
        self.note_seen(found.as_ref());
        Ok(bytes)
    }

    /// Whether its directory is there, and this user's alone.
    fn check_directory(&self) -> Result<(), StoreError> {
        let directory = directory(&self.path);
        if !directory.exists() {
            let cause =
                format!("the directory {} is not there: make or mount it", directory.display());
            return Err(StoreError::Away { location: self.location.clone(), cause: cause.into() });
        }
        state_dir::examine(directory)
            .map_err(|error| StoreError::unusable(&self.location, error.to_string()))
    }

    fn open_and_read(
        &self,
        path: &Path,
    ) -> Result<(Option<Metadata>, Zeroizing<Vec<u8>>), StoreError> {
        let file = match state_dir::open(path).map_err(|error| self.fault(&error))? {
            Some(file) => file,
            None if directory(path).exists() => return Ok((None, Zeroizing::default())),
            None => {
                let cause = "its directory is gone".into();
                return Err(StoreError::Away { location: self.location.clone(), cause });
            }
        };
        let found = file.metadata().map_err(|error| self.fault(&error))?;
        self.check(&found)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(found.len() as usize + 1));
        let most = MAX_DOCUMENT as u64 + 1;
        file.take(most).read_to_end(&mut bytes).map_err(|error| self.fault(&error))?;
        match bytes.len() > MAX_DOCUMENT {
            true => Err(self.too_large()),
            false => Ok((Some(found), bytes)),
        }
    }

    /// Whether this process alone decides what is in the file.
    fn check(&self, found: &Metadata) -> Result<(), StoreError> {
        let unusable = |cause: String| Err(StoreError::unusable(&self.location, cause));
        let us = rustix::process::geteuid();
        if !found.is_file() {
            return unusable("it is not a plain file; remove it".to_owned());
        }
        if found.mode() & OTHERS != 0 {
            let mode = found.mode() & 0o7777;
            return unusable(format!(
                "it is open to others (mode {mode:04o}): if nobody has changed it, chmod 0600"
            ));
        }
        if found.uid() != us.as_raw() && found.uid() != 0 && !us.is_root() {
            return unusable(format!("it belongs to user {}: chown it, or remove it", found.uid()));
        }
        match found.len() > MAX_DOCUMENT as u64 {
            true => Err(self.too_large()),
            false => Ok(()),
        }
    }

    /// Waits for the lock that every writer takes; it is released when the file is dropped.
    fn lock(&self) -> Result<File, StoreError> {
        let path = self.beside("lock");
        let file = state_dir::open_lock(&path).map_err(|error| self.fault(&error))?;
        let until = Instant::now() + LOCK_LIMIT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(self.fault(&error)),
                Err(TryLockError::WouldBlock) if Instant::now() >= until => {
                    return Err(StoreError::TimedOut {
                        location: self.location.clone(),
                        limit: LOCK_LIMIT,
                    });
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_LOOK),
            }
        }
    }

    /// The path of a file beside the document: its own name, a dot and `name`.
    fn beside(&self, name: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(".");
        path.push(name);
        path.into()
    }

    fn note_seen(&self, found: Option<&Metadata>) {
        let seen = found.map(Seen::of);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }

    fn too_large(&self) -> StoreError {
        StoreError::TooLarge { location: self.location.clone(), limit: MAX_DOCUMENT }
    }

    fn fault(&self, error: &io::Error) -> StoreError {
        let location = self.location.clone();
        if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
            return StoreError::unusable(&location, "it is a symbolic link; remove it");
        }
        match error.kind() {
            // A file system that is away or full comes back; the rest needs somebody.
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                StoreError::unusable(&location, error.to_string())
            }
            _ => StoreError::Away { location, cause: error.to_string().into() },
        }
    }
}

impl Seen {
    fn of(found: &Metadata) -> Self {
        let written = (found.mtime(), found.mtime_nsec());
        Self { inode: found.ino(), written, length: found.len() }
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
