//! "Vault with Terraform or OpenTofu": the login of Kubernetes, the role that Vault has in
//! PostgreSQL, and the module.

use std::fs;

use pgimbal_tests::Vault;
use pgimbal_tests::terraform::{Stacks, make_in_vault, output, request, resources};
use serde_json::{Value, json};

use super::page::Page;
use super::platform::Platform;

/// The section of the page.
const SECTION: &str = "Vault with Terraform or OpenTofu";

/// The password that stands in the state.
const FIRST: &str = "first-of-vault";

/// The folder of the reader's stack.
const STACK: &str = "examples/reader";

/// Follows the section.
pub(super) fn set_up(page: &Page, platform: &Platform) {
    let _ = platform.run(page.block(SECTION, "sh", 0));
    let root = platform.vault.root();
    let stack = Stack::write(page, platform);
    let plan = stack.plan("dbaas");
    let sql = page.block(SECTION, "sql", 0).replace('…', FIRST);
    let (role, grant) = sql.split_once('\n').expect("two statements");
    platform.pg.run(role);
    let planned = resources(&plan);
    // The grant is missing, as with the reader who has overlooked it.
    let is_static = |kind: &str| kind == "vault_database_secret_backend_static_role";
    let (roles, others): (Vec<_>, Vec<_>) =
        planned.into_iter().partition(|resource| is_static(&resource.kind));
    make_in_vault(&others, root);
    let (path, body) = request(&roles[0]);
    let row = super::failures::row(page, "at the apply");
    let version: u32 = platform.pg.value("show server_version_num").parse().unwrap();
    if version >= 160_000 {
        let (status, answer) = root.call("POST", &path, &body).expect("an answer");
        assert!(status >= 400 && says(&answer, row.message()), "{status} {answer}");
    }
    platform.pg.run(grant);
    make_in_vault(&roles, root);
    let _ = platform.run(page.block(SECTION, "sh", 2));
    // Neither the state's password nor a later apply matters then.
    let login = format!("host=127.0.0.1 port={} dbname=postgres user=vault", platform.pg.port);
    let told = platform.shell(&format!("PGPASSWORD={FIRST} psql '{login}' -c 'select 1'"));
    assert!(told.stderr.contains("password authentication failed"), "{}", told.stderr);
    assert!(platform.vault.rotate("shop").len() > 10);
    elsewhere(page, platform, &plan);
}

/// Whether a message of the page is in an answer of Vault's.
fn says(answer: &Value, message: &str) -> bool {
    answer["errors"].to_string().contains(message)
}

/// A Vault that is no pod of the cluster: it takes the tokens of the same accounts.
fn elsewhere(page: &Page, platform: &Platform, plan: &Value) {
    let kubernetes = &platform.nodes.kubernetes;
    let vault = Vault::with_tls(&platform.certificates);
    let there = "export VAULT_ADDR VAULT_TOKEN VAULT_CACERT";
    let there = format!(
        "{there}; VAULT_ADDR={} VAULT_TOKEN={} VAULT_CACERT={}",
        vault.address(),
        vault.root_token(),
        vault.authority().display()
    );
    platform.write("kubernetes-ca.crt", kubernetes.authority());
    let request = json!({ "spec": { "expirationSeconds": 3600 } });
    let account = "/api/v1/namespaces/vault/serviceaccounts/vault/token";
    let token = kubernetes.admin().create(account, &request)["status"]["token"].clone();
    let command = page.block(SECTION, "sh", 1);
    let address = "https://api.k8s.internal:6443";
    assert!(command.contains(address), "{command}");
    let command = command.replace(address, &kubernetes.address());
    let _ = platform.run(&format!(
        "{there}; vault auth enable kubernetes; REVIEWER_TOKEN={}; {command}",
        token.as_str().expect("a token")
    ));
    let mut planned = resources(plan);
    planned.retain(|resource| resource.kind == "vault_kubernetes_auth_backend_role");
    assert_eq!(planned.len(), 1);
    make_in_vault(&planned, vault.root());
    let _ = platform.run("kubectl create namespace reader; kubectl -n reader create sa pgimbal");
    let login = |namespace: &str| {
        let account = format!("/api/v1/namespaces/{namespace}/serviceaccounts/pgimbal/token");
        let request = json!({ "spec": { "audiences": ["vault"], "expirationSeconds": 3600 } });
        let answer = kubernetes.admin().create(&account, &request);
        let body = json!({ "role": "pgimbal", "jwt": answer["status"]["token"] });
        vault.root().call("POST", "auth/kubernetes/login", &body).expect("an answer")
    };
    // It is reviewed, and refused for its namespace alone.
    let (status, answer) = login("reader");
    assert!(status == 403 && says(&answer, "namespace not authorized"), "{status} {answer}");
    planned[0].values["bound_service_account_namespaces"] = json!(["reader"]);
    make_in_vault(&planned, vault.root());
    let (status, answer) = login("reader");
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["auth"]["token_policies"], json!(["pgimbal"]), "{answer}");
}

/// Lets the account `pgimbal` of one more namespace log in, by the module with that namespace.
pub(super) fn also_for(page: &Page, platform: &Platform, namespace: &str) {
    let mut planned = resources(&Stack::write(page, platform).plan(namespace));
    planned.retain(|resource| resource.kind == "vault_kubernetes_auth_backend_role");
    make_in_vault(&planned, platform.vault.root());
}

/// The reader's stack: the page's module, and what it takes for granted.
struct Stack {
    stacks: Stacks,
    module: String,
    authority: String,
}

impl Stack {
    fn write(page: &Page, platform: &Platform) -> Self {
        let stacks = Stacks::copy();
        let module = page.block(SECTION, "hcl", 0);
        let hosts = ["db-0", "db-1", "db-2"].map(|name| format!("\"{name}.internal\""));
        let hosts = hosts.join(", ");
        assert!(module.contains("\"…/deploy/terraform/") && module.contains(&hosts), "{module}");
        let module = module.replace("…/deploy/terraform/", "../../");
        let module = module.replace(&hosts, "\"db-nodes.db.svc\"");
        Self { stacks, module, authority: platform.certificates.authority.clone() }
    }

    fn plan(&self, namespace: &str) -> Value {
        let file = |name: &str| self.stacks.file(STACK, name);
        fs::create_dir_all(file("")).unwrap();
        let module = self.module.replace("\"dbaas\"", &format!("\"{namespace}\""));
        fs::write(file("postgresql-ca.crt"), &self.authority).unwrap();
        let outputs = ["postgresql_host", "postgresql_ro_host", "pgimbal_toml"]
            .map(|name| format!("output \"{name}\" {{\n  value = module.pgimbal.{name}\n}}\n"));
        let variable = "variable \"vault_password\" {\n  sensitive = true\n}\n";
        fs::write(file("main.tf"), format!("{module}\n{variable}{}", outputs.concat())).unwrap();
        self.stacks.init(STACK);
        let plan = self.stacks.plan(STACK, &json!({ "vault_password": FIRST }));
        assert_eq!(*output(&plan, "postgresql_host"), format!("pgimbal.{namespace}.svc"));
        assert_eq!(*output(&plan, "postgresql_ro_host"), format!("pgimbal-ro.{namespace}.svc"));
        plan
    }
}
