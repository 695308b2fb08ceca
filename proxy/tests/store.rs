//! The stores, each on the real thing: files, an API server of Kubernetes, a Vault.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test a failed expectation is the point"
)]

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use pgimbal::store::{LIMIT, MAX_DOCUMENT, Store, StoreError};
use pgimbal_config::{Config, StoreKind};

#[path = "store/file.rs"]
mod file;
#[path = "store/kubernetes.rs"]
mod kubernetes;
#[path = "store/vault.rs"]
mod vault;

/// Longer than a loaded machine needs for what should happen at once.
const SOON: Duration = Duration::from_secs(15);

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(Box::pin(future))
}

/// Fails when `future` takes longer than it should.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(SOON, future).await {
        Ok(done) => done,
        Err(_) => panic!("did not happen within {SOON:?}: {what}"),
    }
}

/// Writes `bytes` over what is there.
async fn write(store: &Store, bytes: &[u8]) {
    let at = store.read().await.unwrap().version;
    store.replace(bytes, &at).await.unwrap();
}

/// What every store promises to one who is alone with it.
async fn keeps_what_is_written(store: &Store) {
    let empty = store.read().await.unwrap();
    assert_eq!(empty.bytes.len(), 0);
    assert_eq!(store.read().await.unwrap().version, empty.version, "reading changes nothing");
    let first = store.replace(b"first", &empty.version).await.unwrap();
    let read = store.read().await.unwrap();
    assert_eq!((&**read.bytes, &read.version), (&b"first"[..], &first));
    assert!(!format!("{read:?}").contains("102, 105"), "{read:?}");
    let stale = store.replace(b"stale", &empty.version).await.unwrap_err();
    assert!(stale.is_conflict(), "{stale}");
    let binary: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let second = store.replace(&binary, &first).await.unwrap();
    assert_eq!(*store.read().await.unwrap().bytes, binary);
    let emptied = store.replace(b"", &second).await.unwrap();
    let read = store.read().await.unwrap();
    assert_eq!((read.bytes.len(), &read.version), (0, &emptied));
    let huge = store.replace(&vec![0; MAX_DOCUMENT + 1], &emptied).await.unwrap_err();
    assert!(matches!(huge, StoreError::TooLarge { .. }), "{huge}");
    store.check_rights().await.unwrap();
}

/// Documents that are set aside have names of their own, each kept once, four at most.
async fn keeps_four_aside(store: &Store) {
    write(store, b"not readable").await;
    let name = store.set_aside(b"not readable").await.unwrap();
    assert!(name.contains("unreadable-1"), "{name}");
    assert_eq!(store.set_aside(b"not readable").await.unwrap(), name);
    for (number, bytes) in [b"second", b"third.", b"fourth"].iter().enumerate() {
        let name = store.set_aside(*bytes).await.unwrap();
        assert!(name.contains(&format!("unreadable-{}", number + 2)), "{name}");
    }
    let full = store.set_aside(b"a fifth").await.unwrap_err();
    assert!(matches!(full, StoreError::NoRoom { .. }), "{full}");
    assert!(full.to_string().contains("unreadable-1 to unreadable-4 are kept"), "{full}");
    assert_eq!(
        store.set_aside(b"third.").await.unwrap(),
        name.replace("unreadable-1", "unreadable-3")
    );
    assert_eq!(**store.read().await.unwrap().bytes, *b"not readable", "the document stays");
    write(store, b"readable").await;
    assert_eq!(**store.read().await.unwrap().bytes, *b"readable");
}

/// Adds one to the number in the store, `times` times; conflicts are tried again.
async fn count_up(store: &Store, times: usize) -> usize {
    let mut conflicts = 0;
    for _ in 0..times {
        loop {
            let read = store.read().await.unwrap();
            let count: usize = String::from_utf8(read.bytes.to_vec()).unwrap().parse().unwrap_or(0);
            match store.replace((count + 1).to_string().as_bytes(), &read.version).await {
                Ok(_) => break,
                Err(error) => {
                    assert!(error.is_conflict(), "{error}");
                    conflicts += 1;
                }
            }
        }
    }
    conflicts
}

/// Two writers at once lose nothing of each other.
async fn loses_no_write(one: Store, other: Store, times: usize) {
    let (one, other) = (Arc::new(one), Arc::new(other));
    let tasks = [&one, &other].map(|store| {
        let store = Arc::clone(store);
        tokio::spawn(async move { count_up(&store, times).await })
    });
    let mut conflicts = 0;
    for task in tasks {
        conflicts += task.await.unwrap();
    }
    let count = one.read().await.unwrap();
    assert_eq!(**count.bytes, *(2 * times).to_string().as_bytes());
    assert!(conflicts > 0, "they never met: the test shows nothing");
}

/// One who notes names in the document, one after the other, each once. A write that was not
/// answered may have been made: the document is read again, as the keeper of the facts does.
struct Writer {
    store: Store,
    name: &'static str,
    noted: AtomicUsize,
    failed: AtomicUsize,
    is_over: AtomicBool,
}

impl Writer {
    fn new(store: Store, name: &'static str) -> Arc<Self> {
        let (noted, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { store, name, noted, failed, is_over: AtomicBool::new(false) })
    }

    async fn run(&self) {
        while !self.is_over.load(SeqCst) {
            let name = format!("{}-{}\n", self.name, self.noted.load(SeqCst));
            while let Err(error) = self.note(&name).await {
                // An API server that has just started forbids everything for a moment.
                let passes = matches!(error, StoreError::Forbidden { .. });
                assert!(error.is_conflict() || error.is_away() || passes, "{error}");
                self.failed.fetch_add(usize::from(error.is_away()), SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            self.noted.fetch_add(1, SeqCst);
        }
    }

    async fn note(&self, name: &str) -> Result<(), StoreError> {
        let read = self.store.read().await?;
        let text = String::from_utf8(read.bytes.to_vec()).unwrap();
        if !text.split_inclusive('\n').any(|line| line == name) {
            self.store.replace((text + name).as_bytes(), &read.version).await?;
        }
        Ok(())
    }
}

/// Two writers lose nothing and note nothing twice while their store is taken away in the middle of
/// what they write, and brought back, so many times.
async fn loses_no_write_when_interrupted<T: Send + 'static>(
    times: usize,
    stores: [Store; 2],
    mut place: T,
    take_away: impl Fn(&mut T) + Send + 'static,
    bring_back: impl Fn(&mut T) + Send + 'static,
) {
    let [one, other] = stores;
    let writers = [Writer::new(one, "one"), Writer::new(other, "other")];
    let tasks = writers.clone().map(|writer| tokio::spawn(async move { writer.run().await }));
    let seen = writers.clone();
    let interrupts = tokio::task::spawn_blocking(move || {
        let wait = |what: &str, count: fn(&Writer) -> usize| {
            let before = seen.each_ref().map(|writer| count(writer));
            pgimbal_tests::eventually(what, 4 * SOON, || {
                seen.iter().zip(before).all(|(writer, before)| count(writer) > before + 2)
            });
        };
        for _ in 0..times {
            wait("both write", |writer| writer.noted.load(SeqCst));
            take_away(&mut place);
            wait("both notice it", |writer| writer.failed.load(SeqCst));
            bring_back(&mut place);
        }
        wait("both write again", |writer| writer.noted.load(SeqCst));
        seen.iter().for_each(|writer| writer.is_over.store(true, SeqCst));
        place
    });
    let place = interrupts.await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    let text = String::from_utf8(writers[0].store.read().await.unwrap().bytes.to_vec()).unwrap();
    for writer in &writers {
        for number in 0..writer.noted.load(SeqCst) {
            let name = format!("{}-{number}", writer.name);
            assert_eq!(text.lines().filter(|line| **line == *name).count(), 1, "{name} in {text}");
        }
    }
    drop(place);
}

/// Asks until `found` holds, as an operator's change takes a moment to be known.
async fn eventually<T>(what: &str, mut call: impl AsyncFnMut() -> Option<T>) -> T {
    soon(what, async {
        loop {
            if let Some(found) = call().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

#[test]
fn memory_keeps_what_is_written_and_tells_nobody() {
    block_on(async {
        let store = Store::new(&Config::default()).unwrap();
        assert_eq!((store.kind(), store.location()), (StoreKind::Memory, "memory"));
        keeps_what_is_written(&store).await;
        keeps_four_aside(&store).await;
        let hint = tokio::time::timeout(Duration::from_millis(50), store.changed()).await;
        assert!(hint.is_err(), "nobody else can write");
    });
}

#[test]
fn an_error_says_whose_turn_it_is() {
    let location: Box<str> = "memory".into();
    let conflict = StoreError::Conflict { location: location.clone() };
    let away = StoreError::TimedOut { location, limit: LIMIT };
    assert!(conflict.is_conflict() && !conflict.is_away() && conflict.hint().is_none());
    assert!(away.is_away() && !away.is_conflict());
    assert_eq!(away.to_string(), "memory: no answer within 5s");
}
