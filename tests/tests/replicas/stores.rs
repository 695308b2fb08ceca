//! The real stores of a deployment are away while clients work: an API server of Kubernetes that is
//! stopped, a Vault that is sealed.

use std::time::Duration;

use pgimbal_tests::cluster::Cluster;
use pgimbal_tests::kubernetes::Kubernetes;
use pgimbal_tests::until::{SOON, always, eventually};
use pgimbal_tests::{Relay, Vault};
use serde_json::json;

use super::load::Load;
use super::setup::{Setup, reads};

/// How long it is away; the long partition is in `partitions`.
const AWAY: Duration = Duration::from_secs(3);

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
    eventually("the store has a document", SOON, || !store.version().is_empty());
    let load = Load::start(&setup.deployment, &setup.cluster.nodes[0], 3, &reads());
    load.wait_until_each_is_served();
    let before = store.version();
    store.take_away();
    always("nobody sees an error", AWAY / 2, || load.errors().is_empty());
    setup.deployment.links().for_each(Relay::cut);
    always("nobody sees an error", AWAY / 2, || load.errors().is_empty());
    load.wait_until_each_is_served();
    setup.deployment.heal();
    setup.deployment.wait_until_joined();
    load.stop().nothing_but_answers(Duration::from_millis(1500));
    setup.command(0, "hold c");
    for replica in 0..3 {
        eventually("it holds", SOON, || !setup.is_writable(replica));
    }
    store.bring_back();
    eventually("it is written again", SOON * 2, || store.version() != before);
    for replica in &mut setup.deployment.replicas {
        replica.kill();
    }
    for replica in &mut setup.deployment.replicas {
        replica.restart();
    }
    for replica in 0..3 {
        eventually("it holds again", SOON, || setup.node(replica, "n1", "state") == "primary");
        assert!(!setup.is_writable(replica), "r{} has forgotten the hold", replica + 1);
    }
    setup.command(1, "resume c");
    for replica in 0..3 {
        setup.client(replica).ok("insert into writes values ('x')");
    }
}

#[test]
fn replicas_clients_see_nothing_while_the_api_server_is_gone() {
    let server = Kubernetes::start();
    let namespace = server.namespace();
    server.make_secret(&namespace, "pgimbal-store");
    let token = server.service_account(&namespace, "pgimbal");
    server.allow(&namespace, "pgimbal", "pgimbal-store", &["get", "list", "watch", "update"]);
    let kubeconfig = server.kubeconfig(&namespace, &token);
    let setup = Setup::before(Cluster::start(0), |_, config| {
        config
            .store("kind", "\"kubernetes\"")
            .without_store("file")
            .store("namespace", format!("\"{namespace}\""))
            .store("kubeconfig", format!("\"{}\"", kubeconfig.display()))
    });
    goes_away_and_comes_back(setup, Secret { server, namespace });
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
