//! Large answers: a gigabyte of rows, and one row of 200 MB.

use crate::Result;
use crate::client::Endpoint;
use crate::report::Figure;
use crate::target::Running;
use crate::usage::{Cpu, forget_peak, peak_bytes};
use std::time::Instant;

/// A query for 1,000,000 rows of 1,000 bytes, made without reading a table.
pub const GIGABYTE_OF_ROWS: &str = "SELECT repeat('x', 1000) FROM generate_series(1, 1000000)";
/// A query for one row of 200 MB.
pub const LONG_ROW: &str = "SELECT repeat('x', 200000000)";

/// Runs the query `text` once, discards its answer, and returns throughput, and CPU time and peak
/// memory of the pooler if there is one.
///
/// # Errors
/// When the login or the query fails.
pub fn measure(running: &Running, text: &str) -> Result<Vec<(Figure, f64)>> {
    let endpoint = Endpoint::new(running.port, running.role);
    let mut client = endpoint.log_in()?;
    client.value("SELECT 1")?;
    let before = running.pid().map(|pid| {
        forget_peak(pid);
        Cpu::of(pid)
    });
    let start = Instant::now();
    let gigabytes = client.discard(text)? as f64 / 1e9;
    let mut figures = vec![(Figure::GigabytesPerSecond, gigabytes / start.elapsed().as_secs_f64())];
    if let Some((pid, before)) = running.pid().zip(before) {
        let spent = Cpu::of(pid).since(before);
        figures.push((Figure::CpuPerGigabyte, spent.total.as_secs_f64() / gigabytes));
        figures.push((Figure::PeakResident, peak_bytes(pid) as f64));
    }
    client.close()?;
    Ok(figures)
}
