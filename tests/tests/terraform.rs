//! `deploy/terraform` as a user uses it: OpenTofu reads, checks and plans it, and what it plans is
//! made in a real Vault. The providers are a stand-in's, see `tests/terraform/provider`.

mod in_vault;

use std::fs;

use pgimbal_tests::terraform::{Stacks, output, resources};
use serde_json::{Value, json};

const MODULE: &str = "modules/pgimbal";
const SHARED: &str = "examples/shared";
const APPLICATION: &str = "examples/application";

/// Variables with which the example of a shared stack can be planned.
fn shared_variables() -> Value {
    json!({
        "postgresql_nodes": ["db-0.internal", "db-1.internal:5433"],
        "vault_password": "first",
        "vault_address": ["https://vault.internal:8200"],
        "redis_host": "redis.internal",
    })
}

#[test]
fn everything_is_formatted_and_valid() {
    let stacks = Stacks::copy();
    drop(stacks.tofu("", &["fmt", "-check", "-recursive", "-diff"]).succeeded());
    let folders = stacks.folders();
    assert_eq!(folders, [APPLICATION, SHARED, MODULE]);
    for folder in folders {
        stacks.init(&folder);
        drop(stacks.tofu(&folder, &["validate"]).succeeded());
    }
}

#[test]
fn the_modules_own_tests_pass() {
    let stacks = Stacks::copy();
    stacks.init(MODULE);
    let tests = stacks.tofu(MODULE, &["test"]).succeeded();
    assert!(tests.stdout.contains(", 0 failed"), "{}", tests.stdout);
    let passed = tests.stdout.matches("... pass").count();
    // 22 runs in 2 files.
    assert!(passed >= 24, "{passed} passed:\n{}", tests.stdout);
}

#[test]
fn the_stand_in_refuses_what_the_providers_would() {
    let stacks = Stacks::copy();
    let main = stacks.file(MODULE, "main.tf");
    let good = fs::read_to_string(&main).expect("the module");
    stacks.init(MODULE);
    let refused = |from: &str, to: &str| {
        assert!(good.contains(from), "the module has no {from}");
        fs::write(&main, good.replacen(from, to, 1)).expect("a file");
        let told = stacks.tofu(MODULE, &["validate"]);
        assert!(!told.success, "{to} is accepted");
        told.stderr
    };
    let misspelt = refused("db_name ", "database_name ");
    assert!(misspelt.contains("database_name"), "{misspelt}");
    assert!(misspelt.contains("The argument \"db_name\" is required"), "{misspelt}");
    let wrong_type = refused("type        = \"kv\"", "type        = [\"kv\"]");
    assert!(wrong_type.contains("string required"), "{wrong_type}");
    let wrong_resource = refused("vault_database_secret_backend_role\"", "vault_database_role\"");
    assert!(wrong_resource.contains("vault_database_role"), "{wrong_resource}");
    let twice = refused("  postgresql {\n", "  postgresql {\n  }\n\n  postgresql {\n");
    assert!(twice.contains("at most 1"), "{twice}");
}

#[test]
fn an_application_takes_its_hosts_from_the_shared_stack() {
    let stacks = Stacks::copy();
    stacks.init(SHARED);
    stacks.init(APPLICATION);
    let state = stacks.file(SHARED, "terraform.tfstate");
    let application = json!({
        "image": "registry.internal/shop:1",
        "shared_state": { "backend": "local", "config": { "path": state } },
    });
    // The application's environment once the shared stack was applied with `variables`.
    let environment = |variables: &Value| {
        stacks.apply(SHARED, variables);
        let plan = stacks.plan(APPLICATION, &application);
        let made = resources(&plan);
        let [deployment] = &made[..] else { panic!("{made:?}") };
        assert_eq!(deployment.kind, "kubernetes_deployment_v1");
        let container = "/spec/0/template/0/spec/0/container/0/env";
        let list = deployment.values.pointer(container).and_then(Value::as_array);
        list.expect("an environment").clone()
    };
    let value = |environment: &[Value], name: &str| {
        let found = environment.iter().find(|variable| variable["name"] == name);
        found.map(|variable| variable["value"].clone())
    };
    let mut variables = shared_variables();
    let first = environment(&variables);
    for (name, expected) in [
        ("DB_HOST", "pgimbal.pgimbal.svc"),
        ("DB_RO_HOST", "pgimbal-ro.pgimbal.svc"),
        ("DB_PORT", "5432"),
        ("REDIS_HOST", "redis.internal"),
    ] {
        assert_eq!(value(&first, name), Some(json!(expected)), "{name}");
    }
    // No password stands in the plan, and a host that the platform lacks is no variable.
    let password = first.iter().find(|variable| variable["name"] == "DB_PASSWORD");
    let key = "/value_from/0/secret_key_ref/0/name";
    assert_eq!(password.and_then(|it| it.pointer(key)), Some(&json!("shop-database")));
    variables["redis_host"] = Value::Null;
    assert_eq!(value(&environment(&variables), "REDIS_HOST"), None);
}

#[test]
fn the_password_is_hidden_in_what_people_see() {
    let stacks = Stacks::copy();
    stacks.init(SHARED);
    let mut variables = shared_variables();
    variables["vault_password"] = json!("correct-horse");
    let file = stacks.file(SHARED, "seen.tfvars.json");
    fs::write(&file, variables.to_string()).expect("a file");
    let words = ["plan", "-input=false", &format!("-var-file={}", file.display())];
    let seen = stacks.tofu(SHARED, &words).succeeded();
    assert!(seen.stdout.contains("vault_database_secret_backend_connection"), "{}", seen.stdout);
    assert!(!seen.stdout.contains("correct-horse"), "{}", seen.stdout);
    let plan = stacks.plan(SHARED, &variables);
    assert!(!output(&plan, "pgimbal_toml").to_string().contains("correct-horse"));
}
