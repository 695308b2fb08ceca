//! What the kubelet of the harness does for a pod.

use pgimbal_tests::kubernetes::api::Api;
use pgimbal_tests::kubernetes::nodes::Nodes;
use pgimbal_tests::until::{SOON, eventually};
use serde_json::{Value, json};

use super::TOOLS;

/// Says what it has, follows a file, and ends with the code 3 when it is told to.
const SCRIPT: &str = "id; env; getent hosts kubernetes.default.svc; \
    cat /var/run/secrets/kubernetes.io/serviceaccount/namespace; echo; touch /file || echo refused; \
    trap 'echo told to end; exit 3' TERM; \
    while :; do read text </config/text; echo \"text is $text\"; sleep 0.1; done";

fn path(what: &str) -> String {
    format!("/api/v1/namespaces/pods/{what}")
}

fn pod() -> Value {
    json!({
        "metadata": { "name": "one" },
        "spec": {
            "terminationGracePeriodSeconds": 60,
            "securityContext": {
                "runAsUser": 1234, "runAsGroup": 1235, "fsGroup": 4321, "runAsNonRoot": true,
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "volumes": [{ "name": "config", "configMap": { "name": "text" } }],
            "containers": [{
                "name": "main", "image": TOOLS, "command": ["sh", "-c", SCRIPT],
                "securityContext": {
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                    "capabilities": { "drop": ["ALL"] },
                },
                "env": [
                    { "name": "ADDRESS", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
                    { "name": "SECRET", "valueFrom": { "secretKeyRef": { "name": "own", "key": "key" } } },
                ],
                "volumeMounts": [{ "name": "config", "mountPath": "/config" }],
                "readinessProbe": { "exec": { "command": ["true"] }, "periodSeconds": 1 },
            }],
        },
    })
}

/// Why the pod's container waits; empty when it does not.
fn waits_for(admin: &Api) -> String {
    let status = admin.read(&path("pods/one"));
    let why = &status["status"]["containerStatuses"][0]["state"]["waiting"]["message"];
    why.as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_pod_gets_what_it_asks_for() {
    let nodes = Nodes::start("pgimbal", TOOLS);
    nodes.make_namespace("pods", true);
    let admin = nodes.kubernetes.admin();
    eventually("there is an account", SOON * 2, || {
        let account = path("serviceaccounts/default");
        matches!(admin.call("GET", &account, &Value::Null), Ok((200, _)))
    });
    admin.create(&path("pods"), &pod());
    eventually("it waits for a file", SOON * 2, || {
        waits_for(&admin).contains("configmap \"text\"")
    });
    let text = |text: &str| json!({ "metadata": { "name": "text" }, "data": { "text": text } });
    admin.create(&path("configmaps"), &text("first\n"));
    eventually("it waits for a variable", SOON * 2, || {
        waits_for(&admin).contains("secret \"own\" not found")
    });
    let secret = json!({ "metadata": { "name": "own" }, "stringData": { "key": "hidden" } });
    admin.create(&path("secrets"), &secret);
    let log = || nodes.kubelet.logs().into_iter().map(|(_, log)| log).collect::<String>();
    eventually("it runs", SOON * 2, || log().contains("text is first"));
    let address = || admin.read(&path("pods/one"))["status"]["podIP"].clone();
    for line in [
        "uid=1234 gid=1235 groups=1235,4321".to_owned(),
        "SECRET=hidden".to_owned(),
        "HOSTNAME=one".to_owned(),
        format!("ADDRESS={}", address().as_str().unwrap()),
        format!("KUBERNETES_SERVICE_HOST={}", nodes.network.api_server()),
        "pods".to_owned(),
        "refused".to_owned(),
    ] {
        assert!(log().lines().any(|it| it == line), "{line}: {}", log());
    }
    let name = format!("{} ", nodes.network.api_server());
    assert!(log().lines().any(|it| it.starts_with(&name)), "DNS knows a Service: {}", log());
    eventually("it is ready", SOON * 2, || {
        admin.read(&path("pods/one"))["status"]["containerStatuses"][0]["ready"] == true
    });
    admin.patch(&path("configmaps/text"), &text("second\n"));
    eventually("the file follows", SOON * 2, || log().contains("text is second"));
    admin.delete(&path("pods/one"));
    eventually("it is gone", SOON * 2, || {
        matches!(admin.call("GET", &path("pods/one"), &Value::Null), Ok((404, _)))
    });
    let ended = nodes.kubelet.ended();
    assert_eq!(ended.len(), 1, "{ended:?}");
    assert_eq!((ended[0].code, ended[0].was_killed), (3, false));
    assert!(ended[0].log.contains("told to end"), "{ended:?}");
    eventually("its network is gone", SOON, || nodes.network.namespaces().is_empty());
}
