//! The check of risks: servers that are not verified, Vaults without TLS, and certificates that
//! expire.

use std::net::IpAddr;
use std::time::SystemTime;

use pgimbal_config::{Config, Host, ServerTls, Verification};

use super::findings::Findings;
use crate::tls::OwnCertificate;

/// Reports pgimbal's own certificates that are not valid or expire soon.
pub(super) fn certificates(config: &Config, report: &Findings) {
    let now = SystemTime::now();
    for warning in OwnCertificate::all(config).iter().filter_map(|own| own.expiry_warning(now)) {
        match warning.is_invalid {
            true => report.fail("certificates", warning.to_string()),
            false => report.warn("certificates", warning.to_string()),
        }
    }
}

/// Warns of servers that are not verified, and of Vaults that are asked in clear text.
pub(super) fn warn(config: &Config, report: &Findings) {
    for (name, database) in &config.databases {
        if database.cluster.is_none() {
            let host = &database.host;
            server(format!("database {name}, server {host}"), host, &database.tls, report);
        }
    }
    for (name, cluster) in &config.clusters {
        match &cluster.dns {
            Some(dns) => {
                let host = Host::Tcp(dns.clone());
                server(format!("cluster {name}, servers of {dns}"), &host, &cluster.tls, report);
            }
            None => {
                for (node, config) in &cluster.nodes {
                    let whom = format!("cluster {name}, node {node} ({})", config.host);
                    server(whom, &config.host, &cluster.tls, report);
                }
            }
        }
    }
    for (name, vault) in &config.vaults {
        for address in vault.address.iter().filter(|address| is_open(address)) {
            let text = "tokens and passwords go there in clear text; use https";
            report.warn(format!("vault {name}, {address}"), text);
        }
    }
}

fn server(whom: String, host: &Host, tls: &ServerTls, report: &Findings) {
    let Host::Tcp(name) = host else { return };
    if tls.verification() == Verification::None && !is_loopback(name) {
        let text = format!(
            "with sslmode \"{}\" it may be anybody who answers there: say \"verify-full\" and \
             ca_file (\"system\" for a certificate that every browser takes)",
            tls.mode.as_str()
        );
        report.warn(whom, text);
    }
}

/// Whether a Vault's address is without TLS and not on this machine.
fn is_open(address: &str) -> bool {
    let rest = address.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("http://"));
    rest.is_some() && {
        let authority = address[7..].split(['/', '?', '#']).next().unwrap_or_default();
        let host = match authority.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => authority.split(':').next().unwrap_or_default(),
        };
        !is_loopback(host)
    }
}

fn is_loopback(host: &str) -> bool {
    let name = host.eq_ignore_ascii_case("localhost");
    name || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vault_without_tls_is_open_unless_it_is_on_this_machine() {
        for open in ["http://vault:8200", "HTTP://10.0.0.1", "http://[2001:db8::1]:8200/"] {
            assert!(is_open(open), "{open}");
        }
        let closed = [
            "https://vault:8200",
            "http://localhost:8200",
            "http://127.0.0.1",
            "http://[::1]:8200",
        ];
        for closed in closed {
            assert!(!is_open(closed), "{closed}");
        }
    }
}
