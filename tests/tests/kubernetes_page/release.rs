//! "Helm": the install, `pgimbal check` from within a pod, the page of pgimbal, and another
//! deployment key.

use pgimbal_tests::charts::objects;
use pgimbal_tests::until::eventually;
use serde_json::{Value, json};

use super::page::Page;
use super::platform::{LIMIT, Platform};

/// The file that the reader fills.
pub(super) const MINE: &str = "mine.yaml";

/// The namespace of the release.
const NAMESPACE: &str = "dbaas";

/// The block with the changed values' upgrade.
const ROLL: &str = "What makes new pods";

/// Follows the first block of "Helm" with the values of the second.
pub(super) fn install(page: &Page, platform: &Platform) {
    platform.write(MINE, page.block("Helm", "yaml", 0));
    for command in page.commands("Helm", 0) {
        let told = platform.run(&command);
        if command.contains("create namespace") {
            platform.make_certificate(NAMESPACE);
            let password = platform.vault.role("shop").password;
            let _ = platform.run(&format!(
                "kubectl -n {NAMESPACE} create secret generic shop-database \
                 --from-literal=password='{password}'"
            ));
        } else if command.contains(" test ") {
            assert!(told.contains("Succeeded"), "{told}");
        }
    }
    assert_eq!(platform.pods(NAMESPACE).len(), 3);
    let told = platform.sql(NAMESPACE, "shop", "shop", "select current_user").succeeded();
    assert_eq!(told.stdout.trim(), "shop");
}

/// Follows the second block: `pgimbal check` in a pod.
pub(super) fn try_from_within(page: &Page, platform: &Platform) {
    let told = platform.exec(page.block("Helm", "sh", 1));
    let known = ["user shop, vault main, role shop: ok", "secret dbaas/pgimbal-store: ok"];
    for line in known {
        assert!(told.stdout.contains(line), "{line}: {}{}", told.stdout, told.stderr);
    }
    // There may be warnings: nothing here proves who the servers are.
    assert!(matches!(told.code, Some(0 | 3)), "{}{}", told.stdout, told.stderr);
}

/// Follows "The page". The Secret is there already when pods begin to look for it.
pub(super) fn show_the_page(page: &Page, platform: &Platform) {
    let _ = platform.run(page.block("The page", "sh", 0));
    add(platform, page.block("The page", "yaml", 0));
    upgrade(page, platform);
    let status = |token: &str| {
        let pods = platform.pods(NAMESPACE);
        let address = pods[0]["status"]["podIP"].as_str().unwrap();
        platform.run(&format!(
            "curl --silent --output answer --write-out '%{{http_code}}' \
             --header 'Authorization: Bearer {token}' http://{address}:9127/api/tables"
        ))
    };
    let read = "kubectl -n dbaas get secret pgimbal-page -o 'jsonpath={.data.admin}' | base64 -d";
    let token = platform.run(read);
    assert_eq!(status(&token), "200");
    assert_eq!(status("another-token-of-nobody"), "401");
    // Another token is in force without a new pod.
    let before = names(platform);
    let _ = platform.run(
        "kubectl -n dbaas patch secret pgimbal-page \
         --patch '{\"stringData\": {\"admin\": \"0123456789abcdef\"}}'",
    );
    // The first refusal of a token is one of ten, so the old one is tried.
    eventually("the old token is refused", LIMIT, || status(&token) == "401");
    assert_eq!(status("0123456789abcdef"), "200");
    assert_eq!(names(platform), before);
}

/// Follows the three steps to another deployment key.
pub(super) fn replace_the_key(page: &Page, platform: &Platform) {
    let _ = platform.run(page.block(ROLL, "sh", 1));
    let step = page.block(ROLL, "yaml", 0);
    add(platform, step);
    let before = names(platform);
    upgrade(page, platform);
    assert!(names(platform).iter().all(|name| !before.contains(name)), "{before:?}");
    meet(platform);
    // The third step.
    let second = objects(step).remove(0)["deploymentKey"]["key"].clone();
    add(platform, &json!({ "deploymentKey": { "key": second, "previousKey": "" } }).to_string());
    upgrade(page, platform);
    meet(platform);
    let environment = &platform.pods(NAMESPACE)[0]["spec"]["containers"][0]["env"];
    let keys: Vec<&Value> =
        environment.as_array().unwrap().iter().map(|it| &it["valueFrom"]["secretKeyRef"]).collect();
    assert_eq!(keys, [&json!({ "name": "pgimbal-deployment-key", "key": second })]);
}

/// Merges values into those of the reader.
fn add(platform: &Platform, values: &str) {
    let file = std::fs::read_to_string(platform.folder.join(MINE)).unwrap();
    let [mut all, own] = [file.as_str(), values].map(|text| objects(text).remove(0));
    for (key, value) in own.as_object().unwrap() {
        all[key] = value.clone();
    }
    // JSON is YAML.
    platform.write(MINE, &all.to_string());
}

fn upgrade(page: &Page, platform: &Platform) {
    let _ = platform.run(page.block(ROLL, "sh", 0));
}

/// Waits until each of the three replicas has met the others.
fn meet(platform: &Platform) {
    eventually("the replicas know each other", LIMIT, || {
        let told = platform.sql(NAMESPACE, "operator", "pgimbal", "SHOW PEERS ALL");
        told.stdout.matches("|alive|").count() == 6
    });
}

fn names(platform: &Platform) -> Vec<String> {
    let name = |pod: Value| pod["metadata"]["name"].as_str().unwrap().to_owned();
    platform.pods(NAMESPACE).into_iter().map(name).collect()
}
