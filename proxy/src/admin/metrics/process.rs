//! Metrics of the process.

use std::time::UNIX_EPOCH;

use super::resources::Resources;
use super::sample::{Counters, Gauges, label};
use crate::admin::collect::{Phase, ProcessSnapshot, Snapshot};

/// Records the samples of the process.
pub(super) fn record(snapshot: &Snapshot) {
    build();
    standing(&snapshot.process);
    certificates(&snapshot.process);
    resources(Resources::now());
    arrivals(&snapshot.process);
    Gauges::described("pgimbal_workers", "Threads that serve clients.")
        .sample(vec![], snapshot.workers.len() as f64);
    Gauges::described(
        "pgimbal_workers_silent",
        "Workers that did not answer in time; their pools are shown as they last were.",
    )
    .sample(vec![], snapshot.unresponsive.len() as f64);
    Counters::described("pgimbal_panics_total", "Tasks that ended in a panic.")
        .sample(vec![], snapshot.panics());
}

fn build() {
    Gauges::described("pgimbal_build_info", "Always 1; the label is the version that runs.")
        .sample(vec![label("version", env!("CARGO_PKG_VERSION"))], 1);
}

fn standing(process: &ProcessSnapshot) {
    let since = process.started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Gauges::described("pgimbal_start_time_seconds", "When the process started, in Unix time.")
        .sample(vec![], since.as_secs_f64());
    Gauges::described("pgimbal_client_connections", "Client connections, those in login included.")
        .sample(vec![], process.now.clients as f64);
    Gauges::described(
        "pgimbal_client_connections_logging_in",
        "Those that have not logged in yet.",
    )
    .sample(vec![], process.now.logging_in as f64);
    Gauges::described(
        "pgimbal_client_connections_limit",
        "How many there may be: max_client_conn.",
    )
    .sample(vec![], process.now.max_client_conn);
    Gauges::described("pgimbal_ready", "1 while /readyz says that clients are accepted.")
        .sample(vec![], u8::from(process.now.reason_not_ready().is_none()));
    Gauges::described("pgimbal_draining", "1 from SIGTERM or SHUTDOWN on.")
        .sample(vec![], u8::from(process.now.phase == Phase::Draining));
    Gauges::described(
        "pgimbal_accept_paused",
        "1 while no client is accepted for want of file descriptors.",
    )
    .sample(vec![], u8::from(process.now.accept_paused));
}

fn certificates(process: &ProcessSnapshot) {
    let family = Gauges::described(
        "pgimbal_certificate_not_after_seconds",
        "When a certificate of pgimbal's own ends, in Unix time.",
    );
    for certificate in process.certificates.iter() {
        let labels = vec![label("option", &certificate.option)];
        family.sample(labels, certificate.not_after as f64);
    }
}

fn resources(resources: Resources) {
    let Resources { memory, memory_limit, open_files, open_files_limit } = resources;
    for (name, help, value) in [
        ("pgimbal_memory_bytes", "Memory of the process that is resident.", memory),
        (
            "pgimbal_memory_limit_bytes",
            "Limit of memory of the process's control group; none without a limit.",
            memory_limit,
        ),
        ("pgimbal_open_files", "File descriptors that the process has open.", open_files),
        (
            "pgimbal_open_files_limit",
            "How many it may have; none without a limit.",
            open_files_limit,
        ),
    ] {
        if let Some(value) = value {
            Gauges::described(name, help).sample(vec![], value as f64);
        }
    }
}

fn arrivals(process: &ProcessSnapshot) {
    Counters::described("pgimbal_client_connections_total", "Client connections accepted.")
        .sample(vec![], process.accepted);
    let refused = Counters::described(
        "pgimbal_client_connections_refused_total",
        "Clients turned away before their login was checked.",
    );
    for (why, count) in &process.refused {
        refused.sample(vec![label("reason", why.as_str())], *count);
    }
    let logins = Counters::described("pgimbal_logins_total", "Logins of clients by their result.");
    for (result, count) in &process.logins {
        logins.sample(vec![label("result", result.as_str())], *count);
    }
    Counters::described("pgimbal_cancel_requests_total", "Cancel requests from clients.")
        .sample(vec![], process.cancel_requests);
    Counters::described(
        "pgimbal_accept_pauses_total",
        "How often accepting stopped for want of file descriptors.",
    )
    .sample(vec![], process.accept_pauses);
    let reloads = Counters::described("pgimbal_reloads_total", "Reloads of the configuration.");
    reloads.sample(vec![label("result", "applied")], process.reloads);
    reloads.sample(vec![label("result", "refused")], process.reloads_refused);
}
