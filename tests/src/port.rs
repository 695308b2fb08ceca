//! Free ports for the servers of a test.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::{SystemTime, UNIX_EPOCH};

/// Ports below the kernel's ephemeral range, so that an outgoing connection of another test
/// cannot take one between this look and the server's bind.
const RANGE: std::ops::Range<u16> = 11_000..32_000;

/// How long a port that was handed out is nobody else's, in seconds: a server that starts on a busy
/// machine takes its time, and one that a test restarts leaves its port free for a moment.
const KEPT: u32 = 300;

/// A port on 127.0.0.1 at which nothing listens, between 11000 and 31999, and which no test of this
/// user has been given within the last five minutes.
///
/// # Panics
/// When a thousand tries find none.
#[must_use]
pub fn free_port() -> u16 {
    let handed_out = HandedOut::open();
    let mut seed = seed();
    for _ in 0..1000 {
        seed = next(seed);
        let offset = (seed >> 33) % u64::from(RANGE.end - RANGE.start);
        let port = RANGE.start + u16::try_from(offset).expect("less than the range");
        if handed_out.take(port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port in {RANGE:?}");
}

/// When each port was last handed out: a file that the tests of this user share, locked while this
/// exists. It has the second of each port, four bytes.
struct HandedOut(File);

impl HandedOut {
    fn open() -> Self {
        let name = format!("pgimbal-ports-{}", rustix::process::getuid().as_raw());
        let path = std::env::temp_dir().join(name);
        let open = || {
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).mode(0o600).open(&path)?;
            file.lock()?;
            io::Result::Ok(file)
        };
        Self(open().unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    /// Takes `port` unless somebody has it.
    fn take(&self, port: u16) -> bool {
        let place = u64::from(port) * 4;
        let mut bytes = [0; 4];
        // The file is as long as the greatest port that was taken.
        let is_known = self.0.read_exact_at(&mut bytes, place).is_ok();
        let (now, then) = (seconds(), u32::from_le_bytes(bytes));
        // A clock that was set back frees what it has taken in a future.
        let is_free = !is_known || now.abs_diff(then) >= KEPT;
        is_free && self.0.write_all_at(&now.to_le_bytes(), place).is_ok()
    }
}

/// A number from 0 to `end` - 1 that other tests most likely do not get at this moment.
///
/// # Panics
/// When `end` is above 256.
#[must_use]
pub fn random(end: u16) -> u8 {
    u8::try_from((next(seed()) >> 33) % u64::from(end)).expect("256 at most")
}

fn seconds() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs();
    u32::try_from(now).unwrap_or(u32::MAX)
}

fn seed() -> u64 {
    let nanos =
        SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").subsec_nanos();
    u64::from(nanos) ^ (u64::from(std::process::id()) << 20)
}

fn next(seed: u64) -> u64 {
    seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_port_is_handed_out_twice() {
        let ports: Vec<u16> = std::thread::scope(|scope| {
            let hand_out = || (0..25).map(|_| free_port()).collect::<Vec<_>>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(hand_out)).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("ports")).collect()
        });
        let different: BTreeSet<u16> = ports.iter().copied().collect();
        assert_eq!(different.len(), ports.len());
    }
}
