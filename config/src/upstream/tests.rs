//! A URI, libpq's variables and a password file make a configuration.

use crate::scratch::Directory;
use crate::{
    AuthType, ChannelBinding, Config, ConfigErrors, Host, Overrides, PoolMode, ResolvedPool,
    Secret, SslMode, load,
};

fn load_uri(uri: &str, env: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let overrides = Overrides { upstream: Some(uri.into()), ..Overrides::default() };
    let env: Vec<_> = env.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    load(&overrides, env.into_iter())
}

fn pool(config: &Config, database: &str, user: &str) -> ResolvedPool {
    config.pool(database, user).expect("a pool")
}

fn password(pool: &ResolvedPool) -> Option<&str> {
    pool.login.fixed().map(Secret::expose)
}

#[test]
fn a_uri_is_enough() {
    let uri = "postgres://ann:s%40cret@db.example:5433/app?sslmode=require&connect_timeout=3";
    let config = load_uri(uri, &[]).expect("usable");
    assert_eq!(config.listen.addresses, ["127.0.0.1:6432".parse().expect("an address")]);
    assert_eq!(config.clients.auth_type, AuthType::ScramSha256);
    assert_eq!(config.users["ann"].password.as_ref().map(Secret::expose), Some("s@cret"));
    for (database, dbname) in [("app", "app"), ("other", "other")] {
        let pool = pool(&config, database, "ann");
        assert_eq!(pool.host, Host::Tcp("db.example".to_owned()));
        assert_eq!((pool.port, pool.dbname.as_str(), pool.user.as_str()), (5433, dbname, "ann"));
        assert_eq!(password(&pool), Some("s@cret"));
        assert_eq!(pool.tls.mode, SslMode::Require);
        assert_eq!(pool.pool.mode, PoolMode::Transaction);
        assert_eq!(pool.pool.server_connect_timeout.as_secs(), 3);
    }
    assert!(config.pool("app", "bob").is_none());
}

#[test]
fn the_systems_authorities_are_for_whole_verification() {
    let system = "postgres://u:hunter2@h/d?sslrootcert=system";
    let variables = [("PGSSLROOTCERT", "system")];
    let full = format!("{system}&sslmode=verify-full");
    let given: [(&str, &[(&str, &str)]); 3] =
        [(system, &[]), (&full, &[]), ("postgres://u:hunter2@h/d", &variables)];
    for (uri, env) in given {
        let config = load_uri(uri, env).expect(uri);
        for database in ["d", "other"] {
            let tls = pool(&config, database, "u").tls;
            assert_eq!(tls.mode, SslMode::VerifyFull, "{uri}");
            assert_eq!(tls.ca_file.as_deref(), Some("system".as_ref()), "{uri}");
        }
    }
    // As in libpq, whichever said it.
    let (weak, unused) = ("\"verify-full\"", "would not be used");
    let modes = [
        ("disable", unused),
        ("allow", weak),
        ("prefer", weak),
        ("require", weak),
        ("verify-ca", weak),
    ];
    for (mode, words) in modes {
        for (uri, env) in [
            (format!("{system}&sslmode={mode}"), vec![]),
            (system.to_owned(), vec![("PGSSLMODE", mode)]),
        ] {
            let refused = load_uri(&uri, &env).expect_err(mode).to_string();
            assert!(refused.contains(words), "{mode}: {refused}");
        }
    }
}

#[test]
fn libpqs_variables_fill_the_gaps_and_lose_to_the_uri() {
    let env = [
        ("PGHOST", "/run/pg"),
        ("PGPORT", "5434"),
        ("PGUSER", "bob"),
        ("PGPASSWORD", "p"),
        ("PGDATABASE", "shop"),
        ("PGSSLMODE", "disable"),
    ];
    let config = load_uri("postgres://", &env).expect("usable");
    let all = pool(&config, "shop", "bob");
    assert_eq!(all.host, Host::Unix("/run/pg".into()));
    assert_eq!((all.port, all.dbname.as_str(), all.user.as_str()), (5434, "shop", "bob"));
    assert_eq!(password(&all), Some("p"));
    assert!(config.databases.contains_key("shop"));

    let config = load_uri("postgresql://ann:q@h:1/app", &env).expect("usable");
    let none = pool(&config, "app", "ann");
    assert_eq!((none.host.to_string(), none.port, password(&none)), ("h".to_owned(), 1, Some("q")));
    assert_eq!(none.tls.mode, SslMode::Disable);
}

#[test]
fn the_system_user_and_its_database_come_last() {
    let config =
        load_uri("postgres://h", &[("USER", "carl"), ("PGPASSWORD", "p")]).expect("usable");
    assert_eq!(pool(&config, "carl", "carl").user, "carl");
    assert!(config.databases.contains_key("carl"));
    let found = load_uri("postgres://h", &[("PGPASSWORD", "p")]).expect_err("no user").to_string();
    assert!(found.contains("names no user"), "{found}");
}

#[test]
fn the_password_file_is_asked_when_nothing_else_knows() {
    let directory = Directory::new("upstream-pgpass");
    let path = directory.file(".pgpass", "h:5432:app:ann:from the file\n");
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, permissions).expect("chmod");
    let home = directory.path("").display().to_string();
    let from = |uri: &str, env: &[(&str, &str)]| {
        let config = load_uri(uri, env).expect(uri);
        pool(&config, "app", "ann").login.fixed().map(|p| p.expose().to_owned())
    };
    let expected = Some("from the file".to_owned());
    assert_eq!(from("postgres://ann@h/app", &[("HOME", &home)]), expected);
    let file = path.display().to_string();
    assert_eq!(from("postgres://ann@h/app", &[("PGPASSFILE", &file)]), expected);
    let uri = format!("postgres://ann@h/app?passfile={file}");
    assert_eq!(from(&uri, &[("HOME", "/nowhere")]), expected);
    let env = [("HOME", home.as_str()), ("PGPASSWORD", "from the variable")];
    assert_eq!(from("postgres://ann@h/app", &env).as_deref(), Some("from the variable"));
}

#[test]
fn what_providers_write_into_their_uris_is_taken() {
    let uri = "postgres://ann:p@ep-1.example/app?sslmode=require&channel_binding=require\
               &application_name=shop&options=-c%20statement_timeout%3D5s%20-c%20a.b%3D1\
               &gssencmode=disable&target_session_attrs=read-write&keepalives=1\
               &keepalives_idle=30&keepalives_interval=5&keepalives_count=4&tcp_user_timeout=9000";
    let config = load_uri(uri, &[]).expect("usable");
    let pool = pool(&config, "app", "ann");
    assert_eq!(pool.options.as_deref(), Some("-c statement_timeout=5s -c a.b=1"));
    assert_eq!(pool.tls.channel_binding, ChannelBinding::Require);
    let tcp = &config.clients.tcp;
    let seconds = [tcp.keepalive_idle, tcp.keepalive_interval, tcp.user_timeout];
    assert_eq!(seconds.map(|span| span.as_secs()), [30, 5, 9]);
    assert_eq!(tcp.keepalive_count, 4);

    let env = [("PGOPTIONS", "-c work_mem=8MB"), ("PGAPPNAME", "psql"), ("PGGSSENCMODE", "prefer")];
    let config = load_uri("postgres://ann:p@h/app?keepalives_idle=0", &env).expect("usable");
    assert_eq!(config.databases["app"].options.as_deref(), Some("-c work_mem=8MB"));
    assert_eq!(config.clients.tcp.keepalive_idle.as_secs(), 60);
}

#[test]
fn trusted_clients_share_the_upstreams_login() {
    let overrides = Overrides {
        upstream: Some("postgres://ann:p@h/app".into()),
        auth_type: Some("trust".to_owned()),
        ..Overrides::default()
    };
    let config = load(&overrides, std::iter::empty()).expect("usable");
    let pool = pool(&config, "app", "anybody");
    assert_eq!((pool.user.as_str(), password(&pool)), ("ann", Some("p")));
}

#[test]
fn the_variable_stands_for_the_flag() {
    let env = [("PGIMBAL_UPSTREAM".to_owned(), "postgres://ann:p@h/app".to_owned())];
    let config = load(&Overrides::default(), env.into_iter()).expect("usable");
    assert_eq!(pool(&config, "app", "ann").host.to_string(), "h");
}

#[test]
fn an_upstream_adds_to_a_file_that_is_named() {
    let directory = Directory::new("upstream-file");
    let text = "pool_size = 4\n[databases.app]\nhost = \"old\"\nmin_pool_size = 2\n";
    let overrides = Overrides {
        config: Some(directory.file("c.toml", text)),
        upstream: Some("postgres://ann:p@new/app".into()),
        ..Overrides::default()
    };
    let config = load(&overrides, std::iter::empty()).expect("usable");
    let app = pool(&config, "app", "ann");
    assert_eq!((app.host.to_string(), app.pool.size, app.pool.min_size), ("new".to_owned(), 4, 2));
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table of wrong URIs")]
fn errors_name_the_source_and_hide_the_uri() {
    for (uri, env, expected) in [
        ("mysql://u:hunter2@h", vec![], "--upstream: expected a URI that begins with postgres://"),
        (
            "postgres://u:hun/ter2@h/d",
            vec![],
            "--upstream: its user or password holds a \"/\": write that as %2F",
        ),
        (
            "postgres://u:hun@ter2@h/d",
            vec![],
            "--upstream: its user or password holds a \"@\": write that as %40",
        ),
        (
            "postgres://u:hunter2@h,i/d",
            vec![],
            "--upstream: names several hosts, and pgimbal takes",
        ),
        ("postgres://u:hunter2@/d?host=h,i", vec![], "--upstream: host: names several hosts: list"),
        (
            "postgres://u:hunter2@h/d?gssencmode=require",
            vec![],
            "--upstream: gssencmode: pgimbal has no GSSAPI encryption",
        ),
        (
            "postgres://u:hunter2@h/d?target_session_attrs=writer",
            vec![],
            "--upstream: target_session_attrs: expected one of any, read-write",
        ),
        (
            "postgres://u:hunter2@h/d?channel_binding=yes",
            vec![],
            "--upstream: channel_binding: expected disable, prefer or require",
        ),
        (
            "postgres://u:hunter2@h/d?channel_binding=require",
            vec![],
            "--upstream: databases.*.server_tls.channel_binding = \"require\": needs sslmode",
        ),
        (
            "postgres://u:hunter2@h/d?keepalives_count=many",
            vec![],
            "--upstream: keepalives_count: expected a number",
        ),
        ("postgres://u:hunter2@h:0/d", vec![], "--upstream: port: expected a whole number"),
        (
            "postgres://u:hunter2@h/d?sslmod=require",
            vec![],
            "--upstream: unknown parameter \"sslmod\" (did you mean \"sslmode\"?)",
        ),
        ("postgres://u:hunter2@h/d?sslmode=on", vec![], "--upstream: sslmode: expected disable"),
        (
            "postgres://u:hunter2@h/d",
            vec![("PGPORT", "many")],
            "PGPORT = \"many\": expected a whole",
        ),
        (
            "postgres://u:hunter2@h/d",
            vec![("PGSSLMODE", "requires")],
            "PGSSLMODE = \"requires\": expected disable",
        ),
        (
            "postgres://u:hunter2@h/d?connect_timeout=3s",
            vec![],
            "--upstream: connect_timeout: expected a number of seconds",
        ),
        ("postgres://u:hunter2@h/pgimbal", vec![], "--upstream: databases.pgimbal: the name"),
        (
            "postgres://u:hunter2@h/d?sslmode=verify-full",
            vec![],
            "--upstream: databases.*.server_tls.sslmode = \"verify-full\": it needs ca_file",
        ),
    ] {
        let found = load_uri(uri, &env).expect_err(uri).to_string();
        assert!(found.starts_with(expected), "{uri}: {found}");
        assert!(!found.contains("hun"), "{uri}: {found}");
    }
}
