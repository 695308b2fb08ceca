//! The whole way from sources to configuration or errors.

use std::time::Duration;

use super::*;
use crate::scratch::Directory;
use crate::{AuthType, Host, MaxPinned, PoolMode};

mod messages;

const USABLE: &str = "
[databases.app]
[users.ann]
password = \"hunter2\"
";

fn env(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    let pairs: Vec<_> =
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    pairs.into_iter()
}

/// Loads a file with `text`, written in a directory of its own.
fn load_file(
    test: &str,
    text: &str,
    variables: &[(&str, &str)],
    flags: Overrides,
) -> Result<Config, ConfigErrors> {
    let directory = Directory::new(test);
    let path = directory.file("pgimbal.toml", text);
    load(&Overrides { config: Some(path), ..flags }, env(variables))
}

/// The errors for a file with `text` after one that is usable.
fn errors(test: &str, text: &str, variables: &[(&str, &str)]) -> Vec<ConfigError> {
    let text = format!("{text}\n{USABLE}");
    let errors = load_file(test, &text, variables, Overrides::default()).expect_err(test);
    errors.iter().cloned().collect()
}

/// The only error of `errors`, its file name cut to the last part.
fn only(test: &str, text: &str, variables: &[(&str, &str)]) -> String {
    let errors = errors(test, text, variables);
    assert_eq!(errors.len(), 1, "{errors:?}");
    let text = errors[0].to_string();
    text.rsplit_once('/').map_or(text.clone(), |(_, rest)| rest.to_owned())
}

#[test]
fn defaults_then_file_then_environment_then_flags() {
    let size = |text: &str, variables: &[(&str, &str)], flag: Option<&str>| {
        let flags = Overrides { pool_size: flag.map(str::to_owned), ..Overrides::default() };
        let text = format!("{text}\n{USABLE}");
        load_file("precedence", &text, variables, flags).expect("usable").databases["app"].pool.size
    };
    let variable: &[(&str, &str)] = &[("PGIMBAL_POOL_SIZE", "7")];
    assert_eq!(size("", &[], None), 20);
    assert_eq!(size("pool_size = 6", &[], None), 6);
    assert_eq!(size("pool_size = 6", variable, None), 7);
    assert_eq!(size("pool_size = 6", variable, Some("8")), 8);
    assert_eq!(size("pool_size = 6", &[("PGIMBAL_POOL_SIZE", "")], None), 6);
}

#[test]
fn each_flag_is_its_option() {
    let flags = Overrides {
        listen: Some("127.0.0.1:1,[::1]:2".to_owned()),
        pool_mode: Some("session".to_owned()),
        auth_type: Some("md5".to_owned()),
        workers: Some("3".to_owned()),
        ..Overrides::default()
    };
    let config = load_file("flags", USABLE, &[], flags).expect("usable");
    assert_eq!(config.listen.addresses.len(), 2);
    assert_eq!(config.listen.unix_socket_port, 1);
    assert_eq!(config.pool.mode, PoolMode::Session);
    assert_eq!(config.clients.auth_type, AuthType::Md5);
    assert_eq!(config.workers, 3);
}

#[test]
fn the_file_can_be_named_by_a_variable() {
    let directory = Directory::new("variable");
    let path = directory.file("other.toml", &format!("pool_size = 6\n{USABLE}"));
    let variables = [("PGIMBAL_CONFIG", path.to_str().expect("a path"))];
    let config = load(&Overrides::default(), env(&variables)).expect("usable");
    assert_eq!(config.pool.size, 6);
}

#[test]
fn trusted_clients_use_the_databases_role_or_their_own() {
    let text = "auth_type = \"trust\"\n[databases.own]\n[databases.one]\nuser = \"ann\"";
    let text = format!("{text}\n[users.ann]\npassword = \"p\"");
    let config = load_file("trusted", &text, &[], Overrides::default()).expect("usable");
    let role =
        |database: &str| config.pool(database, "bob").map(|p| (p.user, p.login.fixed().is_some()));
    assert_eq!(role("own"), Some(("bob".to_owned(), false)));
    assert_eq!(role("one"), Some(("ann".to_owned(), true)));
    assert_eq!(role("none"), None);
}

#[test]
fn nested_keys_come_from_the_environment_too() {
    let variables = [
        ("PGIMBAL_DATABASES__APP__HOST", "/run/pg"),
        ("PGIMBAL_DATABASES__APP__QUERY_WAIT_TIMEOUT", "500ms"),
        ("PGIMBAL_DATABASES__OTHER__SERVER_TLS__SSLMODE", "require"),
        ("PGIMBAL_USERS__ANN__PASSWORD", "from the environment"),
        ("PGIMBAL_LOG", "warn"),
    ];
    let config = load_file("nested", USABLE, &variables, Overrides::default()).expect("usable");
    let app = &config.databases["app"];
    assert_eq!(app.host, Host::Unix("/run/pg".into()));
    assert_eq!(app.tls.mode, crate::SslMode::Disable, "no TLS through a Unix socket");
    assert_eq!(app.pool.query_wait_timeout, Duration::from_millis(500));
    assert_eq!(config.databases["other"].tls.mode, crate::SslMode::Require);
    let password = config.users["ann"].password.as_ref().map(Secret::expose);
    assert_eq!(password, Some("from the environment"));
    assert_eq!(config.log.filter, "warn");
}

#[test]
fn what_kubernetes_sets_beside_a_service_is_no_option() {
    let variables = [
        ("PGIMBAL_SERVICE_HOST", "10.0.0.1"),
        ("PGIMBAL_SERVICE_PORT_POSTGRES", "6432"),
        ("PGIMBAL_PORT", "tcp://10.0.0.1:6432"),
        ("PGIMBAL_PORT_6432_TCP_ADDR", "10.0.0.1"),
        ("PGIMBAL_RW_SERVICE_HOST", "10.0.0.1"),
        ("PGIMBAL_RW_PORT_6432_TCP_PORT", "6432"),
        ("PGIMBAL_METRICS_PORT", "tcp://10.0.0.1:9127"),
        ("PGIMBAL_UNIX_SOCKET_PORT", "tcp://10.0.0.1:9127"),
        ("PGIMBAL_DATABASES__APP_SERVICE_HOST", "10.0.0.1"),
        ("PGIMBAL_VERSION", "1.4.0"),
    ];
    let config = load_file("kubernetes", USABLE, &variables, Overrides::default());
    assert!(config.is_ok(), "{config:?}");
}

#[test]
fn a_database_starts_from_the_defaults_of_the_file() {
    let text = "
        pool_size = 30
        max_pinned = \"50%\"
        [server_tls]
        sslmode = \"require\"
        [databases.app]
        pool_mode = \"session\"
        [databases.app.server_tls]
        sslnegotiation = \"direct\"
        [databases.\"*\"]
        max_pinned = 4
        [users.ann]
        password = \"p\"
        pool_size = 5";
    let config = load_file("inherit", text, &[], Overrides::default()).expect("usable");
    let app = &config.databases["app"];
    assert_eq!((app.pool.size, app.pool.mode), (30, PoolMode::Session));
    assert!(app.tls.direct && app.tls.mode == crate::SslMode::Require);
    let pool = config.pool("app", "ann").expect("a pool");
    assert_eq!((pool.pool.size, pool.max_pinned, pool.dbname.as_str()), (5, 2, "app"));
    let pool = config.pool("any", "ann").expect("a pool");
    assert_eq!((pool.max_pinned, pool.dbname.as_str(), pool.user.as_str()), (4, "any", "ann"));
    assert_eq!(config.databases["*"].pool.max_pinned, MaxPinned::Servers(4));
}

#[test]
fn a_wrong_flag_is_named() {
    let flags = Overrides { pool_mode: Some("fast".to_owned()), ..Overrides::default() };
    let found = load_file("flag", USABLE, &[], flags).expect_err("a wrong flag").to_string();
    assert!(found.starts_with("--pool-mode: pool_mode = \"fast\": expected session"), "{found}");
}

#[test]
fn nothing_at_all_is_told_what_to_give() {
    let flags = Overrides { config: Some("/dev/null".into()), ..Overrides::default() };
    let found = load(&flags, env(&[])).expect_err("nothing").to_string();
    assert!(
        found.starts_with("/dev/null: databases: there is no database: give --upstream"),
        "{found}"
    );
}

#[test]
fn all_errors_are_told_at_once() {
    let found = errors("several", "pool_size = 0\nworker = 1\nlog_format = \"xml\"", &[]);
    let keys: Vec<&str> = found.iter().map(|error| error.key.as_str()).collect();
    assert_eq!(keys, ["log_format", "pool_size", "worker"]);
}

#[test]
fn a_file_that_is_missing_or_no_toml_is_named_and_not_quoted() {
    let overrides = Overrides { config: Some("/nowhere/x.toml".into()), ..Overrides::default() };
    let found = load(&overrides, env(&[])).expect_err("no such file").to_string();
    assert!(found.starts_with("/nowhere/x.toml: cannot read: No such file"), "{found}");

    let text = "pool_size = 5\n[users.ann]\npassword = \"hunter2";
    let found =
        load_file("toml", text, &[], Overrides::default()).expect_err("no TOML").to_string();
    assert!(found.contains("pgimbal.toml: line 3, column "), "{found}");
    assert!(!found.contains("hunter2"), "{found}");
}

#[test]
fn no_error_holds_a_secret() {
    let found = errors(
        "secrets",
        "[databases.x]\nhost = \"ann:hunter3@h\"\n[users.bob]\npassword = 3003",
        &[],
    );
    assert_eq!(found.len(), 2);
    for error in found {
        let text = format!("{error} {error:?}");
        assert!(!text.contains("hunter3") && !text.contains("3003"), "{text}");
    }
}

#[test]
fn a_configuration_prints_no_secret() {
    let config = load_file("print", USABLE, &[], Overrides::default()).expect("usable");
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn the_example_is_usable() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/pgimbal.toml");
    let overrides = Overrides { config: Some(path.into()), ..Overrides::default() };
    let config = load(&overrides, env(&[])).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(config.pool("app", "app").is_some());
}

#[test]
fn every_commented_option_of_the_example_is_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/pgimbal.toml");
    let text = std::fs::read_to_string(path).expect("deploy/pgimbal.toml");
    // Options that are commented out begin with "#" and no blank, unlike prose.
    let text: Vec<&str> = text
        .lines()
        .map(|line| line.strip_prefix('#').filter(|l| !l.starts_with(' ')).unwrap_or(line))
        .collect();
    let found = match load_file("example", &text.join("\n"), &[], Overrides::default()) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().cloned().collect(),
    };
    // Files and directories that it names need not be on this machine.
    let wrong: Vec<_> = found.iter().filter(|e| !e.cause.contains("No such file")).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_client_may_log_in_to_a_database_of_any_name() {
    let variables: BTreeMap<_, _> =
        env(&[("PGDATABASE", "pgimbal"), ("PGPASSWORD", "p")]).collect();
    let (pool, _) = client_login(&"postgres://ann@h:1".into(), &variables).expect("usable");
    assert_eq!((&*pool.dbname, &*pool.user, pool.port), ("pgimbal", "ann", 1));
    assert_eq!(pool.login.fixed().map(Secret::expose), Some("p"));
    for (url, cause) in [
        ("postgres://u:hunter2@h/d?sslmod=x", "sslmode"),
        ("postgres://u:hunter2@h/d?sslmode=x", "sslmode"),
        ("postgres://u:hunter2@h/%2a", "names no login"),
    ] {
        let errors = client_login(&url.into(), &BTreeMap::new()).expect_err(url).to_string();
        assert!(errors.contains("URL") && errors.contains(cause), "{url}: {errors}");
        assert!(!errors.contains("hunter2"), "{errors}");
    }
}
