//! What the kernel counts of this process: memory and open files, with their limits.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

/// Where control groups of the second version are mounted.
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

/// Memory and open files of this process at one moment. What the kernel does not say is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Resources {
    /// Resident memory in bytes, `VmRSS` of `/proc/self/status`.
    pub(super) memory: Option<u64>,
    /// Limit of memory in bytes, `memory.max` of the process's own control group (version 2), as a
    /// container and `MemoryMax` of systemd have it; `None` without a limit.
    pub(super) memory_limit: Option<u64>,
    /// Number of open file descriptors.
    pub(super) open_files: Option<u64>,
    /// Limit of open file descriptors, `RLIMIT_NOFILE`; `None` without a limit.
    pub(super) open_files_limit: Option<u64>,
}

impl Resources {
    /// Asks the kernel, which takes some ten microseconds.
    pub(super) fn now() -> Self {
        let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self {
            memory: fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident),
            memory_limit: memory_limit(Path::new(CONTROL_GROUPS), &group),
            open_files: open_files(),
            open_files_limit: getrlimit(Resource::Nofile).current,
        }
    }
}

/// The line `VmRSS:  1234 kB`, in bytes.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// `memory.max` of the group that the line `0::/path` of `/proc/self/cgroup` names, below `mount`.
/// It is the word `max` without a limit.
fn memory_limit(mount: &Path, groups: &str) -> Option<u64> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let text = fs::read_to_string(mount.join(path).join("memory.max")).ok()?;
    text.trim().parse().ok()
}

/// Since Linux 6.2 the size of the directory is the number of its entries; before, it is 0.
fn open_files() -> Option<u64> {
    const DIRECTORY: &str = "/proc/self/fd";
    let size = fs::metadata(DIRECTORY).ok()?.len();
    if size > 0 {
        return Some(size);
    }
    // One of them is the directory that is being read.
    fs::read_dir(DIRECTORY).ok().map(|entries| (entries.count() as u64).saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_what_this_process_has() {
        let before = Resources::now();
        assert!(before.memory.unwrap() > 1 << 20, "{before:?}");
        assert!(before.open_files.unwrap() > 2, "{before:?}");
        let files: Vec<_> = (0..100).map(|_| fs::File::open("/proc/self/stat").unwrap()).collect();
        // Other tests of this process open and close files meanwhile.
        let after = Resources::now();
        assert!(after.open_files.unwrap() >= before.open_files.unwrap() + 50, "{after:?}");
        assert!(after.open_files.unwrap() <= after.open_files_limit.unwrap_or(u64::MAX));
        drop(files);
    }

    #[test]
    fn memory_is_in_bytes() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t1\n"), Some(2 << 20));
        assert_eq!(resident("Name:\tx\n"), None);
    }

    #[test]
    fn the_limit_is_that_of_the_processs_own_group() {
        let mount = pgimbal_tests::process::directory("groups");
        let own = mount.join("system.slice/pgimbal.service");
        fs::create_dir_all(&own).unwrap();
        let groups = "1:name=systemd:/x\n0::/system.slice/pgimbal.service\n";
        assert_eq!(memory_limit(&mount, groups), None);
        fs::write(own.join("memory.max"), "268435456\n").unwrap();
        assert_eq!(memory_limit(&mount, groups), Some(256 << 20));
        fs::write(own.join("memory.max"), "max\n").unwrap();
        assert_eq!(memory_limit(&mount, groups), None);
        // In a container the own group is the root of what is mounted.
        fs::write(mount.join("memory.max"), "1048576\n").unwrap();
        assert_eq!(memory_limit(&mount, "0::/\n"), Some(1 << 20));
        assert_eq!(memory_limit(&mount, "4:memory:/docker/x\n"), None);
    }
}
