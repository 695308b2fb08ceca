//! The volumes of a pod: ConfigMaps, Secrets and tokens as files, which change all at once when
//! what they come from changes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::sources::{Sources, decode};
use crate::kubernetes::api::Api;

/// The files of a volume by name: what is in them, and their mode.
type Files = BTreeMap<String, (Vec<u8>, u32)>;

/// The mode of a token, whatever the volume says.
const TOKEN_MODE: u32 = 0o600;

/// The volumes of a pod.
pub(super) struct Volumes {
    directory: PathBuf,
    all: Vec<Volume>,
    user: Option<u32>,
    group: Option<u32>,
}

struct Volume {
    name: String,
    specification: Value,
    written: Files,
    generation: u32,
    tokens: BTreeMap<String, Token>,
}

struct Token {
    text: String,
    /// When the next one is fetched: four fifths into its life.
    due: Instant,
}

impl Volumes {
    /// The volumes of this pod, in the new folder `directory`. There are no files yet.
    ///
    /// # Panics
    /// When the folder cannot be made.
    #[must_use]
    pub(super) fn new(directory: &Path, pod: &Value) -> Self {
        let security = &pod["spec"]["securityContext"];
        let id = |key: &str| security[key].as_u64().and_then(|id| u32::try_from(id).ok());
        let volumes = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
        let all = volumes.into_iter().map(|specification| {
            let name = specification["name"].as_str().expect("a name").to_owned();
            fs::create_dir_all(directory.join(&name)).expect("a folder");
            Volume {
                name,
                specification,
                written: Files::new(),
                generation: 0,
                tokens: BTreeMap::new(),
            }
        });
        let all = all.collect();
        let directory = directory.to_owned();
        Self { directory, all, user: id("runAsUser"), group: id("fsGroup") }
    }

    /// The folder of a volume.
    #[must_use]
    pub(super) fn folder(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Writes every volume whose content is another one than before.
    ///
    /// # Errors
    /// What is missing, as the kubelet says it.
    ///
    /// # Panics
    /// When a file cannot be written, or a volume is of a kind that this kubelet does not know.
    pub(super) fn write(
        &mut self,
        sources: &Sources,
        api: &Api,
        pod: &Value,
    ) -> Result<(), String> {
        for volume in &mut self.all {
            let folder = self.directory.join(&volume.name);
            if volume.specification.get("emptyDir").is_some() {
                fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("a mode");
                continue;
            }
            let files = volume.files(sources, api, pod)?;
            if volume.generation == 0 || files != volume.written {
                volume.generation += 1;
                swap(&folder, volume.generation, &files, self.user, self.group);
                volume.written = files;
            }
        }
        Ok(())
    }
}

impl Volume {
    fn files(&mut self, sources: &Sources, api: &Api, pod: &Value) -> Result<Files, String> {
        let specification = self.specification.clone();
        for kind in ["configMap", "secret"] {
            if let Some(source) = specification.get(kind) {
                let mode = mode_of(source);
                let name = source.get("secretName").or(source.get("name"));
                return files_of(sources, pod, kind, name, source, mode);
            }
        }
        let projected = specification.get("projected");
        let projected = projected.unwrap_or_else(|| panic!("no known volume: {specification}"));
        let mode = mode_of(projected);
        let mut files = Files::new();
        for source in projected["sources"].as_array().into_iter().flatten() {
            let (kind, source) = source.as_object().and_then(|it| it.iter().next()).expect("one");
            match kind.as_str() {
                "configMap" | "secret" => {
                    let name = source.get("name");
                    files.extend(files_of(sources, pod, kind, name, source, mode)?);
                }
                "serviceAccountToken" => {
                    let path = source["path"].as_str().expect("a path").to_owned();
                    let text = self.token(api, pod, source)?;
                    files.insert(path, (text.into_bytes(), TOKEN_MODE));
                }
                "downwardAPI" => {
                    for item in source["items"].as_array().into_iter().flatten() {
                        let path = item["path"].as_str().expect("a path").to_owned();
                        assert_eq!(item["fieldRef"]["fieldPath"], "metadata.namespace");
                        files.insert(path, (namespace(pod).as_bytes().to_vec(), mode));
                    }
                }
                other => panic!("this kubelet projects no {other}"),
            }
        }
        Ok(files)
    }

    /// A token of the pod's service account, bound to the pod.
    fn token(&mut self, api: &Api, pod: &Value, source: &Value) -> Result<String, String> {
        let path = source["path"].as_str().expect("a path");
        if let Some(token) = self.tokens.get(path).filter(|token| token.due > Instant::now()) {
            return Ok(token.text.clone());
        }
        let life = source["expirationSeconds"].as_u64().unwrap_or(3600);
        let audiences: Vec<&Value> = source.get("audience").into_iter().collect();
        let metadata = &pod["metadata"];
        let request = json!({ "spec": {
            "audiences": audiences,
            "expirationSeconds": life,
            "boundObjectRef": {
                "apiVersion": "v1", "kind": "Pod",
                "name": metadata["name"], "uid": metadata["uid"],
            },
        }});
        let account = pod["spec"]["serviceAccountName"].as_str().unwrap_or("default");
        let asked =
            format!("/api/v1/namespaces/{}/serviceaccounts/{account}/token", namespace(pod));
        let (status, answer) =
            api.call("POST", &asked, &request).map_err(|error| error.to_string())?;
        let text = answer["status"]["token"].as_str().map(str::to_owned);
        let text = text.ok_or_else(|| format!("no token: {status} {answer}"))?;
        let due = Instant::now() + Duration::from_secs(life * 4 / 5);
        self.tokens.insert(path.to_owned(), Token { text: text.clone(), due });
        Ok(text)
    }
}

fn mode_of(source: &Value) -> u32 {
    source["defaultMode"].as_u64().and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0o644)
}

fn namespace(pod: &Value) -> &str {
    pod["metadata"]["namespace"].as_str().expect("a namespace")
}

/// The files that a ConfigMap or a Secret makes: all its keys, or those that `items` lists.
fn files_of(
    sources: &Sources,
    pod: &Value,
    kind: &str,
    name: Option<&Value>,
    source: &Value,
    mode: u32,
) -> Result<Files, String> {
    let name = name.and_then(Value::as_str).expect("a name");
    let Some(object) = sources.get(kind, namespace(pod), name) else {
        if source["optional"] == true {
            return Ok(Files::new());
        }
        let kind = kind.to_lowercase();
        return Err(format!("references non-existent {kind}: {kind} {name:?} not found"));
    };
    let data = decode(kind, &object);
    let Some(items) = source["items"].as_array() else {
        return Ok(data.into_iter().map(|(key, bytes)| (key, (bytes, mode))).collect());
    };
    let mut files = Files::new();
    for item in items {
        let key = item["key"].as_str().expect("a key");
        match data.get(key) {
            Some(bytes) => {
                let path = item["path"].as_str().expect("a path").to_owned();
                files.insert(path, (bytes.clone(), mode));
            }
            None if source["optional"] == true => {}
            None => return Err(format!("references non-existent key: {key} of {name}")),
        }
    }
    Ok(files)
}

/// Replaces all files at once: `..data` leads to a folder with them, and each name through it.
fn swap(folder: &Path, generation: u32, files: &Files, user: Option<u32>, group: Option<u32>) {
    let target = format!("..generation-{generation}");
    let fresh = folder.join(&target);
    fs::create_dir(&fresh).expect("a folder");
    for (name, (bytes, mode)) in files {
        let path = fresh.join(name);
        fs::write(&path, bytes).expect("a file");
        // A token's owner is the pod's user, that of all else is root; the pod's group may read it.
        let owner = user.filter(|_| *mode == TOKEN_MODE);
        let mode = if group.is_some() { mode | 0o440 } else { *mode };
        std::os::unix::fs::chown(&path, owner, group).expect("root");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
    }
    std::os::unix::fs::chown(&fresh, None, group).expect("root");
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).expect("a mode");
    let (data, next) = (folder.join("..data"), folder.join("..data_tmp"));
    let before = fs::read_link(&data).ok();
    let _ = fs::remove_file(&next);
    symlink(&target, &next).expect("a link");
    fs::rename(&next, &data).expect("the swap");
    let visible = |name: &String| folder.join(name);
    for name in files.keys().filter(|name| fs::symlink_metadata(visible(name)).is_err()) {
        symlink(Path::new("..data").join(name), visible(name)).expect("a link");
    }
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !files.contains_key(&name) {
            let _ = fs::remove_file(entry.path());
        }
    }
    if let Some(before) = before {
        let _ = fs::remove_dir_all(folder.join(before));
    }
}
