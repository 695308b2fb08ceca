//! Configurations and their errors as the pages show them.

use pgimbal_tests::Postgres;
use pgimbal_tests::pages::{Reader, page, with_own};

use super::running::Running;

/// The address of a server of the pages.
const SERVER: &str = "host = \"db.example\"";

fn own_server(pg: &Postgres) -> String {
    format!("host = \"127.0.0.1\"\nport = {}", pg.port)
}

pub(super) fn short([text]: [&str; 1]) {
    let pg = Postgres::start();
    let reader = Reader::new().with("PGPASSWORD", "app-secret");
    let own = [("…", "app-secret"), (SERVER, &own_server(&pg))];
    let running = Running::start(&reader, &with_own(text, &own));
    let shown = reader.types(&running.psql("app", "app", "select 'served'")).succeeded();
    assert!(shown.stdout.contains("served"), "{}", shown.stdout);
}

pub(super) fn longer([text]: [&str; 1]) {
    let pg = Postgres::start();
    let verifier = pg.value("select rolpassword from pg_authid where rolname = 'app'");
    let text = with_own(text, &[("SCRAM-SHA-256$4096:…", &verifier), (SERVER, &own_server(&pg))]);
    let text = with_own(&text, &[("…", "app-secret")]);
    let reader = Reader::new().with("PGPASSWORD", "app-secret");
    let running = Running::start(&reader, &text);
    let shown = reader.types(&running.psql("app", "app", "select 'served'")).succeeded();
    assert!(shown.stdout.contains("served"), "{}", shown.stdout);
    let config = running.psql("ops", "pgimbal", "show config");
    let config = reader.types(&config).succeeded().stdout;
    for (key, value) in [("max_client_conn", "5000"), ("admin_users", "ops")] {
        let has_value = |line: &str| line.contains(key) && line.contains(value);
        assert!(config.lines().any(has_value), "{key} is not {value}:\n{config}");
    }
}

/// All errors at once, word for word.
pub(super) fn errors([said]: [&str; 1]) {
    let reader = Reader::new();
    reader.write("pgimbal.toml", "pool_sise = 3\nserver_lifetime = \"3600\"\n");
    let refused = reader.types("pgimbal --config pgimbal.toml");
    assert_eq!((refused.code, refused.stderr.as_str()), (Some(78), said), "{}", refused.stdout);
    let refused = reader.types("PGIMBAL_POOL_SISE=3 pgimbal check");
    assert_eq!(refused.code, Some(78), "{}", refused.stderr);
    assert!(refused.stderr.contains("PGIMBAL_POOL_SISE"), "{}", refused.stderr);
}

/// The program of the tests is built without the feature, and says how to get one with it;
/// proxy/tests/otlp.rs has that one and a collector.
pub(super) fn telemetry([table]: [&str; 1]) {
    let reader = Reader::new();
    let text = format!("{table}[users.app]\npassword = \"x\"\n[databases.app]\n");
    reader.write("pgimbal.toml", &text);
    for command in ["pgimbal --config pgimbal.toml", "pgimbal check --config pgimbal.toml"] {
        let refused = reader.types(command);
        assert!(!refused.success, "{command}: {refused:?}");
        let build = "cargo build --release -p pgimbal --features otlp";
        assert!(refused.stderr.contains(build), "{command}: {refused:?}");
        assert!(page("docs/operations.md").contains(build), "the page builds another one");
    }
}
