//! PgBouncer's option names and files: they are recognised in errors, never accepted.

/// The section of PgBouncer's file that holds its options.
pub(crate) const SECTION: &str = "pgbouncer";

/// The hint for an option of PgBouncer's, to follow the word "here"; `None` for a name that is not
/// PgBouncer's.
pub(crate) fn here(key: &str) -> Option<String> {
    let renamed = RENAMED.iter().find(|(theirs, _)| *theirs == key);
    let meant = renamed.map(|(_, ours)| format!("it is {ours}"));
    meant.or_else(|| {
        let (_, why) = WITHOUT.iter().find(|(names, _)| names.contains(&key))?;
        Some(format!("there is no such option: {why}"))
    })
}

/// Whether the text of a file that is no TOML looks like `pgbouncer.ini`.
pub(crate) fn is_ini(text: &str) -> bool {
    text.lines().map(str::trim).any(|line| {
        let is_entry = line.split_once('=').is_some_and(|(_, value)| is_connection(value));
        line == "[pgbouncer]" || line.starts_with(';') || is_entry
    })
}

/// Whether it is a connection string, as its `[databases]` section has them.
pub(crate) fn is_connection(text: &str) -> bool {
    CONNECTION_WORDS.iter().any(|word| text.trim().starts_with(word))
}

/// How a connection string of its `[databases]` section begins.
const CONNECTION_WORDS: [&str; 4] = ["host=", "port=", "dbname=", "user="];

/// Its options that have another name here.
const RENAMED: [(&str, &str); 24] = [
    ("listen_addr", "`listen`, with the port: listen = [\"0.0.0.0:6432\"]"),
    ("listen_port", "part of `listen`: listen = [\"0.0.0.0:6432\"]"),
    ("default_pool_size", "`pool_size`"),
    ("reserve_pool", "`reserve_pool_size`"),
    ("reserve_pool_timeout", "`reserve_timeout`, with a unit"),
    ("server_reset_query", "`reset_query`"),
    ("server_reset_query_always", "`reset_query_always`"),
    ("tcp_keepcnt", "`tcp_keepalive_count`"),
    ("tcp_keepidle", "`tcp_keepalive_idle`, with a unit"),
    ("tcp_keepintvl", "`tcp_keepalive_interval`, with a unit"),
    ("verbose", "`log`, with the level \"debug\""),
    ("log_connections", "`log`: the level \"info\" has a line for each connection"),
    ("log_disconnections", "`log`: the level \"info\" has a line for each connection"),
    ("log_pooler_errors", "`log`"),
    ("auth_file", "a table [users.NAME] for each user, with `password`"),
    ("client_tls_sslmode", "`sslmode` in [client_tls]"),
    ("client_tls_key_file", "`key_file` in [client_tls]"),
    ("client_tls_cert_file", "`cert_file` in [client_tls]"),
    ("client_tls_ca_file", "`ca_file` in [client_tls]"),
    ("server_tls_sslmode", "`sslmode` in [server_tls]"),
    ("server_tls_key_file", "`key_file` in [server_tls]"),
    ("server_tls_cert_file", "`cert_file` in [server_tls]"),
    ("server_tls_ca_file", "`ca_file` in [server_tls]"),
    ("idle_in_transaction_timeout", "`idle_transaction_timeout`, with a unit"),
];

/// Its options that have no counterpart, with the reason.
const WITHOUT: [(&[&str], &str); 10] = [
    (
        &["auth_query", "auth_user", "auth_dbname"],
        "users are listed in [users.NAME], or a rule [users.\"*\"] names their source",
    ),
    (
        &["auth_hba_file", "auth_ident_file"],
        "`auth_type` holds for everybody, and `listen` says who can come",
    ),
    (
        &["ignore_startup_parameters", "track_extra_parameters", "connect_query"],
        "every setting of a client follows it",
    ),
    (
        &["logfile", "syslog", "syslog_facility", "syslog_ident"],
        "the log goes to standard error, for systemd or a container's log",
    ),
    (&["pidfile", "job_name", "service_name", "conffile"], "systemd or Kubernetes knows it"),
    (&["log_stats", "stats_period"], "`http_listen` serves /metrics, and SHOW STATS shows them"),
    (
        &["server_check_delay", "server_check_query", "server_fast_close", "server_round_robin"],
        "it is not needed: an idle server connection that broke is seen at once",
    ),
    (
        &["max_user_client_connections", "max_db_client_connections"],
        "`max_client_conn` is the limit of all clients together",
    ),
    (
        &["dns_max_ttl", "dns_nxdomain_ttl", "dns_zone_check_period", "resolv_conf"],
        "names are looked up for each connection, as the system does",
    ),
    (
        &[
            "pkt_buf",
            "sbuf_loopcnt",
            "max_packet_size",
            "so_reuseport",
            "tcp_defer_accept",
            "tcp_socket_buffer",
            "tcp_keepalive",
            "suspend_timeout",
            "autodb_idle_timeout",
            "disable_pqexec",
            "scram_iterations",
            "unix_socket_group",
            "client_tls_protocols",
            "client_tls_ciphers",
            "server_tls_protocols",
            "server_tls_ciphers",
            "application_name_add_host",
        ],
        "what it tunes works without it",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_renamed_is_an_option_and_the_old_name_is_none() {
        let reference = crate::reference();
        for (theirs, ours) in RENAMED {
            assert!(!reference.contains(&format!("| `{theirs}` |")), "{theirs} is an option");
            if let Some(name) = ours.strip_prefix('`').and_then(|rest| rest.split('`').next()) {
                assert!(reference.contains(&format!("| `{name}` |")), "{name} is no option");
            }
        }
        for name in WITHOUT.iter().flat_map(|(names, _)| *names) {
            assert!(!reference.contains(&format!("| `{name}` |")), "{name} is an option");
        }
    }

    #[test]
    fn its_file_is_recognised() {
        assert!(is_ini("[databases]\napp = host=10.0.0.1 dbname=app\n"));
        assert!(is_ini("; a comment\n[pgbouncer]\nlisten_port = 6432\n"));
        assert!(!is_ini("[databases.app]\nhost = \"h\"\nport = \n"));
    }
}
