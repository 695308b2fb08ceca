//! The kubelet of nodes that are nothing but names: it runs the pods that the scheduler binds to
//! them, as containers of this machine.
//!
//! It does for a pod what a kubelet does: a network namespace, volumes, variables, probes,
//! restarts, status, grace period; and what a network plug-in does with NetworkPolicies. It limits
//! neither memory nor CPU, filters no system calls, fetches no images, and panics at what it does
//! not know.

mod container;
pub mod image;
mod pod;
mod policies;
mod probes;
mod sources;
mod supervised;
mod variables;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;

use super::api::Api;
use super::network::Network;
use super::watch::Watch;
use crate::leash::Leash;
use crate::process::{Directory, directory};
use crate::program::print_tail;
use container::{crun, exec};
use image::Image;
use pod::Pod;
use policies::Policies;
use sources::Sources;
pub use supervised::Ended;

/// The kubelet of all nodes. Dropping it kills what runs.
pub struct Kubelet {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    _leash: Leash,
}

/// What the pods of all nodes share.
struct Shared {
    api: Api,
    network: Arc<Network>,
    images: BTreeMap<String, Image>,
    directory: Directory,
    pods: Watch,
    sources: Sources,
    policies: Policies,
    ended: Mutex<Vec<Ended>>,
    faults: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

impl Kubelet {
    /// Makes these nodes, each ready and in a zone of its own, and begins to run pods with these
    /// images by name.
    ///
    /// # Panics
    /// When the API server refuses a node.
    #[must_use]
    pub fn of(
        api: &Api,
        network: &Arc<Network>,
        nodes: &[&str],
        images: BTreeMap<String, Image>,
    ) -> Self {
        for name in nodes {
            register(api, name);
        }
        let directory = directory("kubelet");
        fs::create_dir_all(directory.join("pods")).expect("a folder");
        fs::create_dir_all(directory.join("crun")).expect("a folder");
        let script = "mount -t tmpfs tmpfs /sys/fs/cgroup; \
                      for id in $(crun --root \"$0/crun\" list -q); do \
                      crun --root \"$0/crun\" --cgroup-manager=disabled delete --force \"$id\"; \
                      done; rm -rf -- \"$0\"";
        let leash = Leash::start(
            "exec unshare --mount sh -c \"$1\" \"$0\"",
            [directory.as_os_str(), script.as_ref()],
        );
        let shared = Arc::new(Shared {
            api: api.clone(),
            network: Arc::clone(network),
            images,
            directory,
            pods: Watch::of(api, "/api/v1/pods"),
            sources: Sources::of(api),
            policies: Policies::of(api),
            ended: Mutex::default(),
            faults: Mutex::default(),
            is_over: AtomicBool::new(false),
        });
        let own = Arc::clone(&shared);
        let thread = Some(std::thread::spawn(move || own.run()));
        Self { shared, thread, _leash: leash }
    }

    /// How the containers ended whose pods are gone.
    #[must_use]
    pub fn ended(&self) -> Vec<Ended> {
        self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The command that runs `words` in a container of a pod, as `kubectl exec` does.
    ///
    /// # Panics
    /// When the pod has no running container.
    #[must_use]
    pub fn exec(&self, namespace: &str, pod: &str, words: &[&str]) -> Command {
        let state = self.shared.directory.join("crun");
        let object = self.shared.pods.get(namespace, pod).expect("a pod");
        let uid = object["metadata"]["uid"].as_str().expect("an id");
        let list = crun(&state).args(["list", "-q"]).output().expect("crun");
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        let id = list.lines().find(|id| id.starts_with(uid)).expect("a running container");
        let bundle = self.shared.directory.join("pods").join(uid).join(&id[uid.len() + 1..]);
        exec(&state, &bundle, id, words)
    }

    /// What the containers have written whose pods are there, by the pod's id and the container.
    #[must_use]
    pub fn logs(&self) -> Vec<(PathBuf, String)> {
        let below = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten();
        let pods = below(self.shared.directory.join("pods"));
        let containers = pods.flat_map(|pod| below(pod.path()));
        let read = |path: PathBuf| Some((path.clone(), fs::read_to_string(path).ok()?));
        containers.filter_map(|container| read(container.path().join("log"))).collect()
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (path, log) in self.logs() {
                print_tail(&path.display().to_string(), &log);
            }
        }
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let faults = self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(faults.is_empty() || std::thread::panicking(), "in the kubelet: {faults:?}");
    }
}

impl Shared {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn note_ended(&self, ended: impl Iterator<Item = Ended>) {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).extend(ended);
    }

    /// Runs each pod in a thread of its own.
    fn run(self: Arc<Self>) {
        let mut known: BTreeSet<String> = BTreeSet::new();
        let mut running: Vec<JoinHandle<()>> = Vec::new();
        while !self.is_over() {
            for object in self.pods.all().into_values() {
                let is_bound = object["spec"]["nodeName"].is_string();
                let uid = object["metadata"]["uid"].as_str().expect("an id").to_owned();
                if is_bound && known.insert(uid) {
                    let shared = Arc::clone(&self);
                    running.push(std::thread::spawn(move || Pod::new(&shared, object).run()));
                }
            }
            let (over, still): (Vec<_>, Vec<_>) =
                running.into_iter().partition(JoinHandle::is_finished);
            running = still;
            over.into_iter().for_each(|pod| self.join(pod));
            std::thread::sleep(Duration::from_millis(50));
        }
        running.into_iter().for_each(|pod| self.join(pod));
        let mut list = crun(&self.directory.join("crun"));
        let left = list.args(["list", "-q"]).output().map(|it| it.stdout).unwrap_or_default();
        for id in String::from_utf8_lossy(&left).lines() {
            let mut delete = crun(&self.directory.join("crun"));
            let _ = delete.args(["delete", "--force", id]).status();
        }
    }

    fn join(&self, pod: JoinHandle<()>) {
        if let Err(fault) = pod.join() {
            let text = fault.downcast_ref::<String>().cloned();
            let text = text.or_else(|| fault.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
            faults.push(text.unwrap_or_default());
        }
    }
}

/// Makes a node as its kubelet would, and takes away the taint that a new one has until a
/// controller sees that it is ready.
fn register(api: &Api, name: &str) {
    let labels = json!({
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "topology.kubernetes.io/zone": format!("zone-of-{name}"),
    });
    api.create("/api/v1/nodes", &json!({ "metadata": { "name": name, "labels": labels } }));
    let path = format!("/api/v1/nodes/{name}");
    let room = json!({ "cpu": "16", "memory": "64Gi", "pods": "110" });
    let status = json!({ "status": {
        "capacity": room, "allocatable": room,
        "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady" }],
    }});
    api.patch(&format!("{path}/status"), &status);
    api.patch(&path, &json!({ "spec": { "taints": null } }));
}
