//! Several pgimbals that act as one: cancel requests at any of them, commands and tables of all, and
//! how they find each other.

mod cancels;
mod console;
mod discovery;

use std::collections::HashMap;

use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::port::free_port;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Pgimbal, Postgres};

const KEY: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// The table `[peers]` of a replica.
struct Peers {
    name: String,
    listen: String,
    /// A line that says where the others are.
    others: String,
    peer_id: Option<u16>,
}

/// `config` of a replica.
fn replica(config: Config, peers: &Peers) -> Config {
    let id = peers.peer_id.map_or_else(String::new, |id| format!("peer_id = {id}\n"));
    let (name, listen, others) = (&peers.name, &peers.listen, &peers.others);
    config.set("deployment_key", format!("\"{KEY}\"")).tables(&format!(
        "[peers]\nlisten = \"{listen}\"\nreplica_name = \"{name}\"\n{others}\n{id}"
    ))
}

/// The tables `[peers]` of so many replicas, called `r0` and so on, that know each other by their
/// addresses on 127.0.0.1; `ids` says whether they have peer ids, from 1.
fn tables(count: u16, ids: bool) -> Vec<Peers> {
    let ports: Vec<u16> = (0..count).map(|_| free_port()).collect();
    let all: Vec<String> = ports.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
    let table = |number: u16| Peers {
        name: format!("r{number}"),
        listen: format!("127.0.0.1:{}", ports[usize::from(number)]),
        others: format!("addresses = [{}]", all.join(", ")),
        peer_id: ids.then_some(number + 1),
    };
    (0..count).map(table).collect()
}

/// `config` for each of so many replicas that know each other.
pub(crate) fn configs(config: &Config, count: u16, ids: bool) -> Vec<Config> {
    tables(count, ids).iter().map(|peers| replica(config.clone(), peers)).collect()
}

/// So many replicas with `config`, once all have met.
pub(crate) fn start(config: &Config, count: u16, ids: bool) -> Vec<Pgimbal> {
    let all: Vec<Pgimbal> = configs(config, count, ids).into_iter().map(Config::start).collect();
    for one in &all {
        wait_for_peers(one, all.len() - 1);
    }
    all
}

/// Three replicas in front of one server.
fn three(pg: &Postgres) -> Vec<Pgimbal> {
    start(&Config::before(pg), 3, true)
}

/// Waits until `proxy` hears so many ready peers, and nobody else.
fn wait_for_peers(proxy: &Pgimbal, count: usize) {
    eventually(&format!("{count} peers are heard"), SOON, || {
        let rows = peers(proxy);
        let alive =
            |row: &&HashMap<String, String>| row["state"] == "alive" && row["ready"] == "yes";
        rows.len() == count + 1 && rows.iter().filter(alive).count() == count
    });
}

/// The rows of SHOW PEERS.
fn peers(proxy: &Pgimbal) -> Vec<HashMap<String, String>> {
    proxy.console("show peers").into_iter().map(|row| row.into_iter().collect()).collect()
}
