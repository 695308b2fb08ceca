//! A real API server of Kubernetes on Debian's etcd, without nodes and controllers: Secrets, RBAC
//! and watches are what they are in a cluster.

pub mod api;
pub mod controllers;
pub mod kube_proxy;
pub mod kubelet;
pub mod network;
pub mod nodes;
pub mod watch;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::KeyPair;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::certificates::Certificates;
use crate::pgimbal::undisturbed;
use crate::port::free_port;
use crate::process::{Directory, Process, directory, directory_in_memory};
use crate::program::print_tail;
use crate::until::{SOON, eventually};
use api::Api;

/// The token of the user who may do everything.
const ADMIN: &str = "token-of-the-administrator";

/// A running API server with its etcd, which starts in three seconds and takes 300 MB. Dropping it
/// kills both.
pub struct Kubernetes {
    server: Option<Process>,
    etcd: Process,
    etcd_port: u16,
    directory: Directory,
    _etcd_directory: Directory,
    certificates: Certificates,
    services: String,
    /// The API server's port on 127.0.0.1, where it speaks TLS.
    pub port: u16,
    namespaces: AtomicUsize,
}

impl Kubernetes {
    /// The API server that all tests of this program share; each makes a namespace of its own. It
    /// ends with the program. A test that stops the server starts its own.
    ///
    /// # Panics
    /// As [`Kubernetes::start`].
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Kubernetes> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Starts an etcd and an API server.
    ///
    /// # Panics
    /// When there is no etcd or kube-apiserver (`tests/set-up` installs them), or one does not
    /// start.
    #[must_use]
    pub fn start() -> Self {
        Self::with(Certificates::new(), "10.0.0.0/24")
    }

    /// Starts one with these certificates, whose Services have addresses of the range `services`.
    pub(super) fn with(certificates: Certificates, services: &str) -> Self {
        let etcd_directory = directory_in_memory("etcd");
        let etcd_port = free_port();
        let etcd = start_etcd(&etcd_directory, etcd_port);
        let directory = directory("kubernetes");
        let _paths = certificates.write(&directory);
        let tokens = format!("{ADMIN},admin,admin,\"system:masters\"\n");
        std::fs::write(directory.join("tokens.csv"), tokens).expect("a file");
        let key = KeyPair::generate().expect("a key");
        for (name, pem) in [("key", key.serialize_pem()), ("pub", key.public_key_pem())] {
            std::fs::write(directory.join("service-accounts").with_extension(name), pem)
                .expect("a file");
        }
        let mut kubernetes = Self {
            server: None,
            etcd,
            etcd_port,
            directory,
            _etcd_directory: etcd_directory,
            certificates,
            services: services.to_owned(),
            port: free_port(),
            namespaces: AtomicUsize::new(0),
        };
        kubernetes.restart();
        kubernetes
    }

    /// Kills the API server, whose port then refuses connections; etcd stays.
    pub fn stop(&mut self) {
        self.server = None;
    }

    /// Starts the API server at the same port, anew if it runs, and waits until it is ready. Its
    /// cache of watches is empty then.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn restart(&mut self) {
        self.stop();
        let mut command = undisturbed(program("kube-apiserver"));
        command.args(self.arguments()).current_dir(&*self.directory);
        self.server = Some(Process::start(command, &self.directory, Signal::KILL));
        let admin = self.admin();
        eventually("the API server is ready", SOON * 4, || {
            let server = self.server.as_mut().expect("a started server");
            assert!(server.ended().is_none(), "the API server ended:\n{}", server.log());
            // Ready is not enough: the default namespace is made a moment later.
            matches!(admin.call("GET", "/readyz", &Value::Null), Ok((200, _)))
                && matches!(
                    admin.call("GET", "/api/v1/namespaces/default", &Value::Null),
                    Ok((200, _))
                )
        });
    }

    fn arguments(&self) -> Vec<String> {
        let file = |name: &str| self.directory.join(name).display().to_string();
        let issuer = "--service-account-issuer=https://kubernetes.default.svc".to_owned();
        vec![
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port),
            format!("--secure-port={}", self.port),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            format!("--cert-dir={}", self.directory.display()),
            format!("--token-auth-file={}", file("tokens.csv")),
            "--authorization-mode=RBAC".to_owned(),
            issuer,
            format!("--service-account-key-file={}", file("service-accounts.pub")),
            format!("--service-account-signing-key-file={}", file("service-accounts.key")),
            format!("--service-cluster-ip-range={}", self.services),
            // It would refuse to publish a loopback address.
            "--endpoint-reconciler-type=none".to_owned(),
            // Otherwise etcd's history is kept for minutes, whatever a test does.
            "--etcd-compaction-interval=0".to_owned(),
            "--profiling=false".to_owned(),
        ]
    }

    /// Sends a signal to the API server. After SIGSTOP it accepts connections and does not answer.
    ///
    /// # Panics
    /// When the server is stopped.
    pub fn signal(&self, signal: Signal) {
        self.server.as_ref().expect("a started server").signal(signal);
    }

    /// The API server's URL.
    #[must_use]
    pub fn address(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The authority of the API server's certificate, PEM.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.certificates.authority
    }

    /// The file with that authority.
    #[must_use]
    pub fn authority_file(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    /// The API of a user who may do everything.
    #[must_use]
    pub fn admin(&self) -> Api {
        Api::new(self.port, self.certificates.client(&[]), ADMIN)
    }

    /// Makes a namespace whose name no other test has, and returns its name.
    ///
    /// # Panics
    /// When the API server refuses.
    #[must_use]
    pub fn namespace(&self) -> String {
        let name = format!("test-{}", self.namespaces.fetch_add(1, Ordering::Relaxed));
        let body = json!({ "metadata": { "name": name } });
        self.admin().create("/api/v1/namespaces", &body);
        name
    }

    /// Makes custom resources known, and waits until each is served.
    ///
    /// # Panics
    /// When the API server refuses a definition, or does not serve it in time.
    pub fn define(&self, definitions: &[Value]) {
        let admin = self.admin();
        let all = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        for definition in definitions {
            admin.create(all, definition);
        }
        for definition in definitions {
            let name = definition["metadata"]["name"].as_str().expect("a name");
            eventually(&format!("{name} is served"), SOON * 4, || {
                let now = admin.read(&format!("{all}/{name}"));
                let mut conditions = now["status"]["conditions"].as_array().into_iter().flatten();
                conditions.any(|it| it["type"] == "Established" && it["status"] == "True")
            });
        }
    }

    /// Makes a Secret without data.
    ///
    /// # Panics
    /// When the API server refuses.
    pub fn make_secret(&self, namespace: &str, name: &str) {
        let body = json!({ "metadata": { "name": name } });
        self.admin().create(&format!("/api/v1/namespaces/{namespace}/secrets"), &body);
    }

    /// The Secret as JSON.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn secret(&self, namespace: &str, name: &str) -> Value {
        self.admin().read(&secret_path(namespace, name))
    }

    /// Changes a Secret as somebody else would: a merge patch.
    ///
    /// # Panics
    /// When the API server refuses.
    pub fn edit_secret(&self, namespace: &str, name: &str, patch: &Value) {
        self.admin().patch(&secret_path(namespace, name), patch);
    }

    /// Deletes a Secret.
    ///
    /// # Panics
    /// When the API server refuses.
    pub fn delete_secret(&self, namespace: &str, name: &str) {
        self.admin().delete(&secret_path(namespace, name));
    }

    /// Makes a service account, and returns a token of it that lives for an hour.
    ///
    /// # Panics
    /// When the API server refuses.
    #[must_use]
    pub fn service_account(&self, namespace: &str, name: &str) -> String {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        self.admin().create(&path, &json!({ "metadata": { "name": name } }));
        let request = json!({ "spec": { "expirationSeconds": 3600 } });
        let answer = self.admin().create(&format!("{path}/{name}/token"), &request);
        answer["status"]["token"].as_str().expect("a token").to_owned()
    }

    /// Allows the service account `account` these `verbs` on the one Secret `secret`, with a Role
    /// and a RoleBinding of that Secret's name. Called again, it replaces the verbs.
    ///
    /// # Panics
    /// When the API server refuses.
    pub fn allow(&self, namespace: &str, account: &str, secret: &str, verbs: &[&str]) {
        let path = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}");
        let role = json!({
            "metadata": { "name": secret },
            "rules": [{
                "apiGroups": [""], "resources": ["secrets"], "resourceNames": [secret],
                "verbs": verbs,
            }],
        });
        let binding = json!({
            "metadata": { "name": secret },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": secret },
            "subjects": [
                { "kind": "ServiceAccount", "name": account, "namespace": namespace },
            ],
        });
        let admin = self.admin();
        for (kind, body) in [("roles", role), ("rolebindings", binding)] {
            let own = format!("{path}/{kind}/{secret}");
            match admin.call("PUT", &own, &body) {
                Ok((200 | 201, _)) => {}
                _ => drop(admin.create(&format!("{path}/{kind}"), &body)),
            }
        }
    }

    /// Writes a kubeconfig for a token, and returns its path.
    ///
    /// # Panics
    /// When the file cannot be written.
    #[must_use]
    pub fn kubeconfig(&self, namespace: &str, token: &str) -> PathBuf {
        let mut text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\nclusters:\n- name: test\n  \
             cluster:\n    server: {}\n    certificate-authority: {}\n",
            self.address(),
            self.directory.join("ca.crt").display()
        );
        let _ = write!(
            text,
            "users:\n- name: test\n  user:\n    token: {token}\ncontexts:\n- name: test\n  \
             context:\n    cluster: test\n    user: test\n    namespace: {namespace}\n"
        );
        let path = self.directory.join(format!("kubeconfig-{namespace}"));
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// A kubeconfig of the user who may do everything.
    ///
    /// # Panics
    /// When the file cannot be written.
    #[must_use]
    pub fn admin_kubeconfig(&self, namespace: &str) -> PathBuf {
        self.kubeconfig(namespace, ADMIN)
    }

    /// A command that runs `command` as in a pod, with its environment and arguments: the API
    /// server is where `KUBERNETES_SERVICE_HOST` says, and `files` are the service account's. They
    /// may be changed while it runs.
    ///
    /// # Panics
    /// When this user is not root, who may make a mount namespace.
    #[must_use]
    pub fn in_pod(&self, files: &Path, command: &Command) -> Command {
        assert!(rustix::process::geteuid().is_root(), "a mount namespace takes root");
        // The namespace's own /run, with nothing else in it.
        let script = "mount -t tmpfs tmpfs /run && mkdir -p /run/secrets/kubernetes.io && \
                      ln -s \"$0\" /run/secrets/kubernetes.io/serviceaccount && exec \"$@\"";
        let mut pod = Command::new("unshare");
        pod.args(["--mount", "sh", "-c", script]).arg(files);
        pod.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => pod.env(name, value),
                None => pod.env_remove(name),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            pod.current_dir(directory);
        }
        pod.env("KUBERNETES_SERVICE_HOST", "127.0.0.1");
        pod.env("KUBERNETES_SERVICE_PORT", self.port.to_string());
        pod
    }

    /// Writes the files of a service account into `directory`, for [`Kubernetes::in_pod`].
    ///
    /// # Panics
    /// When a file cannot be written.
    pub fn write_service_account(&self, directory: &Path, namespace: &str, token: &str) {
        let files = [
            ("namespace", namespace),
            ("token", token),
            ("ca.crt", self.certificates.authority.as_str()),
        ];
        for (name, text) in files {
            std::fs::write(directory.join(name), text).expect("a file");
        }
    }

    /// Forgets etcd's history up to now: a watch that begins before is answered 410.
    ///
    /// # Panics
    /// When etcd refuses.
    pub fn compact(&self) {
        let etcd = Api::plain(self.etcd_port);
        let everything = json!({ "key": "AA==", "range_end": "AA==", "limit": "1" });
        let answer = etcd.create("/v3/kv/range", &everything);
        let revision = answer["header"]["revision"].clone();
        etcd.create("/v3/kv/compaction", &json!({ "revision": revision, "physical": true }));
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.server.as_ref().map(Process::log).unwrap_or_default();
            print_tail("the API server", &log);
            print_tail("etcd", &self.etcd.log());
        }
        self.stop();
    }
}

/// The path of a Secret in the API.
#[must_use]
pub fn secret_path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/secrets/{name}")
}

fn start_etcd(directory: &Path, port: u16) -> Process {
    let address = format!("http://127.0.0.1:{port}");
    let mut command = undisturbed("etcd");
    command
        .arg(format!("--data-dir={}", directory.join("data").display()))
        .arg(format!("--listen-client-urls={address}"))
        .arg(format!("--advertise-client-urls={address}"))
        .arg(format!("--listen-peer-urls=http://127.0.0.1:{}", free_port()))
        .arg("--unsafe-no-fsync");
    for name in ["ETCD_NAME", "ETCD_DATA_DIR", "ETCDCTL_API", "GOMAXPROCS"] {
        command.env_remove(name);
    }
    let mut etcd = Process::start(command, directory, Signal::KILL);
    etcd.wait_until_it_listens("etcd", &[port]);
    etcd
}

/// A program of Kubernetes, or the cluster's DNS, that `tests/set-up` built.
fn program(name: &str) -> PathBuf {
    let find = Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes/program");
    let output = Command::new(&find).arg(name).output().expect("tests/kubernetes/program");
    let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(output.status.success() && !path.is_empty(), "no {name}: run tests/set-up");
    path.into()
}
