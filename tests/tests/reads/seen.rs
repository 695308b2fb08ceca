//! What people see of reads on replicas: the nodes' shares, and where a client is.

use std::thread;

use pgimbal_tests::until::{SOON, eventually};

use super::{HERE, Setup};

/// Cells of the row of a console's table in which `column` has this value.
fn cells<const N: usize>(
    setup: &Setup,
    table: &str,
    (column, value): (&str, &str),
    wanted: [&str; N],
) -> [String; N] {
    let rows = setup.proxy.console(&format!("show {table}"));
    let is = |row: &&Vec<(String, String)>| row.contains(&(column.to_owned(), value.to_owned()));
    let row = rows.iter().find(is).unwrap_or_else(|| panic!("{column} {value}: {rows:?}"));
    wanted.map(|name| {
        let cell = row.iter().find(|(column, _)| column == name);
        cell.unwrap_or_else(|| panic!("no {name} in {row:?}")).1.clone()
    })
}

/// A node's reads and its percentage, as SHOW NODES has them.
fn share(setup: &Setup, node: &str) -> (u64, Option<u64>) {
    let [reads, percent] = cells(setup, "nodes", ("node", node), ["reads", "reads_percent"]);
    (reads.parse().expect("a number"), percent.parse().ok())
}

#[test]
fn reads_are_shared_by_weight_and_the_console_shows_the_shares() {
    let setup = Setup::with_nodes(2, |config, cluster| {
        let weights = cluster.nodes[1..].iter().zip([1, 3]);
        weights.fold(config, |config, (node, weight)| {
            let (host, port) = (node.host, node.port);
            let value = format!("{{ host = \"{host}\", port = {port}, weight = {weight} }}");
            config.cluster(&format!("nodes.{}", node.name), value)
        })
    });
    let mut client = setup.client();
    let before = [share(&setup, "n2").0, share(&setup, "n3").0];
    // One client after another: what is outstanding is the same everywhere, only the weight counts.
    let ports = setup.ports();
    let mut served = [0_u64; 2];
    for _ in 0..400 {
        let here = client.value(HERE);
        let node = ports[1..].iter().position(|port| *port == here).expect("a replica");
        served[node] += 1;
    }
    assert!(served[0].abs_diff(100) <= 1 && served[1].abs_diff(300) <= 1, "{served:?}");
    let [(light, light_percent), (heavy, heavy_percent)] = ["n2", "n3"].map(|n| share(&setup, n));
    assert_eq!([light - before[0], heavy - before[1]], served, "SHOW NODES counts each of them");
    // Off by 1 for the rounding, and by 1 for what was read until the catalog was known.
    let [light_percent, heavy_percent] = [light_percent, heavy_percent].map(|p| p.expect("reads"));
    assert!(light_percent.abs_diff(25) <= 2 && heavy_percent.abs_diff(75) <= 2, "{light_percent}");
    assert_eq!(share(&setup, "n1"), (0, Some(0)), "the primary has served nobody as a replica");

    // Four at once: who has fewer clients than its weight allows comes first, so that what a busy
    // machine lets each server get done counts too. Without weights it would be 50 %.
    thread::scope(|scope| {
        for _ in 0..4 {
            let mut client = setup.new_client();
            scope.spawn(move || (0..200).for_each(|_| assert!(!client.value(HERE).is_empty())));
        }
    });
    let [now_light, now_heavy] = ["n2", "n3"].map(|node| share(&setup, node).0);
    let percent = 100 * (now_light - light) / (now_light - light + now_heavy - heavy);
    assert!(percent.abs_diff(25) <= 20, "{percent} %");

    let page = setup.proxy.metrics();
    for (node, reads) in [("n2", now_light), ("n3", now_heavy)] {
        let line = format!("pgimbal_node_reads_total{{cluster=\"c\",node=\"{node}\"}} {reads}");
        assert!(page.lines().any(|known| known == line), "{line}");
    }
}

#[test]
fn reads_go_to_the_own_zone_while_a_replica_there_serves_them() {
    let mut setup = Setup::with_nodes(2, |config, cluster| {
        let zones = cluster.nodes[1..].iter().zip(["east", "west"]);
        zones.fold(config.set("zone", "\"west\""), |config, (node, zone)| {
            let (host, port) = (node.host, node.port);
            let value = format!("{{ host = \"{host}\", port = {port}, zone = \"{zone}\" }}");
            config.cluster(&format!("nodes.{}", node.name), value)
        })
    });
    let [_, east, west] = &setup.ports()[..] else { panic!("three nodes") };
    let mut client = setup.client();
    eventually("both replicas are fresh", SOON, || client.value(HERE) == *west);
    thread::scope(|scope| {
        for _ in 0..4 {
            let mut client = setup.new_client();
            scope.spawn(move || (0..50).for_each(|_| assert_eq!(client.value(HERE), *west)));
        }
    });
    let late = &setup.cluster.nodes[2];
    late.run("select pg_wal_replay_pause()");
    eventually("replay is paused", SOON, || {
        late.value("select pg_get_wal_replay_pause_state()") == "paused"
    });
    client.ok("insert into items values (600, 'new')");
    eventually("the other zone has the row", SOON, || client.value(HERE) == *east);
    late.run("select pg_wal_replay_resume()");
    eventually("the own zone has it too", SOON, || client.value(HERE) == *west);
    setup.cluster.nodes[2].kill();
    eventually("the own zone has no replica", SOON, || client.value(HERE) == *east);
}

#[test]
fn reads_show_where_a_client_is_and_how_many_transactions_replicas_served() {
    let setup = Setup::start(1);
    let mut client = setup.client();
    client.ok("set application_name = 'reader'");
    let replica = &setup.ports()[1];
    eventually("the replica has caught up", SOON, || client.value(HERE) == *replica);
    let wanted = ["state", "route", "node"];
    let seen = |setup: &Setup| cells(setup, "clients", ("application_name", "reader"), wanted);
    assert_eq!(seen(&setup), ["idle", "auto", ""]);
    client.ok("begin read only");
    client.value(HERE);
    assert_eq!(seen(&setup), ["active", "auto", "n2"]);
    client.ok("commit");
    client.ok("begin");
    client.value(HERE);
    assert_eq!(seen(&setup), ["active", "auto", "n1"]);
    client.ok("commit");
    client.ok("set pgimbal.route = 'replica'");
    assert_eq!(seen(&setup), ["idle", "replica", ""]);

    let wanted = ["total_xact_count", "total_replica_xact_count"];
    let counted = || {
        let counts = cells(&setup, "stats", ("database", "auto"), wanted);
        counts.map(|count| count.parse::<u64>().expect("a number"))
    };
    client.ok("set pgimbal.route = 'auto'");
    let [all, replicas] = counted();
    for _ in 0..3 {
        client.ok("insert into items values (nextval('numbers'))");
        client.ok("/* pgimbal.route=replica */ select here()");
    }
    let [all_now, replicas_now] = counted();
    assert_eq!(replicas_now - replicas, 3);
    assert!(all_now - all >= 6, "{all} {all_now}");
}
