//! What a service manager such as systemd is told (sd_notify(3)), if `NOTIFY_SOCKET` names one.

use std::convert::Infallible;
use std::time::Duration;

use sd_notify::NotifyState;

/// The process serves.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// A reload begins, or a take-over; [`ready`] or [`taken_over_by`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!("no monotonic clock: {error}"),
    }
}

/// The process begins to end.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The process with this id serves from now on; this one is no longer the main one.
pub fn taken_over_by(pid: u32) {
    tell(&[NotifyState::MainPid(pid), NotifyState::Ready]);
}

/// Tells the manager twice within its limit that the process lives, until the future is dropped;
/// pends where the manager does not ask (`WATCHDOG_USEC`). It must run beside the work that it
/// vouches for.
pub async fn keep_watchdog() -> Infallible {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else {
        return std::future::pending().await;
    };
    let mut beat = tokio::time::interval((limit / 2).max(Duration::from_millis(1)));
    loop {
        beat.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("the service manager cannot be told (NOTIFY_SOCKET): {error}");
    }
}
