//! The life of a release in a real API server: install, upgrade, uninstall. No pod runs there, so
//! what is looked at is which change makes new ones.

use pgimbal_tests::charts::{Charts, HELMS, Helm, chart};
use pgimbal_tests::kubernetes::api::Api;
use pgimbal_tests::kubernetes::secret_path;
use serde_json::{Value, json};

use super::in_kubernetes::{apply, kubernetes, restricted_namespace};

/// What the pods of the Deployment are made of.
fn template(admin: &Api, namespace: &str) -> Value {
    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/pgimbal");
    admin.read(&path)["spec"]["template"].clone()
}

/// A document in the store, as pgimbal writes it.
fn document() -> Value {
    json!({ "data": { "document": "ZmFjdHM=" } })
}

fn release(version: Helm) {
    let charts = Charts::new();
    let kubernetes = kubernetes(&charts);
    let namespace = restricted_namespace(kubernetes);
    let admin = kubernetes.admin();
    let kubeconfig = kubernetes.admin_kubeconfig(&namespace);
    let folder = chart();
    let values = folder.join("ci/cnpg-vault-values.yaml");
    let [folder, values] = [&folder, &values].map(|path| path.display().to_string());
    let helm = |words: &[&str]| {
        let own = ["--namespace", &namespace];
        charts.helm(version, &[words, &own[..]].concat(), Some(&kubeconfig)).succeeded().stdout
    };
    let upgrade = |set: &str| {
        drop(helm(&["upgrade", "pgimbal", &folder, "-f", &values, "--set", set]));
        template(&admin, &namespace)
    };
    let notes = helm(&["install", "pgimbal", &folder, "-f", &values]);
    assert!(notes.contains(&format!("DB_HOST=pgimbal.{namespace}.svc")), "{notes}");
    assert!(notes.contains(&format!("DB_RO_HOST=pgimbal-ro.{namespace}.svc")), "{notes}");
    assert!(notes.contains("port-forward deploy/pgimbal 9127"), "{notes}");
    let first = template(&admin, &namespace);
    let store = secret_path(&namespace, "pgimbal-store");
    assert!(admin.read(&store).get("data").is_none());
    admin.patch(&store, &document());
    // The same again: nothing rolls.
    assert_eq!(upgrade("test.user=shop"), first);
    // Nor when a password, a certificate or a token changes: pgimbal follows them.
    for (secret, key) in [("db-ca", "ca.crt"), ("pgimbal-page", "admin")] {
        kubernetes.make_secret(&namespace, secret);
        kubernetes.edit_secret(&namespace, secret, &json!({ "data": { key: "bmV3" } }));
    }
    assert_eq!(upgrade("test.user=shop"), first);
    // A changed configuration makes new pods, and leaves the store alone.
    let second = upgrade("config.pool_size=30");
    let checksum = "/metadata/annotations/checksum~1config";
    assert_ne!(second.pointer(checksum), first.pointer(checksum));
    assert_eq!(second["spec"], first["spec"]);
    assert_eq!(admin.read(&store)["data"], document()["data"]);
    drop(helm(&["uninstall", "pgimbal"]));
    for (path, name) in [
        ("apis/apps/v1", "deployments/pgimbal"),
        ("api/v1", "services/pgimbal"),
        ("api/v1", "configmaps/pgimbal"),
        ("apis/rbac.authorization.k8s.io/v1", "roles/pgimbal"),
        ("apis/cert-manager.io/v1", "certificates/pgimbal-tls"),
    ] {
        let path = format!("/{path}/namespaces/{namespace}/{name}");
        let (status, answer) = admin.call("GET", &path, &Value::Null).expect("an answer");
        // Nobody there collects what belongs to it.
        let goes = answer["metadata"]["deletionTimestamp"].is_string();
        assert!(status == 404 || goes, "{path}: {status} {answer}");
    }
    // What pgimbal must not forget stays, and the next release takes it over.
    assert_eq!(admin.read(&store)["data"], document()["data"]);
    let gone = format!("/apis/apps/v1/namespaces/{namespace}/deployments/pgimbal");
    let _ = admin.call("PATCH", &gone, &json!({ "metadata": { "finalizers": null } }));
    drop(helm(&["install", "pgimbal", &folder, "-f", &values]));
    assert_eq!(admin.read(&store)["data"], document()["data"]);
    assert_eq!(template(&admin, &namespace), first);
}

#[test]
fn helm_3_installs_upgrades_and_keeps_the_store() {
    release(HELMS[0]);
}

#[test]
fn helm_4_installs_upgrades_and_keeps_the_store() {
    release(HELMS[1]);
}

#[test]
fn an_overlay_that_is_applied_again_leaves_the_store_alone() {
    let charts = Charts::new();
    let kubernetes = kubernetes(&charts);
    let namespace = restricted_namespace(kubernetes);
    let admin = kubernetes.admin();
    let made = charts.build("overlays/cnpg-vault");
    apply(&admin, &made, &namespace);
    let store = secret_path(&namespace, "pgimbal-store");
    admin.patch(&store, &document());
    let secret = pgimbal_tests::charts::find(&made, "Secret", "pgimbal-store").unwrap();
    let mut again = secret.clone();
    again["metadata"]["namespace"] = json!(namespace);
    // What `kubectl apply` sends for an object that is there: what it had not said before, it does
    // not say now.
    admin.patch(&store, &again);
    assert_eq!(admin.read(&store)["data"], document()["data"]);
}
