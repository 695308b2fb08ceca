//! The watch of the Secret: a hint that somebody has written it, soon after.
//!
//! Each watch begins at version 0, which is whatever the API server has in its cache: it tells the
//! Secret as it is there, and then each change. So nothing that happened in between is missed, a
//! watch is never too old to begin (410 Gone), and at worst a state that is known is told again.
//! Without a version it would wait until its cache is fresh, which lasts for ever after a restart
//! on an etcd that does not tell its progress (before 3.4.25).

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use pgimbal_config::Backoff;
use serde::Deserialize;

use super::Secret;
use super::api_server::Request;
use crate::store::document::LIMIT;
use crate::store::error::StoreError;

/// How long the API server lets a watch last. One that is silent for longer is dead: its connection
/// broke without a word.
const LONGEST: Duration = Duration::from_secs(60);
/// The pause after a watch that ended or failed.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause, while the API server is away: one request in this time is no load, and after
/// its return the hints are late by this much.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Limit of an event's size in bytes: metadata without data, whose annotations Kubernetes limits to
/// 256 KiB.
const MAX_EVENT: usize = 1 << 20;

/// The longest pause while RBAC forbids the watch, which only an operator changes.
const FORBIDDEN_PAUSE: Duration = Duration::from_secs(30);

/// Watches until it is aborted.
pub(super) async fn run(secret: Arc<Secret>) {
    let mut pauses = Backoff::new(FIRST_PAUSE);
    let mut told = false;
    loop {
        match watch(&secret, &mut pauses).await {
            Ok(()) => {}
            // An API server that has just started forbids everything for a moment.
            Err(error @ StoreError::Forbidden { .. }) => {
                let pause = pauses.grow(FORBIDDEN_PAUSE);
                if pause > LONGEST_PAUSE && !std::mem::replace(&mut told, true) {
                    tracing::warn!(
                        %error, rules = error.hint().unwrap_or_default(),
                        "the store's Secret may not be watched; changes of other replicas are \
                         noticed later, when it is read now and then"
                    );
                }
                tokio::time::sleep(pause).await;
                continue;
            }
            Err(error) => tracing::debug!(%error, "the watch of the store's Secret has ended"),
        }
        let jitter: f64 = rand::random();
        tokio::time::sleep(pauses.grow(LONGEST_PAUSE).mul_f64(0.5 + jitter / 2.0)).await;
    }
}

/// One watch, to its end. An event ends the series of failures.
async fn watch(secret: &Secret, pauses: &mut Backoff) -> Result<(), StoreError> {
    let path = format!(
        "{}?watch=true&resourceVersion=0&fieldSelector=metadata.name%3D{}&timeoutSeconds={}",
        secret.folder(),
        secret.name,
        LONGEST.as_secs()
    );
    let timed_out = || StoreError::TimedOut { location: secret.location.clone(), limit: LIMIT };
    let opened = tokio::time::timeout(LIMIT, async {
        let response = secret.server.send(&Request::watch(path)).await?;
        match response.status().as_u16() {
            200 => Ok(Some(response)),
            410 => Ok(None),
            status => {
                let complaint = secret.server.read(response).await?.complaint();
                Err(secret.refused(status, &complaint, "watch"))
            }
        }
    });
    let Some(response) = opened.await.unwrap_or_else(|_| Err(timed_out()))? else { return Ok(()) };
    let (mut body, mut line) = (response.into_body(), Vec::new());
    let away = |cause: &str| {
        let (location, cause) = (secret.location.clone(), cause.into());
        Err(StoreError::Away { location, cause })
    };
    loop {
        let Ok(frame) = tokio::time::timeout(LONGEST + LIMIT, body.frame()).await else {
            return away("the watch is silent");
        };
        let Some(frame) = frame else { return Ok(()) };
        let Ok(frame) = frame else { return away("the watch broke") };
        for piece in frame.data_ref().map_or(&[][..], |data| data).split_inclusive(|b| *b == b'\n')
        {
            if line.len() + piece.len() > MAX_EVENT {
                return away("an event of the watch is larger than any of a Secret's metadata");
            }
            line.extend_from_slice(piece);
            if line.ends_with(b"\n") {
                match event(&line) {
                    Some(Event::Written(version)) => {
                        pauses.reset();
                        secret.note(&version);
                    }
                    Some(Event::Expired) => return Ok(()),
                    Some(Event::Failed(code)) => {
                        return away(&format!("the watch was ended with {code}"));
                    }
                    None => return away("the watch speaks another language than Kubernetes'"),
                }
                line.clear();
            }
        }
    }
}

/// What one line of a watch says.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    /// The Secret was made, changed or deleted, or is as it was at the beginning.
    Written(String),
    /// The watch's version is too old: 410 Gone.
    Expired,
    /// The watch ends with this status.
    Failed(u16),
}

/// `None` for a line that is no event.
fn event(line: &[u8]) -> Option<Event> {
    #[derive(Deserialize)]
    struct Line {
        #[serde(rename = "type")]
        kind: String,
        object: Object,
    }
    #[derive(Deserialize)]
    struct Object {
        #[serde(default)]
        metadata: Metadata,
        #[serde(default)]
        code: u16,
    }
    #[derive(Deserialize, Default)]
    struct Metadata {
        #[serde(rename = "resourceVersion", default)]
        version: String,
    }
    let Line { kind, object } = serde_json::from_slice(line).ok()?;
    match (&*kind, object.code) {
        ("ERROR", 410) => Some(Event::Expired),
        ("ERROR", code) => Some(Event::Failed(code)),
        _ => Some(Event::Written(object.metadata.version)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_watch_are_told_apart() {
        let added = br#"{"type":"ADDED","object":{"kind":"PartialObjectMetadata",
            "metadata":{"name":"x","resourceVersion":"7","labels":{"a":"b"}}}}"#;
        assert_eq!(event(added), Some(Event::Written("7".to_owned())));
        let expired = br#"{"type":"ERROR","object":{"kind":"Status","metadata":{},
            "status":"Failure","reason":"Expired","code":410}}"#;
        assert_eq!(event(expired), Some(Event::Expired));
        let failed = br#"{"type":"ERROR","object":{"kind":"Status","code":500}}"#;
        assert_eq!(event(failed), Some(Event::Failed(500)));
        assert_eq!(event(b"<html>"), None);
    }
}
