//! Logins per second: connect, log in, say Terminate, wait for the close, again.

use crate::Result;
use crate::client::Endpoint;
use crate::pgbench::percentile;
use crate::report::Figure;
use crate::target::Running;
use crate::threads::on_threads;
use crate::usage::Cpu;
use std::time::{Duration, Instant};

/// Number of clients that log in at the same time.
pub const CLIENTS: u32 = 8;

/// Logs in as often as possible for `duration`; returns logins per second, latencies, and CPU time
/// per login if there is a pooler.
///
/// # Errors
/// When a login fails.
pub fn measure(running: &Running, duration: Duration) -> Result<Vec<(Figure, f64)>> {
    let endpoint = Endpoint::new(running.port, running.role);
    // The first login opens the pooler's first server connection, which is not the question.
    endpoint.log_in()?.close()?;
    let before = running.pid().map(Cpu::of);
    let (latencies, elapsed) = log_in_all(&endpoint, duration)?;
    let logins = latencies.len() as f64;
    let mut figures = vec![
        (Figure::LoginsPerSecond, logins / elapsed.as_secs_f64()),
        (Figure::P50, percentile(&latencies, 0.50)),
        (Figure::P99, percentile(&latencies, 0.99)),
    ];
    if let Some((pid, before)) = running.pid().zip(before) {
        let spent = Cpu::of(pid).since(before);
        figures.push((Figure::CpuPerLogin, spent.total.as_secs_f64() * 1e6 / logins));
        figures.push((Figure::UserCpuPerLogin, spent.user.as_secs_f64() * 1e6 / logins));
    }
    Ok(figures)
}

/// The CPU time in microseconds that process `pid` spends on each login through `endpoint`,
/// measured over `duration`.
///
/// # Errors
/// When a login fails.
pub fn cpu_per_login(endpoint: &Endpoint, pid: u32, duration: Duration) -> Result<f64> {
    endpoint.log_in()?.close()?;
    let before = Cpu::of(pid);
    let (latencies, _) = log_in_all(endpoint, duration)?;
    Ok(Cpu::of(pid).since(before).total.as_secs_f64() * 1e6 / latencies.len() as f64)
}

/// All clients' logins: the microseconds of each, sorted, and how long it took.
fn log_in_all(endpoint: &Endpoint, duration: Duration) -> Result<(Vec<u32>, Duration)> {
    let start = Instant::now();
    let latencies = on_threads(CLIENTS, || log_in_until(endpoint, start + duration))?;
    let elapsed = start.elapsed();
    let mut latencies = latencies.concat();
    latencies.sort_unstable();
    Ok((latencies, elapsed))
}

/// Microseconds of each login from connect to ReadyForQuery.
fn log_in_until(endpoint: &Endpoint, end: Instant) -> Result<Vec<u32>> {
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let start = Instant::now();
        let client = endpoint.log_in()?;
        latencies.push(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX));
        client.close()?;
    }
    Ok(latencies)
}
