//! What the chart and the overlays make, in a real API server that enforces restricted Pod Security
//! and knows the custom resources: it accepts all of it, and pgimbal's service account may do what
//! it must and no more.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use pgimbal_tests::charts::{Charts, Helm, find, of_kind, overlays};
use pgimbal_tests::kubernetes::api::Api;
use pgimbal_tests::kubernetes::{Kubernetes, secret_path};
use pgimbal_tests::pgimbal::{program, undisturbed};
use pgimbal_tests::port::free_port;
use pgimbal_tests::process::{Process, directory};
use pgimbal_tests::program::run;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Login, Postgres, WireClient};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::configuration::KEY;
use super::{least, ways, words};

/// Refuses a field that the server does not know.
const STRICT: &str = "fieldValidation=Strict";

/// The shared API server, once it knows the custom resources.
pub(super) fn kubernetes(charts: &Charts) -> &'static Kubernetes {
    static KNOWS: OnceLock<()> = OnceLock::new();
    let kubernetes = Kubernetes::shared();
    KNOWS.get_or_init(|| {
        let definitions = charts.definitions();
        assert_eq!(definitions.len(), 5, "{definitions:?}");
        kubernetes.define(&definitions);
    });
    kubernetes
}

/// A namespace of its own that takes only restricted pods.
pub(super) fn restricted_namespace(kubernetes: &Kubernetes) -> String {
    let namespace = kubernetes.namespace();
    let labels = json!({
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/enforce-version": "latest",
    });
    let path = format!("/api/v1/namespaces/{namespace}");
    kubernetes.admin().patch(&path, &json!({ "metadata": { "labels": labels } }));
    // Somebody else's controller makes it in a cluster.
    let accounts = format!("{path}/serviceaccounts");
    let _ =
        kubernetes.admin().call("POST", &accounts, &json!({ "metadata": { "name": "default" } }));
    namespace
}

/// The path under which objects of this one's kind are made.
fn collection(object: &Value, namespace: &str) -> String {
    let version = object["apiVersion"].as_str().unwrap();
    let api = if version == "v1" { "/api/v1".to_owned() } else { format!("/apis/{version}") };
    let kind = object["kind"].as_str().unwrap().to_lowercase();
    let plural = match kind.strip_suffix('y') {
        Some(rest) => format!("{rest}ies"),
        None => format!("{kind}s"),
    };
    format!("{api}/namespaces/{namespace}/{plural}")
}

/// Makes the objects, all in `namespace`, whatever theirs is.
pub(super) fn apply(admin: &Api, objects: &[Value], namespace: &str) {
    // A pod's service account must be there first.
    let (first, rest): (Vec<_>, Vec<_>) =
        objects.iter().partition(|object| object["kind"] == "ServiceAccount");
    for object in first.into_iter().chain(rest) {
        let mut object = object.clone();
        object["metadata"]["namespace"] = json!(namespace);
        for subject in
            object.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten()
        {
            subject["namespace"] = json!(namespace);
        }
        // `helm test` makes it, later.
        let dry = if object["kind"] == "Pod" { "&dryRun=All" } else { "" };
        let path = format!("{}?{STRICT}{dry}", collection(&object, namespace));
        drop(admin.create(&path, &object));
    }
}

/// The pod that a Deployment makes.
fn pod_of(deployment: &Value) -> Value {
    let mut pod = deployment["spec"]["template"].clone();
    pod["metadata"]["generateName"] = json!("pgimbal-");
    pod
}

fn try_pod(admin: &Api, pod: &Value, namespace: &str) -> (u16, Value) {
    let path = format!("/api/v1/namespaces/{namespace}/pods?{STRICT}&dryRun=All");
    admin.call("POST", &path, pod).expect("an answer")
}

/// Applies the objects to a namespace of their own, and tries their pod there.
fn is_accepted(kubernetes: &Kubernetes, name: &str, objects: &[Value]) {
    let namespace = restricted_namespace(kubernetes);
    let admin = kubernetes.admin();
    apply(&admin, objects, &namespace);
    let pod = pod_of(of_kind(objects, "Deployment").next().unwrap());
    let (status, answer) = try_pod(&admin, &pod, &namespace);
    assert_eq!(status, 201, "{name}: {answer}");
    // The server has filled in what it takes for unsaid: nothing that was said is lost.
    let made = admin.read(&format!("/apis/apps/v1/namespaces/{namespace}/deployments"));
    let made = &made["items"][0]["spec"]["template"]["spec"];
    assert_eq!(
        made["terminationGracePeriodSeconds"], pod["spec"]["terminationGracePeriodSeconds"],
        "{name}"
    );
}

#[test]
fn a_restricted_namespace_takes_what_the_chart_makes() {
    let charts = Charts::new();
    let kubernetes = kubernetes(&charts);
    for (name, own) in ways() {
        is_accepted(kubernetes, &name, &charts.template(Helm::Four, "elsewhere", &words(&own)));
    }
}

#[test]
fn a_restricted_namespace_takes_what_the_overlays_make() {
    let charts = Charts::new();
    let kubernetes = kubernetes(&charts);
    for name in overlays() {
        is_accepted(kubernetes, &name, &charts.build(&name));
    }
}

#[test]
fn the_server_refuses_what_is_not_restricted_and_what_it_does_not_know() {
    let charts = Charts::new();
    let kubernetes = kubernetes(&charts);
    let namespace = restricted_namespace(kubernetes);
    let admin = kubernetes.admin();
    let made = charts.build("overlays/cnpg-vault");
    let account = find(&made, "ServiceAccount", "pgimbal").unwrap();
    apply(&admin, std::slice::from_ref(account), &namespace);
    let good = pod_of(find(&made, "Deployment", "pgimbal").unwrap());
    assert_eq!(try_pod(&admin, &good, &namespace).0, 201);
    for (path, value) in [
        ("/spec/securityContext/runAsNonRoot", json!(false)),
        ("/spec/securityContext/seccompProfile/type", json!("Unconfined")),
        ("/spec/containers/0/securityContext/allowPrivilegeEscalation", json!(true)),
        ("/spec/containers/0/securityContext/capabilities/drop", json!([])),
    ] {
        let mut pod = good.clone();
        *pod.pointer_mut(path).unwrap() = value;
        let (status, answer) = try_pod(&admin, &pod, &namespace);
        let why = answer["message"].as_str().unwrap_or_default();
        assert!(status == 403 && why.contains("PodSecurity"), "{path}: {status} {answer}");
    }
    for (kind, name, path) in [
        ("Deployment", "pgimbal", "/spec/template/spec"),
        ("Cluster", "db", "/spec/managed/roles/0"),
        ("NetworkPolicy", "pgimbal", "/spec"),
    ] {
        let mut object = find(&made, kind, name).unwrap().clone();
        object["metadata"]["namespace"] = json!(namespace);
        object.pointer_mut(path).unwrap()["nonsense"] = json!(1);
        let path = format!("{}?{STRICT}", collection(&object, &namespace));
        let (status, answer) = admin.call("POST", &path, &object).expect("an answer");
        assert_eq!(status, 400, "{kind}: {answer}");
        assert!(answer["message"].as_str().unwrap().contains("nonsense"), "{kind}: {answer}");
    }
}

/// What the chart makes of the least values, in a namespace of its own, and pgimbal's token there.
struct Installed {
    kubernetes: &'static Kubernetes,
    namespace: String,
    made: Vec<Value>,
    token: String,
}

impl Installed {
    fn with(set: &str) -> Self {
        let charts = Charts::new();
        let kubernetes = kubernetes(&charts);
        let namespace = restricted_namespace(kubernetes);
        let made = charts.template(Helm::Four, &namespace, &["-f", &least(), "--set", set]);
        let admin = kubernetes.admin();
        apply(&admin, &made, &namespace);
        let account = format!("/api/v1/namespaces/{namespace}/serviceaccounts/pgimbal/token");
        let request = json!({ "spec": { "expirationSeconds": 3600 } });
        let answer = admin.create(&account, &request);
        let token = answer["status"]["token"].as_str().unwrap().to_owned();
        Self { kubernetes, namespace, made, token }
    }

    /// Writes the files of a pod into `folder`: the service account's, pgimbal.toml with free ports
    /// of this machine in place of the pod's, and the password of `app`. Returns the port of
    /// clients.
    fn write_pod(&self, folder: &Path) -> u16 {
        self.kubernetes.write_service_account(folder, &self.namespace, &self.token);
        let password = folder.join("app");
        fs::write(&password, "app-secret").unwrap();
        let map = find(&self.made, "ConfigMap", "pgimbal").unwrap();
        let toml = map["data"]["pgimbal.toml"].as_str().unwrap();
        let toml = toml.replace("/etc/pgimbal/secrets/app", &password.display().to_string());
        let ports = ["6432", "6434", "6433", "9127"].map(|port| (port, free_port()));
        let toml = ports.iter().fold(toml, |toml, (port, here)| {
            toml.replace(&format!("0.0.0.0:{port}"), &format!("127.0.0.1:{here}"))
        });
        fs::write(folder.join("pgimbal.toml"), toml).unwrap();
        ports[0].1
    }

    /// pgimbal in that pod, with these words in front of its configuration.
    fn pgimbal(&self, folder: &Path, words: &[&str]) -> Command {
        let mut command = undisturbed(program());
        command.args(words).arg("--config").arg(folder.join("pgimbal.toml"));
        command.env("PGIMBAL_DEPLOYMENT_KEY", KEY);
        self.kubernetes.in_pod(folder, &command)
    }
}

#[test]
fn the_role_is_enough_and_no_more_than_enough() {
    let Installed { kubernetes, namespace, token, .. } = Installed::with("");
    let admin = kubernetes.admin();
    kubernetes.make_secret(&namespace, "other");
    let pgimbal = admin.with_token(&token);
    let status = |method: &str, path: &str, body: &Value| {
        pgimbal.call(method, path, body).expect("an answer").0
    };
    let secrets = format!("/api/v1/namespaces/{namespace}/secrets");
    let own = secret_path(&namespace, "pgimbal-store");
    let selected = format!("{secrets}?fieldSelector=metadata.name%3Dpgimbal-store");
    // What it must.
    let mut object = pgimbal.read(&own);
    object["data"] = json!({ "document": "aGVsbG8=" });
    assert_eq!(status("PUT", &own, &object), 200);
    assert_eq!(pgimbal.read(&selected)["items"].as_array().unwrap().len(), 1);
    let watch = format!("{selected}&watch=true&timeoutSeconds=1");
    assert_eq!(status("GET", &watch, &Value::Null), 200);
    // And no more.
    let elsewhere = restricted_namespace(kubernetes);
    kubernetes.make_secret(&elsewhere, "pgimbal-store");
    let new = json!({ "metadata": { "name": "new" } });
    let other = secret_path(&namespace, "other");
    let refused = [
        ("GET", other.clone()),
        ("PUT", other.clone()),
        ("DELETE", other),
        ("GET", secrets.clone()),
        ("GET", format!("{secrets}?watch=true&timeoutSeconds=1")),
        ("GET", format!("{secrets}?fieldSelector=metadata.name%3Dother")),
        ("POST", secrets.clone()),
        ("DELETE", secrets),
        ("PATCH", own.clone()),
        ("DELETE", own),
        ("GET", secret_path(&elsewhere, "pgimbal-store")),
        ("GET", "/api/v1/secrets".to_owned()),
        ("GET", format!("/api/v1/namespaces/{namespace}/configmaps/pgimbal")),
        ("GET", format!("/api/v1/namespaces/{namespace}/pods")),
        ("POST", format!("/api/v1/namespaces/{namespace}/pods")),
        ("GET", format!("/apis/apps/v1/namespaces/{namespace}/deployments/pgimbal")),
        ("POST", format!("/api/v1/namespaces/{namespace}/serviceaccounts/pgimbal/token")),
        ("GET", format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles")),
        ("GET", "/api/v1/namespaces".to_owned()),
        ("GET", "/api/v1/nodes".to_owned()),
    ];
    for (method, path) in refused {
        let body = if method == "GET" { &Value::Null } else { &new };
        assert_eq!(status(method, &path, body), 403, "{method} {path}");
    }
    assert_eq!(admin.read(&secret_path(&namespace, "pgimbal-store"))["data"], object["data"]);
}

#[test]
fn pgimbal_finds_its_store_with_the_charts_role() {
    let installed = Installed::with("");
    let Installed { kubernetes, namespace, .. } = &installed;
    let folder = directory("account");
    installed.write_pod(&folder);
    let check = || run(&mut installed.pgimbal(&folder, &["check"]), SOON * 4);
    let told = check();
    let line = format!("secret {namespace}/pgimbal-store: ok");
    assert!(told.stdout.contains(&line), "{}{}", told.stdout, told.stderr);
    // Without the Role it says what is missing.
    let path = "/apis/rbac.authorization.k8s.io/v1/namespaces";
    kubernetes.admin().delete(&format!("{path}/{namespace}/rolebindings/pgimbal"));
    eventually("the right is gone", SOON * 4, || {
        let told = check();
        told.stdout.contains("pgimbal-store") && !told.stdout.contains(&line)
    });
}

#[test]
fn pgimbal_serves_and_writes_its_store_with_the_charts_role() {
    let pg = Postgres::start();
    let installed = Installed::with(&format!(
        "config.databases.app.host=127.0.0.1,config.databases.app.port={}",
        pg.port
    ));
    let folder = directory("account");
    let port = installed.write_pod(&folder);
    let mut process = Process::start(installed.pgimbal(&folder, &["run"]), &folder, Signal::TERM);
    process.wait_until_it_listens("pgimbal", &[port]);
    let mut client = WireClient::tcp(port);
    client.log_in(&Login::new("app", "app", "app-secret")).expect("a session");
    assert_eq!(client.value("select current_user"), "app");
    let secret = || installed.kubernetes.secret(&installed.namespace, "pgimbal-store");
    eventually("the facts are stored", SOON * 2, || {
        secret()["data"]["document"].as_str().is_some_and(|document| !document.is_empty())
    });
    assert!(!process.log().contains("forbidden"), "{}", process.log());
}
