//! docs/replicas.md: the Secret of the store with the page's rights on a real API server, and the
//! columns of two tables.

use std::fs;
use std::process::Command;

use pgimbal_tests::pages::{Reader, table, with_own};
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::port::free_port;
use pgimbal_tests::{Kubernetes, Pgimbal, Postgres};

const PAGE: &str = "docs/replicas.md";

pub(super) fn store([text, secret, rules]: [&str; 3]) {
    let server = Kubernetes::shared();
    let namespace = server.namespace();
    let token = server.service_account(&namespace, "pgimbal");
    let administrator = Reader::new().with("KUBECONFIG", "kubeconfig");
    // The file of the service account takes its place.
    let access = server.admin_kubeconfig(&namespace);
    administrator.write("kubeconfig", &fs::read_to_string(access).expect("a kubeconfig"));
    let _ = administrator.types(&with_own(secret, &[("dbaas", &namespace)])).succeeded();
    let role = format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{ name: store }}\n{rules}"
    );
    allow(&administrator, &role);
    let bind = format!(
        "kubectl create rolebinding store --role=store --serviceaccount={namespace}:pgimbal"
    );
    let _ = administrator.types(&bind).succeeded();

    let pg = Postgres::start();
    let pgimbal = Reader::new()
        .with("PGIMBAL_STORE__NAMESPACE", &namespace)
        .with("PGIMBAL_STORE__KUBECONFIG", server.kubeconfig(&namespace, &token).display());
    let own = [("0.0.0.0:6433", format!("127.0.0.1:{}", free_port()))];
    let text = with_own(text, &own.each_ref().map(|(from, to)| (*from, to.as_str())));
    let database = format!(
        "[databases.app]\nhost = \"127.0.0.1\"\nport = {}\n[users.app]\npassword = \"app-secret\"\n",
        pg.port
    );
    pgimbal.write("pgimbal.toml", &format!("{text}{database}"));
    let said = of_store(&pgimbal);
    assert!(said.contains("ok"), "{said}");
    allow(&administrator, &with_own(&role, &[(", update]", "]")]));
    let said = of_store(&pgimbal);
    assert!(!said.contains("ok") && said.contains("update"), "it does not say what to add: {said}");
}

/// Lets the reader apply a manifest.
fn allow(administrator: &Reader, manifest: &str) {
    administrator.write("role.yaml", manifest);
    let _ = administrator.types("kubectl apply -f role.yaml").succeeded();
}

/// What `pgimbal check` says of the store.
fn of_store(reader: &Reader) -> String {
    let checked = reader.types("pgimbal check --config pgimbal.toml || :").succeeded();
    let lines = checked.stdout.lines().filter(|line| line.starts_with("store"));
    let lines: Vec<&str> = lines.collect();
    assert!(!lines.is_empty(), "{checked:?}");
    lines.join("\n")
}

#[test]
fn show_peers_and_show_budget_have_the_columns_of_the_page() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).start();
    for (command, head) in [
        ("SHOW PEERS", "| column of `SHOW PEERS` | means |"),
        ("SHOW BUDGET", "| column | means |"),
    ] {
        let told = table(PAGE, head);
        let told: Vec<&str> = told.iter().map(|row| row[0].trim_matches('`')).collect();
        assert_eq!(columns(&proxy, command), told, "{command}");
    }
}

/// The columns of a table that may have no row.
fn columns(proxy: &Pgimbal, command: &str) -> Vec<String> {
    let mut psql = Command::new("psql");
    psql.args(["-XA", "-h", "127.0.0.1", "-p", &proxy.port.to_string(), "-U", "app"]);
    psql.args(["-d", "pgimbal", "-c", command]);
    let shown = psql.output().expect("psql");
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    text.lines().next().unwrap_or_default().split('|').map(str::to_owned).collect()
}
