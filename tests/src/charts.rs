//! Helm and Kustomize, and the objects that they make of `deploy/helm` and `deploy/kustomize`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::pgimbal::undisturbed;
use crate::process::{Directory, directory};
use crate::program::{self, Finished};
use crate::sources::root;

/// Time limit of one command, which needs a second on an idle machine.
const LIMIT: Duration = Duration::from_secs(120);

/// The version of Kubernetes that objects are made for.
pub const KUBE_VERSION: &str = "1.34.3";

/// The versions of Helm that the chart is for.
pub const HELMS: [Helm; 2] = [Helm::Three, Helm::Four];

/// A version of Helm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Helm {
    /// Helm 3, which merges what it applies at the client.
    Three,
    /// Helm 4, which applies at the server.
    Four,
}

/// The programs that `tests/helm/program` builds, and a home of their own.
pub struct Charts {
    helms: [PathBuf; 2],
    kustomize: PathBuf,
    definitions: PathBuf,
    home: Directory,
}

impl Charts {
    /// Finds the programs.
    ///
    /// # Panics
    /// When one is missing (`tests/set-up` builds them).
    #[must_use]
    pub fn new() -> Self {
        let find = Path::new(env!("CARGO_MANIFEST_DIR")).join("helm/program");
        let found = program::run(&mut Command::new(find), LIMIT).succeeded();
        let mut paths = found.stdout.lines().map(PathBuf::from);
        let mut next = || paths.next().expect("four paths");
        Self {
            helms: [next(), next()],
            kustomize: next(),
            definitions: next(),
            home: directory("helm"),
        }
    }

    /// The path of a Helm.
    #[must_use]
    pub fn program(&self, version: Helm) -> &Path {
        &self.helms[version as usize]
    }

    /// Runs `helm WORDS` for the cluster of `kubeconfig`, if there is one.
    ///
    /// # Panics
    /// When it does not end in time.
    #[must_use]
    pub fn helm(&self, version: Helm, words: &[&str], kubeconfig: Option<&Path>) -> Finished {
        let mut command = undisturbed(&self.helms[version as usize]);
        command.args(words).current_dir(root());
        for (name, _) in std::env::vars_os() {
            if ["HELM_", "KUBE", "XDG_"].iter().any(|own| name.to_string_lossy().starts_with(own)) {
                command.env_remove(name);
            }
        }
        // Nor has a cluster a say that this user may have.
        let nowhere = Path::new("/nonexistent");
        command.env("HOME", &*self.home).env("KUBECONFIG", kubeconfig.unwrap_or(nowhere));
        program::run(&mut command, LIMIT)
    }

    /// The objects that the chart makes with these words for `helm template`, as release `pgimbal`.
    ///
    /// # Panics
    /// When Helm refuses.
    #[must_use]
    pub fn template(&self, version: Helm, namespace: &str, words: &[&str]) -> Vec<Value> {
        let chart = chart();
        let chart = chart.to_string_lossy();
        // A Helm that `go install` built takes Kubernetes for an old one unless it is told.
        let kube = ["--kube-version", KUBE_VERSION];
        let first = ["template", "pgimbal", &chart, "--namespace", namespace, kube[0], kube[1]];
        objects(&self.helm(version, &[&first[..], words].concat(), None).succeeded().stdout)
    }

    /// The objects of a folder of `deploy/kustomize`.
    ///
    /// # Panics
    /// When Kustomize refuses.
    #[must_use]
    pub fn build(&self, folder: &str) -> Vec<Value> {
        let mut command = undisturbed(&self.kustomize);
        command.arg("build").arg(root().join("deploy/kustomize").join(folder));
        command.env("HOME", &*self.home);
        objects(&program::run(&mut command, LIMIT).succeeded().stdout)
    }

    /// The definitions of the custom resources that the chart and the overlays use.
    ///
    /// # Panics
    /// When a file cannot be read.
    #[must_use]
    pub fn definitions(&self) -> Vec<Value> {
        let files = fs::read_dir(&self.definitions).expect("a folder").flatten();
        files.flat_map(|file| objects(&fs::read_to_string(file.path()).expect("a file"))).collect()
    }
}

impl Default for Charts {
    fn default() -> Self {
        Self::new()
    }
}

/// The folder of the chart.
#[must_use]
pub fn chart() -> PathBuf {
    root().join("deploy/helm/pgimbal")
}

/// The files with values that the chart is tried with, by name and in order: those of `ci`.
///
/// # Panics
/// When the folder cannot be read.
#[must_use]
pub fn value_files() -> Vec<(String, PathBuf)> {
    let files = fs::read_dir(chart().join("ci")).expect("a folder").flatten();
    let mut files: Vec<_> = files
        .filter_map(|file| {
            let name = file.file_name().to_string_lossy().strip_suffix("-values.yaml")?.to_owned();
            Some((name, file.path()))
        })
        .collect();
    files.sort();
    files
}

/// The folders of `deploy/kustomize/overlays`, as `overlays/NAME`, in order.
///
/// # Panics
/// When the folder cannot be read.
#[must_use]
pub fn overlays() -> Vec<String> {
    let folders = fs::read_dir(root().join("deploy/kustomize/overlays")).expect("a folder");
    let name = |folder: fs::DirEntry| folder.file_name().to_string_lossy().into_owned();
    let mut names: Vec<_> =
        folders.flatten().map(|folder| format!("overlays/{}", name(folder))).collect();
    names.sort();
    names
}

/// The documents of a YAML text, read as Kubernetes reads it: `0440` is octal. A document that is
/// empty is left out.
///
/// # Panics
/// When it is no YAML.
#[must_use]
pub fn objects(yaml: &str) -> Vec<Value> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let read = serde_saphyr::from_multiple_with_options::<Value>(yaml, options);
    let documents = read.unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

/// The object of this kind whose name is `name`.
#[must_use]
pub fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> Option<&'a Value> {
    of_kind(objects, kind).find(|object| object["metadata"]["name"] == name)
}

/// The objects of this kind.
pub fn of_kind<'a>(objects: &'a [Value], kind: &str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}
