//! What the reader of the page has: a Kubernetes, a PostgreSQL with TLS and the roles of the
//! applications, a Vault in a pod, and a shell with the programs that the page names.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use pgimbal_tests::certificates::Certificates;
use pgimbal_tests::charts::{Charts, Helm};
use pgimbal_tests::kubernetes::nodes::Nodes;
use pgimbal_tests::pgimbal::undisturbed;
use pgimbal_tests::process::{Directory, directory};
use pgimbal_tests::program::{Finished, run};
use pgimbal_tests::relay::Relay;
use pgimbal_tests::sources::root;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Postgres, Vault, vault};
use serde_json::{Value, json};

use crate::kubernetes_story::TOOLS;

/// The image that the chart and the overlays name.
const IMAGE: &str = "ghcr.io/pgimbal/pgimbal:0.1.0";

/// Time limit of what takes some seconds on an idle machine.
pub(super) const LIMIT: Duration = Duration::from_secs(240);

/// The roles of the applications, of the operator and of the prober, as a platform has them.
const ROLES: &str = "create role shop login; create database shop owner shop; \
    create role operator login; create role probe login; \
    grant pg_monitor to probe, operator";

/// The names in the one certificate that Vault, PostgreSQL and pgimbal show.
const NAMES: [&str; 5] =
    ["vault.vault.svc", "db-nodes.db.svc", "pgimbal.dbaas.svc", "localhost", "127.0.0.1"];

/// Notes the words of `kubectl exec`, for which a kubelet must serve streams: the harness's does
/// not. All else is kubectl's.
const KUBECTL: &str = "#!/bin/bash\nfor word; do if [[ $word == exec ]]; then \
    printf '%s\\0' \"$@\" >\"$HOME/exec\"; exit; fi; done\nexec KUBECTL \"$@\"\n";

/// The platform.
pub(super) struct Platform {
    pub(super) nodes: Nodes,
    pub(super) pg: Postgres,
    pub(super) vault: Vault,
    pub(super) certificates: Certificates,
    pub(super) folder: Directory,
    _postgres_at: Relay,
    _charts: Charts,
}

impl Platform {
    pub(super) fn start() -> Self {
        let nodes = Nodes::start(IMAGE, TOOLS);
        let charts = Charts::new();
        nodes.kubernetes.define(&charts.definitions());
        let certificates = Certificates::named(&NAMES);
        nodes.trust(&certificates.authority);
        let pg = Postgres::with_tls(&certificates);
        ROLES.split("; ").for_each(|sql| pg.run(sql));
        let host = nodes.network.further(0);
        let here = [127, 0, 0, 1];
        let postgres_at = Relay::between((host, 5432).into(), here.into(), (here, pg.port).into());
        nodes.make_namespace("db", false);
        nodes.make_service("db", "db-nodes", 5432, (&[host], 5432), true);
        start_vault(&nodes, &certificates);
        let port = || nodes.proxy.local_port("vault", "vault", 8200);
        eventually("Vault's Service is served", LIMIT, || port().is_some());
        let vault = Vault::found_at(port().unwrap(), &certificates);
        let folder = directory("page");
        prepare_shell(&folder, &charts);
        let _charts = charts;
        Self { nodes, pg, vault, certificates, folder, _postgres_at: postgres_at, _charts }
    }

    /// Runs a text of the page in a shell.
    pub(super) fn shell(&self, text: &str) -> Finished {
        let mut bash = undisturbed("bash");
        let path = std::env::var("PATH").unwrap();
        bash.args(["-euo", "pipefail", "-c", text]).current_dir(&*self.folder);
        bash.env("PATH", format!("{}:{path}", self.folder.join("bin").display()));
        bash.env("HOME", &*self.folder).env("KUBECONFIG", self.nodes.kubeconfig());
        bash.env("VAULT_ADDR", self.vault.address()).env("VAULT_TOKEN", self.vault.root_token());
        bash.env("VAULT_CACERT", self.vault.authority());
        run(&mut bash, LIMIT)
    }

    /// The same for one that succeeds. Returns its output.
    pub(super) fn run(&self, text: &str) -> String {
        let told = self.shell(text);
        assert!(told.success, "{text}\n{}{}", told.stdout, told.stderr);
        told.stdout
    }

    /// Runs the words of the `kubectl exec` of this text in a pod.
    pub(super) fn exec(&self, text: &str) -> Finished {
        let _ = self.run(text);
        let words = fs::read_to_string(self.folder.join("exec")).unwrap();
        let words: Vec<&str> = words.split_terminator('\0').collect();
        let ["-n", namespace, "exec", target, "--", words @ ..] = &words[..] else {
            panic!("{words:?}")
        };
        assert_eq!(*target, "deploy/pgimbal");
        let pod = self.pods(namespace)[0]["metadata"]["name"].as_str().unwrap().to_owned();
        run(&mut self.nodes.kubelet.exec(namespace, &pod, words), SOON * 4)
    }

    /// The pods of pgimbal in a namespace that run or are to run.
    pub(super) fn pods(&self, namespace: &str) -> Vec<Value> {
        let path = format!(
            "/api/v1/namespaces/{namespace}/pods?labelSelector=app.kubernetes.io%2Fname%3Dpgimbal"
        );
        let list = self.nodes.kubernetes.admin().read(&path)["items"].as_array().cloned();
        let mut pods = list.unwrap_or_default();
        pods.retain(|pod| pod["metadata"].get("deletionTimestamp").is_none());
        pods
    }

    /// Writes a file of the reader's into the folder of the shell.
    pub(super) fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.join(name), text).unwrap();
    }

    /// Runs SQL through the Service `pgimbal` of a namespace, as `role` with its password of now.
    pub(super) fn sql(&self, namespace: &str, role: &str, database: &str, sql: &str) -> Finished {
        let service = self.nodes.proxy.local_port(namespace, "pgimbal", 5432);
        let mut psql = undisturbed("psql");
        psql.args(["--no-psqlrc", "--no-password", "--tuples-only", "--no-align"]);
        psql.arg(format!(
            "host=127.0.0.1 port={} dbname={database} user={role}",
            service.expect("a Service")
        ));
        psql.args(["--command", sql]).env("PGPASSWORD", self.vault.role(role).password);
        run(&mut psql, SOON)
    }

    /// Makes a Secret for TLS, as cert-manager makes it of the chart's Certificate.
    pub(super) fn make_certificate(&self, namespace: &str) {
        let [_, certificate, key] = self.certificates.files().map(|it| it.display().to_string());
        let _ = self.run(&format!(
            "kubectl -n {namespace} create secret tls pgimbal-tls --cert={certificate} --key={key}"
        ));
    }
}

/// The reader's checkout, and the programs of the page on a path.
fn prepare_shell(folder: &Directory, charts: &Charts) {
    let copied = Command::new("cp").arg("-r").arg(root().join("deploy")).arg(&**folder).status();
    assert!(copied.unwrap().success());
    let bin = folder.join("bin");
    fs::create_dir(&bin).unwrap();
    symlink(charts.program(Helm::Four), bin.join("helm")).unwrap();
    symlink(vault::program(), bin.join("vault")).unwrap();
    let kubectl = KUBECTL.replace("KUBECTL", &Nodes::kubectl_path().display().to_string());
    fs::write(bin.join("kubectl"), kubectl).unwrap();
    fs::set_permissions(bin.join("kubectl"), fs::Permissions::from_mode(0o755)).unwrap();
}

/// Starts a Vault as Vault's own chart would: a pod behind a Service, whose account may review
/// tokens.
fn start_vault(nodes: &Nodes, certificates: &Certificates) {
    let admin = nodes.kubernetes.admin();
    nodes.make_namespace("vault", false);
    let own = |what: &str| format!("/api/v1/namespaces/vault/{what}");
    let settings = json!({
        "storage": { "inmem": {} }, "disable_mlock": true, "log_level": "info",
        "listener": [{ "tcp": {
            "address": "0.0.0.0:8200",
            "tls_cert_file": "/tls/server.crt", "tls_key_file": "/tls/server.key",
        }}],
    });
    let binding = json!({
        "metadata": { "name": "vault" },
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
            "name": "system:auth-delegator",
        },
        "subjects": [{ "kind": "ServiceAccount", "name": "vault", "namespace": "vault" }],
    });
    for (path, name, rest) in [
        (own("serviceaccounts"), "vault", json!({})),
        ("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings".to_owned(), "vault", binding),
        (own("configmaps"), "vault", json!({ "data": { "vault.json": settings.to_string() } })),
        (
            own("secrets"),
            "vault",
            json!({ "stringData": {
                "server.crt": certificates.chain, "server.key": certificates.key,
            }}),
        ),
        (
            own("services"),
            "vault",
            json!({ "spec": {
                "selector": { "app": "vault" }, "ports": [{ "port": 8200 }],
            }}),
        ),
        (own("pods"), "vault", json!({ "spec": vault_pod(&vault::program()) })),
    ] {
        let mut object = rest;
        object["metadata"] = json!({ "name": name, "labels": { "app": "vault" } });
        admin.create(&path, &object);
    }
}

fn vault_pod(program: &PathBuf) -> Value {
    json!({
        "serviceAccountName": "vault",
        "terminationGracePeriodSeconds": 1,
        "volumes": [
            { "name": "config", "configMap": { "name": "vault" } },
            { "name": "tls", "secret": { "secretName": "vault" } },
        ],
        "containers": [{
            "name": "vault", "image": TOOLS,
            "command": [program, "server", "-config=/config/vault.json"],
            "env": [{ "name": "HOME", "value": "/tmp" }],
            "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
            },
            "volumeMounts": [
                { "name": "config", "mountPath": "/config" }, { "name": "tls", "mountPath": "/tls" },
            ],
            "readinessProbe": { "tcpSocket": { "port": 8200 }, "periodSeconds": 1 },
        }],
    })
}
