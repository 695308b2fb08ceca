//! What the pages show is done as they show it: their commands are typed, their configurations
//! used, and what comes out is compared with what they say. Only names, addresses and passwords are
//! a reader's own. A block that is neither run here nor in `NOT_RUN` fails a test.

mod console;
mod deploy;
mod failover;
mod files;
mod http;
mod replicas;
mod rotation;
mod running;

use std::collections::BTreeSet;
use std::fs;

use pgimbal_tests::pages::{block, blocks};
use pgimbal_tests::sources::root;

/// Makes a test of each line: the blocks of a page, each by its beginning, and the function that
/// does what they say.
macro_rules! scenarios {
    ($($page:literal [$($beginning:literal),*] $name:ident => $run:path;)*) => {
        const RUN: &[(&str, &[&str])] = &[$(($page, &[$($beginning),*])),*];
        $(
            #[test]
            fn $name() {
                $run([$(block($page, $beginning)),*].each_ref().map(String::as_str));
            }
        )*
    };
}

scenarios! {
    "README.md" ["pgimbal --upstream"] the_quick_start => deploy::quick_start;
    "README.md" ["listen = ["] the_file_of_the_readme => files::short;
    "docs/configuration.md" ["# pgimbal.toml"] the_longer_file => files::longer;
    "docs/configuration.md" ["pgimbal: pgimbal.toml: server_lifetime"] errors_of_a_file
        => files::errors;
    "docs/deploy.md" ["$ pgimbal check"] the_check => deploy::check;
    "docs/operations.md" ["psql postgres://ops@", "admin_users = "] the_consoles_users
        => console::users;
    "docs/operations.md" ["pgimbal top "] top => console::top;
    "docs/operations.md" ["pgimbal route "] where_statements_go => deploy::route;
    "docs/operations.md" ["curl "] tokens => http::tokens;
    "docs/operations.md" ["[telemetry]"] telemetry_needs_its_feature => files::telemetry;
    "docs/operations.md" ["rule_files: "] a_prometheus_without_the_chart => http::prometheus;
    "docs/failover.md" ["state_dir = ", "HOLD main"] a_switchover_that_nobody_sees
        => failover::switchover;
    "docs/rotation.md" [
        "[users.\"*\"]", "vault secrets enable", "vault policy write", "[vaults.main]",
        "vault main at "
    ] vaults_set_up => rotation::set_up;
    "docs/replicas.md" ["# `openssl rand -hex 32`", "kubectl create secret", "rules:\n"]
        the_store_in_a_secret => replicas::store;
}

/// The blocks that are not run here, and why.
const NOT_RUN: &[(&str, &str, &str)] = &[
    ("README.md", "  thousands of clients", "a picture"),
    ("README.md", "sudo apt-get install", "makes a Debian ready, from its network"),
    ("README.md", "make demo\n", "`make test` runs the demonstration, and is what runs this"),
    ("README.md", "[users.app]\nvault_role", "of rotation.md, whose longer one is run"),
    ("README.md", "[clusters.main]\ndns", "failover/dns.rs has such a cluster"),
    ("docs/behaviours.md", "cargo build && cargo test", "how these tests are run"),
    ("docs/deploy.md", "skopeo copy", "takes Docker; compose.rs runs what it would start"),
    ("docs/deploy.md", "password() {", "takes Docker; compose.rs does the same"),
    ("docs/deploy.md", "docker compose kill", "takes Docker; compose.rs does the same"),
    ("docs/deploy-vm.md", "sudo apt install ./pgimbal_VERSION", "packaging/debian.rs runs it"),
    ("docs/deploy-vm.md", "sudo apt install ./pgimbal_NEW", "packaging/debian.rs runs it"),
    ("docs/deploy-vm.md", "sudo systemctl kill", "packaging/debian.rs runs it"),
    ("docs/deploy-vm.md", "sudo systemctl stop", "packaging/debian.rs runs it"),
    ("docs/from-pgbouncer.md", "[users.app]", "rotation/moving.rs moves an application with it"),
];

/// Pages whose blocks belong to a platform that other tests have.
const ELSEWHERE: &[(&str, &str)] =
    &[("docs/deploy-kubernetes.md", "charts.rs and kubernetes_story.rs")];

#[test]
fn every_block_is_run_or_has_a_reason() {
    let folder = fs::read_dir(root().join("docs")).expect("a folder").flatten();
    let names = folder.filter_map(|entry| entry.file_name().into_string().ok());
    let mut pages: BTreeSet<String> =
        names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")).collect();
    pages.insert("README.md".to_owned());
    for (elsewhere, _) in ELSEWHERE {
        assert!(pages.remove(*elsewhere), "there is no {elsewhere}");
    }
    let run = RUN.iter().flat_map(|(page, all)| all.iter().map(move |beginning| (page, beginning)));
    let listed: Vec<(&&str, &&str)> =
        run.chain(NOT_RUN.iter().map(|(page, beginning, _)| (page, beginning))).collect();
    for (page, beginning) in &listed {
        let _ = block(page, beginning);
    }
    for page in pages {
        for shown in blocks(&page) {
            let of_it = |(named, beginning): &&(&&str, &&str)| {
                **named == page && shown.starts_with(**beginning)
            };
            let times = listed.iter().filter(of_it).count();
            assert_eq!(times, 1, "{page}: this block is to be listed once in pages.rs:\n{shown}");
        }
    }
}
