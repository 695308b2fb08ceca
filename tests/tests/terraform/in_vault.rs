//! What OpenTofu plans, made in a real Vault: pgimbal logs in there as the service account of a
//! real Kubernetes, has what it needs, and nothing more.

use std::fs;

use pgimbal_tests::certificates::Certificates;
use pgimbal_tests::kubernetes::Kubernetes;
use pgimbal_tests::pgimbal::{Config, program, undisturbed};
use pgimbal_tests::process::directory;
use pgimbal_tests::program::run;
use pgimbal_tests::terraform::{Planned, Stacks, make_in_vault, output, request, resources};
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::vault::api::Api;
use pgimbal_tests::{Login, Postgres, Vault};
use serde_json::{Value, json};

use super::{MODULE, SHARED};

/// The roles of PostgreSQL that the example names, and the one that Vault logs in as, with no more
/// rights than docs/rotation.md gives it.
const ROLES: &str = "\
create role vault login createrole password 'first-of-vault';
create role shop login;
create role reports login;
grant shop, reports, pg_read_all_data to vault with admin option;
";

/// Where the pod would have its token.
const TOKEN_FILE: &str = "/var/run/secrets/vault/token";

/// What the example's token may not do, beside changing what was planned: method and path.
const REFUSED: &[(&str, &str)] = &[
    // Others' passwords, and everything about roles and connections.
    ("GET", "database/static-creds/other"),
    ("GET", "database/static-creds/shop2"),
    ("POST", "database/static-creds/shop"),
    ("DELETE", "database/static-creds/shop"),
    ("LIST", "database/static-creds"),
    ("LIST", "database/static-roles"),
    ("LIST", "database/roles"),
    ("LIST", "database/config"),
    ("GET", "database/creds/analyst"),
    ("POST", "database/rotate-role/shop"),
    ("POST", "database/rotate-root/postgresql"),
    ("POST", "database/reset/postgresql"),
    ("POST", "database/reload/postgresql-database-plugin"),
    ("POST", "database/config/own"),
    ("POST", "database/static-roles/own"),
    ("POST", "database/roles/own"),
    // Other secrets than the store's, and its history.
    ("GET", "secret/data/other"),
    ("POST", "secret/data/other"),
    ("GET", "secret/data/pgimbal-other"),
    ("GET", "secret/data/pgimbal/below"),
    ("POST", "secret/data/pgimbal/below"),
    ("DELETE", "secret/data/pgimbal"),
    ("POST", "secret/delete/pgimbal"),
    ("POST", "secret/undelete/pgimbal"),
    ("PUT", "secret/destroy/pgimbal"),
    ("GET", "secret/metadata/pgimbal"),
    ("DELETE", "secret/metadata/pgimbal"),
    ("LIST", "secret/metadata/"),
    ("GET", "secret/config"),
    ("POST", "secret/config"),
    // Tokens of others, policies, logins, the Vault itself.
    ("POST", "auth/token/create"),
    ("POST", "auth/token/create-orphan"),
    ("POST", "auth/token/lookup"),
    ("POST", "auth/token/renew"),
    ("POST", "auth/token/revoke"),
    ("LIST", "auth/token/accessors/"),
    ("GET", "auth/kubernetes/config"),
    ("POST", "auth/kubernetes/config"),
    ("LIST", "auth/kubernetes/role"),
    ("GET", "sys/auth"),
    ("GET", "sys/mounts"),
    ("LIST", "sys/policies/acl"),
    ("GET", "sys/config/auditing/request-headers"),
    ("PUT", "sys/seal"),
    ("POST", "sys/raw/core"),
    ("PUT", "sys/leases/renew"),
    ("PUT", "sys/leases/revoke"),
    ("POST", "identity/entity"),
    // What Vault's `default` policy would allow beside the token's own life.
    ("PUT", "cubbyhole/a"),
    ("GET", "cubbyhole/a"),
    ("POST", "sys/wrapping/wrap"),
    ("POST", "sys/tools/hash"),
];

/// A Vault with what was planned in it, before a PostgreSQL with TLS, and the Kubernetes whose
/// service account `pgimbal` may log in.
struct Platform {
    pg: Postgres,
    vault: Vault,
    kubernetes: &'static Kubernetes,
    planned: Vec<Planned>,
    toml: String,
}

impl Platform {
    /// The example of a shared stack.
    fn of_the_example() -> Self {
        Self::make(SHARED, |nodes, authority, address| {
            json!({
                "postgresql_nodes": nodes, "postgresql_ca": authority,
                "vault_password": "first-of-vault", "vault_address": address,
            })
        })
    }

    /// The module with `extra` variables, and the example's connection.
    fn of_the_module(extra: &Value) -> Self {
        Self::make(MODULE, |nodes, authority, address| {
            let mut variables = json!({
                "connection": { "hosts": nodes, "username": "vault", "tls_ca": authority },
                "connection_password": "first-of-vault", "vault_address": address,
            });
            for (name, value) in extra.as_object().into_iter().flatten() {
                variables[name] = value.clone();
            }
            variables
        })
    }

    fn make(folder: &str, variables: impl Fn([String; 1], &str, [String; 1]) -> Value) -> Self {
        let certificates = Certificates::new();
        let pg = Postgres::with_tls(&certificates);
        pg.run(ROLES);
        let vault = Vault::start();
        let kubernetes = Kubernetes::shared();
        enable_kubernetes(&vault, kubernetes);
        let nodes = [format!("127.0.0.1:{}", pg.port)];
        let variables = variables(nodes, &certificates.authority, [vault.address()]);
        let stacks = Stacks::copy();
        stacks.init(folder);
        let plan = stacks.plan(folder, &variables);
        let planned = resources(&plan);
        make_in_vault(&planned, vault.root());
        let toml = output(&plan, "pgimbal_toml").as_str().expect("a text").to_owned();
        Self { pg, vault, kubernetes, planned, toml }
    }

    /// Logs the service account in as pgimbal does, with a token for this audience.
    fn log_in(&self, namespace: &str, account: &str, audience: &str) -> Result<Api, (u16, Value)> {
        let jwt = service_account_token(self.kubernetes, namespace, account, audience);
        let body = json!({ "role": "pgimbal", "jwt": jwt });
        let path = "auth/kubernetes/login";
        match self.vault.root().with_token("").call("POST", path, &body).expect("an answer") {
            (200, answer) => {
                let token = answer["auth"]["client_token"].as_str().expect("a token").to_owned();
                assert_eq!(answer["auth"]["policies"], json!(["pgimbal"]), "{answer}");
                Ok(self.vault.root().with_token(&token))
            }
            refusal => Err(refusal),
        }
    }

    fn pgimbal(&self) -> Api {
        self.log_in("pgimbal", "pgimbal", "vault").expect("a login")
    }
}

/// Enables the Kubernetes login as docs/rotation.md does, for a Vault outside of the cluster: it
/// has the token of a service account that may review tokens.
fn enable_kubernetes(vault: &Vault, kubernetes: &Kubernetes) {
    let admin = kubernetes.admin();
    let namespace = kubernetes.namespace();
    let reviewer = kubernetes.service_account(&namespace, "vault");
    let binding = json!({
        "metadata": { "name": format!("vault-in-{namespace}") },
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
            "name": "system:auth-delegator",
        },
        "subjects": [{ "kind": "ServiceAccount", "name": "vault", "namespace": namespace }],
    });
    admin.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding);
    vault.root().write("sys/auth/kubernetes", &json!({ "type": "kubernetes" }));
    let config = json!({
        "kubernetes_host": kubernetes.address(), "kubernetes_ca_cert": kubernetes.authority(),
        "token_reviewer_jwt": reviewer, "disable_local_ca_jwt": true,
    });
    vault.root().write("auth/kubernetes/config", &config);
}

/// A token of a service account, made with its namespace if need be, for one audience: what a
/// projected volume gives to a pod.
fn service_account_token(
    kubernetes: &Kubernetes,
    namespace: &str,
    account: &str,
    audience: &str,
) -> String {
    let admin = kubernetes.admin();
    let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
    for (path, name) in [("/api/v1/namespaces", namespace), (&accounts, account)] {
        let body = json!({ "metadata": { "name": name } });
        let (status, answer) = admin.call("POST", path, &body).expect("an answer");
        // 409: another test has made it.
        assert!(matches!(status, 201 | 409), "{path}: {status} {answer}");
    }
    let request = json!({ "spec": { "audiences": [audience], "expirationSeconds": 3600 } });
    let answer = admin.create(&format!("{accounts}/{account}/token"), &request);
    answer["status"]["token"].as_str().expect("a token").to_owned()
}

fn status(api: &Api, method: &str, path: &str, body: &Value) -> u16 {
    api.call(method, path, body).expect("an answer").0
}

#[test]
fn pgimbal_logs_clients_in_with_what_is_planned() {
    let platform = Platform::of_the_example();
    let folder = directory("pod");
    let file = folder.join("token");
    let jwt = service_account_token(platform.kubernetes, "pgimbal", "pgimbal", "vault");
    fs::write(&file, jwt).expect("a file");
    assert!(platform.toml.contains(TOKEN_FILE), "{}", platform.toml);
    let toml = platform.toml.replace(TOKEN_FILE, &file.display().to_string());
    let toml = toml.replace("[vaults.main]\n", "[vaults.main]\npoll_interval = \"1s\"\n");
    let proxy =
        Config::before(&platform.pg).set("auth_type", "\"scram-sha-256\"").tables(&toml).start();
    let user = |role: &str, password: &str| {
        let mut client = proxy.log_in(&Login::new(role, "app", password));
        assert_eq!(client.value("select current_user"), role);
    };
    for role in ["shop", "reports"] {
        user(role, &platform.vault.role(role).password);
    }
    let old = platform.vault.role("shop").password;
    let new = platform.vault.rotate("shop");
    let login = Login::new("shop", "app", &new);
    eventually("the new password is accepted", SOON, || proxy.connect().log_in(&login).is_ok());
    user("shop", &old);
    assert!(!proxy.log().contains("WARN"), "{}", proxy.log());
    let mut command = undisturbed(program());
    command.arg("check").arg("--config").arg(proxy.directory().join("pgimbal.toml"));
    let told = run(&mut command, SOON * 6);
    for line in [
        "user shop, vault main, role shop: ok",
        "user reports, vault main, role reports: ok",
        "store, vault main, secret/pgimbal: ok",
    ] {
        assert!(told.stdout.contains(line), "{}{}", told.stdout, told.stderr);
    }
}

#[test]
fn vault_rotates_without_showing_a_password_to_the_servers_log() {
    let platform = Platform::of_the_example();
    platform.pg.run("alter system set log_statement = 'all'");
    platform.pg.run("select pg_reload_conf()");
    eventually("statements are logged", SOON, || platform.pg.value("show log_statement") == "all");
    // The first password stands in the state: from now on only Vault knows the one that works.
    platform.vault.root().write("database/rotate-root/postgresql", &Value::Null);
    let new = platform.vault.rotate("shop");
    let log = platform.pg.log();
    assert!(log.contains("ALTER ROLE \"shop\" WITH PASSWORD 'SCRAM-SHA-256$"), "{log}");
    assert!(!log.contains(&new));
    let made = platform.vault.root().read("database/creds/analyst");
    let [name, password] =
        ["username", "password"].map(|key| made["data"][key].as_str().expect(key).to_owned());
    let proxy = Config::before(&platform.pg)
        .tables(&format!("[users.\"{name}\"]\npassword = \"{password}\"\n"))
        .start();
    let mut client = proxy.log_in(&Login::new(&name, "app", &password));
    assert_eq!(client.value("select pg_has_role('pg_read_all_data', 'usage')"), "t");
}

#[test]
fn only_the_service_account_and_audience_that_are_planned_log_in() {
    let platform = Platform::of_the_example();
    drop(platform.pgimbal());
    for (namespace, account, audience) in [
        ("pgimbal", "pgimbal", "https://kubernetes.default.svc"),
        ("pgimbal", "default-of-others", "vault"),
        ("elsewhere", "pgimbal", "vault"),
    ] {
        match platform.log_in(namespace, account, audience) {
            Err((400 | 403, _)) => {}
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("{account} of {namespace} logs in with a token for {audience}"),
        }
    }
}

#[test]
fn pgimbals_token_may_do_what_pgimbal_does() {
    let platform = Platform::of_the_example();
    let api = platform.pgimbal();
    for role in ["shop", "reports"] {
        let read = api.read(&format!("database/static-creds/{role}"));
        assert_eq!(read["data"]["username"], role);
    }
    // The store: the first write, a read, a later write; a wrong version is refused as such.
    let store = "secret/data/pgimbal";
    assert_eq!(status(&api, "GET", store, &Value::Null), 404);
    let write = |version: u32| {
        let body = json!({ "options": { "cas": version }, "data": { "document": "x" } });
        status(&api, "POST", store, &body)
    };
    assert_eq!([write(0), write(0), write(1)], [200, 400, 200]);
    assert_eq!(api.read(store)["data"]["data"]["document"], "x");
    let token = api.read("auth/token/lookup-self")["data"].clone();
    assert_eq!(token["policies"], json!(["pgimbal"]));
    // On these paths, these methods only.
    for (path, capabilities) in [
        ("database/static-creds/shop", json!(["read"])),
        (store, json!(["create", "read", "update"])),
        ("secret/data/pgimbal-unreadable-1", json!(["create", "read", "update"])),
        ("secret/metadata/pgimbal", json!(["create", "update"])),
        ("auth/token/lookup-self", json!(["read"])),
        ("auth/token/renew-self", json!(["update"])),
    ] {
        let question = json!({ "token": token["id"], "paths": [path] });
        let answer = platform.vault.root().write("sys/capabilities", &question);
        assert_eq!(answer["data"]["capabilities"], capabilities, "{path}");
    }
    api.write("secret/metadata/pgimbal", &json!({ "max_versions": 2 }));
    api.write("sys/capabilities-self", &json!({ "paths": [store] }));
    api.write("auth/token/renew-self", &Value::Null);
    api.write("auth/token/revoke-self", &Value::Null);
    assert_eq!(status(&api, "GET", "auth/token/lookup-self", &Value::Null), 403);
}

#[test]
fn pgimbals_token_may_do_nothing_else() {
    let platform = Platform::of_the_example();
    let root = platform.vault.root();
    platform.pg.run("create role other login; grant other to vault with admin option");
    let other = json!({ "db_name": "postgresql", "username": "other", "rotation_period": "3600" });
    root.write("database/config/postgresql", &json!({ "allowed_roles": "*" }));
    root.write("database/static-roles/other", &other);
    let document = json!({ "data": { "a": "b" } });
    for path in ["secret/data/pgimbal", "secret/data/other", "secret/data/pgimbal/below"] {
        root.write(path, &document);
    }
    let api = platform.pgimbal();
    let mut refused = REFUSED.to_vec();
    // And what was planned: the token cannot change its own rights.
    let planned: Vec<String> =
        platform.planned.iter().map(|resource| request(resource).0).collect();
    assert!(planned.len() >= 8, "{planned:?}");
    for method in ["GET", "POST", "DELETE"] {
        refused.extend(planned.iter().map(|path| (method, &**path)));
    }
    let allowed: Vec<_> = refused
        .into_iter()
        .map(|(method, path)| (method, path, status(&api, method, path, &document)))
        .filter(|(_, _, status)| *status != 403)
        .collect();
    assert!(allowed.is_empty(), "not refused: {allowed:#?}");
}

#[test]
fn more_is_allowed_where_it_is_asked_for() {
    let statements = ["CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}'"];
    let platform = Platform::of_the_module(&json!({
        "static_roles": [{ "name": "shop", "rotation_period": 3600 }],
        "further_static_roles": ["rep*"],
        "allow_rotation": true,
        "dynamic_roles": [
            { "name": "batch", "creation_statements": statements, "pgimbal_reads": true },
            { "name": "analyst", "creation_statements": statements },
        ],
    }));
    let root = platform.vault.root();
    let reports =
        json!({ "db_name": "postgresql", "username": "reports", "rotation_period": "3600" });
    root.write("database/config/postgresql", &json!({ "allowed_roles": "*" }));
    root.write("database/static-roles/reports", &reports);
    let api = platform.pgimbal();
    let before = platform.vault.role("shop").password;
    eventually("pgimbal's token rotates the role", SOON, || {
        matches!(status(&api, "POST", "database/rotate-role/shop", &Value::Null), 200..=299)
    });
    assert_ne!(platform.vault.role("shop").password, before);
    for path in ["database/static-creds/reports", "database/creds/batch"] {
        assert_eq!(status(&api, "GET", path, &Value::Null), 200, "{path}");
    }
    for (method, path) in [
        ("GET", "database/creds/analyst"),
        ("POST", "database/rotate-role/reports"),
        ("POST", "database/rotate-root/postgresql"),
        ("GET", "secret/data/pgimbal"),
        ("POST", "secret/data/pgimbal"),
        ("POST", "secret/metadata/pgimbal"),
        ("POST", "sys/capabilities-self"),
    ] {
        assert_eq!(status(&api, method, path, &Value::Null), 403, "{path}");
    }
}
