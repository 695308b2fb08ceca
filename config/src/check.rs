//! The checks of a whole configuration: options that are valid alone and contradict each other, and
//! files that do not hold what their option needs.

use std::net::SocketAddr;

use crate::config::Config;
use crate::error::ConfigError;
use crate::pool::{MaxPinned, PoolConfig};
use crate::read::Origins;
use crate::user::{PasswordForm, SourceConfig, UserConfig};
use crate::words::AuthType;
use findings::Findings;

mod budget;
mod clusters;
mod credentials;
mod files;
mod findings;
mod http;
mod peers;
mod store;
mod telemetry;
mod tls;

/// Names of the databases that are the admin console.
const CONSOLES: [&str; 2] = ["pgimbal", "pgbouncer"];

/// Returns every contradiction in `config`; empty when there is none. Reads the files that the
/// configuration names.
pub(crate) fn check(config: &Config, origins: &Origins) -> Vec<ConfigError> {
    let mut found = Findings::new(origins);
    addresses(config, &mut found);
    trust(config, &mut found);
    pool(&config.pool, "", &mut found);
    databases(config, &mut found);
    users(config, &mut found);
    credentials::check(config, &mut found);
    clusters::check(config, &mut found);
    store::check(config, &mut found);
    peers::check(config, &mut found);
    http::check(config, &mut found);
    telemetry::check(config, &mut found);
    budget::check(config, &mut found);
    console_users(config, &mut found);
    tls::client(&config.clients.tls, &mut found);
    tls::server(&config.server_tls, "server_tls", &mut found);
    found.into_errors()
}

fn addresses(config: &Config, found: &mut Findings<'_>) {
    let listen = &config.listen;
    for (index, address) in listen.addresses.iter().enumerate() {
        let is_fixed = |a: &SocketAddr| a.port() != 0;
        if is_fixed(address) && listen.addresses[..index].contains(address) {
            found.add("listen", Some(address.to_string()), "the address is listed twice");
        }
        if is_fixed(address) && config.http.listen == Some(*address) {
            let cause = "the address is one that clients connect to (listen)";
            found.add("http_listen", Some(address.to_string()), cause);
        }
    }
    let routed = listen.routed();
    let proxy_protocol = ("proxy_protocol", &listen.proxy_protocol);
    let listed = routed.iter().map(|(key, some, _)| (*key, *some)).chain([proxy_protocol]);
    for (key, some) in listed {
        for address in some.iter().filter(|a| !listen.addresses.contains(a)) {
            let cause = "is not among the addresses of listen";
            found.add(key, Some(address.to_string()), cause);
        }
    }
    for (index, (key, some, _)) in routed.iter().enumerate() {
        for (other, others, _) in &routed[..index] {
            for address in some.iter().filter(|a| others.contains(a)) {
                let cause = format!("is an address of {other} too, and has one route");
                found.add(key, Some(address.to_string()), cause);
            }
        }
    }
    match &listen.unix_socket_dir {
        Some(directory) => files::socket_directory(directory, listen.unix_socket_port, found),
        None if listen.addresses.is_empty() => {
            let cause = "there is no address and no unix_socket_dir: nobody could connect";
            found.add("listen", Some("[]".to_owned()), cause);
        }
        None => {}
    }
}

fn trust(config: &Config, found: &mut Findings<'_>) {
    if config.clients.auth_type != AuthType::Trust || config.clients.allow_trust_on_network {
        return;
    }
    for address in config.listen.addresses.iter().filter(|a| !a.ip().is_loopback()) {
        let cause = format!(
            "with it anybody who reaches {address} is whoever they say: listen on 127.0.0.1, or \
             say allow_trust_on_network = true"
        );
        found.add("auth_type", Some("\"trust\"".to_owned()), cause);
    }
}

/// `path` is empty for the defaults, else `databases.NAME.`.
fn pool(pool: &PoolConfig, path: &str, found: &mut Findings<'_>) {
    let size = pool.size;
    if pool.min_size > size {
        let cause = format!("is more than pool_size, which is {size}");
        found.add(&format!("{path}min_pool_size"), Some(pool.min_size.to_string()), cause);
    }
    if let MaxPinned::Servers(pinned) = pool.max_pinned
        && pinned > size
    {
        let cause = format!("is more than pool_size, which is {size}");
        found.add(&format!("{path}max_pinned"), Some(pinned.to_string()), cause);
    }
    if pool.reserve_size > 0 && pool.reserve_timeout >= pool.query_wait_timeout {
        let cause = "is not below query_wait_timeout: no client would wait long enough for a \
                     reserve connection";
        let value = format!("{:?}", pool.reserve_timeout);
        found.add(&format!("{path}reserve_timeout"), Some(value), cause);
    }
}

fn databases(config: &Config, found: &mut Findings<'_>) {
    if config.databases.is_empty() {
        let cause = "there is no database: give --upstream postgres://user@host/db, or a table \
                     [databases.NAME] in a file named with --config";
        found.add("databases", None, cause);
    }
    for (name, database) in &config.databases {
        let path = format!("databases.{name}");
        if name.is_empty() || CONSOLES.contains(&name.as_str()) {
            let cause = "the name is the console's or empty; clients could not use it";
            found.add(&path, None, cause);
        }
        if database.password.is_some() && database.user.is_none() {
            let cause = "there is no user that the password belongs to";
            found.add(&format!("{path}.password"), None, cause);
        }
        if let Some(form) = database.password.as_ref().map(PasswordForm::of)
            && form == PasswordForm::Scram
        {
            let cause = "a SCRAM verifier cannot be shown to a server; give the password itself";
            found.add(&format!("{path}.password"), None, cause);
        }
        if let Some(most) = database.max_db_connections
            && database.pool.min_size > most
        {
            let cause = format!("is less than min_pool_size, which is {}", database.pool.min_size);
            found.add(&format!("{path}.max_db_connections"), Some(most.to_string()), cause);
        }
        if database.pool != config.pool {
            pool(&database.pool, &format!("{path}."), found);
        }
        if database.tls != config.server_tls {
            tls::server(&database.tls, &format!("{path}.server_tls"), found);
        }
    }
}

fn users(config: &Config, found: &mut Findings<'_>) {
    let auth_type = config.clients.auth_type;
    if config.users.is_empty() && auth_type != AuthType::Trust {
        let cause = format!(
            "there is no user, so with auth_type = \"{}\" nobody could log in: add [users.NAME] \
             with a password",
            auth_type.as_str()
        );
        found.add("users", None, cause);
    }
    for (name, user) in &config.users {
        let path = format!("users.{name}");
        if name.is_empty() {
            found.add(&path, None, "a user has a name");
        }
        if let Some(cause) = cannot_log_in(user, auth_type) {
            found.add(&format!("{path}.password"), None, cause);
        }
        if let Some(form) = user.server_password.as_ref().map(PasswordForm::of)
            && form == PasswordForm::Scram
        {
            let cause = "a SCRAM verifier cannot be shown to a server; give the password itself";
            found.add(&format!("{path}.server_password"), None, cause);
        }
    }
}

fn cannot_log_in(user: &UserConfig, auth_type: AuthType) -> Option<String> {
    if user.source() != SourceConfig::Inline {
        return None;
    }
    let form = user.password.as_ref().map(PasswordForm::of);
    match (auth_type, form) {
        (AuthType::Trust, _) => None,
        (_, None) => Some(format!(
            "there is none, so with auth_type = \"{}\" the user could not log in",
            auth_type.as_str()
        )),
        (AuthType::ScramSha256, Some(PasswordForm::Md5)) => Some(
            "an md5 hash does not serve auth_type = \"scram-sha-256\": give the password, a \
             SCRAM-SHA-256 verifier, or auth_type = \"md5\""
                .to_owned(),
        ),
        _ => None,
    }
}

/// Users of the console need a way in too.
fn console_users(config: &Config, found: &mut Findings<'_>) {
    if config.clients.auth_type == AuthType::Trust {
        return;
    }
    for (key, names) in [("admin_users", &config.admin_users), ("stats_users", &config.stats_users)]
    {
        for name in names.iter().filter(|name| config.user(name).is_none()) {
            let cause = "there is no [users] entry of that name, so it could not log in";
            found.add(key, Some(format!("{name:?}")), cause);
        }
    }
}

#[cfg(test)]
mod tests;
