//! LISTEN over a connection that the clients of a pool share.

use std::time::Duration;

use pgimbal_config::{ListenMode, PoolConfig};
use pgimbal_pooler::server::ServerState;

use crate::message as m;
use crate::world::{World, pool};

fn shared(size: u32) -> PoolConfig {
    PoolConfig { listen_mode: ListenMode::Share, ..pool(size) }
}

impl World {
    /// Server connections that listen for all.
    fn lines(&self) -> usize {
        let servers = self.peers.iter().filter_map(|peer| self.poolers[0].server(peer.id()));
        servers.filter(|server| server.state() == ServerState::Listening).count()
    }

    /// The payloads of what a client has been notified of.
    fn told(&mut self, number: usize) -> Vec<String> {
        self.settle();
        std::mem::take(&mut self.clients[number].told)
    }
}

#[test]
fn behaviour_33_clients_hear_over_one_connection_that_is_not_theirs() {
    let mut world = World::scripted(shared(1));
    for number in 0..4 {
        world.join(number);
        world.say(number, &m::query("listen news"));
        assert!(world.session(number).link().server().is_none(), "it keeps none");
    }
    assert_eq!((world.lines(), world.idle()), (1, 1));
    world.notify("news", "1");
    world.notify("weather", "2");
    world.notify("news", "3");
    for number in 0..4 {
        assert_eq!(world.told(number), ["1", "3"]);
    }
}

#[test]
fn behaviour_33_a_transaction_that_waits_for_the_shared_connection_goes_on() {
    let mut world = World::scripted(shared(1));
    world.join(0);
    world.say(0, &m::query("begin"));
    world.say(0, &m::query("listen news"));
    world.notify("news", "early");
    world.settle();
    world.say(0, &m::query("commit"));
    world.notify("news", "late");
    assert_eq!(world.told(0), ["late"]);
}

#[test]
fn a_connection_that_is_due_is_replaced_without_a_loss_or_a_double() {
    let lifetime = Duration::from_secs(60);
    let mut world = World::scripted(PoolConfig { server_lifetime: lifetime, ..shared(1) });
    world.join(0);
    world.say(0, &m::query("listen news"));
    let first = world.peers.len();
    let mut sent = 0;
    // Something is notified between any two steps.
    for step in 0..400 {
        if step % 40 == 0 {
            world.settle();
            world.pass(lifetime);
        }
        world.notify("news", &sent.to_string());
        sent += 1;
        world.one_step();
    }
    world.settle();
    assert!(world.peers.len() >= first + 5, "{} connections", world.peers.len() - first);
    assert_eq!(world.lines(), 1);
    let expected: Vec<String> = (0..sent).map(|number| number.to_string()).collect();
    assert_eq!(world.told(0), expected);
}
