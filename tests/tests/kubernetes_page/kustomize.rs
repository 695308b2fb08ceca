//! "Kustomize": an overlay in a namespace of its own.

use std::fs;

use pgimbal_tests::until::eventually;

use super::page::Page;
use super::platform::{LIMIT, Platform};
use super::vault;

/// The page's `db` is where PostgreSQL is here.
const NAMESPACE: &str = "overlay";

/// Follows the section with the overlay that it names.
pub(super) fn apply(page: &Page, platform: &Platform) {
    let own_namespace = format!("namespace: {NAMESPACE}\n");
    change_name(platform, "kustomization.yaml", "namespace: db\n", &own_namespace);
    // The role has this name in the page's section about Vault.
    change_name(platform, "pgimbal.toml", "pgimbal_probe", "probe");
    vault::also_for(page, platform, NAMESPACE);
    for command in page.commands("Kustomize", 0) {
        let command = command.replace("namespace db", &format!("namespace {NAMESPACE}"));
        let _ = platform.run(&command.replace("-n db ", &format!("-n {NAMESPACE} ")));
        if command.contains("create namespace") {
            // CloudNativePG's operator makes it with its Cluster.
            let [authority, ..] = platform.certificates.files();
            let _ = platform.run(&format!(
                "kubectl -n {NAMESPACE} create secret generic db-ca --from-file={}",
                authority.display()
            ));
        }
    }
    assert_eq!(platform.pods(NAMESPACE).len(), 3);
    eventually("the overlay serves", LIMIT, || {
        platform.sql(NAMESPACE, "shop", "shop", "select current_user").stdout.trim() == "shop"
    });
    // As the page warns.
    let _ = platform.run("kubectl delete -k deploy/kustomize/overlays/cnpg-vault --wait=false");
    let left = platform.run(&format!("kubectl -n {NAMESPACE} get secrets -o name"));
    assert!(!left.contains("pgimbal-store"), "{left}");
}

/// Changes a name in a file of the overlay.
fn change_name(platform: &Platform, file: &str, from: &str, to: &str) {
    let path = platform.folder.join("deploy/kustomize/overlays/cnpg-vault").join(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(&path, text.replace(from, to)).unwrap();
}
