//! What is refused of a directory, and that no link is followed.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("pgimbal-state-{name}-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path).expect("a directory");
        Self(path)
    }

    fn file(&self, name: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, "x").expect("a file");
        chmod(&path, mode);
        path
    }

    /// What both checks say of it.
    fn refused(&self) -> String {
        let prepared = prepare(&self.0).expect_err("refused").to_string();
        assert_eq!(examine(&self.0).expect_err("refused").to_string(), prepared);
        prepared
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    let scratch = Scratch::new("lax");
    for mode in [0o777, 0o770, 0o1777, 0o702] {
        chmod(&scratch.0, mode);
        let said = scratch.refused();
        assert!(said.contains("state_dir = ") && said.contains("chmod 0700"), "{said}");
    }
    for mode in [0o700, 0o750, 0o755] {
        chmod(&scratch.0, mode);
        prepare(&scratch.0).expect("closed to others");
    }
    // A directory inside an open one is made closed.
    chmod(&scratch.0, 0o777);
    let inner = scratch.0.join("own/state");
    examine(&inner).expect("it can be made");
    assert!(!inner.exists(), "looking makes nothing");
    prepare(&inner).expect("it is made");
    assert_eq!(fs::metadata(&inner).expect("the directory").mode() & 0o777, 0o700);
}

#[test]
fn lax_files_links_and_odd_ones_are_refused() {
    for name in
        ["credentials.json", "passwords.json", "salt-key", "cluster-main.json", "salt-key.new"]
    {
        let scratch = Scratch::new(&format!("files-{name}"));
        let file = scratch.file(name, 0o644);
        let said = scratch.refused();
        assert!(said.contains(name) && said.contains("0644") && said.contains("0600"), "{said}");
        chmod(&file, 0o600);
        prepare(&scratch.0).expect("closed to others");
        fs::rename(&file, scratch.0.join("elsewhere")).expect("a rename");
        symlink("elsewhere", &file).expect("a link");
        assert!(scratch.refused().contains("is a symbolic link"));
        fs::remove_file(&file).expect("removed");
        fs::create_dir(&file).expect("a directory");
        assert!(scratch.refused().contains("is not a plain file"));
    }
    // What is not pgimbal's is not its business.
    let scratch = Scratch::new("others");
    scratch.file("README", 0o644);
    prepare(&scratch.0).expect("not one of ours");
}

#[test]
fn what_cannot_be_a_directory_is_named() {
    let scratch = Scratch::new("none");
    let file = scratch.file("file", 0o600);
    assert!(examine(&file).expect_err("a file").to_string().contains("is not a directory"));
    assert!(prepare(&file).is_err());
    let below = prepare(&file.join("state")).expect_err("below a file").to_string();
    assert!(below.contains("cannot be made"), "{below}");
}

#[test]
fn nothing_is_written_or_read_through_a_link() {
    let scratch = Scratch::new("links");
    let victim = scratch.file("victim", 0o644);
    let path = scratch.0.join("credentials.json");
    symlink(&victim, path.with_extension("new")).expect("a link");
    symlink(&victim, &path).expect("a link");
    assert!(read(&path).is_err(), "a link is not read");
    write(&path, b"secret").expect("a file");
    assert_eq!(fs::read(&victim).expect("the victim"), b"x");
    let found = fs::symlink_metadata(&path).expect("the file");
    assert!(found.is_file() && found.mode() & 0o777 == 0o600, "{:o}", found.mode());
    assert_eq!(&**read(&path).expect("readable").expect("a file"), b"secret");
}
