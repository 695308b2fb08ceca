//! A pod on its node, from the moment at which it is bound to the one at which nothing of it is
//! left.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Shared;
use super::container::{Mount, Recipe};
use super::policies::enforce;
use super::supervised::{Supervised, now};
use super::variables::variables;
use super::volumes::Volumes;
use crate::kubernetes::network::PodNetwork;

/// How often a pod is looked after.
const TICK: Duration = Duration::from_millis(50);

/// How often its volumes are compared with what they come from. A kubelet takes a minute; a test
/// does not wait so long.
const VOLUMES: Duration = Duration::from_secs(1);

/// How often its filters are compared with the policies.
const FILTERS: Duration = Duration::from_millis(500);

/// A pod with all that it has.
pub(super) struct Pod<'a> {
    kubelet: &'a Shared,
    /// As the API server had it when it was bound.
    object: Value,
    namespace: String,
    name: String,
    uid: String,
    directory: PathBuf,
    network: PodNetwork,
    volumes: Volumes,
    containers: Vec<Supervised>,
    since: String,
    told: Value,
    /// The filters in force in its network.
    filters: String,
    next_filters: Instant,
    next_volumes: Instant,
    /// Whether all of them were there once.
    has_volumes: bool,
}

/// What the API server says of a pod.
enum Wish {
    Stay,
    /// It is to end within this time.
    End(Duration),
    /// It is not there any more.
    Gone,
}

impl<'a> Pod<'a> {
    pub(super) fn new(kubelet: &'a Shared, object: Value) -> Self {
        let of = |key: &str| object["metadata"][key].as_str().expect("a text").to_owned();
        let (namespace, name, uid) = (of("namespace"), of("name"), of("uid"));
        let specification = &object["spec"];
        assert!(specification.get("initContainers").is_none(), "this kubelet knows none");
        let directory = kubelet.directory.join("pods").join(&uid);
        fs::create_dir_all(&directory).expect("a folder");
        let containers = specification["containers"].as_array().into_iter().flatten();
        Self {
            kubelet,
            namespace,
            name,
            uid,
            network: kubelet.network.pod(),
            volumes: Volumes::new(&directory.join("volumes"), &object),
            containers: containers.cloned().map(Supervised::new).collect(),
            directory,
            object,
            since: now(),
            told: Value::Null,
            filters: String::new(),
            next_filters: Instant::now(),
            next_volumes: Instant::now(),
            has_volumes: false,
        }
    }

    /// Looks after the pod until it is gone.
    pub(super) fn run(mut self) {
        self.write_files();
        loop {
            match self.wish() {
                Wish::Stay => {
                    self.filter();
                    self.keep();
                }
                Wish::End(grace) => return self.end(grace),
                Wish::Gone => return self.end(Duration::ZERO),
            }
            self.tell();
            std::thread::sleep(TICK);
        }
    }

    fn wish(&self) -> Wish {
        if self.kubelet.is_over() {
            return Wish::Gone;
        }
        let object = self.kubelet.pods.get(&self.namespace, &self.name);
        let Some(object) = object.filter(|object| object["metadata"]["uid"] == *self.uid) else {
            return Wish::Gone;
        };
        if object["metadata"].get("deletionTimestamp").is_none() {
            return Wish::Stay;
        }
        let grace = object["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or(0);
        Wish::End(Duration::from_secs(grace))
    }

    /// Files that every container gets from the kubelet.
    fn write_files(&self) {
        let hosts = format!(
            "127.0.0.1\tlocalhost\n::1\tlocalhost\n{}\t{}\n",
            self.network.address, self.name
        );
        let domain = "cluster.local";
        let resolver = format!(
            "nameserver {}\nsearch {}.svc.{domain} svc.{domain} {domain}\noptions ndots:5\n",
            self.kubelet.network.machine(),
            self.namespace
        );
        for (name, text) in [("hosts", hosts), ("resolv.conf", resolver)] {
            fs::write(self.directory.join(name), text).expect("a file");
        }
    }

    /// Lets in whom the NetworkPolicies let in, from before its first container starts.
    fn filter(&mut self) {
        if Instant::now() < self.next_filters {
            return;
        }
        self.next_filters = Instant::now() + FILTERS;
        let Shared { policies, pods, network, .. } = self.kubelet;
        let table = policies.table(&self.object, &pods.all(), network.machine());
        if table != self.filters {
            enforce(&table, &self.network);
            self.filters = table;
        }
    }

    /// Starts what is to run, and looks at what runs.
    fn keep(&mut self) {
        if Instant::now() >= self.next_volumes {
            self.next_volumes = Instant::now() + VOLUMES;
            let written =
                self.volumes.write(&self.kubelet.sources, &self.kubelet.api, &self.object);
            self.has_volumes |= written.is_ok();
            if let Err(why) = written {
                for container in self.containers.iter_mut().filter(|it| it.is_due()) {
                    container.wait_for("ContainerCreating", &why);
                }
            }
        }
        if !self.has_volumes {
            return;
        }
        let policy = self.object["spec"]["restartPolicy"].as_str().unwrap_or("Always").to_owned();
        for index in 0..self.containers.len() {
            self.containers[index].look(&policy);
            if self.containers[index].is_due() {
                self.start(index);
            }
        }
    }

    fn start(&mut self, index: usize) {
        let container = self.containers[index].specification.clone();
        let name = container["image"].as_str().expect("an image");
        let Some(image) = self.kubelet.images.get(name) else {
            self.containers[index].wait_for("ErrImagePull", &format!("there is no image {name}"));
            return;
        };
        let (address, api_server) = (self.network.address, self.kubelet.network.api_server());
        let sources = &self.kubelet.sources;
        let variables = match variables(sources, &self.object, &container, address, api_server) {
            Ok(variables) => variables,
            Err(why) => return self.containers[index].wait_for("CreateContainerConfigError", &why),
        };
        let recipe = Recipe {
            image,
            container: &container,
            pod: &self.object["spec"],
            host_name: &self.name,
            network: &self.network.name,
            variables,
            mounts: self.mounts(&container),
        };
        let (state, directory) = (self.kubelet.directory.join("crun"), &self.directory);
        self.containers[index].start(&self.uid, &state, directory, address, &recipe);
    }

    fn mounts(&self, container: &Value) -> Vec<Mount> {
        let mut mounts = Vec::new();
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            assert!(mount.get("subPath").is_none(), "this kubelet mounts whole volumes");
            mounts.push(Mount {
                at: mount["mountPath"].as_str().expect("a path").to_owned(),
                from: self.volumes.folder(mount["name"].as_str().expect("a name")),
                is_read_only: mount["readOnly"] == true,
            });
        }
        for name in ["hosts", "resolv.conf"] {
            let (at, from) = (format!("/etc/{name}"), self.directory.join(name));
            mounts.push(Mount { at, from, is_read_only: true });
        }
        mounts
    }

    /// Ends the pod: SIGTERM, SIGKILL after `grace`, and then there is no such pod any more.
    fn end(mut self, grace: Duration) {
        let begun = Instant::now();
        let mut was_killed = false;
        while !self.containers.iter().all(Supervised::is_at_rest) {
            for container in &mut self.containers {
                if begun.elapsed() < grace {
                    container.tell_to_end();
                } else if container.signal("KILL") {
                    was_killed = true;
                }
                // What has not begun by now does not begin.
                container.look("Never");
            }
            if !self.kubelet.is_over() {
                self.tell();
            }
            std::thread::sleep(TICK);
        }
        let ended = self.containers.iter().filter_map(|it| it.ended(&self.name, was_killed));
        self.kubelet.note_ended(ended);
        self.containers.clear();
        let path = format!("/api/v1/namespaces/{}/pods/{}", self.namespace, self.name);
        let now = json!({ "gracePeriodSeconds": 0, "preconditions": { "uid": self.uid } });
        if !self.kubelet.is_over() {
            let _ = self.kubelet.api.call("DELETE", &path, &now);
        }
        let _ = fs::remove_dir_all(&self.directory);
    }

    fn phase(&self) -> &'static str {
        let codes: Option<Vec<i32>> = self.containers.iter().map(Supervised::exit_code).collect();
        match codes {
            Some(codes) if codes.iter().all(|code| *code == 0) => "Succeeded",
            Some(_) => "Failed",
            None if self.containers.iter().any(Supervised::has_begun) => "Running",
            None => "Pending",
        }
    }

    /// Tells the API server the pod's status where it is another one than before.
    fn tell(&mut self) {
        let is_ready = self.containers.iter().all(Supervised::is_ready);
        let word = |is_true: bool| if is_true { "True" } else { "False" };
        let shown = self.kubelet.pods.get(&self.namespace, &self.name).unwrap_or_default();
        let before = shown["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let conditions: Vec<Value> = [
            ("PodScheduled", true),
            ("Initialized", true),
            ("ContainersReady", is_ready),
            ("Ready", is_ready),
        ]
        .into_iter()
        .map(|(kind, is_true)| {
            let same = |it: &&Value| it["type"] == kind && it["status"] == word(is_true);
            let since = before.iter().find(same).map(|it| it["lastTransitionTime"].clone());
            let since = since.filter(Value::is_string).unwrap_or_else(|| json!(now()));
            json!({ "type": kind, "status": word(is_true), "lastTransitionTime": since })
        })
        .collect();
        let statuses: Vec<Value> = self.containers.iter().map(Supervised::status).collect();
        let summary = json!({ "ready": is_ready, "containers": statuses });
        if summary == self.told {
            return;
        }
        let address = self.network.address.to_string();
        let machine = self.kubelet.network.machine().to_string();
        let status = json!({ "status": {
            "phase": self.phase(),
            "conditions": conditions,
            "containerStatuses": statuses,
            "podIP": address, "podIPs": [{ "ip": address }],
            "hostIP": machine, "hostIPs": [{ "ip": machine }],
            "startTime": self.since,
        }});
        let path = format!("/api/v1/namespaces/{}/pods/{}/status", self.namespace, self.name);
        if matches!(self.kubelet.api.call("PATCH", &path, &status), Ok((200, _))) {
            self.told = summary;
        }
    }
}
