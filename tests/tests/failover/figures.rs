//! How long it takes. The bounds are generous: `make bench` measures.

use std::time::{Duration, Instant};

use pgimbal_tests::WireClient;
use pgimbal_tests::cluster::Cluster;
use pgimbal_tests::until::{SOON, eventually};

use super::scene::Scene;

/// With the default intervals and time limits.
fn start() -> Scene {
    Scene::with(Cluster::start(1), |config| {
        config.cluster("probe_interval", "\"1s\"").cluster("probe_timeout", "\"1500ms\"")
    })
}

#[test]
fn failover_the_first_write_comes_soon_after_the_promotion() {
    let mut scene = start();
    let mut clients: Vec<WireClient> = (0..20).map(|_| scene.client("app")).collect();
    for client in &mut clients {
        client.ok("select 1");
    }
    scene.cluster.settle(0);
    scene.cluster.nodes[0].kill();
    clients[0].start_query("insert into writes values ('first')");
    scene.cluster.nodes[1].promote();
    let writable = Instant::now();
    clients[0].read_reply().no_error();
    let gap = writable.elapsed();
    assert!(gap < Duration::from_secs(1), "{gap:?}");
    for client in &mut clients {
        client.ok("insert into writes values ('another')");
    }
    assert_eq!(scene.count(1, "another"), "20");
}

#[test]
fn failover_a_frozen_primary_is_noticed_within_three_seconds() {
    let scene = start();
    let frozen = scene.cluster.nodes[0].freeze();
    let noticed = eventually("it is noticed", SOON, || !scene.is_writable());
    assert!(noticed < Duration::from_millis(3500), "{noticed:?}");
    frozen.thaw();
    scene.wait_until_writable();
}
