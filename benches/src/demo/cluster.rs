//! The demonstration's primary `n1` and its streaming replica `n2`: the tests' throwaway cluster
//! with the roles and tables of the applications.

use crate::demo::APPLICATION;
use crate::demo::applications::ACCOUNTS;
use crate::postgres::password;
use pgimbal_tests::Cluster;

/// The option `max_connections`: room for the pools of both roles and for whoever looks around.
const SETTINGS: [&str; 1] = ["max_connections=200"];

/// Starts both nodes, with a synchronous replica, and makes the applications' role and tables.
///
/// # Panics
/// When PostgreSQL is not installed or a step fails.
#[must_use]
pub fn start() -> Cluster {
    let cluster = Cluster::with(1, &SETTINGS);
    let primary = &cluster.nodes[0];
    primary.run(&format!("create role {APPLICATION} login password '{}'", password(APPLICATION)));
    // What the applications write is told apart by its id, which nothing keeps unique: what is
    // written twice must show.
    primary.run(&format!(
        "create table work (id text not null); create index on work (id); \
         create table accounts (id bigint primary key, balance bigint not null); \
         insert into accounts select i, 0 from generate_series(1, {ACCOUNTS}) as i; \
         grant all on work, accounts to {APPLICATION}"
    ));
    // What a read by `route = "auto"` says of its server. pg_is_in_recovery() in the text would
    // keep it on the primary.
    primary.run(
        "create function on_replica() returns boolean stable language plpgsql \
         as 'begin return pg_is_in_recovery(); end'",
    );
    // From here on nothing is acknowledged that the replica does not have.
    primary
        .run(&format!("alter system set synchronous_standby_names = '{}'", cluster.nodes[1].name));
    primary.run("select pg_reload_conf()");
    cluster
}
