//! More notifications at once than wait for one client: 10 MB of them.

use std::thread;

use pgimbal_tests::{Postgres, WireClient};

use super::{heard, start};

const NOTIFICATIONS: usize = 20_000;

fn notify(pg: &Postgres) {
    pg.run(&format!(
        "select pg_notify('news', rpad(n::text, 500, 'x')) \
         from generate_series(1, {NOTIFICATIONS}) n"
    ));
}

/// Reads all notifications, which come in their order.
fn hear_all(client: &mut WireClient) {
    for n in 1..=NOTIFICATIONS {
        let (_, payload) = heard(client);
        assert_eq!(payload.trim_end_matches('x'), n.to_string());
    }
}

#[test]
fn clients_that_read_hear_all_of_a_burst() {
    let (pg, proxy) = start();
    let clients: Vec<WireClient> = (0..3).map(|_| proxy.client()).collect();
    thread::scope(|scope| {
        for mut client in clients {
            client.ok("listen news");
            scope.spawn(move || hear_all(&mut client));
        }
        notify(&pg);
    });
}

#[test]
fn a_client_that_does_not_take_a_burst_does_not_keep_it_from_others() {
    let (pg, proxy) = start();
    let (mut slow, mut quick) = (proxy.client(), proxy.client());
    for client in [&mut slow, &mut quick] {
        client.ok("listen news");
    }
    slow.ok("begin");
    notify(&pg);
    hear_all(&mut quick);
    let messages = slow.read_to_end_or_ready();
    let told = messages.iter().find(|message| message.tag == b'E').expect("an error");
    assert!(String::from_utf8_lossy(&told.body).contains("53400"), "{messages:?}");
    // The others are told at once again.
    pg.run("notify news, 'last'");
    assert_eq!(heard(&mut quick).1, "last");
}
