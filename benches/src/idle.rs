//! Resident memory per client that has logged in and does nothing.

use crate::client::Endpoint;
use crate::report::Figure;
use crate::target::Running;
use crate::threads::on_threads;
use crate::usage::resident_bytes;
use crate::{Error, Result};
use std::thread;
use std::time::{Duration, Instant};

/// Number of threads that log clients in.
const THREADS: u32 = 4;
/// Pause after the last login, so that buffers are given back.
const SETTLE: Duration = Duration::from_secs(2);

/// Logs `clients` in and leaves them idle; returns resident bytes per client and logins per second.
/// The pooler must be freshly started, so that memory of earlier scenarios is not reused.
///
/// # Errors
/// When a login fails, the pooler has dropped an idle client, or there is no pooler.
pub fn measure(running: &Running, clients: u32) -> Result<Vec<(Figure, f64)>> {
    let pid = running.pid().ok_or_else(|| Error::Program("no pooler to measure".into()))?;
    let endpoint = Endpoint::new(running.port, running.role);
    let mut first = endpoint.log_in()?;
    first.value("SELECT 1")?;
    let before = resident_bytes(pid);
    let start = Instant::now();
    let open = || (0..clients / THREADS).map(|_| endpoint.log_in()).collect::<Result<Vec<_>>>();
    let idle = on_threads(THREADS, open)?;
    let elapsed = start.elapsed();
    let count = idle.iter().map(Vec::len).sum::<usize>() as f64;
    thread::sleep(SETTLE);
    let after = resident_bytes(pid);
    // A pooler that threw the idle clients out would look thrifty.
    first.value("SELECT 1")?;
    for client in idle.into_iter().flatten().step_by(1_000) {
        let mut client = client;
        client.value("SELECT 1")?;
    }
    Ok(vec![
        (Figure::ResidentPerIdleClient, after.saturating_sub(before) as f64 / count),
        (Figure::LoginsPerSecond, count / elapsed.as_secs_f64()),
    ])
}
