//! How long it takes. The bounds are generous: `make bench` measures.

use std::time::{Duration, Instant};

use pgimbal_tests::WireClient;
use pgimbal_tests::cluster::Cluster;
use pgimbal_tests::until::{SOON, eventually};

use super::setup::Setup;

/// With the default intervals and time limits.
fn start() -> Setup {
    Setup::with(Cluster::start(1), |config| {
        config.cluster("probe_interval", "\"1s\"").cluster("probe_timeout", "\"1500ms\"")
    })
}

#[test]
fn failover_the_first_write_comes_soon_after_the_promotion() {
    let mut setup = start();
    let mut clients: Vec<WireClient> = (0..20).map(|_| setup.client("app")).collect();
    for client in &mut clients {
        client.ok("select 1");
    }
    setup.cluster.settle(0);
    setup.cluster.nodes[0].kill();
    clients[0].start_query("insert into writes values ('first')");
    setup.cluster.nodes[1].promote();
    let writable = Instant::now();
    clients[0].read_reply().no_error();
    let gap = writable.elapsed();
    assert!(gap < Duration::from_secs(1), "{gap:?}");
    for client in &mut clients {
        client.ok("insert into writes values ('another')");
    }
    assert_eq!(setup.count(1, "another"), "20");
}

#[test]
fn failover_a_frozen_primary_is_noticed_within_three_seconds() {
    let setup = start();
    let frozen = setup.cluster.nodes[0].freeze();
    let noticed = eventually("it is noticed", SOON, || !setup.is_writable());
    assert!(noticed < Duration::from_millis(3500), "{noticed:?}");
    frozen.thaw();
    setup.wait_until_writable();
}
