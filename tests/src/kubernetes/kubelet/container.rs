//! A container: a bundle for crun, and the process that runs it. There are no control groups and
//! no filter of system calls; all else is as a runtime of Kubernetes does it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::image::Image;
use crate::process::Process;
use crate::program::tail;

/// Something of this machine that a container finds at a path of its own.
pub(super) struct Mount {
    /// The path in the container.
    pub(super) at: String,
    /// The path on this machine.
    pub(super) from: PathBuf,
    /// Whether the container may only read it.
    pub(super) is_read_only: bool,
}

/// What a container is made of.
pub(super) struct Recipe<'a> {
    /// The image.
    pub(super) image: &'a Image,
    /// The container in the pod's specification.
    pub(super) container: &'a Value,
    /// The pod's specification.
    pub(super) pod: &'a Value,
    /// The pod's name.
    pub(super) host_name: &'a str,
    /// The pod's network namespace.
    pub(super) network: &'a str,
    /// The variables, `NAME=VALUE`; a later one wins.
    pub(super) variables: Vec<String>,
    /// Volumes and the files of the kubelet's own.
    pub(super) mounts: Vec<Mount>,
}

/// A started container.
pub(super) struct Container {
    id: String,
    state: PathBuf,
    bundle: PathBuf,
    process: Process,
}

impl Container {
    /// Starts the container `id` with its bundle in the new folder `bundle`. `state` is crun's own
    /// folder.
    ///
    /// # Panics
    /// When there is no crun, or the recipe has something that this kubelet does not know.
    #[must_use]
    pub(super) fn start(id: &str, state: &Path, bundle: &Path, recipe: &Recipe<'_>) -> Self {
        fs::create_dir_all(bundle).expect("a folder");
        // The runtime makes places for mounts in it, which are this container's alone.
        let copied = Command::new("cp")
            .arg("-al")
            .arg(&recipe.image.root)
            .arg(bundle.join("rootfs"))
            .status();
        assert!(copied.is_ok_and(|status| status.success()), "the files of the image");
        let config = config(recipe).to_string();
        fs::write(bundle.join("config.json"), config).expect("a file");
        let mut command = crun(state);
        command.arg("run").arg("--bundle").arg(bundle).arg(id);
        let process = Process::start_untied(command, bundle, Signal::KILL);
        Self { id: id.to_owned(), state: state.to_owned(), bundle: bundle.to_owned(), process }
    }

    /// The exit code once it has ended; 128 and the signal's number after a signal.
    pub(super) fn ended(&mut self) -> Option<i32> {
        self.process.ended().map(|status| status.code().unwrap_or(137))
    }

    /// Sends a signal, `TERM` or `KILL`, to its first process. Returns whether there was one.
    #[must_use]
    pub(super) fn signal(&self, name: &str) -> bool {
        let mut command = crun(&self.state);
        command.args(["kill", &self.id, name]).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    /// The command that runs `words` in it, as its own user.
    ///
    /// # Panics
    /// As [`exec`].
    #[must_use]
    pub(super) fn exec(&self, words: &[&str]) -> Command {
        exec(&self.state, &self.bundle, &self.id, words)
    }

    /// What it has written.
    #[must_use]
    pub(super) fn log(&self) -> String {
        self.process.log()
    }

    /// The end of that, as far as a pod's status has room for it.
    #[must_use]
    pub(super) fn last_words(&self) -> String {
        let words = tail(&self.log(), 80);
        let from = words.len().saturating_sub(2048);
        let from = (from..=words.len()).find(|at| words.is_char_boundary(*at));
        words[from.unwrap_or(0)..].to_owned()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let mut delete = crun(&self.state);
        let _ = delete.args(["delete", "--force", &self.id]).stderr(Stdio::null()).status();
    }
}

/// crun with its state in `state`. It does not see this machine's control groups: it refuses to
/// run where they are of both versions, even though it is to use none.
pub(super) fn crun(state: &Path) -> Command {
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs tmpfs /sys/fs/cgroup; exec \"$0\" \"$@\"";
    command.args(["--mount", "sh", "-c", script, "crun"]);
    command.arg("--root").arg(state).arg("--cgroup-manager=disabled");
    command.stdin(Stdio::null());
    command
}

/// The command that runs `words` in the container `id` of the folder `bundle`, with the user, the
/// rights and the variables of its first process.
///
/// # Panics
/// When the bundle is not there.
pub(super) fn exec(state: &Path, bundle: &Path, id: &str, words: &[&str]) -> Command {
    let config = fs::read_to_string(bundle.join("config.json")).expect("a bundle");
    let config: Value = serde_json::from_str(&config).expect("JSON");
    let mut process = config["process"].clone();
    process["args"] = json!(words);
    let file = bundle.join("exec.json");
    fs::write(&file, process.to_string()).expect("a file");
    let mut command = crun(state);
    command.arg("exec").arg("--process").arg(file).arg(id);
    command
}

fn config(recipe: &Recipe<'_>) -> Value {
    let Recipe { image, container, pod, .. } = recipe;
    let security = &container["securityContext"];
    let of_pod = &pod["securityContext"];
    let own = |key: &str| [&security[key], &of_pod[key]].into_iter().find_map(Value::as_u64);
    assert_eq!(security["capabilities"]["drop"], json!(["ALL"]), "this kubelet runs no others");
    assert!(security["capabilities"]["add"].is_null(), "this kubelet gives no capability");
    let user = own("runAsUser").unwrap_or(image.user.0.into());
    if own_flag(security, of_pod, "runAsNonRoot") {
        assert_ne!(user, 0, "runAsNonRoot, and the image's user is root");
    }
    let words = |key: &str| {
        let words = container[key].as_array()?.iter();
        Some(words.map(|word| word.as_str().expect("a text").to_owned()).collect::<Vec<_>>())
    };
    let mut arguments = words("command").unwrap_or_else(|| image.entry_point.clone());
    arguments.extend(words("args").unwrap_or_default());
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
    let mut variables = vec![path, format!("HOSTNAME={}", recipe.host_name)];
    variables.extend(image.variables.iter().chain(&recipe.variables).cloned());
    let groups: Vec<u64> = of_pod["fsGroup"].as_u64().into_iter().collect();
    json!({
        "ociVersion": "1.0.2",
        "hostname": recipe.host_name,
        "root": { "path": "rootfs", "readonly": security["readOnlyRootFilesystem"] == true },
        "process": {
            "user": {
                "uid": user,
                "gid": own("runAsGroup").unwrap_or(image.user.1.into()),
                "additionalGids": groups,
            },
            "args": arguments,
            "env": variables,
            "cwd": "/",
            "noNewPrivileges": security["allowPrivilegeEscalation"] == false,
            "capabilities": {
                "bounding": [], "effective": [], "inheritable": [], "permitted": [], "ambient": [],
            },
        },
        "mounts": mounts(recipe),
        "linux": {
            "namespaces": [
                { "type": "network", "path": format!("/run/netns/{}", recipe.network) },
                { "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" },
            ],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"],
        },
    })
}

fn own_flag(security: &Value, of_pod: &Value, key: &str) -> bool {
    [&security[key], &of_pod[key]].into_iter().find_map(Value::as_bool).unwrap_or(false)
}

fn mounts(recipe: &Recipe<'_>) -> Vec<Value> {
    let kernel = |at: &str, kind: &str, options: &[&str]| json!({ "destination": at, "type": kind, "source": kind, "options": options });
    let mut all = vec![
        kernel("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        kernel("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=64k"]),
        kernel("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "mode=0620"]),
        kernel("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=64m"]),
        kernel("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ];
    let bind = |at: &str, from: &Path, is_read_only: bool| {
        let mode = if is_read_only { "ro" } else { "rw" };
        json!({
            "destination": at, "type": "bind", "source": from, "options": ["rbind", mode, "nosuid"],
        })
    };
    all.extend(recipe.image.mounts.iter().map(|path| bind(&path.to_string_lossy(), path, true)));
    all.extend(recipe.mounts.iter().map(|it| bind(&it.at, &it.from, it.is_read_only)));
    all
}
