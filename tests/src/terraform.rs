//! A copy of `deploy/terraform`, OpenTofu with the stand-in for its providers, and what the real
//! provider would ask of Vault.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::pgimbal::undisturbed;
use crate::process::{Directory, directory};
use crate::program::{self, Finished};
use crate::sources::root;
use crate::vault::api::Api;

/// Time limit of one command, which needs a second on an idle machine.
const LIMIT: Duration = Duration::from_secs(120);

/// The resources of a plan that are made in Vault, in an order in which they can be.
const KINDS: [&str; 6] = [
    "vault_mount",
    "vault_database_secret_backend_connection",
    "vault_database_secret_backend_static_role",
    "vault_database_secret_backend_role",
    "vault_policy",
    "vault_kubernetes_auth_backend_role",
];

/// The folders of `deploy/terraform` in a directory of its own, where OpenTofu may write.
pub struct Stacks {
    directory: Directory,
    tofu: PathBuf,
    settings: PathBuf,
}

/// What OpenTofu would make: a resource, and the values of its arguments that are known.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The resource's type, such as `vault_policy`.
    pub kind: String,
    /// Its arguments.
    pub values: Value,
}

impl Stacks {
    /// Copies `deploy/terraform`.
    ///
    /// # Panics
    /// When there is no OpenTofu (`tests/set-up` builds it).
    #[must_use]
    pub fn copy() -> Self {
        let directory = directory("terraform");
        let from = root().join("deploy/terraform/.");
        let copied = Command::new("cp").arg("-r").arg(from).arg(&*directory).status();
        assert!(copied.expect("cp").success());
        let find = Path::new(env!("CARGO_MANIFEST_DIR")).join("terraform/program");
        let found = program::run(&mut Command::new(find), LIMIT).succeeded();
        let mut paths = found.stdout.lines().map(PathBuf::from);
        let (tofu, settings) = (paths.next().expect("tofu"), paths.next().expect("its settings"));
        Self { directory, tofu, settings }
    }

    /// The folders that have a configuration, such as `modules/pgimbal`, in order.
    ///
    /// # Panics
    /// When a folder cannot be read.
    #[must_use]
    pub fn folders(&self) -> Vec<String> {
        let mut folders = Vec::new();
        for group in ["modules", "examples"] {
            for entry in fs::read_dir(self.directory.join(group)).expect("a folder").flatten() {
                let name = entry.file_name().into_string().expect("a name");
                folders.push(format!("{group}/{name}"));
            }
        }
        folders.sort();
        folders
    }

    /// The path of a file in `folder`.
    #[must_use]
    pub fn file(&self, folder: &str, name: &str) -> PathBuf {
        self.directory.join(folder).join(name)
    }

    /// Runs `tofu WORDS` in `folder`, which may be empty for all.
    ///
    /// # Panics
    /// When it does not end in time.
    #[must_use]
    pub fn tofu(&self, folder: &str, words: &[&str]) -> Finished {
        let mut command = undisturbed(&self.tofu);
        command.args(words).current_dir(self.directory.join(folder));
        for (name, _) in std::env::vars_os() {
            let is_theirs = ["TF_", "TOFU_", "VAULT_", "KUBE"]
                .iter()
                .any(|prefix| name.to_string_lossy().starts_with(prefix));
            if is_theirs {
                command.env_remove(name);
            }
        }
        command.env("HOME", &*self.directory).env("TF_CLI_CONFIG_FILE", &self.settings);
        command.env("TF_IN_AUTOMATION", "1").env("TF_CLI_ARGS", "-no-color");
        program::run(&mut command, LIMIT)
    }

    /// Prepares `folder` for the other commands.
    ///
    /// # Panics
    /// When OpenTofu refuses.
    pub fn init(&self, folder: &str) {
        drop(self.tofu(folder, &["init", "-input=false"]).succeeded());
    }

    /// Plans `folder` with these variables. Returns the whole plan as `tofu show -json` prints it.
    ///
    /// # Panics
    /// When OpenTofu refuses.
    #[must_use]
    pub fn plan(&self, folder: &str, variables: &Value) -> Value {
        let file = self.variables(folder, variables);
        drop(self.tofu(folder, &["plan", "-input=false", "-out=plan", &file]).succeeded());
        let shown = self.tofu(folder, &["show", "-json", "plan"]).succeeded();
        serde_json::from_str(&shown.stdout).expect("JSON")
    }

    /// Applies `folder` with these variables: the stand-in only remembers it, in
    /// `terraform.tfstate`.
    ///
    /// # Panics
    /// When OpenTofu refuses.
    pub fn apply(&self, folder: &str, variables: &Value) {
        let file = self.variables(folder, variables);
        drop(self.tofu(folder, &["apply", "-input=false", "-auto-approve", &file]).succeeded());
    }

    fn variables(&self, folder: &str, variables: &Value) -> String {
        let path = self.file(folder, "test.tfvars.json");
        fs::write(&path, variables.to_string()).expect("a file");
        format!("-var-file={}", path.display())
    }
}

/// The resources of a plan, in the modules that it calls too.
#[must_use]
pub fn resources(plan: &Value) -> Vec<Planned> {
    let mut found = Vec::new();
    collect(&plan["planned_values"]["root_module"], &mut found);
    found
}

fn collect(module: &Value, found: &mut Vec<Planned>) {
    for resource in module["resources"].as_array().into_iter().flatten() {
        let kind = resource["type"].as_str().unwrap_or_default().to_owned();
        found.push(Planned { kind, values: resource["values"].clone() });
    }
    for called in module["child_modules"].as_array().into_iter().flatten() {
        collect(called, found);
    }
}

/// The value of an output of a plan.
#[must_use]
pub fn output<'a>(plan: &'a Value, name: &str) -> &'a Value {
    &plan["planned_values"]["outputs"][name]["value"]
}

/// Makes the resources of a plan in a real Vault, by the requests of the real provider.
///
/// # Panics
/// When Vault refuses one.
pub fn make_in_vault(planned: &[Planned], root: &Api) {
    for kind in KINDS {
        for resource in planned.iter().filter(|resource| resource.kind == kind) {
            let (path, body) = request(resource);
            root.write(&path, &body);
        }
    }
}

/// The path and the body of the request that the real provider makes for a resource.
///
/// # Panics
/// When the resource is of another kind than those of `deploy/terraform`.
#[must_use]
pub fn request(resource: &Planned) -> (String, Value) {
    let values = &resource.values;
    let text = |name: &str| values[name].as_str().unwrap_or_default();
    let (path, own) = match &*resource.kind {
        "vault_mount" => (format!("sys/mounts/{}", text("path")), vec!["path"]),
        "vault_policy" => (format!("sys/policies/acl/{}", text("name")), vec!["name"]),
        "vault_database_secret_backend_connection" => {
            let path = format!("{}/config/{}", text("backend"), text("name"));
            let mut body = arguments(&values["postgresql"][0], &[]);
            body["plugin_name"] = json!("postgresql-database-plugin");
            body["allowed_roles"] = values["allowed_roles"].clone();
            body["verify_connection"] = values["verify_connection"].clone();
            return (path, body);
        }
        "vault_database_secret_backend_static_role" => {
            (format!("{}/static-roles/{}", text("backend"), text("name")), vec!["backend", "name"])
        }
        "vault_database_secret_backend_role" => {
            (format!("{}/roles/{}", text("backend"), text("name")), vec!["backend", "name"])
        }
        "vault_kubernetes_auth_backend_role" => {
            let path = format!("auth/{}/role/{}", text("backend"), text("role_name"));
            (path, vec!["backend", "role_name"])
        }
        other => panic!("nobody has said how Vault is told of {other}"),
    };
    (path, arguments(values, &own))
}

/// The arguments that were given, without those that stand in the path.
fn arguments(values: &Value, in_path: &[&str]) -> Value {
    let given = values.as_object().into_iter().flatten();
    given
        .filter(|(name, value)| !value.is_null() && !in_path.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
