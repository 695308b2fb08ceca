//! The store in a file.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use pgimbal::store::{LIMIT, Store, StoreError};
use pgimbal_config::{Config, StoreKind};
use pgimbal_tests::process::{Directory, directory};

use super::{
    block_on, count_up, keeps_four_aside, keeps_what_is_written, loses_no_write, soon, write,
};

/// The file, for the test that is another process.
const FILE: &str = "PGIMBAL_TEST_STORE_FILE";
const TIMES: usize = 50;

fn config(file: &Path) -> Config {
    let mut config = Config::default();
    config.store.kind = StoreKind::File;
    config.store.file = Some(file.to_owned());
    config
}

fn try_store(file: &Path) -> Result<Store, StoreError> {
    Store::new(&config(file))
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn place() -> Directory {
    let directory = directory("store");
    mode(&directory, 0o700);
    directory
}

#[test]
fn file_keeps_what_is_written_for_nobody_else_to_read() {
    block_on(async {
        let directory = place();
        let path = directory.join("facts");
        let store = try_store(&path).unwrap();
        assert_eq!(store.location(), format!("file {}", path.display()));
        keeps_what_is_written(&store).await;
        keeps_four_aside(&store).await;
        for entry in fs::read_dir(&*directory).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().mode() & 0o777;
            assert_eq!(mode, 0o600, "{:?}", entry.file_name());
        }
        let again = try_store(&path).unwrap();
        assert_eq!(**again.read().await.unwrap().bytes, *b"readable");
    });
}

#[test]
fn file_is_in_state_dir_unless_it_is_named() {
    block_on(async {
        let directory = place();
        let mut config = Config::default();
        config.store.kind = StoreKind::File;
        config.credentials.state_dir = Some(directory.to_path_buf());
        let store = Store::new(&config).unwrap();
        write(&store, b"x").await;
        assert_eq!(fs::read(directory.join("store")).unwrap(), b"x");
        pgimbal::state_dir::examine(&directory).unwrap();
    });
}

#[test]
fn file_loses_no_write_of_two_handles() {
    block_on(async {
        let directory = place();
        let path = directory.join("facts");
        loses_no_write(try_store(&path).unwrap(), try_store(&path).unwrap(), TIMES).await;
    });
}

#[test]
fn file_loses_no_write_of_two_processes() {
    let directory = place();
    let path = directory.join("facts");
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "file::writes_of_another_process", "--ignored"])
        .env(FILE, &path)
        .spawn()
        .unwrap();
    block_on(async {
        let store = try_store(&path).unwrap();
        count_up(&store, TIMES).await;
        let ended = tokio::task::spawn_blocking(move || other.wait().unwrap());
        assert!(soon("the other process ends", ended).await.unwrap().success());
        let count = store.read().await.unwrap();
        assert_eq!(**count.bytes, *(2 * TIMES).to_string().as_bytes());
    });
}

#[test]
#[ignore = "it is the other process of the test above"]
fn writes_of_another_process() {
    let path = std::env::var_os(FILE).expect("a file");
    block_on(async {
        count_up(&try_store(Path::new(&path)).unwrap(), TIMES).await;
    });
}

#[test]
fn file_is_never_seen_half_written() {
    block_on(async {
        let directory = place();
        let path = directory.join("facts");
        let (writer, reader) = (try_store(&path).unwrap(), try_store(&path).unwrap());
        // What a process that was killed has left behind.
        fs::write(directory.join("facts.new"), "half").unwrap();
        let writes = tokio::spawn(async move {
            for byte in (b'a'..=b'z').cycle().take(60) {
                write(&writer, &vec![byte; 500_000]).await;
            }
        });
        let mut seen = std::collections::BTreeSet::new();
        while !writes.is_finished() {
            let bytes = reader.read().await.unwrap().bytes;
            assert!(bytes.is_empty() || bytes.len() == 500_000, "{}", bytes.len());
            assert!(bytes.iter().all(|byte| *byte == bytes[0]), "two writes are mixed");
            seen.extend(bytes.first().copied());
        }
        writes.await.unwrap();
        assert!(seen.len() > 1, "the reader met one write only");
    });
}

#[test]
fn file_tells_of_others_writes() {
    block_on(async {
        let directory = place();
        let path = directory.join("facts");
        let (one, other) = (try_store(&path).unwrap(), try_store(&path).unwrap());
        write(&one, b"mine").await;
        let hint = tokio::time::timeout(Duration::from_millis(1500), one.changed()).await;
        assert!(hint.is_err(), "its own write is no news");
        write(&other, b"theirs").await;
        soon("the other's write is noticed", one.changed()).await;
        assert_eq!(**one.read().await.unwrap().bytes, *b"theirs");
    });
}

#[test]
fn file_is_refused_where_others_could_decide_what_is_in_it() {
    block_on(async {
        let directory = place();
        let path = directory.join("facts");
        let store = try_store(&path).unwrap();
        write(&store, b"x").await;
        mode(&path, 0o644);
        let error = store.read().await.unwrap_err().to_string();
        assert!(error.contains("open to others (mode 0644)"), "{error}");
        let at = {
            mode(&path, 0o600);
            store.read().await.unwrap().version
        };
        fs::remove_file(&path).unwrap();
        symlink("/etc/passwd", &path).unwrap();
        for error in [store.read().await.unwrap_err(), store.replace(b"y", &at).await.unwrap_err()]
        {
            assert!(error.to_string().contains("a symbolic link"), "{error}");
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(store.read().await.unwrap_err(), StoreError::Unusable { .. }));
        fs::remove_dir(&path).unwrap();
        File::create(&path).unwrap().set_len(2 << 20).unwrap();
        mode(&path, 0o600);
        assert!(matches!(store.read().await.unwrap_err(), StoreError::TooLarge { .. }));
        mode(&directory, 0o777);
        let error = try_store(&path).unwrap_err().to_string();
        assert!(error.contains("others may write there"), "{error}");
    });
}

#[test]
fn file_makes_no_directory_for_one_that_is_not_mounted() {
    block_on(async {
        let directory = place();
        let below = directory.join("mounted");
        // A start goes on without it.
        let store = try_store(&below.join("facts")).unwrap();
        let error = store.read().await.unwrap_err();
        let text = error.to_string();
        assert!(error.is_away() && text.contains("is not there: make or mount it"), "{text}");
        assert!(!below.exists());
        fs::create_dir(&below).unwrap();
        mode(&below, 0o700);
        write(&store, b"x").await;
        fs::remove_dir_all(&below).unwrap();
        let error = store.read().await.unwrap_err();
        assert!(error.is_away(), "it is not taken for an empty one: {error}");
        assert!(!below.exists());
    });
}

#[test]
fn file_gives_up_on_a_lock_that_is_never_released() {
    block_on(async {
        let directory = place();
        let path = directory.join("facts");
        let store = try_store(&path).unwrap();
        write(&store, b"x").await;
        let at = store.read().await.unwrap().version;
        let lock = File::open(directory.join("facts.lock")).unwrap();
        lock.lock().unwrap();
        let start = Instant::now();
        let error = store.replace(b"y", &at).await.unwrap_err();
        assert!(matches!(error, StoreError::TimedOut { .. }), "{error}");
        assert!(start.elapsed() < LIMIT * 2, "{:?}", start.elapsed());
        drop(lock);
        // A thread of the call before may have it for a moment yet.
        super::eventually("the lock is free", async || store.replace(b"y", &at).await.ok()).await;
    });
}
