//! docs/rotation.md before a real Vault: its set-up by the page's own commands, a pgimbal that logs
//! in by AppRole, what `pgimbal check` says, and the rule for users who are not listed.

use pgimbal_tests::certificates::Certificates;
use pgimbal_tests::http::{get, metric};
use pgimbal_tests::pages::{Reader, table, with_own};
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Postgres, Vault, vault};
use serde_json::json;

use super::running::Running;

const PAGE: &str = "docs/rotation.md";

/// A reader who may do everything in a Vault.
fn administrator(vault: &Vault) -> Reader {
    let token = vault.root().write("auth/token/create", &json!({ "policies": ["root"] }));
    let token = token["auth"]["client_token"].as_str().expect("a token").to_owned();
    let reader = Reader::new()
        .with("VAULT_ADDR", vault.address())
        .with("VAULT_CACERT", vault.authority().display())
        .with("VAULT_TOKEN", token);
    // OpenBao's program has another name, and the same words.
    reader.has_program("vault", &vault::program());
    reader
}

pub(super) fn set_up([rule, engine, policy, login, told]: [&str; 5]) {
    let certificates = Certificates::new();
    let pg = Postgres::with_tls(&certificates);
    pg.run("create role vault login createrole password 'vault-secret'; create role shop login");
    pg.run("create role extra login; create role probe login password 'probe-secret'");
    pg.run("grant pg_monitor to probe");
    let vault = Vault::with_tls(&certificates);
    let reader = administrator(&vault);
    let server = format!("127.0.0.1:{}", pg.port);
    // The role app of the harness is let in without a password.
    let engine = with_own(
        engine,
        &[
            ("db.internal:5432", server.as_str()),
            ("password=...", "password=vault-secret"),
            ("static-roles/app", "static-roles/shop"),
            ("username=app", "username=shop"),
        ],
    );
    let _ = reader.types(&engine).succeeded();
    let another = engine.lines().last().expect("a role").replace("shop", "extra");
    let _ = reader.types(&another).succeeded();
    let _ = reader.types(policy).succeeded();

    let [role_id, secret_id] = approle(&reader);
    let file = reader.write("secret-id", &secret_id);
    let addresses = "\"https://vault-0.internal:8200\", \"https://vault-1.internal:8200\"";
    let login = with_own(
        login,
        &[
            (addresses, &format!("\"{}\"", vault.address())),
            ("7f4c...", &role_id),
            ("/run/secrets/vault/secret-id", &file),
            ("/etc/pgimbal/vault-ca.crt", &vault.authority().display().to_string()),
            ("[users.app]\nvault_role = \"app\"", "[users.shop]\nvault_role = \"shop\""),
        ],
    );
    let cluster = format!(
        "[clusters.main]\nprobe_user = \"probe\"\nprobe_password = \"probe-secret\"\n\
         [clusters.main.nodes.a]\n\
         host = \"127.0.0.1\"\nport = {}\n[databases.app]\ncluster = \"main\"\n",
        pg.port
    );
    let own = [
        ("https://vault-0.internal:8200", vault.address()),
        ("10.0.0.1:5432", server.clone()),
        ("user app", "user shop".to_owned()),
        ("role app", "role shop".to_owned()),
    ];
    let own = own.each_ref().map(|(from, to)| (*from, to.as_str()));
    checks(&reader, &format!("{login}{cluster}"), &with_own(told, &own));
    serves(&reader, &format!("{login}{cluster}{rule}"));
}

/// Makes an AppRole as the table of logins has it, and returns its role id and its secret id.
fn approle(reader: &Reader) -> [String; 2] {
    let rows = table(PAGE, "| `login` | in Vault | in `[vaults.NAME]` |");
    let row = rows.iter().find(|row| row[0] == "`approle`").expect("a row");
    let commands: Vec<&str> = row[1].split('`').skip(1).step_by(2).collect();
    let said: String =
        commands.iter().map(|command| reader.types(command).succeeded().stdout).collect();
    ["role_id", "secret_id"].map(|name| {
        let mut words = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let found = words.find(|words| words.first() == Some(&name));
        (*found.unwrap_or_else(|| panic!("no {name}: {said}")).last().expect("a value")).to_owned()
    })
}

/// A line without its numbers, and without what Debian adds to the version of its PostgreSQL.
fn shape(line: &str) -> String {
    let line = match line.split_once(" (Debian ") {
        Some((before, rest)) => format!("{before}{}", rest.split_once(')').expect("its end").1),
        None => line.to_owned(),
    };
    let mut shape = String::new();
    for c in line.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }) {
        if !(c == '#' && shape.ends_with('#')) {
            shape.push(c);
        }
    }
    shape
}

/// Each line that the page shows, with other numbers. The role of one user is out of bounds.
fn checks(reader: &Reader, text: &str, told: &str) {
    let file = "pgimbal.toml";
    reader.write(file, text);
    let well = reader.types("pgimbal check --config pgimbal.toml");
    assert!(matches!(well.code, Some(0 | 3)), "{well:?}");
    reader.write(file, &format!("{text}[users.desk]\nvault_role = \"desk\"\n"));
    let narrow = "vault policy write pgimbal - <<'END'\n\
                  path \"database/static-creds/shop\" { capabilities = [\"read\"] }\nEND\n";
    let _ = reader.types(narrow).succeeded();
    let checked = reader.types("pgimbal check --config pgimbal.toml");
    assert_eq!(checked.code, Some(1), "{checked:?}");
    let shapes: Vec<String> = checked.stdout.lines().map(shape).collect();
    for line in told.lines() {
        assert!(shapes.contains(&shape(line)), "no line is like {line}:\n{}", checked.stdout);
    }
    let wide = "vault policy write pgimbal - <<'END'\n\
                path \"database/static-creds/*\" { capabilities = [\"read\"] }\nEND\n";
    let _ = reader.types(wide).succeeded();
}

/// Clients log in with the password that Vault has, the user of the rule too.
fn serves(reader: &Reader, text: &str) {
    let running = Running::start(reader, text);
    for user in ["shop", "extra"] {
        let password = format!("$(vault read -field=password database/static-creds/{user})");
        let psql = running.psql(user, "app", "select 'is ' || current_user");
        eventually("Vault's password is taken", SOON, || {
            let shown = reader.types(&format!("PGPASSWORD={password} {psql}"));
            shown.stdout.contains(&format!("is {user}"))
        });
    }
    let (_, metrics) = get(running.http_port, "/metrics");
    let next = metric(&metrics, "pgimbal_credential_next_rotation_seconds", &["user=\"shop\""]);
    assert!(next.is_some_and(|seconds| seconds > 80_000.0), "24 h were told: {next:?}");
}
