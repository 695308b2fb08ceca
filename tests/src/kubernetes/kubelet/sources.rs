//! The ConfigMaps and Secrets of the API server, for volumes and variables.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::Value;

use crate::kubernetes::api::Api;
use crate::kubernetes::watch::Watch;

/// All ConfigMaps and Secrets.
pub(super) struct Sources {
    config_maps: Watch,
    secrets: Watch,
}

impl Sources {
    /// Begins to watch them.
    #[must_use]
    pub(super) fn of(api: &Api) -> Self {
        Self {
            config_maps: Watch::of(api, "/api/v1/configmaps"),
            secrets: Watch::of(api, "/api/v1/secrets"),
        }
    }

    /// The object of this kind, `configMap` or `secret`.
    #[must_use]
    pub(super) fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let watch = if kind == "secret" { &self.secrets } else { &self.config_maps };
        watch.get(namespace, name)
    }

    /// One key of it as text.
    ///
    /// # Errors
    /// What is missing, as the kubelet says it.
    pub(super) fn text(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        key: &str,
    ) -> Result<String, String> {
        let word = kind.to_lowercase();
        let object = self.get(kind, namespace, name);
        let object = object.ok_or_else(|| format!("{word} {name:?} not found"))?;
        let bytes = decode(kind, &object).remove(key);
        let bytes =
            bytes.ok_or_else(|| format!("couldn't find key {key} in {word} {namespace}/{name}"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The data of a ConfigMap or a Secret by key.
///
/// # Panics
/// When a value is no base64 where it must be.
#[must_use]
pub(super) fn decode(kind: &str, object: &Value) -> BTreeMap<String, Vec<u8>> {
    let of = |field: &str| object[field].as_object().cloned().unwrap_or_default().into_iter();
    let text = |value: Value| value.as_str().expect("a text").to_owned();
    if kind == "secret" {
        return of("data").map(|(key, value)| (key, from_base64(&text(value)))).collect();
    }
    let plain = of("data").map(|(key, value)| (key, text(value).into_bytes()));
    plain.chain(of("binaryData").map(|(key, value)| (key, from_base64(&text(value))))).collect()
}

fn from_base64(text: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(text).expect("base64")
}
