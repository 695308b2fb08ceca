//! A primary with one replica, a pgimbal before them, and statements that hang on the first
//! primary and on no other node.

use std::time::Duration;

use pgimbal_tests::cluster::Cluster;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Login, Pgimbal, WireClient};

/// Two nodes and a pgimbal; `cluster.nodes[0]` is the primary at first.
pub(super) struct Setup {
    pub(super) cluster: Cluster,
    pub(super) proxy: Pgimbal,
}

/// `hang(text)` returns its argument, but not before the node has been let go if it is one of
/// `hangs`, as the first primary is; a row of `slow` makes its transaction hang in the commit
/// there.
const SCHEMA: &str = "\
create table hangs (port text);
insert into hangs values ('{port}');
create function hang(result text) returns text language plpgsql as \
  $$ begin while exists (select from hangs where port = current_setting('port')) \
  loop perform pg_sleep(0.1); end loop; return result; end $$;
create function hang_and_write(result text) returns text language plpgsql as \
  $$ begin perform hang(''); insert into writes values (result); return result; end $$;
create function hang_at_commit() returns trigger language plpgsql as \
  $$ begin perform hang(''); return null; end $$;
create table writes (id text);
create table slow (id text);
create constraint trigger slowly after insert on slow deferrable initially deferred \
  for each row execute function hang_at_commit();
create function note(place text, id text) returns void language plpgsql as \
  $$ begin if not pg_is_in_recovery() then execute format('insert into %I values (%L)', place, id); \
  end if; end $$;
create procedure note_and_hang(id text) language plpgsql as \
  $$ begin insert into writes values (id); commit; perform hang(''); end $$;
create table one as select 'x'::text as x;
create sequence numbers;
grant all on writes, slow, one, numbers, hangs to app; \
grant create on schema public to app;";

/// What the rows need of every node.
pub(super) const SETTINGS: &[&str] = &["max_prepared_transactions=10"];

impl Setup {
    pub(super) fn start() -> Self {
        Self::before(Cluster::with(1, SETTINGS))
    }

    pub(super) fn before(cluster: Cluster) -> Self {
        Self::with(cluster, |config| config)
    }

    pub(super) fn with(cluster: Cluster, change: impl FnOnce(Config) -> Config) -> Self {
        cluster.nodes[0].run(&schema(&cluster));
        cluster.settle(0);
        let config = Config::before_cluster(&cluster).set("pool_size", 80).tables(
            "[databases.session]\ncluster = \"c\"\ndbname = \"app\"\npool_mode = \"session\"",
        );
        let proxy = change(config).start();
        let setup = Self { cluster, proxy };
        setup.wait_until_writable();
        setup
    }

    /// Makes statements hang on node `index` too, which is the primary `primary` or its replica.
    pub(super) fn hang_on(&self, index: usize, primary: usize) {
        let port = self.cluster.nodes[index].port;
        self.cluster.nodes[primary].run(&format!("insert into hangs values ('{port}')"));
        self.cluster.settle(primary);
    }

    /// Lets everything go on that hangs on node `primary`.
    pub(super) fn let_go(&self, primary: usize) {
        self.cluster.nodes[primary].run("delete from hangs");
    }

    /// Waits until pgimbal knows a primary.
    pub(super) fn wait_until_writable(&self) {
        eventually("pgimbal knows a primary", SOON, || self.is_writable());
    }

    /// Waits until pgimbal knows that there is no primary.
    pub(super) fn wait_until_held(&self) {
        eventually("pgimbal holds", SOON, || !self.is_writable());
    }

    pub(super) fn is_writable(&self) -> bool {
        self.metric("pgimbal_cluster_writable{cluster=\"c\"}") == "1"
    }

    /// The value of a metric, empty when it is not on the page.
    pub(super) fn metric(&self, name: &str) -> String {
        let page = self.proxy.metrics();
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_default().to_owned()
    }

    /// Waits until `SHOW NODES` tells `state` of the node.
    pub(super) fn wait_for_state(&self, node: &str, state: &str) {
        eventually(&format!("{node} is {state}"), SOON, || self.node(node, "state") == state);
    }

    /// Waits until pgimbal has no server connection for `client`.
    pub(super) fn wait_until_unlinked(&self, client: &WireClient) {
        let port = client.local_port().to_string();
        let has = |row: &[(String, String)], column: &str, text: &str| {
            row.iter().any(|(name, value)| name == column && value == text)
        };
        eventually("the client has no server connection", SOON, || {
            let rows = self.proxy.console("show clients");
            rows.iter().any(|row| has(row, "port", &port) && has(row, "link", ""))
        });
    }

    /// A column of a node's row in `SHOW NODES`.
    pub(super) fn node(&self, name: &str, column: &str) -> String {
        let rows = self.proxy.console("show nodes");
        let cell = |row: &[(String, String)], wanted: &str| {
            row.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone())
        };
        let row = rows.iter().find(|row| cell(row, "node").as_deref() == Some(name));
        row.and_then(|row| cell(row, column)).unwrap_or_default()
    }

    pub(super) fn client(&self, database: &str) -> WireClient {
        let mut client = self.proxy.log_in(&Login::new("app", database, "app-secret"));
        client.set_timeout(Duration::from_secs(10));
        client
    }

    /// How many rows of `writes` and `slow` on node `index` have this id.
    pub(super) fn count(&self, index: usize, id: &str) -> String {
        let sql = format!(
            "select count(*) from (select id from writes union all select id from slow) t where id = '{id}'"
        );
        self.cluster.nodes[index].value(&sql)
    }

    /// How many rows node `index` has in `writes`.
    pub(super) fn count_all(&self, index: usize) -> u64 {
        self.cluster.nodes[index].value("select count(*) from writes").parse().expect("a count")
    }
}

pub(super) fn schema(cluster: &Cluster) -> String {
    SCHEMA.replace("{port}", &cluster.nodes[0].port.to_string())
}
