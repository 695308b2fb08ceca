//! Reads go to replicas by themselves where the route is `auto`, and a session sees its own writes.

mod consistency;
mod drivers;
mod frameworks;
mod functions;
mod listeners;
mod placing;
mod refusals;
mod seen;
mod texts;
mod waiting;

use std::time::Duration;

use pgimbal_tests::cluster::Cluster;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Login, Pgimbal, WireClient};

/// Where a statement runs, in the words of a function that only reads.
const HERE: &str = "select here()";

/// `here()` is the port of the node that runs it. `sly()` writes, although it says that it does
/// not.
const SCHEMA: &str = "\
create table items (id int primary key, name text);
create sequence numbers;
create table pairs (id int primary key, pair int);
insert into pairs select id, 0 from generate_series(1, 1000) id;
create function is_standby() returns bool stable language plpgsql as \
  $$ begin return pg_is_in_recovery(); end $$;
create function here() returns text stable language plpgsql as \
  $$ begin return current_setting('port'); end $$;
create function note() returns void language plpgsql as \
  $$ begin insert into items values (nextval('numbers'), 'noted'); end $$;
create function sly() returns text stable language plpgsql as \
  $$ begin perform note(); return here(); end $$;
create function rest() returns text stable language plpgsql as \
  $$ begin if pg_is_in_recovery() then perform pg_sleep(60); end if; return here(); end $$;
create function open_note() returns text language plpgsql as \
  $$ begin perform note(); return here(); end $$;
create schema other authorization app;
grant all on items, numbers, pairs to app; grant create on schema public to app;";

struct Setup {
    cluster: Cluster,
    proxy: Pgimbal,
}

impl Setup {
    /// A primary with replicas, whose database `auto` has the route `auto`.
    fn start(replicas: usize) -> Self {
        Self::with(replicas, |config| config)
    }

    fn with(replicas: usize, change: impl FnOnce(Config) -> Config) -> Self {
        Self::with_nodes(replicas, |config, _| change(config))
    }

    fn with_nodes(replicas: usize, change: impl FnOnce(Config, &Cluster) -> Config) -> Self {
        let cluster = Cluster::start(replicas);
        cluster.nodes[0].run(SCHEMA);
        cluster.settle(0);
        let config = Config::before_cluster(&cluster)
            .set("pool_size", 20)
            .tables("[databases.auto]\ncluster = \"c\"\ndbname = \"app\"\nroute = \"auto\"");
        let setup = Self { proxy: change(config, &cluster).start(), cluster };
        for node in &setup.cluster.nodes[1..] {
            eventually("the replicas are known", SOON, || setup.state(&node.name) == "replica");
        }
        setup
    }

    /// What `SHOW NODES` says of the state of a node.
    fn state(&self, node: &str) -> String {
        let rows = self.proxy.console("show nodes");
        let cell = |row: &[(String, String)], wanted: &str| {
            row.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone())
        };
        let row = rows.iter().find(|row| cell(row, "node").as_deref() == Some(node));
        row.and_then(|row| cell(row, "state")).unwrap_or_default()
    }

    fn ports(&self) -> Vec<String> {
        self.cluster.nodes.iter().map(|node| node.port.to_string()).collect()
    }

    fn login() -> Login {
        Login::new("app", "auto", "app-secret")
    }

    /// A client of the database `auto`, once the catalog of the database has been read.
    fn client(&self) -> WireClient {
        let mut client = self.new_client();
        let primary = self.ports().swap_remove(0);
        eventually("functions are known", SOON, || client.value(HERE) != primary);
        client
    }

    fn new_client(&self) -> WireClient {
        let mut client = self.proxy.log_in(&Self::login());
        client.set_timeout(Duration::from_secs(10));
        client
    }
}
