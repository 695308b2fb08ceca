//! The store in a Secret, at a real API server.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::ByteString;
use pgimbal::store::{LIMIT, Store, StoreError};
use pgimbal_config::{Config, StoreKind};
use pgimbal_tests::Kubernetes;
use pgimbal_tests::process::directory;
use rustix::process::Signal;
use serde_json::json;

use super::{
    block_on, eventually, keeps_four_aside, keeps_what_is_written, loses_no_write,
    loses_no_write_when_interrupted, soon, write,
};

const NAME: &str = "facts";
/// The file in which a pod says what it meets.
const SAID: &str = "PGIMBAL_TEST_SAID";
const ALL: [&str; 4] = ["get", "list", "watch", "update"];

/// A namespace with an empty Secret, and a service account with `verbs` on it.
struct Place<'a> {
    kubernetes: &'a Kubernetes,
    namespace: String,
    kubeconfig: PathBuf,
}

impl<'a> Place<'a> {
    fn new(kubernetes: &'a Kubernetes, verbs: &[&str]) -> Self {
        let namespace = kubernetes.namespace();
        kubernetes.make_secret(&namespace, NAME);
        let token = kubernetes.service_account(&namespace, "pgimbal");
        if !verbs.is_empty() {
            kubernetes.allow(&namespace, "pgimbal", NAME, verbs);
        }
        let kubeconfig = kubernetes.kubeconfig(&namespace, &token);
        Self { kubernetes, namespace, kubeconfig }
    }

    fn store(&self) -> Store {
        Store::new(&config(self.kubeconfig.clone())).unwrap()
    }

    /// Waits until the store sees what others write.
    async fn is_watched(&self, store: &Store) {
        self.edit(&json!({ "metadata": { "labels": { "seen": "yet" } } }));
        soon("the first edit is noticed", store.changed()).await;
    }

    fn edit(&self, patch: &serde_json::Value) {
        self.kubernetes.edit_secret(&self.namespace, NAME, patch);
    }
}

fn config(kubeconfig: PathBuf) -> Config {
    let mut config = Config::default();
    config.store.kind = StoreKind::Kubernetes;
    config.store.secret = NAME.to_owned();
    config.store.kubeconfig = Some(kubeconfig);
    config
}

fn encoded(bytes: &[u8]) -> serde_json::Value {
    serde_json::to_value(ByteString(bytes.to_vec())).unwrap()
}

#[test]
fn kubernetes_keeps_what_is_written() {
    block_on(async {
        let place = Place::new(Kubernetes::shared(), &ALL);
        let store = place.store();
        assert_eq!(store.location(), format!("secret {}/{NAME}", place.namespace));
        keeps_what_is_written(&store).await;
        keeps_four_aside(&store).await;
    });
}

#[test]
fn kubernetes_loses_no_write_of_two_replicas() {
    block_on(async {
        let place = Place::new(Kubernetes::shared(), &ALL);
        loses_no_write(place.store(), place.store(), 25).await;
    });
}

#[test]
fn kubernetes_loses_no_write_when_the_api_server_is_killed_in_the_middle_of_one() {
    block_on(async {
        let kubernetes = Kubernetes::start();
        let place = Place::new(&kubernetes, &ALL);
        let stores = [place.store(), place.store()];
        loses_no_write_when_interrupted(
            1,
            stores,
            kubernetes,
            Kubernetes::stop,
            Kubernetes::restart,
        )
        .await;
    });
}

#[test]
fn kubernetes_leaves_what_others_put_there() {
    block_on(async {
        let place = Place::new(Kubernetes::shared(), &ALL);
        let store = place.store();
        write(&store, b"ours").await;
        let read = store.read().await.unwrap();
        place.edit(&json!({
            "metadata": { "labels": { "app": "x" }, "annotations": { "note": "mine" } },
            "data": { "other": encoded(b"theirs") },
        }));
        soon("an edit is noticed", store.changed()).await;
        let conflict = store.replace(b"ours again", &read.version).await.unwrap_err();
        assert!(conflict.is_conflict(), "{conflict}");
        write(&store, b"ours again").await;
        let secret = place.kubernetes.secret(&place.namespace, NAME);
        assert_eq!(secret["data"]["other"], encoded(b"theirs"));
        assert_eq!(secret["data"]["document"], encoded(b"ours again"));
        assert_eq!(secret["metadata"]["labels"]["app"], "x");
        assert_eq!(secret["metadata"]["annotations"]["note"], "mine");
        // Somebody empties it, and somebody writes nonsense: bytes as any other.
        place.edit(&json!({ "data": { "document": null } }));
        assert_eq!(store.read().await.unwrap().bytes.len(), 0);
        place.edit(&json!({ "data": { "document": encoded(b"nonsense") } }));
        assert_eq!(**store.read().await.unwrap().bytes, *b"nonsense");
    });
}

#[test]
fn kubernetes_names_each_right_that_is_missing() {
    block_on(async {
        let place = Place::new(Kubernetes::shared(), &[]);
        let store = place.store();
        let error = store.check_rights().await.unwrap_err();
        let StoreError::Forbidden { hint, .. } = &error else { panic!("{error}") };
        assert!(error.to_string().contains("to get, list, watch, update it"), "{error}");
        assert!(hint.contains("verbs: [get, list, watch, update]"), "{hint}");
        assert!(hint.contains(&format!("namespace: {}", place.namespace)), "{hint}");
        assert!(store.read().await.unwrap_err().to_string().contains("account to get it"));
        let allow = |verbs: &[&str]| {
            place.kubernetes.allow(&place.namespace, "pgimbal", NAME, verbs);
        };
        allow(&["get", "list"]);
        let read = eventually("it may read", async || store.read().await.ok()).await;
        let error = store.check_rights().await.unwrap_err().to_string();
        assert!(error.contains("to watch, update it"), "{error}");
        let hint = tokio::time::timeout(Duration::from_millis(1500), store.changed()).await;
        assert!(hint.is_err(), "nothing can tell of a change, and nothing pretends to");
        let error = store.replace(b"x", &read.version).await.unwrap_err();
        assert!(error.to_string().contains("account to update it"), "{error}");
        allow(&ALL);
        eventually("it may write", async || store.replace(b"x", &read.version).await.ok()).await;
        store.check_rights().await.unwrap();
    });
}

#[test]
fn kubernetes_says_what_to_make_and_makes_no_secret() {
    block_on(async {
        let place = Place::new(Kubernetes::shared(), &ALL);
        let store = place.store();
        write(&store, b"x").await;
        let at = store.read().await.unwrap().version;
        place.is_watched(&store).await;
        place.kubernetes.delete_secret(&place.namespace, NAME);
        soon("the deletion is noticed", store.changed()).await;
        for error in [store.read().await.unwrap_err(), store.replace(b"y", &at).await.unwrap_err()]
        {
            let expected =
                format!("kubectl create secret generic {NAME} --namespace {}\n", place.namespace);
            assert_eq!(error.hint(), Some(&*expected), "{error}");
            assert!(matches!(error, StoreError::Missing { .. }), "{error}");
        }
        place.kubernetes.make_secret(&place.namespace, NAME);
        soon("the new one is noticed", store.changed()).await;
        let conflict = store.replace(b"y", &at).await.unwrap_err();
        assert!(conflict.is_conflict(), "{conflict}");
        assert_eq!(store.read().await.unwrap().bytes.len(), 0);
    });
}

#[test]
fn kubernetes_says_when_a_secret_is_full() {
    block_on(async {
        let place = Place::new(Kubernetes::shared(), &ALL);
        let store = place.store();
        write(&store, &vec![1; 600_000]).await;
        let error = store.set_aside(&vec![1; 600_000]).await.unwrap_err();
        assert!(matches!(error, StoreError::NoRoom { .. }), "{error}");
        assert!(error.to_string().contains("a Secret holds 1 MiB in all"), "{error}");
        place.edit(&json!({ "data": { "other": encoded(&vec![2; 400_000]) } }));
        let at = store.read().await.unwrap().version;
        let error = store.replace(&vec![3; 700_000], &at).await.unwrap_err();
        assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
        store.replace(&vec![3; 600_000], &at).await.unwrap();
        place.edit(&json!({ "immutable": true }));
        let at = store.read().await.unwrap().version;
        let error = store.replace(b"x", &at).await.unwrap_err();
        assert!(matches!(error, StoreError::Unusable { .. }), "{error}");
        assert!(error.to_string().contains("immutable"), "{error}");
    });
}

#[test]
fn kubernetes_does_not_wait_for_an_api_server_that_is_away_and_sees_it_come_back() {
    block_on(async {
        let mut kubernetes = Kubernetes::start();
        let place = Place::new(&kubernetes, &ALL);
        let (store, namespace) = (Arc::new(place.store()), place.namespace.clone());
        write(&store, b"before").await;
        place.is_watched(&store).await;
        let at = store.read().await.unwrap().version;

        // Frozen: connections are accepted and nothing is answered.
        kubernetes.signal(Signal::STOP);
        let start = Instant::now();
        let error = store.read().await.unwrap_err();
        assert!(matches!(error, StoreError::TimedOut { .. }), "{error}");
        assert!(start.elapsed() < LIMIT + Duration::from_secs(1), "{:?}", start.elapsed());
        kubernetes.signal(Signal::CONT);
        let read = eventually("it thaws", async || store.read().await.ok()).await;
        assert_eq!(read.version, at);

        // Gone: refused at once. The watch is interrupted.
        kubernetes.stop();
        let error = store.replace(b"x", &at).await.unwrap_err();
        assert!(error.is_away(), "{error}");
        assert!(error.to_string().contains("the API server cannot be reached"), "{error}");

        // Back, with a history that is forgotten: what was written meanwhile is told.
        kubernetes.restart();
        kubernetes.edit_secret(&namespace, NAME, &json!({ "data": { "other": encoded(b"x") } }));
        kubernetes.edit_secret(&namespace, "facts", &json!({ "data": { "other": null } }));
        kubernetes.compact();
        kubernetes.restart();
        soon("the edit is noticed", store.changed()).await;
        let read = store.read().await.unwrap();
        assert_eq!(**read.bytes, *b"before");
        let conflict = store.replace(b"x", &at).await.unwrap_err();
        assert!(conflict.is_conflict(), "{conflict}");
        store.replace(b"after", &read.version).await.unwrap();
    });
}

#[test]
fn kubernetes_is_reached_as_a_pod_does_and_the_token_is_read_again() {
    let kubernetes = Kubernetes::shared();
    let place = Place::new(kubernetes, &ALL);
    let files = directory("service-account");
    kubernetes.write_service_account(&files, &place.namespace, "a-token-that-has-expired");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "kubernetes::a_pod", "--ignored"]);
    let log = files.join("log");
    let mut pod = kubernetes.in_pod(&files, &command);
    pod.env(SAID, &log).stdout(std::process::Stdio::null());
    let mut pod = pod.spawn().unwrap();
    pgimbal_tests::eventually("its token is refused", super::SOON, || {
        assert!(pod.try_wait().unwrap().is_none(), "it has ended");
        std::fs::read_to_string(&log).is_ok_and(|said| said.contains("does not accept"))
    });
    let token = kubernetes.service_account(&place.namespace, "renewed");
    kubernetes.allow(&place.namespace, "renewed", NAME, &ALL);
    kubernetes.write_service_account(&files, &place.namespace, &token);
    assert!(pod.wait().unwrap().success());
    let secret = kubernetes.secret(&place.namespace, NAME);
    assert_eq!(secret["data"]["document"], encoded(b"from a pod"));
}

#[test]
#[ignore = "it is the pod of the test above"]
fn a_pod() {
    let log = std::env::var_os(SAID).expect("a file");
    let mut config = Config::default();
    config.store.kind = StoreKind::Kubernetes;
    config.store.secret = NAME.to_owned();
    block_on(async {
        let store = Store::new(&config).unwrap();
        let at = eventually("its token is good", async || match store.read().await {
            Ok(read) => Some(read.version),
            Err(error) => {
                std::fs::write(&log, error.to_string()).unwrap();
                None
            }
        });
        store.replace(b"from a pod", &at.await).await.unwrap();
    });
}

/// A false API server that gives these answers, one to each connection, and holds the last one
/// open.
fn stand_in(answers: Vec<String>) -> PathBuf {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = directory("stand-in");
    let path = config.join("kubeconfig");
    let text = format!(
        "current-context: t\n\
         clusters: [{{name: t, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]\n\
         users: [{{name: t, user: {{token: x}}}}]\n\
         contexts: [{{name: t, context: {{cluster: t, user: t}}}}]\n"
    );
    std::fs::write(&path, text).unwrap();
    std::thread::spawn(move || {
        let _config = config;
        let (mut last, count) = (None, answers.len());
        for (index, answer) in answers.into_iter().enumerate() {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            assert!(socket.read(&mut request).unwrap() > 0);
            let _ = socket.write_all(answer.as_bytes());
            last = (index + 1 == count).then_some(socket);
        }
        // The last watch stays open until the test is over.
        let _ = listener.accept();
        drop(last);
    });
    path
}

#[test]
fn kubernetes_begins_a_watch_anew_that_has_expired() {
    let head = |status: &str| format!("HTTP/1.1 {status}\r\nConnection: close\r\n\r\n");
    let event = |kind: &str, object: &str| {
        format!("{}{{\"type\":\"{kind}\",\"object\":{{{object}}}}}\n", head("200 OK"))
    };
    let version = |version: u8| format!("\"metadata\":{{\"resourceVersion\":\"{version}\"}}");
    block_on(async {
        let path = stand_in(vec![
            head("410 Gone"),
            event("ADDED", &version(1)),
            event("ERROR", "\"code\":410"),
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nnot JSON\n".to_owned(),
            head("503 Service Unavailable"),
            event("ADDED", &version(1)),
            event("ADDED", &version(2)),
        ]);
        let store = Store::new(&config(path)).unwrap();
        soon("the first version is told", store.changed()).await;
        soon("the second version is told", store.changed()).await;
    });
}

#[test]
fn kubernetes_says_how_it_is_reached_when_it_is_not() {
    block_on(async {
        let none = Store::new(&config("/no/such/kubeconfig".into())).unwrap_err();
        assert!(none.to_string().contains("kubeconfig /no/such/kubeconfig: "), "{none}");
        let mut config = Config::default();
        config.store.kind = StoreKind::Kubernetes;
        let outside = Store::new(&config).unwrap_err();
        assert!(outside.to_string().contains("name a kubeconfig"), "{outside}");

        let kubernetes = Kubernetes::shared();
        let namespace = kubernetes.namespace();
        let path = kubernetes.kubeconfig(&namespace, "no-token-of-anybody");
        let store = Store::new(&self::config(path)).unwrap();
        let refused = store.read().await.unwrap_err();
        assert!(refused.to_string().contains("does not accept"), "{refused}");
        assert!(!format!("{refused:?}").contains("no-token-of"), "{refused:?}");

        // The token in the kubeconfig is replaced, and read again.
        kubernetes.make_secret(&namespace, NAME);
        let token = kubernetes.service_account(&namespace, "pgimbal");
        kubernetes.allow(&namespace, "pgimbal", NAME, &ALL);
        let _path = kubernetes.kubeconfig(&namespace, &token);
        eventually("the new token is used", async || store.read().await.ok()).await;
    });
}
