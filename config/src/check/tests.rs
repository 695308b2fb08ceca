//! Each contradiction is found, and told at the place that can resolve it.

use crate::scratch::Directory;
use crate::{ConfigErrors, Overrides, Secret, load};

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n";

/// Loads `text`, in which `DIR` is a directory with a certificate, its key and a directory.
fn load_text(test: &str, text: &str) -> Result<crate::Config, ConfigErrors> {
    let directory = Directory::new(&format!("check-{test}"));
    directory.file("a.crt", CERTIFICATE);
    directory.file("a.key", KEY);
    let place = directory.path("");
    let path = directory.file("c.toml", &text.replace("DIR/", &place.display().to_string()));
    load(&Overrides { config: Some(path), ..Overrides::default() }, std::iter::empty())
}

/// Asserts that `text`, beside a usable database and user, is refused for `key` with `cause`.
fn refused(text: &str, key: &str, cause: &str) {
    let usable = format!("{text}\n[databases.app]\n[users.ann]\npassword = \"p\"\n");
    refused_whole(&usable, key, cause);
}

fn refused_whole(text: &str, key: &str, cause: &str) {
    let errors = load_text("refused", text).expect_err(text);
    let found: Vec<_> = errors.iter().collect();
    let [error] = found.as_slice() else { panic!("{text}: {found:#?}") };
    assert_eq!(error.key, key, "{error}");
    assert!(error.cause.contains(cause), "{error}");
    assert!(error.origin.ends_with("c.toml"), "{error}");
}

fn accepted(text: &str) {
    let text = format!("{text}\n[databases.app]\n[users.ann]\npassword = \"p\"\n");
    if let Err(errors) = load_text("accepted", &text) {
        panic!("{text}: {errors}");
    }
}

#[test]
fn addresses() {
    refused("listen = ['127.0.0.1:1', '127.0.0.1:1']", "listen", "twice");
    refused("listen = []", "listen", "nobody could connect");
    refused("listen = '127.0.0.1:1'\nhttp_listen = '127.0.0.1:1'", "http_listen", "(listen)");
    accepted("listen = ['127.0.0.1:0', '127.0.0.1:0']");
    for key in ["proxy_protocol", "read_listen", "auto_listen", "primary_listen"] {
        accepted(&format!("listen = ['127.0.0.1:1', '127.0.0.1:2']\n{key} = '127.0.0.1:2'"));
        let elsewhere = format!("listen = '127.0.0.1:1'\n{key} = '127.0.0.1:2'");
        refused(&elsewhere, key, "is not among the addresses of listen");
    }
    for (one, other) in [("read_listen", "auto_listen"), ("auto_listen", "primary_listen")] {
        let both =
            format!("listen = '127.0.0.1:1'\n{one} = '127.0.0.1:1'\n{other} = '127.0.0.1:1'");
        refused(&both, other, &format!("is an address of {one} too"));
    }
    accepted("listen = []\nunix_socket_dir = 'DIR/'");
}

#[test]
fn functions_that_count_as_reads() {
    let with = |value: &str| format!("[databases.other]\nread_functions = {value}");
    accepted(&with("['audit_noop', 'current_setting']"));
    for wrong in ["'public.f'", "['f', 'f()']", "['\"F\"']"] {
        refused(&with(wrong), "databases.other.read_functions", "without its schema");
    }
}

#[test]
fn peers() {
    const KEY: &str = "0123456789abcdef0123456789abcdef";
    let with = |top: &str, peers: &str| format!("{top}\n[peers]\n{peers}\n");
    let key = format!("deployment_key = '{KEY}'");
    let ours = "listen = '127.0.0.1:9'\naddresses = 'a:1'";
    accepted(&with(&key, ours));
    accepted(&with(&key, "listen = '127.0.0.1:9'\ndns = 'peers.svc'"));
    refused(&with("", ours), "peers.listen", "needs deployment_key");
    refused(&with("deployment_key = 'short'", ours), "deployment_key", "at least 32");
    let dull = format!("deployment_key = '{}'", "ab".repeat(32));
    refused(&with(&dull, ours), "deployment_key", "random");
    let twice = format!("{key}\ndeployment_key_previous = '{KEY}'");
    refused(&with(&twice, ours), "deployment_key_previous", "leave it out");
    let weak = format!("{key}\ndeployment_key_previous = 'old'");
    refused(&with(&weak, ours), "deployment_key_previous", "at least 32");
    refused(&with(&key, "listen = '127.0.0.1:9'"), "peers.listen", "dns, or addresses");
    refused(&with(&key, "listen = '127.0.0.1:0'\ndns = 'a'"), "peers.listen", "a port");
    refused(&with(&key, &format!("{ours}\ndns = 'a'")), "peers.dns", "the one or the other");
    refused(&with(&key, "addresses = 'a:1'"), "peers.addresses", "needs listen");
    refused(&with(&key, "peer_id = 3"), "peers.peer_id", "needs listen");
    let same = "listen = '127.0.0.1:9'\naddresses = 'a:1,a:1'";
    refused(&with(&key, same), "peers.addresses", "twice");
    let clients = format!("{key}\nlisten = '127.0.0.1:9'");
    refused(&with(&clients, ours), "peers.listen", "clients connect to");
    let http = format!("{key}\nhttp_listen = '127.0.0.1:9'");
    refused(&with(&http, ours), "peers.listen", "http_listen");
    for id in ["0", "16384", "'x'"] {
        let peers = format!("{ours}\npeer_id = {id}");
        refused(&with(&key, &peers), "peers.peer_id", "from 1 to 16383");
    }
    accepted(&with(&key, &format!("{ours}\npeer_id = 16383")));
}

#[test]
fn tokens_of_the_page() {
    const TOKEN: &str = "0123456789abcdef";
    const ADMIN: &str = "fedcba9876543210";
    let with = |http: &str| format!("http_listen = '127.0.0.1:9'\n[http]\n{http}\n");
    accepted(&with(&format!("token = '{TOKEN}'\nadmin_token = '{ADMIN}'")));
    accepted(&with("token_file = 'DIR/a.crt'\nadmin_token_file = 'DIR/a.key'"));
    for key in ["token", "admin_token"] {
        let name = format!("http.{key}");
        refused(&with(&format!("{key} = 'short'")), &name, "too easy to guess");
        refused(&with(&format!("{key} = '{}'", "x".repeat(513))), &name, "longer than 512");
        let unserved = format!("[http]\n{key} = '{TOKEN}'");
        refused(&unserved, &name, "needs http_listen");
        let file = format!("{name}_file");
        refused(&with(&format!("{key}_file = '/nowhere/t'")), &file, "cannot read: No such file");
        let both = format!("{key} = '{TOKEN}'\n{key}_file = 'DIR/a.crt'");
        refused(&with(&both), &file, "is set too");
    }
    let same = format!("token = '{TOKEN}'\nadmin_token = '{TOKEN}'");
    refused(&with(&same), "http.admin_token", "could give commands");
}

#[test]
fn unix_socket() {
    refused("unix_socket_dir = '/nowhere'", "unix_socket_dir", "No such file");
    refused("unix_socket_dir = 'DIR/a.crt'", "unix_socket_dir", "not a directory");
    let long = format!("unix_socket_dir = '{}'", "/".repeat(200));
    refused(&long, "unix_socket_dir", "107");
}

#[test]
fn trust_is_for_loopback_unless_it_is_said_twice() {
    refused("listen = '0.0.0.0:1'\nauth_type = 'trust'", "auth_type", "allow_trust_on_network");
    refused("listen = ['127.0.0.1:1', '[::]:1']\nauth_type = 'trust'", "auth_type", "[::]:1");
    accepted("listen = '0.0.0.0:1'\nauth_type = 'trust'\nallow_trust_on_network = true");
    accepted("listen = ['127.0.0.1:1', '[::1]:1', '127.8.8.8:1']\nauth_type = 'trust'");
}

#[test]
fn pools() {
    let database = |text: &str| format!("[databases.x]\n{text}");
    refused(&database("min_pool_size = 21"), "databases.x.min_pool_size", "20");
    refused(&database("max_pinned = 21"), "databases.x.max_pinned", "pool_size");
    refused(
        &database("min_pool_size = 5\nmax_db_connections = 4"),
        "databases.x.max_db_connections",
        "5",
    );
    let reserve = "reserve_pool_size = 1\nreserve_timeout = '5s'\nquery_wait_timeout = '5s'";
    refused(&database(reserve), "databases.x.reserve_timeout", "query_wait_timeout");
    accepted(&database("min_pool_size = 20\nmax_pinned = 20"));
}

#[test]
fn budgets() {
    let database = |text: &str| format!("[databases.x]\n{text}");
    let key = "databases.x.max_server_connections";
    refused(&database("max_server_connections = 4\nmin_pool_size = 5"), key, "5");
    accepted(&database("max_server_connections = 5\nmin_pool_size = 5"));
    accepted(&database("max_server_connections = 'off'\nmin_pool_size = 5"));
    refused(&database("max_server_connections = 0"), key, "1");
    refused("max_replicas = 2", "max_replicas", "store.kind");
    let four = "max_replicas = 4\nstate_dir = '/tmp'\n[store]\nkind = 'file'\n";
    let limit = |limit| format!("{four}[databases.x]\nmax_server_connections = {limit}");
    refused(&limit(7), key, "at least 8");
    accepted(&limit(8));
    let limit = |limit| {
        format!(
            "{four}[databases.x]\ncluster = 'c'\n[clusters.c]\nmax_server_connections = {limit}\n\
                 probe_user = 'ann'\n[clusters.c.nodes.n]\nhost = 'n'"
        )
    };
    refused(&limit(11), "clusters.c.max_server_connections", "at least 12");
    accepted(&limit(12));
    let shared = "max_replicas = 2\nstate_dir = '/tmp'\n[store]\nkind = 'file'\n";
    let pool = "[databases.x]\nmax_server_connections = 9\nmin_pool_size = 5";
    refused(&format!("{shared}{pool}"), key, "3");
}

#[test]
fn databases_and_users() {
    refused_whole("[users.ann]\npassword = 'p'", "databases", "--upstream");
    refused_whole("[databases.app]", "users", "nobody could log in");
    refused("[databases.pgbouncer]", "databases.pgbouncer", "console");
    refused("[databases.x]\npassword = 'p'", "databases.x.password", "no user");
    let verifier = "'SCRAM-SHA-256$4096:a$b:c'";
    let login = format!("[databases.x]\nuser = 'u'\npassword = {verifier}");
    refused(&login, "databases.x.password", "verifier");
    let login = format!("[users.x]\npassword = 'p'\nserver_password = {verifier}");
    refused(&login, "users.x.server_password", "verifier");
    refused("[users.x]", "users.x.password", "could not log in");
    refused("[users.'']\npassword = 'p'", "users.", "has a name");
    let hash = format!("[users.x]\npassword = 'md5{}'", "0".repeat(32));
    refused(&hash, "users.x.password", "md5");
    refused("[users.'*']\npassword = 'p'", "users.*", "needs {user}");
    refused("admin_users = ['root']", "admin_users", "[users]");
    accepted("admin_users = ['ann']\nstats_users = 'ann'");
    accepted("auth_type = 'trust'\nadmin_users = ['root']\n[users.x]");
    accepted(&format!("auth_type = 'md5'\n{hash}"));
}

#[test]
fn client_tls() {
    let both = "cert_file = 'DIR/a.crt'\nkey_file = 'DIR/a.key'";
    let table = |mode: &str, rest: &str| format!("[client_tls]\nsslmode = '{mode}'\n{rest}");
    let key = "client_tls.sslmode";
    refused(&table("require", ""), key, "cert_file");
    refused(&table("allow", "cert_file = 'DIR/a.crt'"), key, "key_file");
    refused(&table("disable", both), key, "not be used");
    refused(&table("verify-ca", both), key, "ca_file");
    refused(&table("require", &format!("{both}\nca_file = 'DIR/a.crt'")), key, "verify-ca");
    let missing = "cert_file = 'DIR/none.crt'\nkey_file = 'DIR/a.key'";
    refused(&table("require", missing), "client_tls.cert_file", "No such file");
    let swapped = "cert_file = 'DIR/a.crt'\nkey_file = 'DIR/a.crt'";
    refused(&table("require", swapped), "client_tls.key_file", "no private key");
    for mode in ["allow", "prefer", "require"] {
        accepted(&table(mode, both));
    }
    accepted(&table("verify-full", &format!("{both}\nca_file = 'DIR/a.crt'")));
}

#[test]
fn an_encrypted_key_is_told_how_to_be_opened() {
    let directory = Directory::new("encrypted-key");
    let certificate = directory.file("a.crt", "-----BEGIN CERTIFICATE-----\n");
    for (name, text) in [
        ("pkcs8.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMII\n"),
        ("old.key", "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMII\n"),
    ] {
        let key = directory.file(name, text);
        let files = format!("cert_file = {certificate:?}\nkey_file = {key:?}\n");
        for table in ["client_tls", "server_tls"] {
            let text = format!("[{table}]\nsslmode = \"require\"\n{files}");
            refused(&text, &format!("{table}.key_file"), "the key is encrypted, and nobody");
        }
    }
}

#[test]
fn server_tls() {
    let table = |mode: &str, rest: &str| format!("[server_tls]\nsslmode = '{mode}'\n{rest}");
    let key = "server_tls.sslmode";
    refused_in_both(&table("verify-full", ""), key, "ca_file");
    refused_in_both(&table("prefer", "ca_file = 'DIR/a.crt'"), key, "checks no certificate");
    refused_in_both(&table("disable", "ca_file = 'DIR/a.crt'"), key, "not be used");
    refused_in_both(
        &table("require", "cert_file = 'DIR/a.crt'"),
        "server_tls.cert_file",
        "key_file",
    );
    let direct = "sslnegotiation = 'direct'";
    refused_in_both(&table("prefer", direct), "server_tls.sslnegotiation", "require");
    accepted(&table("require", &format!("ca_file = 'DIR/a.crt'\n{direct}")));
    accepted(&table(
        "verify-full",
        "ca_file = 'DIR/a.crt'\ncert_file = 'DIR/a.crt'\nkey_file = 'DIR/a.key'",
    ));
}

/// The defaults of all databases and one database's own are held to the same rules.
fn refused_in_both(text: &str, key: &str, cause: &str) {
    refused(text, key, cause);
    let own = text.replace("[server_tls]", "[databases.x.server_tls]");
    refused(&own, &format!("databases.x.{key}"), cause);
}

#[test]
fn what_is_wrong_with_a_default_is_told_once() {
    refused("min_pool_size = 21", "min_pool_size", "20");
}

#[test]
fn an_upstream_without_a_password_says_where_it_was_looked_for() {
    let directory = Directory::new("check-upstream");
    let path = directory.file("pass", "*:*:*:*:hunter2");
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&path, permissions).expect("chmod");
    let env = [("PGPASSFILE".to_owned(), path.display().to_string())];
    let overrides =
        Overrides { upstream: Some(Secret::from("postgres://ann@h/d")), ..Overrides::default() };
    let found = load(&overrides, env.clone().into_iter()).expect_err("no password").to_string();
    assert!(found.starts_with("--upstream: users.ann.password: there is none"), "{found}");
    assert!(found.contains("0600") && !found.contains("hunter2"), "{found}");

    let trusting = Overrides { auth_type: Some("trust".to_owned()), ..overrides };
    assert!(load(&trusting, env.into_iter()).is_ok());
}

const VAULT: &str = "[vaults.main]\naddress = 'http://127.0.0.1:8200'\ntoken = 't'\n";

#[test]
fn sources_of_passwords() {
    let bob = |lines: &str| format!("{VAULT}[users.bob]\n{lines}");
    accepted(&bob("vault_role = 'bob'"));
    accepted(&bob("vault_role = 'bob'\nvault = 'main'\naccept_also = 'old'"));
    accepted(&format!("{VAULT}[users.'*']\nvault_role = 'app-{{user}}'"));
    accepted("[users.bob]\npassword_file = '/run/secrets/bob'\ngrace_age = '1h'");
    for (lines, key, cause) in [
        ("password = 'p'\nvault_role = 'bob'", "users.bob.vault_role", "password is given too"),
        ("password_file = '/p'\npassword_env = 'P'", "users.bob.password_env", "password_file"),
        ("vault_role = 'b'\nserver_password = 'p'", "users.bob.server_password", "vault_role says"),
        ("vault = 'main'\npassword = 'p'", "users.bob.vault", "needs vault_role"),
        ("password = 'p'\ngrace_generations = 5", "users.bob.grace_generations", "not rotate"),
        ("password = 'p'\ngrace_age = 'off'", "users.bob.grace_age", "accept_also"),
        ("vault_role = 'b'\nvault = 'other'", "users.bob.vault", "no [vaults] entry"),
        (
            "password = 'p'\naccept_also = 'md5d41d8cd98f00b204e9800998ecf8427e'",
            "users.bob.accept_also",
            "md5",
        ),
    ] {
        refused(&bob(lines), key, cause);
    }
    refused("[users.bob]\nvault_role = 'b'", "users.bob.vault_role", "there is no Vault");
    let two = format!("{VAULT}[vaults.two]\ntoken = 't'\n[users.bob]\nvault_role = 'b'");
    refused(&two, "users.bob.vault", "main, two");
}

#[test]
fn no_more_passwords_are_accepted_than_all_replicas_know() {
    let dir = std::env::temp_dir();
    let state = format!("state_dir = '{}'\n", dir.display());
    let key = "deployment_key = '0123456789abcdefghijklmnopqrstuv'\n";
    let user = "[users.bob]\npassword_file = '/run/secrets/bob'\n";
    let places = [
        format!("{state}credential_history = 'file'\nNUMBER{user}OF_USER"),
        format!("{state}NUMBER{user}OF_USER[store]\nkind = 'file'\n"),
        format!("{key}NUMBER{user}OF_USER[peers]\nlisten = '127.0.0.1:1'\naddresses = 'a:1'\n"),
    ];
    let text = |place: &str, all: u32, of_user: u32| {
        place
            .replace("NUMBER", &format!("grace_generations = {all}\n"))
            .replace("OF_USER", &format!("grace_generations = {of_user}\n"))
    };
    for place in &places {
        accepted(&text(place, 3, 3));
        refused(&text(place, 4, 3), "grace_generations", "no more than 3");
        refused(&text(place, 3, 4), "users.bob.grace_generations", "no more than 3");
    }
    // One process that keeps nothing, in whose memory there is room for all.
    accepted(&format!("{state}grace_generations = 1000\n{user}grace_generations = 9\n"));
}

#[test]
fn a_rule_lets_nobody_in_with_what_is_not_their_own() {
    let rule = |lines: &str| format!("{VAULT}[users.'*']\n{lines}");
    let also = rule("vault_role = '{user}'\naccept_also = 'old'");
    refused(&also, "users.*.accept_also", "every user of the rule");
    refused(&rule("vault_role = 'shared'"), "users.*", "must not share one password");
    refused(&rule("password_env = '{user}'"), "users.*.password_env", "named HOME or PATH");
    accepted(&rule("password_env = 'PASSWORD_{user}'"));
}

#[test]
fn a_rule_does_not_make_users_of_files_that_are_something_else() {
    let rule = |file: &str, more: &str| {
        format!("[databases.app]\n[users.\"*\"]\npassword_file = \"{file}\"\n{more}")
    };
    for file in ["/etc/{user}", "/{user}", "/run/secrets/kubernetes.io/serviceaccount/{user}"] {
        refused_whole(&rule(file, ""), "users.*.password_file", "every file of that directory");
    }
    let state = format!("state_dir = \"/var/lib/x\"\n{}", rule("/var/lib/x/{user}", ""));
    refused_whole(&state, "users.*.password_file", "every file of that directory");
    refused("[users.bob]\npassword = \"p\"\nnames = [\"b*\"]\n", "users.bob.names", "by name");
    for usable in [rule("/etc/{user}", "names = [\"app_*\"]\n"), rule("/run/users/{user}", "")] {
        assert!(load_text("rule", &usable).is_ok(), "{usable}");
    }
}

#[test]
fn a_role_stays_where_vault_keeps_roles() {
    for role in ["..", "a/b", "../config/main", "a?b", "a#b", "a%2fb"] {
        let text = format!("{VAULT}[users.bob]\nvault_role = '{role}'");
        refused(&text, "users.bob.vault_role", "one segment of a path");
    }
}

#[test]
fn logins_at_a_vault() {
    for (lines, key, cause) in [
        ("", "vaults.v.login", "needs token"),
        ("login = 'token_file'", "vaults.v.login", "needs token_file"),
        ("login = 'approle'", "vaults.v.login", "needs role_id"),
        ("login = 'approle'\nrole_id = 'r'", "vaults.v.login", "needs secret_id"),
        ("login = 'kubernetes'", "vaults.v.login", "needs kubernetes_role"),
        (
            "login = 'approle'\nrole_id = 'r'\nsecret_id = 's'\nsecret_id_file = '/s'",
            "vaults.v.secret_id_file",
            "only one",
        ),
        ("token = 't'\naddress = 'vault:8200'", "vaults.v.address", "expected URLs"),
        ("token = 't'\naddress = 'https://u:p@vault'", "vaults.v.address", "without user"),
        ("token = 't'\nca_file = '/none'", "vaults.v.ca_file", "No such file"),
        ("token = 't'\ncert_file = 'DIR/a.crt'", "vaults.v.cert_file", "needs key_file"),
        ("token = 't'\nkey_file = 'DIR/a.key'", "vaults.v.key_file", "needs cert_file"),
        (
            "token = 't'\naddress = 'http://vault:8200'\nca_file = 'DIR/a.crt'",
            "vaults.v.ca_file",
            "no address begins with https://",
        ),
        ("token = 't'\ntimeout = '0s'", "vaults.v.timeout", "more than zero"),
    ] {
        refused(&format!("[vaults.v]\n{lines}"), key, cause);
    }
}

#[test]
fn what_another_login_needs_is_not_taken_in_silence() {
    const TOKEN: &str = "token = 't'\n";
    const FILE: &str = "login = 'token_file'\ntoken_file = '/t'\n";
    const APPROLE: &str = "login = 'approle'\nrole_id = 'r'\nsecret_id = 's'\n";
    const KUBERNETES: &str = "login = 'kubernetes'\nkubernetes_role = 'k'\n";
    for (login, key) in [
        (APPROLE, "token"),
        (KUBERNETES, "token_file"),
        (TOKEN, "login_mount"),
        (FILE, "login_mount"),
        (TOKEN, "role_id"),
        (KUBERNETES, "secret_id"),
        (FILE, "secret_id_file"),
        (APPROLE, "kubernetes_role"),
        (APPROLE, "kubernetes_jwt_file"),
    ] {
        let text = format!("[vaults.v]\n{login}{key} = '/hunter2'");
        refused(&text, &format!("vaults.v.{key}"), "would not be used: login is");
    }
    let own = "login_mount = 'm'\nkubernetes_jwt_file = '/jwt'";
    accepted(&format!("[vaults.v]\n{KUBERNETES}{own}"));
    accepted(&format!("[vaults.v]\n{APPROLE}login_mount = 'm'"));
}

#[test]
fn what_is_kept_needs_a_place() {
    refused("credential_history = 'file'", "credential_history", "needs state_dir");
    refused("password_cache = true", "password_cache", "needs state_dir");
    accepted("credential_history = 'file'\npassword_cache = true\nstate_dir = '/var/lib/pgimbal'");
}

#[test]
fn a_store_has_what_its_kind_needs_and_nothing_else() {
    let store = |text: &str| format!("[store]\n{text}\n");
    refused(&store("kind = \"file\""), "store.kind", "needs file beside it, or state_dir");
    accepted(&store("kind = \"file\"\nfile = \"/x\""));
    accepted(&format!("state_dir = \"DIR/state\"\n{}", store("kind = \"file\"")));
    for key in ["file", "secret", "namespace", "kubeconfig", "vault", "vault_mount", "vault_path"] {
        let key_of_others = format!("{key} = \"x\"");
        refused(&store(&key_of_others), &format!("store.{key}"), "would not be used");
    }
    accepted(&store("kind = \"kubernetes\"\nsecret = \"a-1.b\"\nnamespace = \"dbaas\""));
    for name in ["A", "a_b", "-a", "a-", "a..b", "../x", "a/b", "a?b"] {
        let text = store(&format!("kind = \"kubernetes\"\nsecret = \"{name}\""));
        refused(&text, "store.secret", "is no name of Kubernetes");
        let text = store(&format!("kind = \"kubernetes\"\nnamespace = \"{name}\""));
        refused(&text, "store.namespace", "is no name of Kubernetes");
    }
    let vaults = |names: &[&str], text: &str| {
        let tables = names.iter().map(|name| format!("[vaults.{name}]\ntoken = \"t\"\n"));
        format!("{}{}", store(&format!("kind = \"vault\"\n{text}")), tables.collect::<String>())
    };
    refused(&vaults(&[], ""), "store.kind", "there is no Vault");
    accepted(&vaults(&["a"], ""));
    refused(&vaults(&["a", "b"], ""), "store.vault", "say which Vault it is: a, b");
    refused(&vaults(&["a"], "vault = \"b\""), "store.vault", "no [vaults] entry of that name");
    accepted(&vaults(&["a", "b"], "vault = \"b\"\nvault_path = \"team/x.y\""));
    for path in ["../x", "a//b", "a?b", "a b", "/"] {
        let text = vaults(&["a"], &format!("vault_path = \"{path}\""));
        refused(&text, "store.vault_path", "is no path");
    }
}

#[test]
fn clusters_and_their_nodes() {
    const NODE: &str = "[clusters.c.nodes.a]\nhost = 'a'\n";
    let cluster = |lines: &str| format!("[clusters.c]\n{lines}\n");
    let probe = cluster("probe_user = 'ann'");
    accepted(&format!("{probe}{NODE}[databases.db]\ncluster = 'c'\nroute = 'replica'"));
    accepted(&cluster("probe_user = 'x'\nprobe_password = 'p'\ndns = 'pg.example'"));
    refused(&probe, "clusters.c", "there is no node");
    refused(&format!("{}{NODE}", cluster("")), "clusters.c", "no probe_user");
    refused(&format!("{}{NODE}", cluster("probe_user = 'x'")), "clusters.c.probe_user", "[users]");
    let both = format!("{}{NODE}", cluster("probe_user = 'ann'\ndns = 'pg.example'"));
    refused(&both, "clusters.c.dns", "nodes are listed too");
    let twice = format!("{probe}{NODE}[clusters.c.nodes.b]\nhost = 'a'\n");
    refused(&twice, "clusters.c.nodes", "two nodes are at a:5432");
    let with = |lines: &str| format!("{probe}{NODE}[databases.db]\ncluster = 'c'\n{lines}");
    refused(&with("host = 'x'"), "databases.db.host", "the cluster says");
    refused(&with("port = 1"), "databases.db.port", "the cluster says");
    refused("[databases.db]\ncluster = 'none'", "databases.db.cluster", "no [clusters] entry");
    refused("[databases.db]\nroute = 'replica'", "databases.db.route", "needs cluster");
    let reader = "[users.bob]\npassword = 'p'\nroute = 'replica'";
    refused(reader, "users.bob.route", "no database has a cluster");
    accepted(&with(reader));
    refused(&format!("{probe}port = 1\n{NODE}"), "clusters.c.port", "belongs to dns");
    accepted(&cluster("probe_user = 'ann'\ndns = 'pg.example'\nport = 5433"));
    let drill = format!("{probe}{NODE}candidate = false\n");
    refused(&drill, "clusters.c.nodes", "no node is a candidate");
    accepted(&format!("{drill}[clusters.c.nodes.b]\nhost = 'b'"));
    let verifier = cluster("probe_user = 'x'\nprobe_password = 'SCRAM-SHA-256$4096:a$b:c'");
    refused(&format!("{verifier}{NODE}"), "clusters.c.probe_password", "verifier");
}

#[test]
fn the_systems_authorities_vouch_for_servers_by_name_only() {
    let server = |mode: &str| format!("[server_tls]\nsslmode = '{mode}'\nca_file = 'system'");
    accepted(&server("verify-full"));
    refused(&server("verify-ca"), "server_tls.sslmode", "must be \"verify-full\"");
    refused(&server("require"), "server_tls.sslmode", "must be \"verify-full\"");
    let clients = "[client_tls]\nsslmode = 'verify-ca'\ncert_file = 'DIR/a.crt'\n\
                   key_file = 'DIR/a.key'\nca_file = 'system'";
    refused(clients, "client_tls.ca_file", "CA of one's own");
}

#[test]
fn telemetry_goes_to_a_url_without_a_user() {
    let telemetry = |lines: &str| format!("[telemetry]\n{lines}");
    accepted(&telemetry("otlp_endpoint = 'http://127.0.0.1:4318'\ntrace_ratio = 1"));
    accepted(&telemetry("otlp_endpoint = 'https://otel.example/pgimbal'\ntrace_ratio = 0.001"));
    accepted(&telemetry("trace_ratio = 0"));
    for url in ["127.0.0.1:4318", "grpc://x", "http://", "http://u:secret@x"] {
        let text = telemetry(&format!("otlp_endpoint = '{url}'"));
        refused(&text, "telemetry.otlp_endpoint", "expected http:// or https://");
    }
    refused(&telemetry("trace_ratio = 0.5"), "telemetry.trace_ratio", "nothing would be sent");
    refused(&telemetry("trace_ratio = 1.5"), "telemetry.trace_ratio", "from 0 to 1");
}
