//! SHOW CONFIG: the options in force, with their defaults. Databases and users have tables of
//! their own, and options that are secrets stand nowhere but there, unshown.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use pgimbal_config::{
    ClientConfig, Config, CredentialConfig, MaxPinned, PeersConfig, PoolConfig, Secret, ServerTls,
    StoreConfig, TelemetryConfig,
};

use super::answer::{Cell, Column, Row, text};

/// PgBouncer's columns.
pub(super) const CONFIG: &[Column] =
    &[text("key"), text("value"), text("default"), text("changeable")];

/// Options that wait for a restart, as the reference says.
const NEED_RESTART: &[&str] = &[
    "listen",
    "proxy_protocol",
    "read_listen",
    "auto_listen",
    "primary_listen",
    "unix_socket_dir",
    "unix_socket_mode",
    "unix_socket_port",
    "listen_backlog",
    "http_listen",
    "log",
    "log_format",
    "workers",
    "state_dir",
    "deployment_key",
    "deployment_key_previous",
    "credential_history",
    "password_cache",
    "peers.listen",
    "peers.dns",
    "peers.addresses",
    "peers.replica_name",
    "peers.peer_id",
    "telemetry.otlp_endpoint",
    "telemetry.otlp_interval",
    "telemetry.trace_ratio",
    "max_replicas",
    "store.kind",
    "store.file",
    "store.secret",
    "store.namespace",
    "store.kubeconfig",
    "store.vault",
    "store.vault_mount",
    "store.vault_path",
];

/// The rows of SHOW CONFIG.
pub(super) fn config(config: &Config) -> Vec<Row> {
    let defaults = options(&Config::default());
    let row = |((key, value), (_, default)): ((String, String), (String, String))| -> Row {
        let changeable = if NEED_RESTART.contains(&key.as_str()) { "no" } else { "yes" };
        let cells: [Cell; 4] = [key.into(), value.into(), default.into(), changeable.into()];
        cells.into()
    };
    options(config).into_iter().zip(defaults).map(row).collect()
}

/// Every option outside databases and users, with its value as the file would have it.
fn options(config: &Config) -> Vec<(String, String)> {
    let mut list = Vec::new();
    list.extend(process(config));
    list.extend(clients(&config.clients));
    list.extend(pool(&config.pool));
    list.extend(credentials(&config.credentials));
    list.extend(server_tls(&config.server_tls));
    list.extend(peers(&config.peers));
    list.extend(store(&config.store));
    list.extend(telemetry(&config.telemetry));
    list.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

type Options<const N: usize> = [(&'static str, String); N];

fn process(config: &Config) -> Options<23> {
    let (listen, page) = (&config.listen, &config.http.access);
    // Whether there is one is all that may be known of it.
    let hidden = |token: &Option<Secret>| token.as_ref().map_or("", |_| "***").to_owned();
    [
        ("listen", list(&listen.addresses)),
        ("proxy_protocol", list(&listen.proxy_protocol)),
        ("read_listen", list(&listen.read_listen)),
        ("auto_listen", list(&listen.auto_listen)),
        ("primary_listen", list(&listen.primary_listen)),
        ("unix_socket_dir", path(listen.unix_socket_dir.as_deref())),
        ("unix_socket_mode", format!("{:04o}", listen.unix_socket_mode)),
        ("unix_socket_port", listen.unix_socket_port.to_string()),
        ("listen_backlog", listen.backlog.to_string()),
        ("http_listen", or_off(config.http.listen)),
        ("http.token", hidden(&page.token)),
        ("http.token_file", path(page.token_file.as_deref())),
        ("http.admin_token", hidden(&page.admin_token)),
        ("http.admin_token_file", path(page.admin_token_file.as_deref())),
        ("log", config.log.filter.clone()),
        ("log_format", config.log.format.as_str().to_owned()),
        ("workers", config.workers.to_string()),
        ("admin_users", list(&config.admin_users)),
        ("stats_users", list(&config.stats_users)),
        ("drain_delay", span(config.drain_delay)),
        ("shutdown_grace", span(config.shutdown_grace)),
        ("max_replicas", config.max_replicas.to_string()),
        ("zone", config.zone.clone().unwrap_or_default()),
    ]
}

fn clients(clients: &ClientConfig) -> Options<17> {
    let (tcp, tls) = (&clients.tcp, &clients.tls);
    [
        ("max_client_conn", clients.max_client_conn.to_string()),
        ("max_login_conn", clients.login_conn().to_string()),
        ("max_login_conn_per_address", clients.login_conn_per_address().to_string()),
        ("auth_type", clients.auth_type.as_str().to_owned()),
        ("allow_trust_on_network", clients.allow_trust_on_network.to_string()),
        ("client_login_timeout", span(clients.login_timeout)),
        ("client_first_packet_timeout", span(clients.first_packet_timeout)),
        ("client_idle_timeout", or_off(clients.idle_timeout.map(span))),
        ("client_stall_timeout", span(clients.stall_timeout)),
        ("tcp_keepalive_idle", span(tcp.keepalive_idle)),
        ("tcp_keepalive_interval", span(tcp.keepalive_interval)),
        ("tcp_keepalive_count", tcp.keepalive_count.to_string()),
        ("tcp_user_timeout", span(tcp.user_timeout)),
        ("client_tls.sslmode", tls.mode.as_str().to_owned()),
        ("client_tls.cert_file", path(tls.cert_file.as_deref())),
        ("client_tls.key_file", path(tls.key_file.as_deref())),
        ("client_tls.ca_file", path(tls.ca_file.as_deref())),
    ]
}

fn pool(pool: &PoolConfig) -> Options<26> {
    [
        ("pool_mode", pool.mode.as_str().to_owned()),
        ("pool_size", pool.size.to_string()),
        ("min_pool_size", pool.min_size.to_string()),
        ("reserve_pool_size", pool.reserve_size.to_string()),
        ("reserve_timeout", span(pool.reserve_timeout)),
        ("max_pinned", max_pinned(pool.max_pinned)),
        ("query_wait_timeout", span(pool.query_wait_timeout)),
        ("server_lifetime", span(pool.server_lifetime)),
        ("server_idle_timeout", span(pool.server_idle_timeout)),
        ("server_connect_timeout", span(pool.server_connect_timeout)),
        ("server_login_retry", span(pool.server_login_retry)),
        ("failover_hold", or_off(pool.failover_hold.map(span))),
        ("require_auth", pool.require_auth.map_or_else(String::new, |methods| methods.to_string())),
        ("query_timeout", or_off(pool.query_timeout.map(span))),
        ("transaction_timeout", or_off(pool.transaction_timeout.map(span))),
        ("idle_transaction_timeout", or_off(pool.idle_transaction_timeout.map(span))),
        ("cancel_wait_timeout", span(pool.cancel_wait_timeout)),
        ("reset_query", pool.reset_query.clone()),
        ("reset_query_always", pool.reset_query_always.to_string()),
        ("verify", pool.verify.as_str().to_owned()),
        ("hidden_state", pool.hidden_state.as_str().to_owned()),
        ("listen_mode", pool.listen_mode.as_str().to_owned()),
        ("on_client_gone", pool.on_client_gone.as_str().to_owned()),
        ("max_prepared_statements", pool.max_prepared_statements.to_string()),
        ("max_statement_bytes", format!("{}B", pool.max_statement_bytes)),
        ("max_client_statement_bytes", format!("{}B", pool.max_client_statement_bytes)),
    ]
}

fn credentials(own: &CredentialConfig) -> Options<7> {
    [
        ("state_dir", path(own.state_dir.as_deref())),
        // Whether there is one is all that may be known of it.
        ("deployment_key", own.deployment_key.as_ref().map_or("", |_| "***").to_owned()),
        (
            "deployment_key_previous",
            own.deployment_key_previous.as_ref().map_or("", |_| "***").to_owned(),
        ),
        ("grace_generations", own.grace_generations.to_string()),
        ("grace_age", or_off(own.grace_age.map(span))),
        ("credential_history", own.history.as_str().to_owned()),
        ("password_cache", own.password_cache.to_string()),
    ]
}

fn server_tls(tls: &ServerTls) -> Options<6> {
    let begins = if tls.direct { "direct" } else { "postgres" };
    [
        ("server_tls.sslmode", tls.mode.as_str().to_owned()),
        ("server_tls.ca_file", path(tls.ca_file.as_deref())),
        ("server_tls.cert_file", path(tls.cert_file.as_deref())),
        ("server_tls.key_file", path(tls.key_file.as_deref())),
        ("server_tls.sslnegotiation", begins.to_owned()),
        ("server_tls.channel_binding", tls.channel_binding.as_str().to_owned()),
    ]
}

fn store(store: &StoreConfig) -> Options<8> {
    [
        ("store.kind", store.kind.as_str().to_owned()),
        ("store.file", path(store.file.as_deref())),
        ("store.secret", store.secret.clone()),
        ("store.namespace", store.namespace.clone().unwrap_or_default()),
        ("store.kubeconfig", path(store.kubeconfig.as_deref())),
        ("store.vault", store.vault.clone().unwrap_or_default()),
        ("store.vault_mount", store.vault_mount.clone()),
        ("store.vault_path", store.vault_path.clone()),
    ]
}

fn peers(peers: &PeersConfig) -> Options<5> {
    [
        ("peers.listen", or_off(peers.listen)),
        ("peers.dns", peers.dns.clone().unwrap_or_default()),
        ("peers.addresses", list(&peers.addresses)),
        ("peers.replica_name", peers.replica_name.clone().unwrap_or_default()),
        ("peers.peer_id", peers.peer_id.map_or_else(String::new, |id| id.to_string())),
    ]
}

fn telemetry(telemetry: &TelemetryConfig) -> Options<3> {
    let ratio = f64::from(telemetry.trace_millionths) / 1e6;
    [
        ("telemetry.otlp_endpoint", telemetry.otlp_endpoint.clone().unwrap_or_default()),
        ("telemetry.otlp_interval", span(telemetry.otlp_interval)),
        ("telemetry.trace_ratio", ratio.to_string()),
    ]
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

fn path(path: Option<&Path>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}

fn or_off<T: Display>(value: Option<T>) -> String {
    value.map_or_else(|| "off".to_owned(), |value| value.to_string())
}

fn max_pinned(limit: MaxPinned) -> String {
    match limit {
        MaxPinned::Percent(percent) => format!("{percent}%"),
        MaxPinned::Servers(servers) => servers.to_string(),
    }
}

/// A duration in the largest unit that leaves a whole number.
fn span(span: Duration) -> String {
    const UNITS: [(&str, u128); 6] = [
        ("d", 86_400_000_000),
        ("h", 3_600_000_000),
        ("min", 60_000_000),
        ("s", 1_000_000),
        ("ms", 1_000),
        ("us", 1),
    ];
    let micros = span.as_micros();
    let fits = |(_, size): &&(&str, u128)| micros >= *size && micros.is_multiple_of(*size);
    UNITS
        .iter()
        .find(fits)
        .map_or_else(|| "0s".into(), |(unit, size)| format!("{}{unit}", micros / size))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys of the reference outside databases and users, each with whether a reload applies it.
    fn referenced() -> Vec<(String, bool)> {
        let mut table = String::new();
        let mut keys = Vec::new();
        for line in pgimbal_config::reference().lines() {
            if let Some(title) = line.strip_prefix("## ") {
                table = match title {
                    "Top level" => String::new(),
                    other => format!("{}.", other.trim_matches(['[', ']'])),
                };
            } else if let Some(row) = line.strip_prefix("| `") {
                let columns: Vec<_> = row.split(" | ").collect();
                let key = columns[0].trim_end_matches('`');
                keys.push((format!("{table}{key}"), columns[3] == "yes"));
            }
        }
        let named = ["databases.", "users.", "vaults.", "clusters."];
        keys.retain(|(key, _)| !named.iter().any(|table| key.starts_with(table)));
        keys.sort();
        keys
    }

    #[test]
    fn every_option_of_the_reference_is_shown_with_what_a_reload_does() {
        let mut shown: Vec<_> = config(&Config::default())
            .into_iter()
            .map(|row| match row.as_slice() {
                [Cell::Text(key), _, _, Cell::Text(changeable)] => {
                    (key.clone(), changeable == "yes")
                }
                other => panic!("{other:?}"),
            })
            .collect();
        shown.sort();
        assert_eq!(shown, referenced());
    }

    #[test]
    fn values_stand_beside_their_defaults() {
        let mut changed = Config::default();
        changed.pool.size = 33;
        changed.pool.query_timeout = Some(Duration::from_millis(1_500));
        let rows = config(&changed);
        let row = |key: &str| rows.iter().find(|row| row[0] == key.into()).unwrap();
        assert_eq!(row("pool_size")[1..3], ["33".into(), "20".into()]);
        assert_eq!(row("query_timeout")[1..3], ["1500ms".into(), "off".into()]);
        assert_eq!(row("server_lifetime")[1], "1h".into());
        assert_eq!(row("max_pinned")[1], "75%".into());
        assert_eq!(row("unix_socket_mode")[1], "0777".into());
        assert_eq!(span(Duration::ZERO), "0s");
    }
}
