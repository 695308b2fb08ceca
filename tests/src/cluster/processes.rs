//! A server's processes, known by the directory that all of them work in: a backend whose
//! postmaster was killed has another parent, and each backend is a process group of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

/// The leash's script for the data directory `$0`, below `$1`.
pub(super) const TIDY: &str = "\
for process in /proc/[0-9]*; do
    case $(readlink \"$process/cwd\") in \"$0\"*) kill -9 \"${process#/proc/}\";; esac
done
ipcrm -m \"$(sed -n '7s/.* //p' \"$0/postmaster.pid\")\"
rm -rf -- \"$1\"
# A copy into it may have been under way.
sleep 1
rm -rf -- \"$1\"";

/// The living processes that work in `data`.
pub(super) fn of(data: &Path) -> Vec<Pid> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == data) {
            found.extend(Pid::from_raw(id));
        }
    }
    found
}

/// The title of each process, such as `postgres: app app 127.0.0.1(45678) idle`.
pub(super) fn titles(data: &Path) -> Vec<String> {
    let read = |pid: Pid| fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).ok();
    let titles = of(data).into_iter().filter_map(read);
    titles.map(|title| String::from_utf8_lossy(&title).into_owned()).collect()
}

/// Sends `signal` to all of them and returns how many there were.
pub(super) fn signal(data: &Path, signal: Signal) -> usize {
    let all = of(data);
    for pid in &all {
        let _ = kill_process(*pid, signal);
    }
    all.len()
}

/// Removes what a killed server left outside its directory, and its pid file with it.
pub(super) fn forget(data: &Path) {
    let file: PathBuf = data.join("postmaster.pid");
    let Ok(text) = fs::read_to_string(&file) else { return };
    // The seventh line holds the key and the id of its one System V segment.
    if let Some(id) = text.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
        let _ = Command::new("ipcrm").arg("-m").arg(id).output();
    }
    let _ = fs::remove_file(file);
}
