//! CPU time and memory of a pooler, read from /proc.
//!
//! CPU time is the scheduler's own count in nanoseconds (`task/*/schedstat`, all threads of the
//! process and of its children). `stat` splits it into user and system time; its ticks are 10 ms,
//! so only the share is taken from there, over a whole round.

use pgimbal_tests::process::status_kib;
use std::fs;
use std::time::Duration;

/// The CPU time of a process and all its descendants since their start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    nanos: u64,
    user_ticks: u64,
    system_ticks: u64,
}

/// The CPU time that was spent between two readings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// Time in user and kernel space together.
    pub total: Duration,
    /// The part of it in user space, estimated from ticks of 10 ms.
    pub user: Duration,
}

impl Cpu {
    /// Reads the CPU time of process `pid` and its descendants; zero when it does not exist.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let mut cpu = Self::default();
        for process in tree(pid) {
            cpu.add_threads(process);
        }
        cpu
    }

    /// The CPU time spent since the reading `earlier` of the same process.
    #[must_use]
    pub fn since(self, earlier: Self) -> Spent {
        let total = Duration::from_nanos(self.nanos.saturating_sub(earlier.nanos));
        let user = self.user_ticks.saturating_sub(earlier.user_ticks);
        let all = user + self.system_ticks.saturating_sub(earlier.system_ticks);
        let share = if all == 0 { 0.0 } else { user as f64 / all as f64 };
        Spent { total, user: total.mul_f64(share) }
    }

    fn add_threads(&mut self, pid: u32) {
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let schedstat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            self.nanos += schedstat.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            self.user_ticks += stat_field(&stat, 14);
            self.system_ticks += stat_field(&stat, 15);
        }
    }
}

/// The CPU time of process `pid` since its start, threads that have ended included, in steps of 10
/// ms; zero when the process does not exist.
#[must_use]
pub fn with_ended_threads(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    Duration::from_millis(10 * (stat_field(&stat, 14) + stat_field(&stat, 15)))
}

/// Resident memory of process `pid` and its descendants (VmRSS), in bytes; 0 when they do not
/// exist.
#[must_use]
pub fn resident_bytes(pid: u32) -> u64 {
    tree(pid).into_iter().map(|process| status_kib(process, "VmRSS").unwrap_or(0) * 1024).sum()
}

/// The greatest resident memory of process `pid` alone (VmHWM) since the last [`forget_peak`], in
/// bytes; 0 when the process does not exist.
#[must_use]
pub fn peak_bytes(pid: u32) -> u64 {
    status_kib(pid, "VmHWM").unwrap_or(0) * 1024
}

/// Makes the peak of [`peak_bytes`] start again at what is resident now. A kernel that refuses
/// keeps the old peak, which is not reported.
pub fn forget_peak(pid: u32) {
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// The process and all its descendants, for poolers that fork.
fn tree(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        next += 1;
    }
    found
}

/// A field of `/proc/PID/stat`, counted from 1 as proc(5) does.
fn stat_field(stat: &str, number: usize) -> u64 {
    // The program's name may hold blanks; what follows its closing bracket is field 3.
    let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after.split_whitespace().nth(number - 3).and_then(|field| field.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgimbal_tests::until::{SOON, eventually};
    use std::time::Instant;

    #[test]
    fn a_busy_loop_is_seen_as_user_time() {
        let (before, enough) = (Cpu::of(std::process::id()), Duration::from_millis(30));
        // A busy machine may give this thread no time for long.
        let spent = || Cpu::of(std::process::id()).since(before);
        eventually("CPU time is spent", SOON, || {
            let end = Instant::now() + Duration::from_millis(10);
            while Instant::now() < end {
                std::hint::spin_loop();
            }
            spent().total > enough && with_ended_threads(std::process::id()) > enough
        });
        let spent = spent();
        assert!(spent.user <= spent.total);
    }

    #[test]
    fn fields_are_counted_behind_the_name() {
        let stat = "7 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 141 151 16";
        assert_eq!((stat_field(stat, 14), stat_field(stat, 15)), (141, 151));
    }
}
