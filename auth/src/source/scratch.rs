//! A directory for one test, removed with it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A directory for one test, which is removed when this is dropped.
pub(super) struct Directory(PathBuf);

impl Directory {
    /// Makes an empty directory.
    pub(super) fn new() -> Self {
        let name = format!("pgimbal-source-{}-{}", std::process::id(), rand::random::<u64>());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a scratch directory");
        Self(path)
    }

    /// The path of `name` in the directory, whether it exists or not.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file, with the directories on the way.
    pub(super) fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(&path, text).expect("a file");
        path
    }

    /// Fills `volume` as the kubelet does: the files in a directory of their own, `..data` a link
    /// to it that is replaced by a rename, the visible names links through `..data`. The
    /// generation before is removed afterwards.
    pub(super) fn publish(&self, volume: &str, generation: &str, files: &[(&str, &str)]) {
        let root = self.path(volume);
        let before = fs::read_link(root.join("..data")).ok();
        for (name, text) in files {
            self.file(&format!("{volume}/{generation}/{name}"), text);
        }
        let _ = fs::remove_file(root.join("..data_tmp"));
        symlink(generation, root.join("..data_tmp")).expect("a link");
        fs::rename(root.join("..data_tmp"), root.join("..data")).expect("the swap");
        for (name, _) in files {
            let _ = symlink(Path::new("..data").join(name), root.join(name));
        }
        if let Some(before) = before {
            fs::remove_dir_all(root.join(before)).expect("the generation before");
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
