//! What is said of a file, a key or a value that cannot be.

use super::*;

#[test]
fn unknown_keys_are_refused_with_a_suggestion_and_without_their_value() {
    let hint = "lists them";
    for (text, variables, expected) in [
        (
            "pool_sise = 5",
            vec![],
            "pgimbal.toml: pool_sise: unknown key (did you mean \"pool_size\"?)",
        ),
        (
            "",
            vec![("PGIMBAL_MAX_CLIENT_CON", "5")],
            "PGIMBAL_MAX_CLIENT_CON: max_client_con: unknown key (did you mean \"max_client_conn\"?)",
        ),
        (
            "[databases.x]\nhots = \"h\"",
            vec![],
            "pgimbal.toml: databases.x.hots: unknown key (did you mean \"host\"?)",
        ),
        (
            "[databases.x.server_tls]\nsslmod = \"h\"",
            vec![],
            "pgimbal.toml: databases.x.server_tls.sslmod: unknown key (did you mean \"sslmode\"?)",
        ),
        (
            "[users.x]\npasword = \"hunter3\"",
            vec![],
            "pgimbal.toml: users.x.pasword: unknown key (did you mean \"password\"?)",
        ),
        (
            "[user.x]\npassword = \"hunter3\"",
            vec![],
            "pgimbal.toml: user: unknown key (did you mean \"users\"?)",
        ),
        (
            "[client_tls]\ncertfile = \"x\"",
            vec![],
            "pgimbal.toml: client_tls.certfile: unknown key (did you mean \"cert_file\"?)",
        ),
    ] {
        let found = only("unknown", text, &variables);
        assert!(found.starts_with(expected) && found.ends_with(hint), "{found}");
        assert!(!found.contains("hunter"), "{found}");
    }
}

#[test]
fn a_key_in_the_wrong_place_is_told_the_right_one() {
    for (text, variables, expected) in [
        (
            "[databases.x]\nmax_client_conn = 5",
            vec![],
            "databases.x.max_client_conn: is an option of the top level: write it at the top",
        ),
        (
            "probe_interval = \"9s\"",
            vec![],
            "probe_interval: does not belong here: it is an option of [clusters.NAME]",
        ),
        (
            "",
            vec![("PGIMBAL_PROBE_INTERVAL", "9s")],
            "PGIMBAL_PROBE_INTERVAL: probe_interval: does not belong here: it is an option of [cl",
        ),
        (
            "host = \"h\"",
            vec![],
            "host: does not belong here: it is an option of [databases.NAME] and [clusters.NAME.nod",
        ),
        (
            "[databases.x]\nsslmode = \"require\"",
            vec![],
            "databases.x.sslmode: does not belong here: it is an option of [client_tls] and [server",
        ),
        (
            "default_pool_size = 5",
            vec![],
            "default_pool_size: is PgBouncer's name: here it is `poo",
        ),
        (
            "listen_addr = \"*\"",
            vec![],
            "listen_addr: is PgBouncer's name: here it is `listen`, with the port",
        ),
        (
            "server_check_delay = 5",
            vec![],
            "server_check_delay: is PgBouncer's name: here there is",
        ),
        ("[pgbouncer]\nlisten_port = 6432", vec![], "pgbouncer: is PgBouncer's section: here its"),
    ] {
        let found = only("place", text, &variables);
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn pgbouncers_file_is_recognised() {
    let ini = "[databases]\napp = host=10.0.0.1 port=5432\n[pgbouncer]\nlisten_port = 6432\n";
    let found = load_file("ini", ini, &[], Overrides::default()).expect_err("an ini file");
    let found = found.to_string();
    assert!(found.contains("line 2, column ") && found.contains("PgBouncer's file"), "{found}");
    let text = "[databases]\napp = \"host=10.0.0.1 port=5432\"\n[users.ann]\npassword = \"x\"\n";
    let found = load_file("form", text, &[], Overrides::default()).expect_err("a text");
    let found = found.to_string();
    assert!(found.contains("databases.app: is PgBouncer's form: here it is a table"), "{found}");
}

#[test]
fn an_error_of_the_file_is_one_line_with_its_place() {
    for (text, place) in [
        ("[users.ann]\npassword = \"hunter2", "line 2, column "),
        ("pool_size = 5\npool_size = 6\n", "line 2, column 1: "),
        ("[databases.app]\n[databases.app]\n", "line 2, column "),
        ("pool_size = 5\n\n[databases.app", "line 3, column "),
        ("pool_size = 5\nworkers = \n", "line 2, column "),
        ("pool_size = 99999999999999999999999\n", "line 1, column "),
        ("a.b = 1\na = 2\n", "line 2, column "),
    ] {
        let found = load_file("line", text, &[], Overrides::default()).expect_err(text).to_string();
        assert!(found.contains(place) && found.lines().count() == 1, "{text}: {found}");
        assert!(!found.contains("hunter2"), "{found}");
    }
    let directory = Directory::new("latin-1");
    let path = directory.path("pgimbal.toml");
    std::fs::write(&path, b"pool_size = 5\n# M\xfcller\n").expect("a file");
    let overrides = Overrides { config: Some(path), ..Overrides::default() };
    let found = load(&overrides, env(&[])).expect_err("not UTF-8").to_string();
    assert!(found.contains("line 2, column 4: what stands there is not UTF-8"), "{found}");
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table of wrong values")]
fn a_wrong_value_is_shown_with_its_place_and_cause() {
    for (text, variables, expected) in [
        ("pool_size = 0", vec![], "pgimbal.toml: pool_size = 0: expected a whole number from 1 to"),
        ("pool_size = -1", vec![], "pgimbal.toml: pool_size = -1: expected a whole number"),
        ("pool_size = [1, \"2\"]", vec![], "pgimbal.toml: pool_size = [1, \"2\"]: expected"),
        (
            "server_lifetime = 30",
            vec![],
            "pgimbal.toml: server_lifetime = 30: expected a number with a unit",
        ),
        (
            "server_lifetime = \"0s\"",
            vec![],
            "pgimbal.toml: server_lifetime = \"0s\": must be more",
        ),
        (
            "query_timeout = \"soon\"",
            vec![],
            "pgimbal.toml: query_timeout = \"soon\": expected a number with a unit (us, ms, s, min, h, d), such as \"30s\", or \"off\"",
        ),
        (
            "max_statement_bytes = 4096",
            vec![],
            "pgimbal.toml: max_statement_bytes = 4096: expected a number with a unit (B",
        ),
        (
            "pool_mode = \"sesion\"",
            vec![],
            "pgimbal.toml: pool_mode = \"sesion\": expected session, transaction or statement (did you mean \"session\"?)",
        ),
        (
            "listen = \"localhost\"",
            vec![],
            "pgimbal.toml: listen = \"localhost\": expected an IP address and a port",
        ),
        ("listen = 6432", vec![], "pgimbal.toml: listen = 6432: expected a list"),
        (
            "unix_socket_mode = 700",
            vec![],
            "pgimbal.toml: unix_socket_mode = 700: expected an octal",
        ),
        (
            "allow_trust_on_network = \"yes\"",
            vec![],
            "pgimbal.toml: allow_trust_on_network = \"yes\": expected true or false",
        ),
        (
            "log = \"inf\"",
            vec![],
            "pgimbal.toml: log = \"inf\": expected off, error, warn, info, debug or trace (did you mean \"info\"?)",
        ),
        ("reset_query = \" \"", vec![], "pgimbal.toml: reset_query = \" \": must not be empty"),
        (
            "max_pinned = \"200%\"",
            vec![],
            "pgimbal.toml: max_pinned = \"200%\": expected a percentage",
        ),
        (
            "[databases.x]\nhost = \"a:5432\"",
            vec![],
            "databases.x.host = \"a:5432\": expected a host name without a port: write the port",
        ),
        (
            "[databases.x]\nhost = \"a,b\"",
            vec![],
            "databases.x.host = \"a,b\": names several hosts: list them as nodes of a cluster",
        ),
        ("[databases.x]\nhost = \"[::1]\"", vec![], "an IPv6 address stands here without [ and ]"),
        ("[databases.x]\nhost = \"http://h\"", vec![], "expected a host name, found a URL"),
        (
            "[clusters.c]\nprobe_user = \"app\"\ndns = \"pg:5432\"",
            vec![],
            "clusters.c.dns = \"pg:5432\": expected a host name without a port",
        ),
        ("databases = 5", vec![], "expected a table, [databases]"),
        ("", vec![("PGIMBAL_WORKERS", "many")], "PGIMBAL_WORKERS: workers = \"many\": expected"),
        (
            "",
            vec![("PGIMBAL_DATABASES__APP__PORT", "0")],
            "PGIMBAL_DATABASES__APP__PORT: databases.app.port = \"0\": expected a whole number from 1 to 65535",
        ),
    ] {
        let text = text.replace("databases = 5", "users = 5");
        let expected = expected.replace("[databases]", "[users]");
        let usable = if text.contains("users") { "[databases.app]" } else { USABLE };
        let text = format!("{text}\n{usable}");
        let found = load_file("wrong", &text, &variables, Overrides::default()).expect_err(&text);
        let found = found.to_string();
        assert!(found.lines().count() == 1 && found.contains(&expected), "{found}\n{expected}");
    }
}
