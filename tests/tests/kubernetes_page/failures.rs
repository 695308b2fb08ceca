//! "When something fails": each message of the page's tables is provoked, and is worded so.

use pgimbal_tests::until::eventually;
use serde_json::Value;

use super::page::{Page, Row};
use super::platform::{LIMIT, Platform};
use super::release::MINE;

/// Releases that cannot work, by namespace.
pub(super) struct Broken;

const WITHOUT_KEY: &str = "without-key";
const WRONG: &str = "wrong";
const WITHOUT_RIGHTS: &str = "without-rights";

/// The row in whose first column this text is.
pub(super) fn row(page: &Page, text: &str) -> Row {
    let mut rows = page.rows().into_iter().filter(|row| row.seen.contains(text));
    let row = rows.next().unwrap_or_else(|| panic!("the page has no row with {text}"));
    assert!(rows.next().is_none(), "{text}");
    row
}

/// Installs what is looked at by [`provoke`], which takes its time to fail.
pub(super) fn install(page: &Page, platform: &Platform) -> Broken {
    for (namespace, values) in [
        (WITHOUT_KEY, "replicas=1"),
        (WRONG, "replicas=1,config.pool_sise=3"),
        (WITHOUT_RIGHTS, "replicas=1,rbac.create=false"),
    ] {
        let _ = platform.run(&format!("kubectl create namespace {namespace}"));
        if namespace != WITHOUT_KEY {
            let command = page.commands("Helm", 0)[1].replace("dbaas", namespace);
            let _ = platform.run(&command);
        }
        let _ = platform.run(&format!(
            "helm -n {namespace} install pgimbal deploy/helm/pgimbal -f {MINE} --set {values}"
        ));
    }
    Broken
}

/// Provokes what the rows say.
pub(super) fn provoke(page: &Page, platform: &Platform, _broken: Broken) {
    for row in page.rows() {
        let seen = row.seen.as_str();
        if seen.starts_with("`helm` says") {
            helm_says(platform, row.message());
        } else if seen.contains("CreateContainerConfigError") {
            let state = || state_of(platform, WITHOUT_KEY)["waiting"].clone();
            eventually(seen, LIMIT, || {
                let state = state();
                state["reason"] == "CreateContainerConfigError"
                    && state["message"].to_string().replace("\\\"", "\"").contains(row.message())
            });
        } else if seen.contains("CrashLoopBackOff") {
            eventually(seen, LIMIT, || {
                state_of(platform, WRONG)["waiting"]["reason"] == "CrashLoopBackOff"
            });
            let told = platform.run(&format!("kubectl -n {WRONG} describe pod"));
            assert!(told.contains("Exit Code:    78"), "{told}");
            assert!(told.contains("pool_sise"), "{told}");
        } else if seen.contains("RBAC does not allow") {
            let told = check(page, platform, WITHOUT_RIGHTS);
            assert!(told.contains("RBAC") && told.contains("resourceNames"), "{told}");
        } else if seen.contains("refuses the kubernetes login") {
            // Its namespace is none of the module's.
            let told = check(page, platform, WITHOUT_RIGHTS);
            assert!(told.contains(row.message()) && told.contains("403"), "{told}");
        } else if seen.contains("permission denied (403)") {
            permission_denied(page, platform, row.message());
        } else {
            // The harness has no clients from outside of the cluster. "At the apply" is provoked
            // where the module is applied, from PostgreSQL 16 on.
            let is_known = ["with `service.type: LoadBalancer`", "at the apply"];
            assert!(is_known.iter().any(|known| seen.contains(known)), "provoke it: {seen}");
        }
    }
}

/// Asks Helm for what it refuses with this message.
fn helm_says(platform: &Platform, message: &str) {
    let values = match message.split([':', ' ']).next().unwrap() {
        "config.users.app.password" => "config.users.app.password=x",
        "config.databases" => "config.databases=null",
        "config.listen" => "config.listen=0.0.0.0:1",
        "replicas" => "peers.enabled=false",
        other => panic!("provoke it: {other}"),
    };
    let told = platform.shell(&format!(
        "helm -n dbaas upgrade pgimbal deploy/helm/pgimbal -f {MINE} --set {values}"
    ));
    assert!(!told.success && told.stderr.contains(message), "{message}: {}", told.stderr);
}

/// `pgimbal check` in the pod of a release.
fn check(page: &Page, platform: &Platform, namespace: &str) -> String {
    eventually("its container runs", LIMIT, || {
        state_of(platform, namespace).get("running").is_some()
    });
    let told = platform.exec(&page.block("Helm", "sh", 1).replace("dbaas", namespace));
    assert!(!told.success);
    told.stdout + &told.stderr
}

/// Takes one role out of pgimbal's policy.
fn permission_denied(page: &Page, platform: &Platform, message: &str) {
    let root = platform.vault.root();
    let path = "sys/policies/acl/pgimbal";
    let before = root.read(path)["data"]["policy"].as_str().unwrap().to_owned();
    let line = "database/static-creds/operator";
    assert!(before.contains(line), "{before}");
    root.write(path, &serde_json::json!({ "policy": before.replace(line, "database/none") }));
    let told = check(page, platform, "dbaas");
    assert!(told.contains(message) && told.contains(line), "{told}");
    root.write(path, &serde_json::json!({ "policy": before }));
}

/// The state of the container of a release's one pod.
fn state_of(platform: &Platform, namespace: &str) -> Value {
    let pods = platform.pods(namespace);
    pods.first().map_or(Value::Null, |pod| pod["status"]["containerStatuses"][0]["state"].clone())
}
