//! Clean-up that happens even when the test process is killed.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

/// A shell script that runs when this process ends without having dropped the leash. An owner that
/// drops it has cleaned up itself.
pub struct Leash {
    watcher: Child,
    line: Option<ChildStdin>,
}

impl Leash {
    /// Starts the watcher of this process. `arguments` are `$0`, `$1` and so on of `script`.
    ///
    /// # Panics
    /// When there is no `sh`.
    #[must_use]
    pub fn start<I: AsRef<OsStr>>(script: &str, arguments: impl IntoIterator<Item = I>) -> Self {
        let mut watcher = Command::new("sh")
            .arg("-c")
            .arg(format!("cat >/dev/null; {script}"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A signal to the test's process group must not reach it.
            .process_group(0)
            .spawn()
            .expect("sh");
        let line = watcher.stdin.take();
        Self { watcher, line }
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        let _ = self.watcher.kill();
        let _ = self.watcher.wait();
        drop(self.line.take());
    }
}
