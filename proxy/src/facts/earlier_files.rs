//! The files in `state_dir` in which earlier versions kept facts: the history of accepted
//! passwords, the key of the salts, and the timeline of each cluster. They are read at the start,
//! and removed when their contents are stored.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use pgimbal_auth::rotation::{HistoryRecord, parse_history_file};
use pgimbal_config::{Config, HistoryPlace};
use pgimbal_replicas::document::{Document, SaltsKey};
use serde::Deserialize;
use tracing::{error, info, warn};
use zeroize::Zeroizing;

use crate::state_dir;

const HISTORY: &str = "credentials.json";
const SALT_KEY: &str = "salt-key";

/// What the files held.
#[derive(Debug, Default)]
pub(super) struct EarlierFiles {
    users: BTreeMap<String, HistoryRecord>,
    /// System identifier, timeline and quarantined nodes of each cluster.
    clusters: BTreeMap<String, Cluster>,
    key: Option<SaltsKey>,
    /// The files, to be removed.
    paths: Vec<PathBuf>,
}

/// The content of a cluster's file.
#[derive(Debug, Deserialize)]
struct Cluster {
    system_identifier: Option<String>,
    timeline: Option<u32>,
    #[serde(default)]
    rejected: Vec<String>,
}

/// Reads the files of `state_dir`; nothing without one. A file that cannot be read or parsed is
/// logged and left.
pub(super) fn read(config: &Config) -> EarlierFiles {
    let mut earlier = EarlierFiles::default();
    let Some(directory) = &config.credentials.state_dir else { return earlier };
    if config.credentials.history == HistoryPlace::File {
        let parsed = earlier.load(directory.join(HISTORY), |bytes| {
            parse_history_file(bytes).map_err(|cause| cause.to_string())
        });
        earlier.users = parsed.unwrap_or_default();
    }
    earlier.key = earlier.load(directory.join(SALT_KEY), |bytes| {
        <[u8; 32]>::try_from(bytes).map(SaltsKey::new).map_err(|_| "not a key of 32 bytes".into())
    });
    for name in config.clusters.keys() {
        let parsed = earlier.load(cluster_file(directory, name), |bytes| {
            serde_json::from_slice::<Cluster>(bytes).map_err(|cause| cause.to_string())
        });
        earlier.clusters.extend(parsed.map(|cluster| (name.clone(), cluster)));
    }
    earlier
}

impl EarlierFiles {
    fn load<T>(
        &mut self,
        path: PathBuf,
        parse: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Option<T> {
        let bytes: Zeroizing<Vec<u8>> = match state_dir::read(&path) {
            Ok(bytes) => bytes?,
            Err(cause) => {
                error!("{}: cannot be read and is not used: {cause}", path.display());
                return None;
            }
        };
        match parse(&bytes) {
            Ok(parsed) => {
                self.paths.push(path);
                Some(parsed)
            }
            Err(cause) => {
                error!("{}: {cause}; it is not used", path.display());
                None
            }
        }
    }

    /// The key of the salts, a random one when there was none.
    pub(super) fn key(&self) -> SaltsKey {
        self.key.clone().unwrap_or_else(|| SaltsKey::new(rand::random()))
    }

    /// Adds what the document does not know.
    pub(super) fn add_to(&self, document: &mut Document) {
        for (name, record) in &self.users {
            if document.user(name).is_none() {
                document.merge_user(name, record.clone());
            }
        }
        for (name, known) in &self.clusters {
            let system = known.system_identifier.as_ref().and_then(|text| text.parse().ok());
            let (Some(system), None) = (system, document.cluster(name)) else { continue };
            let cluster = document.cluster_mut(name);
            cluster.see(system, known.timeline.unwrap_or_default());
            for node in &known.rejected {
                cluster.set_quarantined(node, true, <_>::default());
            }
        }
    }

    /// Removes the files: the store has what they held.
    pub(super) fn remove(self) {
        for path in self.paths {
            match fs::remove_file(&path) {
                Ok(()) => info!("{}: its content is in the store now; removed", path.display()),
                Err(cause) => warn!("{}: cannot be removed: {cause}", path.display()),
            }
        }
    }
}

/// The file of a cluster: its name with everything that means something in a path written as `%`
/// and hex.
fn cluster_file(directory: &Path, cluster: &str) -> PathBuf {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let escaped = cluster.bytes().map(|byte| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    directory.join(format!("cluster-{}.json", escaped.collect::<String>()))
}
