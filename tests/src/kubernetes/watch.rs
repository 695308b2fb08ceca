//! A copy of what an API server has of one kind, kept up to date by a watch, as controllers and
//! kubelets have one.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use super::api::Api;

/// The namespace and the name of an object.
pub type Key = (String, String);

/// All objects of one kind, as they were a moment ago. Dropping it ends the watch.
pub struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    objects: Mutex<BTreeMap<Key, Value>>,
    is_over: AtomicBool,
}

impl Watch {
    /// Begins to watch what is at `path`, such as `/api/v1/pods`. An API server that is away is
    /// asked again, ten times a second.
    ///
    /// # Panics
    /// When there is no thread.
    #[must_use]
    pub fn of(api: &Api, path: &str) -> Self {
        let shared =
            Arc::new(Shared { objects: Mutex::default(), is_over: AtomicBool::new(false) });
        let (api, path, own) = (api.clone(), path.to_owned(), Arc::clone(&shared));
        let thread = std::thread::spawn(move || {
            while !own.is_over.load(Ordering::Relaxed) {
                // Its end is no error: it is ended in time, or the server was stopped.
                let _ = own.follow(&api, &path);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// The object of this name; `None` when there is none, or when it was not heard of yet.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<Value> {
        self.shared.objects().get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// All objects.
    #[must_use]
    pub fn all(&self) -> BTreeMap<Key, Value> {
        self.shared.objects().clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn objects(&self) -> MutexGuard<'_, BTreeMap<Key, Value>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists everything, then follows the changes until the server ends the watch.
    fn follow(&self, api: &Api, path: &str) -> io::Result<()> {
        let (status, list) = api.call("GET", path, &Value::Null)?;
        if status != 200 {
            return Err(io::Error::other(format!("{path}: {status} {list}")));
        }
        let items = list["items"].as_array().cloned().unwrap_or_default();
        *self.objects() = items.into_iter().map(|item| (key(&item), item)).collect();
        let version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        let watched = format!("{path}?watch=1&timeoutSeconds=240&resourceVersion={version}");
        let mut lines = BufReader::new(api.stream(&watched, Duration::from_millis(300))?);
        let mut line = Vec::new();
        while !self.is_over.load(Ordering::Relaxed) {
            match lines.read_until(b'\n', &mut line) {
                Ok(0) => break,
                Ok(_) => self.apply(&std::mem::take(&mut line))?,
                // What has come of the line stays there.
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn apply(&self, line: &[u8]) -> io::Result<()> {
        let Ok(event) = serde_json::from_slice::<Value>(line) else { return Ok(()) };
        let object = event["object"].clone();
        match event["type"].as_str() {
            Some("ADDED" | "MODIFIED") => drop(self.objects().insert(key(&object), object)),
            Some("DELETED") => drop(self.objects().remove(&key(&object))),
            // Too old a version: everything is listed again.
            Some("ERROR") => return Err(io::Error::other(object.to_string())),
            _ => {}
        }
        Ok(())
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn key(object: &Value) -> Key {
    let of = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (of("namespace"), of("name"))
}
