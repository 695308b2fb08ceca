//! The controllers and the scheduler of a Kubernetes: without them no ReplicaSet, EndpointSlice or
//! place for a pod comes about.

use std::path::Path;

use rustix::process::Signal;

use super::program;
use crate::pgimbal::undisturbed;
use crate::process::{Directory, Process, directory};
use crate::program::print_tail;

/// Those that a test needs. Nodes are not among them: a slow test's would be taken for dead.
const CONTROLLERS: [&str; 10] = [
    "deployment-controller",
    "replicaset-controller",
    "endpointslice-controller",
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "disruption-controller",
    "job-controller",
    "pod-garbage-collector-controller",
];

/// A running kube-controller-manager and a running kube-scheduler. Dropping it kills both.
pub struct Controllers {
    processes: [(&'static str, Process); 2],
    _directories: [Directory; 2],
}

impl Controllers {
    /// Starts both with this kubeconfig. Every namespace gets the authority in `authority`.
    ///
    /// # Panics
    /// When one of the programs is missing (`tests/set-up` builds them).
    #[must_use]
    pub fn start(kubeconfig: &Path, authority: &Path) -> Self {
        let directories = [directory("controllers"), directory("scheduler")];
        let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
        let common = [
            kubeconfig.as_str(),
            "--leader-elect=false",
            "--secure-port=0",
            // Debian's etcd is too old for it.
            "--feature-gates=WatchListClient=false",
        ];
        let mut manager = undisturbed(program("kube-controller-manager"));
        manager.args(common).current_dir(&*directories[0]);
        manager.arg(format!("--controllers={}", CONTROLLERS.join(",")));
        manager.arg(format!("--root-ca-file={}", authority.display()));
        let mut scheduler = undisturbed(program("kube-scheduler"));
        scheduler.args(common).current_dir(&*directories[1]);
        let start =
            |command, directory: &Directory| Process::start(command, directory, Signal::KILL);
        let processes = [
            ("the controllers", start(manager, &directories[0])),
            ("the scheduler", start(scheduler, &directories[1])),
        ];
        Self { processes, _directories: directories }
    }
}

impl Drop for Controllers {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (name, process) in &self.processes {
                print_tail(name, &process.log());
            }
        }
    }
}
