//! "Rights and networks": who reaches which port of pgimbal's pods, at their own addresses.

use std::collections::BTreeSet;

use pgimbal_tests::program::run;
use pgimbal_tests::until::{SOON, eventually};
use serde_json::{Value, json};

use super::platform::{LIMIT, Platform};
use super::release::MINE;
use crate::kubernetes_story::TOOLS;

/// Namespaces with a pod that tries, and their labels.
const OTHERS: [(&str, &str); 3] =
    [("applications", "database"), ("monitoring", "metrics"), ("strangers", "nothing")];

/// The ports of the chart: clients, clients that read, HTTP, peers.
const PORTS: [u16; 4] = [6432, 6434, 9127, 6433];

/// Tries them all at once, and prints those that are open.
const TRY: &str = "for port in 6432 6434 9127 6433; do \
    (timeout 2 bash -c \"exec 3<>/dev/tcp/$0/$port\" 2>/dev/null && echo $port) & done; wait";

/// The defaults let all pods of the cluster be clients and collectors; then they are named.
pub(super) fn are_enforced(platform: &Platform) {
    for (namespace, label) in OTHERS {
        let _ = platform.run(&format!(
            "kubectl create namespace {namespace}; kubectl label namespace {namespace} for={label}"
        ));
        let admin = platform.nodes.kubernetes.admin();
        let pods = format!("/api/v1/namespaces/{namespace}/pods");
        eventually("there is an account", LIMIT, || {
            let account = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
            matches!(admin.call("GET", &account, &Value::Null), Ok((200, _)))
        });
        admin.create(&pods, &json!({ "metadata": { "name": "one" }, "spec": pod() }));
    }
    for (namespace, _) in OTHERS {
        expect(platform, namespace, &[6432, 6434, 9127]);
    }
    // No pod rolls for it.
    let before = platform.pods("dbaas").len();
    let _ = platform.run(&format!(
        "helm -n dbaas upgrade pgimbal deploy/helm/pgimbal -f deploy/helm/pgimbal/values-ha.yaml \
         -f {MINE} \
         --set networkPolicy.clients[0].namespaceSelector.matchLabels.for=database \
         --set networkPolicy.monitoring[0].namespaceSelector.matchLabels.for=metrics"
    ));
    expect(platform, "applications", &[6432, 6434]);
    expect(platform, "monitoring", &[9127]);
    expect(platform, "strangers", &[]);
    assert_eq!(platform.pods("dbaas").len(), before);
    // The next upgrade leaves it at the defaults again.
}

/// Waits until a namespace's pod reaches these ports of a pod of pgimbal, and no others.
fn expect(platform: &Platform, namespace: &str, ports: &[u16]) {
    let pods = platform.pods("dbaas");
    let address = pods[0]["status"]["podIP"].as_str().unwrap();
    let wanted: BTreeSet<u16> = ports.iter().copied().collect();
    assert!(wanted.iter().all(|port| PORTS.contains(port)));
    let mut open = BTreeSet::new();
    eventually("its container runs", LIMIT, || {
        let path = format!("/api/v1/namespaces/{namespace}/pods/one");
        platform.nodes.kubernetes.admin().read(&path)["status"]["phase"] == "Running"
    });
    let words = ["bash", "-c", TRY, address];
    let mut tries = 0;
    eventually(&format!("{namespace} reaches {ports:?}"), LIMIT, || {
        let mut command = platform.nodes.kubelet.exec(namespace, "one", &words);
        let told = run(&mut command, SOON);
        open = told.stdout.lines().map(|port| port.parse().unwrap()).collect();
        tries += 1;
        assert!(tries < 10 || open == wanted, "{namespace} reaches {open:?}, not {ports:?}");
        open == wanted
    });
}

fn pod() -> Value {
    json!({
        "terminationGracePeriodSeconds": 1,
        "securityContext": { "runAsUser": 1234, "runAsNonRoot": true },
        "containers": [{
            "name": "main", "image": TOOLS, "command": ["sleep", "1000"],
            "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
            },
        }],
    })
}
