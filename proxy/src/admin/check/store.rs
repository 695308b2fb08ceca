//! The check of the store: whether it can be read, and may be written.

use pgimbal_config::{Config, StoreKind};
use pgimbal_replicas::document::Document;

use super::findings::Findings;
use crate::store::{Store, StoreError};

/// A document of this size in bytes is worth a look: it may grow to twice as much before a Secret
/// with a copy of it, kept aside, is full.
const LARGE: usize = 400_000;

/// Reads the store and asks for its rights, without writing to it.
pub(super) async fn try_all(config: &Config, report: &Findings) {
    let own = &config.store;
    if own.kind == StoreKind::Memory {
        return;
    }
    let state_dir = config.credentials.state_dir.as_ref().filter(|_| own.file.is_none());
    if own.kind == StoreKind::File && state_dir.is_some_and(|directory| !directory.exists()) {
        return report.note("store", "not there yet: it is made with state_dir");
    }
    let store = match Store::new(config) {
        Ok(store) => store,
        Err(error) => return fail(&error, report),
    };
    if let Err(error) = store.check_rights().await {
        return fail(&error, report);
    }
    let place = format!("store, {}", store.location());
    let stored = store.read().await;
    if let Ok(Err(error)) = stored.as_ref().map(|stored| Document::parse(&stored.bytes)) {
        let text = format!("the document there is {error}: it is not used");
        return report.fail_with(&place, text, None);
    }
    match stored {
        Ok(stored) if stored.bytes.is_empty() => report.ok(place, "ok (empty)"),
        Ok(stored) if stored.bytes.len() < LARGE => {
            report.ok(place, format!("ok ({} bytes)", stored.bytes.len()));
        }
        Ok(stored) => {
            let (length, limit) = (stored.bytes.len(), store.max_document());
            let text = format!(
                "it holds {length} of {limit} bytes: fewer generations a user \
                 (grace_generations) make it smaller"
            );
            report.warn(place, text);
        }
        Err(error) => fail(&error, report),
    }
}

/// Reports an error with the text to copy.
fn fail(error: &StoreError, report: &Findings) {
    let text = error.to_string();
    let (place, cause) = text.split_once(": ").unwrap_or((&text, ""));
    let hint = error.hint().map(str::to_owned);
    report.fail_with(&format!("store, {place}"), cause.to_owned(), hint);
}
