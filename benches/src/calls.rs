//! Counts a pooler's system calls, with perf where the kernel allows and strace otherwise.
//!
//! perf counts the tracepoint `raw_syscalls:sys_enter` and slows the pooler by a few percent;
//! strace stops it twice per call, so that it finds more work per wake-up and looks better than
//! it is. The report says which was used.

use crate::{During, Error, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// The tool that counts system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// `perf stat -e raw_syscalls:sys_enter`.
    Perf,
    /// `strace -c -f`.
    Strace,
}

impl Counter {
    /// The best tool that works here, perf before strace; `None` when neither does.
    #[must_use]
    pub fn find() -> Option<Self> {
        let works = |program: &str, args: &[&str]| {
            let mut command = Command::new(program);
            command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        if works("perf", &["stat", "-e", EVENT, "true"]) {
            return Some(Self::Perf);
        }
        works("strace", &["-c", "true"]).then_some(Self::Strace)
    }

    /// The tool's name, which the report shows: `perf` or `strace`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Perf => "perf",
            Self::Strace => "strace",
        }
    }

    /// Starts to count the system calls of all threads of process `pid`; waits 300 ms for the tool
    /// to attach.
    ///
    /// # Errors
    /// When the tool cannot be started.
    pub fn attach(self, pid: u32) -> Result<Counting> {
        let mut command = Command::new(self.name());
        match self {
            Self::Perf => command.args(["stat", "-x", ",", "-e", EVENT, "-p", &pid.to_string()]),
            Self::Strace => command.args(["-c", "-f", "-p", &pid.to_string()]),
        };
        command
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let child = command.spawn().during(format!("starting {}", self.name()))?;
        // Neither tool says when it has attached.
        sleep(Duration::from_millis(300));
        Ok(Counting { child, counter: self })
    }
}

const EVENT: &str = "raw_syscalls:sys_enter";

/// A count in progress.
#[derive(Debug)]
pub struct Counting {
    child: Child,
    counter: Counter,
}

impl Counting {
    /// Ends the count, and returns the number of system calls since [`Counter::attach`].
    ///
    /// # Errors
    /// When the tool's output is not understood.
    pub fn finish(self) -> Result<u64> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            kill_process(pid, Signal::INT)
                .map_err(std::io::Error::from)
                .during("stopping the counter")?;
        }
        let output = self.child.wait_with_output().during("waiting for the counter")?;
        let text = String::from_utf8_lossy(&output.stderr);
        let count = match self.counter {
            Counter::Perf => perf_count(&text),
            Counter::Strace => strace_count(&text),
        };
        count.ok_or_else(|| {
            Error::Program(format!("{} said nothing of use:\n{text}", self.counter.name()))
        })
    }
}

/// `12345,,raw_syscalls:sys_enter,…`
fn perf_count(text: &str) -> Option<u64> {
    text.lines().find(|line| line.contains(EVENT))?.split(',').next()?.parse().ok()
}

/// The fourth column of the line that ends in `total`.
fn strace_count(text: &str) -> Option<u64> {
    let total = text.lines().find(|line| line.trim_end().ends_with("total"))?;
    total.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tools_answers_are_understood() {
        assert_eq!(perf_count("62915,,raw_syscalls:sys_enter,1500231,100.00,,\n"), Some(62915));
        let table = "------ ----------- ----------- --------- --------- ----------------\n\
                     100.00    1.234567           3    412345       211 total\n";
        assert_eq!(strace_count(table), Some(412_345));
    }
}
