//! What is there before the chart is installed: nodes, a cluster of PostgreSQL, a Vault, and the
//! objects that docs/deploy-kubernetes.md says to make.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use pgimbal_tests::certificates::Certificates;
use pgimbal_tests::charts::{Charts, Helm, chart};
use pgimbal_tests::kubernetes::nodes::Nodes;
use pgimbal_tests::process::{Directory, directory};
use pgimbal_tests::program::{Finished, run};
use pgimbal_tests::until::SOON;
use pgimbal_tests::{Cluster, Vault};
use serde_json::{Value, json};

use super::TOOLS;

/// The namespace of the release.
pub(super) const NAMESPACE: &str = "dbaas";

/// Time limit of what takes some seconds on an idle machine.
pub(super) const LIMIT: Duration = Duration::from_secs(180);

/// The roles of PostgreSQL whose passwords Vault has: the application's, whom the server asks for a
/// password, the operator's and the prober's.
const ROLES: [&str; 3] = ["scram", "operator", "probe"];

/// The values of the user, over `values-ha.yaml`: as on the page, with an own image and Vault's
/// authority.
const MINE: &str = "\
image: { tag: test }
config:
  shutdown_grace: GRACE
  admin_users: [operator]
  vaults:
    main:
      address: [\"https://vault.vault.svc:8200\"]
      login: kubernetes
      kubernetes_role: pgimbal
      kubernetes_jwt_file: /var/run/secrets/vault/token
      ca_file: /etc/pgimbal/vault-ca/ca.crt
  clusters:
    main: { dns: db-nodes.db.svc, probe_user: probe }
  databases:
    app: { cluster: main }
  users:
    scram: { vault_role: scram }
    operator: { vault_role: operator }
    probe: { vault_role: probe }
vaultToken: { enabled: true }
configMapFiles:
  - configMap: vault-ca
    mountPath: /etc/pgimbal/vault-ca
test: { user: scram, database: app, existingSecret: shop-database }
";

/// A platform before the release.
pub(super) struct Setup {
    pub(super) nodes: Nodes,
    pub(super) cluster: Cluster,
    pub(super) vault: Vault,
    charts: Charts,
    directory: Directory,
}

impl Setup {
    /// `grace` is the release's `shutdown_grace`.
    pub(super) fn start(grace: &str) -> Self {
        let nodes = Nodes::start("ghcr.io/pgimbal/pgimbal:test", TOOLS);
        let hosts = [nodes.network.further(0), nodes.network.further(1)];
        let cluster = Cluster::at(&hosts);
        let primary = &cluster.nodes[0];
        primary.run("create role operator login");
        primary.run("create table done (id text primary key); grant all on done to scram");
        cluster.settle(0);
        let certificates = Certificates::named(&["vault.vault.svc", "localhost", "127.0.0.1"]);
        let vault = Vault::also_at(nodes.network.machine(), &certificates);
        vault.serve_at(&hosts.map(|host| (host, 5432)));
        for role in ROLES {
            vault.static_role(role, 86400);
        }
        let directory = directory("values");
        fs::write(directory.join("mine.yaml"), MINE.replace("GRACE", grace)).expect("a file");
        let setup = Self { nodes, cluster, vault, charts: Charts::new(), directory };
        for (name, is_restricted) in [("vault", false), ("db", false), (NAMESPACE, true)] {
            setup.nodes.make_namespace(name, is_restricted);
        }
        let vault_at = ([setup.nodes.network.machine()], setup.vault.port);
        setup.nodes.make_service("vault", "vault", 8200, (&vault_at.0, vault_at.1), false);
        setup.nodes.make_service("db", "db-nodes", 5432, (&hosts, 5432), true);
        setup.let_vault_trust_kubernetes();
        setup.make_objects(&certificates.authority);
        setup.make_custom_resources();
        setup
    }

    /// What the page says of Vault, for one that is no pod of the cluster.
    fn let_vault_trust_kubernetes(&self) {
        let kubernetes = &self.nodes.kubernetes;
        let reviewer = kubernetes.service_account("vault", "vault");
        let binding = json!({
            "metadata": { "name": "vault" },
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                "name": "system:auth-delegator",
            },
            "subjects": [{ "kind": "ServiceAccount", "name": "vault", "namespace": "vault" }],
        });
        let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
        drop(kubernetes.admin().create(bindings, &binding));
        let root = self.vault.root();
        let policy = "path \"database/static-creds/*\" { capabilities = [\"read\"] }";
        for (path, body) in [
            ("sys/auth/kubernetes", json!({ "type": "kubernetes" })),
            (
                "auth/kubernetes/config",
                json!({
                    "kubernetes_host": kubernetes.address(),
                    "kubernetes_ca_cert": kubernetes.authority(),
                    "token_reviewer_jwt": reviewer,
                }),
            ),
            ("sys/policies/acl/pgimbal", json!({ "policy": policy })),
            (
                "auth/kubernetes/role/pgimbal",
                json!({
                    "bound_service_account_names": "pgimbal",
                    "bound_service_account_namespaces": NAMESPACE,
                    "audience": "vault",
                    "token_policies": "pgimbal",
                }),
            ),
        ] {
            drop(root.write(path, &body));
        }
    }

    /// The Secrets and ConfigMaps that the values name.
    fn make_objects(&self, vault_authority: &str) {
        let key = "--from-literal=deployment-key=6f0c1b8e5a2d4937f1e0a9c8b7d6e5f40312233445566778";
        let _ = self.kubectl(&["create", "secret", "generic", "pgimbal-deployment-key", key]);
        let password = format!("--from-literal=password={}", self.password("scram"));
        let _ = self.kubectl(&["create", "secret", "generic", "shop-database", &password]);
        let authority = self.directory.join("ca.crt");
        fs::write(&authority, vault_authority).expect("a file");
        let file = format!("--from-file={}", authority.display());
        let _ = self.kubectl(&["create", "configmap", "vault-ca", &file]);
        // What cert-manager makes of the chart's Certificate.
        let own = Certificates::named(&["pgimbal.dbaas.svc", "localhost"]);
        let [_, certificate, private] = own.files();
        let [certificate, private] = [("cert", certificate), ("key", private)]
            .map(|(word, path)| format!("--{word}={}", path.display()));
        let _ = self.kubectl(&["create", "secret", "tls", "pgimbal-tls", &certificate, &private]);
    }

    /// Those of cert-manager and of the Prometheus operator.
    fn make_custom_resources(&self) {
        let mut definitions = self.charts.definitions();
        definitions.retain(|definition| {
            let group = definition["spec"]["group"].as_str().expect("a group");
            ["cert-manager.io", "monitoring.coreos.com"].contains(&group)
        });
        self.nodes.kubernetes.define(&definitions);
    }

    /// The path of a file of the test's.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Writes one, and returns its path.
    pub(super) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("a file");
        path
    }

    /// The password of a role, as Vault has it now.
    pub(super) fn password(&self, role: &str) -> String {
        self.vault.role(role).password
    }

    /// Runs kubectl in the release's namespace.
    pub(super) fn kubectl(&self, words: &[&str]) -> String {
        let words = [&["-n", NAMESPACE], words].concat();
        self.nodes.kubectl(&words).succeeded().stdout
    }

    /// Runs Helm with these words, whose last are for the release of the chart where they say
    /// `CHART`.
    pub(super) fn helm(&self, words: &[&str]) -> String {
        let folder = chart();
        let text = |path: std::path::PathBuf| path.display().to_string();
        let (high, mine) =
            (text(folder.join("values-ha.yaml")), text(self.directory.join("mine.yaml")));
        let folder = text(folder);
        let mut all = vec!["-n", NAMESPACE];
        for word in words {
            match *word {
                "CHART" => all.extend([folder.as_str(), "-f", &high, "-f", &mine]),
                word => all.push(word),
            }
        }
        let told = self.charts.helm(Helm::Four, &all, Some(&self.nodes.kubeconfig()));
        told.succeeded().stdout
    }

    /// The pods of the release that are there.
    pub(super) fn pods(&self) -> Vec<Value> {
        let path = format!(
            "/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app.kubernetes.io%2Fname%3Dpgimbal"
        );
        self.nodes.kubernetes.admin().read(&path)["items"].as_array().cloned().unwrap_or_default()
    }

    /// Runs SQL through the Service as `role` with its password of now.
    pub(super) fn sql(&self, role: &str, database: &str, sql: &str) -> Finished {
        let port = self.nodes.proxy.local_port(NAMESPACE, "pgimbal", 5432).expect("a Service");
        let mut psql = Command::new("psql");
        psql.args(["--no-psqlrc", "--no-password", "--tuples-only", "--no-align"]);
        psql.arg(format!(
            "host=127.0.0.1 port={port} dbname={database} user={role} sslmode=require"
        ));
        psql.args(["--command", sql]).env("PGPASSWORD", self.password(role));
        run(&mut psql, SOON * 4)
    }
}
