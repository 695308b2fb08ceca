use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pgimbal_pooler::pool::histogram::{BOUNDS, Histogram};
use pgimbal_pooler::pool::stats::{PoolSnapshot, PoolStats, WorkerSnapshot};
use pgimbal_wire::error::SqlState;

use super::*;
use crate::admin::collect::{CertificateEnd, LoginResult, Phase, ProcessStats, Snapshot};
use crate::credentials::{CredentialStatus, CredentialsStatus};
use crate::topology::ClusterStatus;

/// A page read back as Prometheus reads it: every sample by its family and labels.
pub(super) type Samples = BTreeMap<(String, Vec<(String, String)>), f64>;

pub(super) fn read_back(page: &str) -> Samples {
    let mut samples = Samples::new();
    let mut families = HashSet::new();
    for line in page.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(families.insert(rest.split(' ').next().unwrap().to_owned()), "twice: {rest}");
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let key = series_of(series);
            let family = key.0.trim_end_matches("_bucket").trim_end_matches("_sum");
            let family = family.trim_end_matches("_count");
            assert!(families.contains(family), "{series} without its type");
            assert!(samples.insert(key, value.parse().unwrap()).is_none(), "twice: {series}");
        }
    }
    samples
}

fn series_of(series: &str) -> (String, Vec<(String, String)>) {
    let Some((name, labels)) = series.split_once('{') else { return (series.to_owned(), vec![]) };
    let mut rest = labels.strip_suffix('}').unwrap();
    let mut labels = Vec::new();
    while !rest.is_empty() {
        let (key, value) = rest.split_once("=\"").unwrap();
        let mut text = String::new();
        let mut chars = value.char_indices();
        let end = loop {
            match chars.next().unwrap() {
                (end, '"') => break end,
                (_, '\\') => text.push(match chars.next().unwrap().1 {
                    'n' => '\n',
                    escaped @ ('\\' | '"') => escaped,
                    other => panic!("\\{other} is no escape"),
                }),
                (_, plain) => text.push(plain),
            }
        };
        labels.push((key.to_owned(), text));
        rest = value[end + 1..].trim_start_matches(',');
    }
    (name.to_owned(), labels)
}

fn pool(database: &str, user: &str) -> PoolSnapshot {
    PoolSnapshot { database: database.into(), user: user.into(), ..Default::default() }
}

pub(super) fn snapshot(pools: Vec<PoolSnapshot>) -> Snapshot {
    let process = Arc::new(ProcessStats::new(SystemTime::UNIX_EPOCH + Duration::from_secs(9), 50));
    process.login(LoginResult::Timeout);
    process.enter(Phase::Serving);
    process.set_certificates(vec![CertificateEnd {
        option: "client_tls.cert_file".to_owned(),
        not_after: 1_900_000_000,
    }]);
    let worker = WorkerSnapshot { pools, panics: 2, ..Default::default() };
    Snapshot {
        peers: Default::default(),
        credentials: Default::default(),
        budgets: Vec::new(),
        facts: Default::default(),
        workers: vec![worker],
        unresponsive: vec![0],
        process: process.snapshot(),
        clusters: vec![],
    }
}

/// A snapshot with something in most families.
#[cfg(feature = "otlp")]
pub(super) fn full_snapshot() -> Snapshot {
    let mut one = pool("shop", r"a\b\\c");
    one.clients_active = 3;
    one.longest_wait = Duration::from_millis(1500);
    one.pinned.insert("listen", 2);
    one.stats.transactions = 7;
    one.stats.held_nanos = 2_500_000_000;
    one.stats.error(SqlState::QUERY_CANCELED);
    let mut credentials =
        CredentialsStatus { users: vec![CredentialStatus::example()], ..Default::default() };
    credentials.fetches.results.insert(("vault", "sealed"), 3);
    credentials.fetches.count = 3;
    credentials.fetches.time = Duration::from_millis(1500);
    let clusters = vec![ClusterStatus::example()];
    Snapshot { credentials, clusters, ..snapshot(vec![one]) }
}

fn sample(samples: &Samples, name: &str, labels: &[(&str, &str)]) -> f64 {
    let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let key = (name.to_owned(), labels);
    *samples.get(&key).unwrap_or_else(|| panic!("{key:?} is missing from {samples:#?}"))
}

#[test]
fn what_a_pool_had_counted_that_is_gone_stays_in_the_sum_of_its_database() {
    let mut told = snapshot(vec![pool("shop", "app")]);
    let gone = PoolStats { transactions: 7, ..PoolStats::default() };
    told.workers[0].retired = vec![("shop".to_owned(), gone)];
    let samples = read_back(&render(&told));
    let of = |user| [("database", "shop"), ("user", user)];
    assert_eq!(sample(&samples, "pgimbal_transactions_total", &of("app")), 0.0);
    assert_eq!(sample(&samples, "pgimbal_transactions_total", &of("(retired)")), 7.0);
    let gauges = samples.keys().filter(|(name, _)| name == "pgimbal_clients_active");
    assert_eq!(gauges.count(), 1, "there are no clients of what is gone");
}

#[test]
fn counters_and_gauges_read_back() {
    let mut one = pool("shop", "app");
    one.clients_active = 3;
    one.clients_awaiting_place = 2;
    one.longest_wait = Duration::from_millis(1500);
    one.pinned.insert("listen", 2);
    one.stats.transactions = 1 << 60;
    one.stats.held_nanos = 2_500_000_000;
    one.stats.error(SqlState::QUERY_CANCELED);
    let samples = read_back(&render(&snapshot(vec![one])));
    let of = [("database", "shop"), ("user", "app")];
    assert_eq!(sample(&samples, "pgimbal_clients_active", &of), 3.0);
    assert_eq!(sample(&samples, "pgimbal_clients_awaiting_place", &of), 2.0);
    assert_eq!(sample(&samples, "pgimbal_longest_wait_seconds", &of), 1.5);
    assert_eq!(sample(&samples, "pgimbal_transactions_total", &of), (1_u64 << 60) as f64);
    assert_eq!(sample(&samples, "pgimbal_server_held_seconds_total", &of), 2.5);
    let error = [of[0], of[1], ("sqlstate", "57014")];
    assert_eq!(sample(&samples, "pgimbal_errors_total", &error), 1.0);
    let listen = [of[0], of[1], ("reason", "listen")];
    assert_eq!(sample(&samples, "pgimbal_clients_pinned", &listen), 2.0);
    assert_eq!(sample(&samples, "pgimbal_logins_total", &[("result", "timeout")]), 1.0);
    assert_eq!(sample(&samples, "pgimbal_logins_total", &[("result", "succeeded")]), 0.0);
    assert_eq!(sample(&samples, "pgimbal_client_connections_limit", &[]), 50.0);
    assert_eq!(sample(&samples, "pgimbal_start_time_seconds", &[]), 9.0);
    assert_eq!(sample(&samples, "pgimbal_ready", &[]), 1.0);
    let option = [("option", "client_tls.cert_file")];
    let ends = sample(&samples, "pgimbal_certificate_not_after_seconds", &option);
    assert_eq!(ends, 1_900_000_000.0);
    assert!(sample(&samples, "pgimbal_memory_bytes", &[]) > 1e6);
    assert!(sample(&samples, "pgimbal_open_files", &[]) > 2.0);
    assert_eq!(sample(&samples, "pgimbal_workers_silent", &[]), 1.0);
    assert_eq!(sample(&samples, "pgimbal_panics_total", &[]), 2.0);
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    assert_eq!(sample(&samples, "pgimbal_build_info", &version), 1.0);
}

#[test]
fn questions_resets_and_pins_read_back() {
    let mut one = pool("shop", "app");
    one.pinned_longest.insert("advisory_lock", Duration::from_millis(2_500));
    one.stats.questions.insert("settings", 11);
    one.stats.questions_failed = 2;
    one.stats.resets = 3;
    one.stats.shape_checks = 4;
    one.stats.pins_by_question = 5;
    let samples = read_back(&render(&snapshot(vec![one])));
    let of = [("database", "shop"), ("user", "app")];
    let settings = [of[0], of[1], ("kind", "settings")];
    assert_eq!(sample(&samples, "pgimbal_questions_total", &settings), 11.0);
    for (name, value) in [
        ("pgimbal_questions_failed_total", 2.0),
        ("pgimbal_resets_total", 3.0),
        ("pgimbal_shape_checks_total", 4.0),
        ("pgimbal_pins_by_question_total", 5.0),
    ] {
        assert_eq!(sample(&samples, name, &of), value, "{name}");
    }
    let lock = [of[0], of[1], ("reason", "advisory_lock")];
    assert_eq!(sample(&samples, "pgimbal_pinned_longest_seconds", &lock), 2.5);
}

#[test]
fn times_are_histograms_whose_buckets_are_cumulated() {
    let mut one = pool("d", "u");
    let stats = &mut one.stats;
    let families = [
        ("pgimbal_transaction_seconds", &mut stats.transaction_times),
        ("pgimbal_query_seconds", &mut stats.query_times),
        ("pgimbal_wait_seconds", &mut stats.waits),
        ("pgimbal_login_seconds", &mut stats.login_times),
    ];
    let names = families.map(|(name, times)| {
        let times: &mut Histogram = times;
        for micros in [10, 100, 101, 700, 40_000_000] {
            times.record(Duration::from_micros(micros));
        }
        name
    });
    // Each is told as itself.
    one.stats.login_times.record(Duration::from_secs(60));
    let samples = read_back(&render(&snapshot(vec![one])));
    for name in names {
        let more = if name == "pgimbal_login_seconds" { 1.0 } else { 0.0 };
        let bucket = |le| {
            let labels = [("database", "d"), ("user", "u"), ("le", le)];
            sample(&samples, &format!("{name}_bucket"), &labels)
        };
        assert_eq!([bucket("0.0001"), bucket("0.00025"), bucket("0.0005")], [2.0, 3.0, 3.0]);
        assert_eq!([bucket("0.001"), bucket("30"), bucket("+Inf")], [4.0, 4.0, 5.0 + more]);
        let of = [("database", "d"), ("user", "u")];
        assert_eq!(sample(&samples, &format!("{name}_count"), &of), 5.0 + more);
        let sum = sample(&samples, &format!("{name}_sum"), &of);
        assert!((sum - 40.000_911 - 60.0 * more).abs() < 1e-9, "{name}: {sum}");
        let buckets = samples.keys().filter(|(family, _)| *family == format!("{name}_bucket"));
        assert_eq!(buckets.count(), BOUNDS.len() + 1);
    }
}

#[test]
fn names_that_clients_choose_are_escaped() {
    let names = ["a\"b", "a\\\"b", "a\\", "a\\\\", "two\nlines", "a\\nb", "ü{x=\"1\"} 3", "=,}"];
    let pools = names.iter().map(|name| pool(name, name)).collect();
    let samples = read_back(&render(&snapshot(pools)));
    for name in names {
        let of = [("database", name), ("user", name)];
        assert_eq!(sample(&samples, "pgimbal_clients_idle", &of), 0.0);
        assert_eq!(sample(&samples, "pgimbal_transactions_total", &of), 0.0);
        assert_eq!(sample(&samples, "pgimbal_wait_seconds_count", &of), 0.0);
        assert_eq!(sample(&samples, "pgimbal_server_held_seconds_total", &of), 0.0);
    }
}

#[test]
fn pools_beyond_the_limit_share_their_labels() {
    let mut pools: Vec<_> = (0..1_500).map(|n| pool("d", &n.to_string())).collect();
    pools.push(pool("(others)", "(others)"));
    for pool in &mut pools {
        pool.stats.transactions = 1;
    }
    pools.last_mut().unwrap().stats.transactions = 7;
    pools[1_200].stats.transactions = 9;
    let samples = read_back(&render(&snapshot(pools)));
    let series: Vec<_> =
        samples.iter().filter(|((name, _), _)| name == "pgimbal_transactions_total").collect();
    assert_eq!(series.len(), 1_000);
    assert_eq!(series.iter().map(|(_, value)| **value).sum::<f64>(), 1_499.0 + 7.0 + 9.0);
    let kept = [("database", "d"), ("user", "1200")];
    assert_eq!(sample(&samples, "pgimbal_transactions_total", &kept), 9.0);
    let others = [("database", "(others)"), ("user", "(others)")];
    assert_eq!(sample(&samples, "pgimbal_transactions_total", &others), 7.0 + 501.0);
}

#[test]
fn a_page_without_pools_has_no_family_without_samples() {
    let samples = read_back(&render(&snapshot(vec![])));
    assert!(samples.keys().all(|(name, _)| !name.starts_with("pgimbal_wait")));
}

#[test]
fn failover_clusters_and_nodes_read_back() {
    let snapshot = Snapshot { clusters: vec![ClusterStatus::example()], ..snapshot(vec![]) };
    let samples = read_back(&render(&snapshot));
    let cluster = [("cluster", "main")];
    let of = |node| [("cluster", "main"), ("node", node)];
    assert_eq!(sample(&samples, "pgimbal_node_up", &of("a")), 1.0);
    assert_eq!(sample(&samples, "pgimbal_node_timeline", &of("b")), 2.0);
    assert_eq!(sample(&samples, "pgimbal_node_lag_bytes", &of("c")), 256.0);
    assert_eq!(sample(&samples, "pgimbal_node_lag_seconds", &of("c")), 0.02);
    let quarantined = [of("a")[0], of("a")[1], ("role", "primary"), ("state", "quarantined")];
    assert_eq!(sample(&samples, "pgimbal_node_role", &quarantined), 1.0);
    assert_eq!(sample(&samples, "pgimbal_cluster_writable", &cluster), 1.0);
    assert_eq!(sample(&samples, "pgimbal_failovers_total", &cluster), 1.0);
    assert_eq!(sample(&samples, "pgimbal_failover_held_total", &cluster), 4.0);
    assert_eq!(sample(&samples, "pgimbal_failover_rerun_total", &cluster), 3.0);
    assert_eq!(sample(&samples, "pgimbal_failover_failed_total", &cluster), 2.0);
    assert_eq!(sample(&samples, "pgimbal_failover_outcome_unknown_total", &cluster), 1.0);
}

#[test]
fn credentials_read_back_by_user_and_node() {
    let mut credentials =
        CredentialsStatus { users: vec![CredentialStatus::example()], ..Default::default() };
    credentials.fetches.results.insert(("vault", "sealed"), 3);
    credentials.fetches.count = 3;
    credentials.fetches.time = Duration::from_millis(1500);
    let samples = read_back(&render(&Snapshot { credentials, ..snapshot(vec![]) }));
    let of = [("user", "app")];
    assert_eq!(sample(&samples, "pgimbal_credential_age_seconds", &of), 20.0);
    assert_eq!(sample(&samples, "pgimbal_credential_next_rotation_seconds", &of), 40.0);
    assert_eq!(sample(&samples, "pgimbal_credential_stale_seconds", &of), 9.0);
    for (node, refuses) in [("a", 1.0), ("b", 0.0)] {
        let labels = [of[0], ("node", node)];
        let name = "pgimbal_credential_no_password_works";
        assert_eq!(sample(&samples, name, &labels), refuses);
    }
    for (standing, count) in [("newest", 5.0), ("previous", 4.0), ("older", 3.0), ("also", 2.0)] {
        let labels = [of[0], ("generation", standing)];
        assert_eq!(sample(&samples, "pgimbal_credential_logins_total", &labels), count);
    }
    let result = [("source", "vault"), ("result", "sealed")];
    assert_eq!(sample(&samples, "pgimbal_credential_fetches_total", &result), 3.0);
    assert_eq!(sample(&samples, "pgimbal_credential_fetch_seconds_count", &[]), 3.0);
    assert_eq!(sample(&samples, "pgimbal_credential_fetch_seconds_sum", &[]), 1.5);
}
