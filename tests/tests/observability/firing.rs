//! Every alert fires once and stays silent once, in `promtool test rules`.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use pgimbal_tests::charts::objects;
use pgimbal_tests::process::directory;
use pgimbal_tests::program::run;
use pgimbal_tests::sources::root;
use pgimbal_tests::until::SOON;
use serde_json::{Value, json};

/// Labels of a series that is scraped, `T` in the table; `U` is another replica's. The namespace is
/// the alert's name, so that the cases do not meet.
const TARGET: &str = r#"{namespace="NAME",job="n/pgimbal",instance="i""#;
const OTHER: &str = r#"{namespace="NAME",job="n/pgimbal",instance="o""#;

/// What an alert fires at, by name: its labels beside namespace and job, series that make it fire,
/// and series that do not. A sample a minute, in promtool's notation.
type Case = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
    &'static [&'static str],
);

const INSTANCE: (&str, &str) = ("instance", "i");
const D: (&str, &str) = ("database", "d");
const U: (&str, &str) = ("user", "u");
const C: (&str, &str) = ("cluster", "c");
const N: (&str, &str) = ("node", "a");

const CASES: &[Case] = &[
    (
        "PgimbalAllDown",
        &[],
        &["up{T} 0x200", "up{U} 0x200"],
        &["up{T} 0x200", "up{U} 1x200", "pgimbal_build_info{U} 1x200"],
    ),
    (
        "PgimbalDown",
        &[INSTANCE],
        &[
            "up{T} 1x150 0x50",
            "up{U} 1x200",
            "pgimbal_build_info{T} 1x150",
            "pgimbal_build_info{U} 1x200",
        ],
        &["up{T} 1x200", "pgimbal_build_info{T} 1x200", "up{job=\"other\",instance=\"x\"} 0x200"],
    ),
    ("PgimbalNotReady", &[INSTANCE], &["pgimbal_ready{T} 0x200"], &["pgimbal_ready{T} 1x200"]),
    (
        "PgimbalRestarts",
        &[INSTANCE],
        &["pgimbal_start_time_seconds{T} 1x140 2x10 3x10 4x40"],
        &["pgimbal_start_time_seconds{T} 1x140 2x10 3x50"],
    ),
    (
        "PgimbalWorkerSilent",
        &[INSTANCE],
        &["pgimbal_workers_silent{T} 1x200"],
        &["pgimbal_workers_silent{T} 0x200"],
    ),
    (
        "PgimbalPanic",
        &[INSTANCE],
        &["pgimbal_panics_total{T} 0x150 1x50"],
        &["pgimbal_panics_total{T} 1x200"],
    ),
    (
        "PgimbalCannotAccept",
        &[INSTANCE],
        &["pgimbal_accept_paused{T} 1x200"],
        &["pgimbal_accept_paused{T} 0x200"],
    ),
    (
        "PgimbalNearClientLimit",
        &[INSTANCE],
        &["pgimbal_client_connections{T} 81x200", "pgimbal_client_connections_limit{T} 100x200"],
        &["pgimbal_client_connections{T} 79x200", "pgimbal_client_connections_limit{T} 100x200"],
    ),
    (
        "PgimbalNearFileLimit",
        &[INSTANCE],
        &["pgimbal_open_files{T} 91x200", "pgimbal_open_files_limit{T} 100x200"],
        &["pgimbal_open_files{T} 89x200", "pgimbal_open_files_limit{T} 100x200"],
    ),
    (
        "PgimbalNearMemoryLimit",
        &[INSTANCE],
        &["pgimbal_memory_bytes{T} 91x200", "pgimbal_memory_limit_bytes{T} 100x200"],
        &["pgimbal_memory_bytes{T} 91x200"],
    ),
    (
        "PgimbalReloadRefused",
        &[INSTANCE, ("result", "refused")],
        &["pgimbal_reloads_total{T,result=\"refused\"} 0x150 1x50"],
        &["pgimbal_reloads_total{T,result=\"applied\"} 0x150 1x50"],
    ),
    (
        "PgimbalCertificateExpires",
        &[INSTANCE, ("option", "client_tls.cert_file")],
        &["pgimbal_certificate_not_after_seconds{T,option=\"client_tls.cert_file\"} 1.2e6x200"],
        &["pgimbal_certificate_not_after_seconds{T,option=\"client_tls.cert_file\"} 1.3e6x200"],
    ),
    (
        "PgimbalClientsWaitLong",
        &[D, U],
        &["pgimbal_longest_wait_seconds{T,database=\"d\",user=\"u\"} 11x200"],
        &["pgimbal_longest_wait_seconds{T,database=\"d\",user=\"u\"} 9x200"],
    ),
    (
        "PgimbalWaitsOften",
        &[D],
        &[
            "pgimbal_wait_seconds_bucket{T,database=\"d\",user=\"u\",le=\"0.25\"} 0+9x200",
            "pgimbal_wait_seconds_bucket{T,database=\"d\",user=\"u\",le=\"1\"} 0+10x200",
            "pgimbal_wait_seconds_bucket{T,database=\"d\",user=\"u\",le=\"+Inf\"} 0+10x200",
        ],
        &[
            "pgimbal_wait_seconds_bucket{T,database=\"d\",user=\"u\",le=\"0.25\"} 0+99x200",
            "pgimbal_wait_seconds_bucket{T,database=\"d\",user=\"u\",le=\"1\"} 0+100x200",
            "pgimbal_wait_seconds_bucket{T,database=\"d\",user=\"u\",le=\"+Inf\"} 0+100x200",
        ],
    ),
    (
        "PgimbalPinnedAtLimit",
        &[D, U],
        &["pgimbal_clients_awaiting_place{T,database=\"d\",user=\"u\"} 1x200"],
        &["pgimbal_clients_awaiting_place{T,database=\"d\",user=\"u\"} 0x200"],
    ),
    (
        "PgimbalClientsRefused",
        &[],
        &["pgimbal_client_connections_refused_total{T,reason=\"max_client_conn\"} 0+1x200"],
        &["pgimbal_client_connections_refused_total{T,reason=\"draining\"} 0+1x200"],
    ),
    (
        "PgimbalClientLoginsFail",
        &[],
        &[
            "pgimbal_logins_total{T,result=\"authentication_failed\"} 0+6x200",
            "pgimbal_logins_total{T,result=\"succeeded\"} 0+12x200",
        ],
        &[
            "pgimbal_logins_total{T,result=\"authentication_failed\"} 0+6x200",
            "pgimbal_logins_total{T,result=\"succeeded\"} 0+120x200",
        ],
    ),
    (
        "PgimbalServerLoginsFail",
        &[D, U],
        &["pgimbal_server_login_failures_total{T,database=\"d\",user=\"u\"} 0+1x200"],
        &["pgimbal_server_login_failures_total{T,database=\"d\",user=\"u\"} 5x200"],
    ),
    (
        "PgimbalQuestionsFail",
        &[D, U],
        &["pgimbal_questions_failed_total{T,database=\"d\",user=\"u\"} 0+1x200"],
        &["pgimbal_questions_failed_total{T,database=\"d\",user=\"u\"} 5x200"],
    ),
    (
        "PgimbalNotWritable",
        &[C],
        &["pgimbal_cluster_writable{T,cluster=\"c\"} 0x200"],
        &[
            "pgimbal_cluster_writable{T,cluster=\"c\"} 0x200",
            "pgimbal_cluster_writable{U,cluster=\"c\"} 1x200",
        ],
    ),
    (
        "PgimbalTwoPrimaries",
        &[C],
        &[
            "pgimbal_cluster_writable{T,cluster=\"c\"} 0x200",
            "pgimbal_node_role{T,cluster=\"c\",node=\"a\",role=\"primary\",state=\"primary\"} 1x200",
            "pgimbal_node_role{T,cluster=\"c\",node=\"b\",role=\"primary\",state=\"primary\"} 1x200",
        ],
        // One server by two names, or a primary that is no candidate.
        &[
            "pgimbal_cluster_writable{T,cluster=\"c\"} 1x200",
            "pgimbal_node_role{T,cluster=\"c\",node=\"a\",role=\"primary\",state=\"primary\"} 1x200",
            "pgimbal_node_role{U,cluster=\"c\",node=\"a\",role=\"primary\",state=\"primary\"} 1x200",
            "pgimbal_node_role{T,cluster=\"c\",node=\"b\",role=\"primary\",state=\"primary\"} 1x200",
        ],
    ),
    (
        "PgimbalNodeDown",
        &[C, N],
        &["pgimbal_node_up{T,cluster=\"c\",node=\"a\"} 0x200"],
        &[
            "pgimbal_node_up{T,cluster=\"c\",node=\"a\"} 0x200",
            "pgimbal_node_up{U,cluster=\"c\",node=\"a\"} 1x200",
        ],
    ),
    (
        "PgimbalProbeRefused",
        &[C, N],
        &[
            "pgimbal_node_role{T,cluster=\"c\",node=\"a\",role=\"primary\",state=\"probe_refused\"} 1x200",
        ],
        &["pgimbal_node_role{T,cluster=\"c\",node=\"a\",role=\"primary\",state=\"primary\"} 1x200"],
    ),
    (
        "PgimbalNodeQuarantined",
        &[C, N],
        &[
            "pgimbal_node_role{T,cluster=\"c\",node=\"a\",role=\"primary\",state=\"quarantined\"} 1x200",
        ],
        &["pgimbal_node_role{T,cluster=\"c\",node=\"a\",role=\"standby\",state=\"replica\"} 1x200"],
    ),
    (
        "PgimbalReplicaLags",
        &[C, N],
        &["pgimbal_node_role{T,cluster=\"c\",node=\"a\",role=\"standby\",state=\"lagging\"} 1x200"],
        &["pgimbal_node_role{T,cluster=\"c\",node=\"a\",role=\"standby\",state=\"replica\"} 1x200"],
    ),
    (
        "PgimbalFailoversRepeat",
        &[C],
        &["pgimbal_failovers_total{T,cluster=\"c\"} 0x150 1x10 2x10 3x30"],
        &["pgimbal_failovers_total{T,cluster=\"c\"} 0x150 1x50"],
    ),
    (
        "PgimbalOutcomeUnknown",
        &[C],
        &["pgimbal_failover_outcome_unknown_total{T,cluster=\"c\"} 0+1x200"],
        &["pgimbal_failover_outcome_unknown_total{T,cluster=\"c\"} 7x200"],
    ),
    (
        "PgimbalNoPasswordWorks",
        &[U, N],
        &["pgimbal_credential_no_password_works{T,user=\"u\",node=\"a\"} 1x200"],
        &["pgimbal_credential_no_password_works{T,user=\"u\",node=\"a\"} 0x200"],
    ),
    (
        "PgimbalCredentialStale",
        &[U],
        &["pgimbal_credential_stale_seconds{T,user=\"u\"} 3601x200"],
        &["pgimbal_credential_stale_seconds{T,user=\"u\"} 3599x200"],
    ),
    (
        "PgimbalSourceRefuses",
        &[("source", "vault"), ("result", "permission_denied")],
        &[
            "pgimbal_credential_fetches_total{T,source=\"vault\",result=\"permission_denied\"} 0+1x200",
        ],
        &[
            "pgimbal_credential_fetches_total{T,source=\"vault\",result=\"sealed\"} 0+1x200",
            "pgimbal_credential_fetches_total{T,source=\"vault\",result=\"ok\"} 0+1x200",
        ],
    ),
    (
        "PgimbalRotationOverdue",
        &[U],
        &["pgimbal_credential_next_rotation_seconds{T,user=\"u\"} 0x200"],
        &["pgimbal_credential_next_rotation_seconds{T,user=\"u\"} 1x200"],
    ),
    (
        "PgimbalCredentialOld",
        &[U],
        &["pgimbal_credential_age_seconds{T,user=\"u\"} 7.8e6x200"],
        &["pgimbal_credential_age_seconds{T,user=\"u\"} 7.7e6x200"],
    ),
    (
        "PgimbalOldPasswordInUse",
        &[U],
        &["pgimbal_credential_logins_total{T,user=\"u\",generation=\"older\"} 0+1x200"],
        &["pgimbal_credential_logins_total{T,user=\"u\",generation=\"previous\"} 0+1x200"],
    ),
    (
        "PgimbalStoreAway",
        &[INSTANCE],
        &["pgimbal_store_up{T} 0x200"],
        &["pgimbal_store_up{T} 1x200"],
    ),
    (
        "PgimbalStoreLarge",
        &[],
        &["pgimbal_store_document_bytes{T} 400001x200"],
        &["pgimbal_store_document_bytes{T} 399999x200"],
    ),
    (
        "PgimbalPeerSilent",
        &[INSTANCE],
        &["pgimbal_peers_silent{T} 1x200"],
        &["pgimbal_peers_silent{T} 0x200"],
    ),
    (
        "PgimbalPeerUnreachable",
        &[INSTANCE],
        &["pgimbal_peers_unreachable{T} 1x200"],
        &["pgimbal_peers_unreachable{T} 0x200"],
    ),
    (
        "PgimbalPeerFault",
        &[INSTANCE],
        &["pgimbal_peers_with_a_fault{T} 1x200"],
        &["pgimbal_peers_with_a_fault{T} 0x200"],
    ),
    (
        "PgimbalPeerHandshakesFail",
        &[INSTANCE, ("reason", "handshake")],
        &["pgimbal_peer_handshakes_failed_total{T,reason=\"handshake\"} 0+1x200"],
        &["pgimbal_peer_handshakes_failed_total{T,reason=\"timeout\"} 0+1x200"],
    ),
    (
        "PgimbalBudgetExhausted",
        &[("server", "s:5432")],
        &["pgimbal_budget_waiting{T,server=\"s:5432\"} 1x200"],
        &["pgimbal_budget_waiting{T,server=\"s:5432\"} 0x200"],
    ),
    (
        "PgimbalBudgetRefused",
        &[("server", "s:5432")],
        &["pgimbal_budget_refused_total{T,server=\"s:5432\"} 0+1x200"],
        &["pgimbal_budget_refused_total{T,server=\"s:5432\"} 3x200"],
    ),
];

/// Cases at which another alert fires too, with the same labels.
const ALSO: &[(&str, &str)] = &[("PgimbalTwoPrimaries", "PgimbalNotWritable")];

/// A series is looked at when the longest `for` has passed.
const WHEN: &str = "180m";
/// Time between two evaluations: as long as one may take, since there are many rules.
const INTERVAL: &str = "5m";

fn rules() -> String {
    root().join("deploy/observability/rules.yaml").display().to_string()
}

fn promtool(words: &[&str]) -> String {
    let told = run(Command::new("promtool").args(words), SOON * 4).succeeded();
    told.stdout + &told.stderr
}

#[test]
fn promtool_finds_no_fault_in_the_rules() {
    let told = promtool(&["check", "rules", "--lint=all", "--lint-fatal", &rules()]);
    assert!(told.contains("SUCCESS"), "{told}");
}

#[test]
fn every_alert_fires_once_and_stays_silent_once() {
    let alerts = alerts();
    let tried: Vec<&str> = CASES.iter().map(|(name, ..)| *name).collect();
    let missing: Vec<_> = alerts.keys().filter(|name| !tried.contains(&name.as_str())).collect();
    assert!(missing.is_empty(), "no case of {missing:?}");
    // All at once, so that nothing fires at what is another's.
    let (mut fires, mut silent) = (test("each fires"), test("nothing fires"));
    for (name, labels, bad, good) in CASES {
        let rule = alerts.get(*name).unwrap_or_else(|| panic!("there is no alert {name}"));
        let own = |case| [&[("namespace", case), ("job", "n/pgimbal")], *labels].concat();
        let others = ALSO.iter().filter(|(_, also)| also == name).map(|(case, _)| *case);
        let all = [*name].into_iter().chain(others).map(|case| fired(rule, &own(case)));
        fires.expects(name, bad, all.collect());
        silent.expects(name, good, json!([]));
    }
    let mut absent = test("nothing is scraped");
    absent.expects("PgimbalAllDown", &[], json!([fired(&alerts["PgimbalAllDown"], &[])]));
    let tests = [fires.0, silent.0, absent.0];
    succeeds("firing", INTERVAL, json!(tests));
}

/// A replica is silent from 5 s to 65 s after it was killed, and is looked at every 15 s.
#[test]
fn a_killed_replica_is_told_of_although_it_is_soon_forgotten() {
    let name = "PgimbalPeerSilent";
    let labels = [("namespace", "n"), ("job", "n/pgimbal"), INSTANCE];
    let fires = json!([fired(&alerts()[name], &labels)]);
    let series = format!("pgimbal_peers_silent{TARGET}}}").replace("NAME", "n");
    let at = |time: &str, alerts: Value| json!({ "eval_time": time, "alertname": name, "exp_alerts": alerts });
    let killed = json!({
        "name": "killed",
        "interval": "15s",
        "input_series": [{ "series": series, "values": "0 1 1 1 1 0x30" }],
        "alert_rule_test": [at("1m", json!([])), at("2m", fires), at("5m", json!([]))],
    });
    succeeds("killed", "15s", json!([killed]));
}

/// All alerts by their names.
fn alerts() -> BTreeMap<String, Value> {
    let [file] = &objects(&fs::read_to_string(rules()).unwrap())[..] else {
        panic!("one document")
    };
    let groups = file["groups"].as_array().unwrap().iter();
    let rules_of = |group: &Value| group["rules"].as_array().unwrap().clone();
    let all = groups.flat_map(rules_of);
    all.filter_map(|rule| Some((rule["alert"].as_str()?.to_owned(), rule))).collect()
}

/// Runs these tests of promtool with the rules evaluated so often.
fn succeeds(name: &str, interval: &str, tests: Value) {
    let file = json!({ "rule_files": [rules()], "evaluation_interval": interval, "tests": tests });
    let folder = directory(name);
    let path = folder.join("tests.yaml");
    // JSON is YAML.
    fs::write(&path, file.to_string()).unwrap();
    let told = promtool(&["test", "rules", &path.display().to_string()]);
    assert!(told.contains("SUCCESS"), "{told}");
}

/// The alert as it fires: labels, and texts in which labels are filled in.
fn fired(rule: &Value, labels: &[(&str, &str)]) -> Value {
    let mut filled = json!({ "severity": rule["labels"]["severity"] });
    for (label, value) in labels {
        filled[*label] = (*value).into();
    }
    let mut texts = json!({});
    for (key, text) in rule["annotations"].as_object().unwrap() {
        let mut text = text.as_str().unwrap().to_owned();
        for (label, value) in filled.as_object().unwrap() {
            let value = value.as_str().unwrap();
            text = text.replace(&format!("{{{{ $labels.{label} }}}}"), value);
        }
        assert!(!text.contains("{{"), "{text} names a label that the alert has not");
        texts[key] = text.into();
    }
    json!({ "exp_labels": filled, "exp_annotations": texts })
}

/// A test of promtool.
struct Test(Value);

fn test(name: &str) -> Test {
    let empty = Vec::<Value>::new();
    Test(json!({
        "name": name,
        "interval": "1m",
        "input_series": empty,
        "alert_rule_test": empty,
    }))
}

impl Test {
    /// Adds the series of a case, and how its alert fires then.
    fn expects(&mut self, name: &str, lines: &[&str], alerts: Value) {
        let mut add = |key: &str, one| self.0[key].as_array_mut().expect("a list").push(one);
        for line in lines {
            let (series, values) = line.rsplit_once("} ").expect("a series and its values");
            let series = series.replace("{T", TARGET).replace("{U", OTHER).replace("NAME", name);
            add("input_series", json!({ "series": format!("{series}}}"), "values": values }));
        }
        let expected = json!({ "eval_time": WHEN, "alertname": name, "exp_alerts": alerts });
        add("alert_rule_test", expected);
    }
}
