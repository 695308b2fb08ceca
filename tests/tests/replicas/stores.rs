//! The real stores of a deployment while clients work: an API server of Kubernetes that is stopped,
//! a Secret that somebody edits and rights that somebody takes away, a Vault that is sealed.

use std::time::Duration;

use pgimbal_tests::cluster::Cluster;
use pgimbal_tests::http::metric;
use pgimbal_tests::kubernetes::Kubernetes;
use pgimbal_tests::until::{always, eventually};
use pgimbal_tests::{Pgimbal, Relay, Vault};
use serde_json::json;

use super::load::Load;
use super::setup::{Setup, away, reads};

/// Time limit of what follows soon on a machine that is not busy.
const LONG: Duration = Duration::from_secs(60);
/// What somebody writes who takes the Secret for his own, in base64.
const NONSENSE: &str = "bm9uc2Vuc2U=";
/// `{"version": 7}`, in base64.
const OF_VERSION_7: &str = "eyJ2ZXJzaW9uIjogN30=";

/// A store that a test can take away.
trait Store {
    fn take_away(&mut self);
    fn bring_back(&mut self);
    /// Which version of the document it has; empty while it has none.
    fn version(&self) -> String;
}

struct Secret {
    server: Kubernetes,
    namespace: String,
}

impl Store for Secret {
    fn take_away(&mut self) {
        self.server.stop();
    }

    fn bring_back(&mut self) {
        self.server.restart();
    }

    fn version(&self) -> String {
        let secret = self.server.secret(&self.namespace, "pgimbal-store");
        let written = secret["data"].as_object().is_some_and(|data| !data.is_empty());
        if written { secret["metadata"]["resourceVersion"].to_string() } else { String::new() }
    }
}

impl Store for Vault {
    fn take_away(&mut self) {
        self.seal();
    }

    fn bring_back(&mut self) {
        self.unseal();
    }

    fn version(&self) -> String {
        let null = serde_json::Value::Null;
        match self.root().call("GET", "secret/metadata/pgimbal", &null) {
            Ok((200, answer)) => answer["data"]["current_version"].to_string(),
            _ => String::new(),
        }
    }
}

/// Clients see nothing while it is away, and what was decided meanwhile is in it afterwards.
fn goes_away_and_comes_back(mut setup: Setup, mut store: impl Store) {
    eventually("the store has a document", LONG, || !store.version().is_empty());
    let load = Load::start(&setup.deployment, &setup.cluster.nodes[0], 3, &reads());
    load.wait_until_each_is_served();
    let before = store.version();
    let span = away(Duration::from_secs(3));
    store.take_away();
    always("nobody sees an error", span / 2, || load.errors().is_empty());
    setup.deployment.links().for_each(Relay::cut);
    always("nobody sees an error", span / 2, || load.errors().is_empty());
    load.wait_until_each_is_served();
    setup.deployment.heal();
    setup.deployment.wait_until_joined();
    load.stop().nothing_but_answers(Duration::from_millis(1500));
    setup.command(0, "hold c");
    for replica in 0..3 {
        eventually("it holds", LONG, || !setup.is_writable(replica));
    }
    store.bring_back();
    eventually("it is written again", LONG, || store.version() != before);
    for replica in &mut setup.deployment.replicas {
        replica.kill();
    }
    for replica in &mut setup.deployment.replicas {
        replica.restart();
    }
    for replica in 0..3 {
        eventually("it holds again", LONG, || setup.node(replica, "n1", "state") == "primary");
        assert!(!setup.is_writable(replica), "r{} has forgotten the hold", replica + 1);
    }
    setup.command(1, "resume c");
    for replica in 0..3 {
        setup.client(replica).ok("insert into writes values ('x')");
    }
}

/// Replicas before one server, with a Secret in a namespace of its own.
fn with_a_secret(server: &Kubernetes) -> (Setup, String) {
    let namespace = server.namespace();
    server.make_secret(&namespace, "pgimbal-store");
    let token = server.service_account(&namespace, "pgimbal");
    allow_all(server, &namespace);
    let kubeconfig = server.kubeconfig(&namespace, &token);
    let setup = Setup::before(Cluster::start(0), |_, config| {
        config
            .store("kind", "\"kubernetes\"")
            .without_store("file")
            .store("namespace", format!("\"{namespace}\""))
            .store("kubeconfig", format!("\"{}\"", kubeconfig.display()))
    });
    (setup, namespace)
}

fn allow_all(server: &Kubernetes, namespace: &str) {
    server.allow(namespace, "pgimbal", "pgimbal-store", &["get", "list", "watch", "update"]);
}

#[test]
fn replicas_clients_see_nothing_while_the_api_server_is_gone() {
    let server = Kubernetes::start();
    let (setup, namespace) = with_a_secret(&server);
    goes_away_and_comes_back(setup, Secret { server, namespace });
}

#[test]
fn replicas_clients_see_nothing_while_their_secret_is_edited_and_their_rights_are_taken() {
    let server = Kubernetes::shared();
    let (mut setup, namespace) = with_a_secret(server);
    let secret = || server.secret(&namespace, "pgimbal-store");
    let edit = |patch| server.edit_secret(&namespace, "pgimbal-store", &patch);
    let is_well = |setup: &Setup, wanted: bool| {
        eventually("each replica knows how its store is", LONG, || {
            let up = |index| metric(&setup.replica(index).metrics(), "pgimbal_store_up", &[]);
            (0..3).all(|index| (up(index) == Some(1.0)) == wanted)
        });
    };
    is_well(&setup, true);
    let load = Load::start(&setup.deployment, &setup.cluster.nodes[0], 3, &reads());
    load.wait_until_each_is_served();

    server.allow(&namespace, "pgimbal", "pgimbal-store", &["list"]);
    is_well(&setup, false);
    let log = setup.replica(0).log();
    assert!(log.contains("RBAC does not allow pgimbal's service account to get it"), "{log}");
    assert!(log.contains("verbs: [get, list, watch, update]"), "{log}");
    allow_all(server, &namespace);
    is_well(&setup, true);

    // Two keys: one in place of the document, and one of somebody's own.
    edit(json!({ "data": { "document": NONSENSE, "theirs": NONSENSE } }));
    eventually("the nonsense is kept aside", LONG, || {
        let data = &secret()["data"];
        data["unreadable-1"] == NONSENSE && data["document"] != NONSENSE
    });
    assert_eq!(secret()["data"]["theirs"], NONSENSE);
    is_well(&setup, true);

    edit(json!({ "data": { "document": OF_VERSION_7 } }));
    is_well(&setup, false);
    assert!(setup.replica(1).log().contains("of version 7"), "{}", setup.replica(1).log());
    load.wait_until_each_is_served();
    load.stop().nothing_but_answers(Duration::from_millis(1500));

    // What is decided meanwhile holds, and nothing is written over what a later version needs.
    setup.command(0, "hold c");
    for replica in 0..3 {
        eventually("it holds", LONG, || !setup.is_writable(replica));
    }
    assert_eq!(secret()["data"]["document"], OF_VERSION_7);
    edit(json!({ "data": { "document": null } }));
    is_well(&setup, true);
    assert!(secret()["data"]["document"].is_string());
    setup.deployment.replicas.iter_mut().for_each(Pgimbal::kill);
    setup.deployment.replicas.iter_mut().for_each(Pgimbal::restart);
    for replica in 0..3 {
        setup.wait_for_state(replica, "n1", "primary");
        assert!(!setup.is_writable(replica), "r{} has forgotten the hold", replica + 1);
    }
}

#[test]
fn replicas_clients_see_nothing_while_vault_is_sealed() {
    let vault = Vault::start();
    let engine = json!({ "type": "kv", "options": { "version": "2" } });
    vault.root().write("sys/mounts/secret", &engine);
    let all = "[\"create\", \"read\", \"update\"]";
    let token = vault.token(&format!("path \"secret/*\" {{ capabilities = {all} }}\n"));
    let table = vault.table(&token);
    let setup = Setup::before(Cluster::start(0), |_, config| {
        config.store("kind", "\"vault\"").without_store("file").tables(&table)
    });
    goes_away_and_comes_back(setup, vault);
}
