//! Images of containers as trees of files: a registry cannot be had in a test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::pgimbal::program;
use crate::program::run;
use crate::sources::root;
use crate::until::SOON;
use crate::vault;

/// An image: its files, and what its configuration says.
#[derive(Clone)]
pub struct Image {
    /// The folder with its files.
    pub root: PathBuf,
    /// Folders of this machine that belong to its files.
    pub mounts: Vec<PathBuf>,
    /// The program with its first arguments; none where a pod must say it.
    pub entry_point: Vec<String>,
    /// The variables, `NAME=VALUE`.
    pub variables: Vec<String>,
    /// The user and the group.
    pub user: (u32, u32),
}

impl Image {
    /// The image that `deploy/docker` lays out, in the new folder `root`, with the program under
    /// test: that one is not static, and has this machine's libraries.
    ///
    /// # Panics
    /// When it cannot be laid out.
    #[must_use]
    pub fn of_pgimbal(root_folder: &Path) -> Self {
        let stripped = root_folder.with_extension("program");
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(&stripped).arg(program());
        let _ = run(&mut strip, SOON * 8).succeeded();
        let docker = root().join("deploy/docker");
        let mut lay_out = Command::new(docker.join("rootfs"));
        lay_out.arg(root_folder).arg(&stripped);
        let _ = run(&mut lay_out, SOON * 8).succeeded();
        let _ = fs::remove_file(stripped);
        let file = fs::read_to_string(docker.join("Containerfile")).expect("a file");
        let line = |word: &str| file.lines().find_map(|line| line.strip_prefix(word));
        let user = line("USER ").and_then(|user| user.split_once(':')).expect("a user");
        let entry_point = line("ENTRYPOINT ").expect("an entry point");
        let variables = file.lines().filter_map(|line| line.strip_prefix("ENV "));
        Self {
            root: root_folder.to_owned(),
            mounts: machine_folders(&["/lib", "/lib64", "/usr/lib"]),
            entry_point: serde_json::from_str(entry_point).expect("a list"),
            variables: variables.map(|line| line.replace('"', "")).collect(),
            user: (user.0.parse().expect("a number"), user.1.parse().expect("a number")),
        }
    }

    /// An image with the programs of this machine, such as a shell and psql, in the new folder
    /// `root`; and with a Vault at its path here.
    ///
    /// # Panics
    /// When the folder cannot be made.
    #[must_use]
    pub fn of_this_machine(root_folder: &Path) -> Self {
        for folder in ["etc", "tmp", "dev", "proc", "sys", "run"] {
            fs::create_dir_all(root_folder.join(folder)).expect("a folder");
        }
        fs::write(root_folder.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").expect("a file");
        let mut mounts = machine_folders(&["/bin", "/lib", "/lib64", "/usr", "/etc/alternatives"]);
        let vault = vault::find_program().and_then(|path| path.parent().map(Path::to_owned));
        mounts.extend(vault.filter(|folder| !mounts.iter().any(|it| folder.starts_with(it))));
        Self {
            root: root_folder.to_owned(),
            mounts,
            entry_point: Vec::new(),
            variables: Vec::new(),
            user: (0, 0),
        }
    }
}

fn machine_folders(names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(PathBuf::from).filter(|path| path.exists()).collect()
}
