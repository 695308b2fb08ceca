//! Checks of clusters, and of databases that name one.

use super::findings::Findings;
use super::tls;
use crate::cluster::ClusterConfig;
use crate::config::Config;
use crate::user::PasswordForm;
use crate::words::Route;

/// Notes every contradiction in the options of clusters.
pub(super) fn check(config: &Config, found: &mut Findings<'_>) {
    for (name, cluster) in &config.clusters {
        nodes(config, cluster, &format!("clusters.{name}"), found);
    }
    for (name, database) in &config.databases {
        let path = format!("databases.{name}");
        let Some(cluster) = &database.cluster else {
            if database.route != Route::Primary {
                let cause = "needs cluster beside it: only a cluster has replicas";
                found.add(&format!("{path}.route"), Some(quoted(database.route)), cause);
            }
            continue;
        };
        if !config.clusters.contains_key(cluster) {
            let cause = "there is no [clusters] entry of that name";
            found.add(&format!("{path}.cluster"), Some(format!("{cluster:?}")), cause);
        }
        for key in ["host", "port", "server_tls"] {
            if found.is_set(&format!("{path}.{key}")) {
                let cause = "the cluster says where its nodes are and how they are reached";
                found.add(&format!("{path}.{key}"), None, cause);
            }
        }
    }
    if config.databases.values().any(|database| database.cluster.is_some()) {
        return;
    }
    for (name, user) in &config.users {
        if let Some(route) = user.route.filter(|route| *route != Route::Primary) {
            let cause = "no database has a cluster: only a cluster has replicas";
            found.add(&format!("users.{name}.route"), Some(quoted(route)), cause);
        }
    }
}

fn quoted(route: Route) -> String {
    format!("\"{}\"", route.as_str())
}

fn nodes(config: &Config, cluster: &ClusterConfig, path: &str, found: &mut Findings<'_>) {
    match (&cluster.dns, cluster.nodes.is_empty()) {
        (Some(_), false) => {
            let cause = "nodes are listed too: their addresses are the one or the other";
            found.add(&format!("{path}.dns"), None, cause);
        }
        (None, true) => {
            let cause = format!("there is no node: add [{path}.nodes.NODE] tables, or dns");
            found.add(path, None, cause);
        }
        _ => {}
    }
    if cluster.dns.is_none() && found.is_set(&format!("{path}.port")) {
        let cause = "would not be used: it belongs to dns, and each listed node has its own";
        found.add(&format!("{path}.port"), Some(cluster.port.to_string()), cause);
    }
    if !cluster.nodes.is_empty() && !cluster.nodes.values().any(|node| node.candidate) {
        let cause = "no node is a candidate, so nothing could ever be written";
        found.add(&format!("{path}.nodes"), None, cause);
    }
    let mut places: Vec<_> = cluster.nodes.values().map(|node| (&node.host, node.port)).collect();
    places.sort_by_key(|(host, port)| (host.to_string(), *port));
    if let Some(pair) = places.windows(2).find(|pair| pair[0] == pair[1]) {
        let cause = format!("two nodes are at {}:{}", pair[0].0, pair[0].1);
        found.add(&format!("{path}.nodes"), None, cause);
    }
    match &cluster.probe_user {
        None => {
            let cause = "there is no probe_user, the role that asks the nodes what they are";
            found.add(path, None, cause);
        }
        Some(user) if cluster.probe_password.is_none() && config.user(user).is_none() => {
            let cause = "it has no [users] entry: give one, or probe_password";
            found.add(&format!("{path}.probe_user"), Some(format!("{user:?}")), cause);
        }
        Some(_) => {}
    }
    if cluster.probe_password.as_ref().map(PasswordForm::of) == Some(PasswordForm::Scram) {
        let cause = "a SCRAM verifier cannot be shown to a server; give the password itself";
        found.add(&format!("{path}.probe_password"), None, cause);
    }
    if cluster.tls != config.server_tls {
        tls::server(&cluster.tls, &format!("{path}.server_tls"), found);
    }
}
