//! The file in which a cluster's system identifier and timeline outlive a restart, so that an old
//! primary that comes back while pgimbal is down is not trusted.

use std::io;
use std::path::{Path, PathBuf};

use pgimbal_pooler::topology::{Remembered, SystemId, TimelineId};
use serde::{Deserialize, Serialize};

use crate::state_dir;

/// The file of one cluster, `cluster-NAME.json` in `state_dir`.
#[derive(Clone, Debug)]
pub(super) struct ClusterFile {
    path: PathBuf,
}

/// The content of the file. The identifier is text, because numbers of JSON lose its last digits.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    system_identifier: Option<String>,
    timeline: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rejected: Vec<Box<str>>,
}

impl ClusterFile {
    /// The file of the cluster `cluster` in `state_dir`; nothing is read yet.
    pub(super) fn new(state_dir: &Path, cluster: &str) -> Self {
        Self { path: state_dir.join(format!("cluster-{}.json", file_name(cluster))) }
    }

    /// Reads the file; the default when it does not exist.
    ///
    /// # Errors
    /// The error of [`state_dir::read`], and [`io::ErrorKind::InvalidData`] for other content.
    pub(super) fn read(&self) -> io::Result<Remembered> {
        let Some(text) = state_dir::read(&self.path)? else { return Ok(<_>::default()) };
        let stored: Stored = serde_json::from_slice(&text)?;
        let system = stored.system_identifier.map(|text| text.parse::<SystemId>()).transpose();
        let system = system.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let timeline = stored.timeline.map(TimelineId);
        Ok(Remembered { system, timeline, rejected: stored.rejected })
    }

    /// Writes the file atomically.
    ///
    /// # Errors
    /// The error of [`state_dir::write`].
    pub(super) fn write(&self, remembered: &Remembered) -> io::Result<()> {
        let stored = Stored {
            system_identifier: remembered.system.map(|system| system.to_string()),
            timeline: remembered.timeline.map(|timeline| timeline.0),
            rejected: remembered.rejected.clone(),
        };
        state_dir::write(&self.path, &serde_json::to_vec(&stored)?)
    }

    /// The path of the file, for the log.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// The cluster's name with everything that means something in a path written as `%` and hex.
fn file_name(cluster: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    cluster
        .bytes()
        .map(|byte| match plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn failover_the_history_is_kept_in_a_file_of_its_own() {
        let directory = std::env::temp_dir().join(format!("pgimbal-memory-{}", std::process::id()));
        let memory = ClusterFile::new(&directory, "main/../a b");
        assert_eq!(memory.read().expect("no file is no error"), Remembered::default());
        let remembered = Remembered {
            system: Some(SystemId(u64::MAX)),
            timeline: Some(TimelineId(7)),
            rejected: vec!["old".into()],
        };
        memory.write(&remembered).expect("a file");
        assert_eq!(memory.read().expect("the file"), remembered);
        assert_eq!(memory.path(), directory.join("cluster-main%2F%2E%2E%2Fa%20b.json"));
        let mode = fs::metadata(memory.path()).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(memory.path(), "{").expect("a file");
        assert!(memory.read().is_err());
        fs::remove_dir_all(&directory).expect("removed");
    }
}
