//! Which reads are run again, and how often.

use std::time::Duration;

use pgimbal_pooler::topology::{NodeId, NodeState};

use super::failover::{LOST, UNKNOWN, at_work, dies, promoted, view};
use crate::message as m;
use crate::world::{World, pool};

#[test]
fn failover_what_a_read_only_transaction_lets_through_is_not_run_again() {
    for text in ["select pg_notify('a', 'b')", "select LO_CREATE(0)", "select * from dblink('x')"] {
        let mut world = at_work();
        world.say_only(0, &m::query(text));
        dies(&mut world);
        world.settle();
        assert_eq!(world.heard(0), [UNKNOWN, "Z I"], "{text}");
    }
}

#[test]
fn failover_a_read_of_which_a_part_was_forwarded_is_not_run_again() {
    for (reports, text, told) in [
        (&b"default_transaction_read_only\0on\0"[..], "select 'c0.1'", LOST),
        (b"in_hot_standby\0on\0", "/* a */ select 'c0.1'", LOST),
        (b"default_transaction_read_only\0off\0", "select 'c0.1'", UNKNOWN),
        (b"default_transaction_read_only\0on\0", "/* a /* b */ select */ insert 'c0.1'", UNKNOWN),
    ] {
        let mut world = at_work();
        world.say_only(0, &m::query(text));
        let (backend, _) = world.last_backend();
        backend
            .output
            .extend([m::message(b'S', reports), m::row_description(), m::row(b"c0.1")].concat());
        world.deliver_output();
        dies(&mut world);
        promoted(&mut world);
        let heard = world.heard(0);
        let heard: Vec<_> = heard.iter().filter(|line| !line.starts_with('S')).collect();
        assert_eq!(heard, ["T", "D c0.1", told, "Z I"], "{text}");
        assert_eq!(world.rerun(), 0);
    }
}

#[test]
fn failover_a_read_whose_servers_die_each_time_is_told_so_in_the_end() {
    let mut world = at_work();
    world.say_only(0, &m::query("select 'c0.1'"));
    dies(&mut world);
    for round in 0..6 {
        let (lives, dead) = (1 - round % 2, round % 2);
        let mut states = [NodeState::Primary; 2];
        states[dead] = NodeState::Down;
        world.dead.clear();
        world.see(view(10 + 2 * round as u64, Some(lives), states));
        world.land_dials();
        if round < 5 {
            assert!(!world.last_backend().1.is_empty(), "it runs again, round {round}");
        }
        world.see(view(11 + 2 * round as u64, None, [NodeState::Down; 2]));
        world.kill_node(NodeId(lives as u16));
    }
    assert_eq!(world.heard(0), [UNKNOWN, "Z I"]);
    assert_eq!(world.rerun(), 5);
}

#[test]
fn failover_a_server_without_a_cluster_is_waited_for_unless_that_is_off() {
    for (hold, told) in [(Some(Duration::from_secs(30)), "D c0.1"), (None, UNKNOWN)] {
        let mut config = pool(1);
        config.failover_hold = hold;
        let mut world = World::scripted(config);
        world.join(0);
        world.say(0, &m::query("select 'c0.0'"));
        world.clients[0].disturb();
        world.say_only(0, &m::query("select 'c0.1'"));
        world.last_backend().0.die(None);
        world.settle();
        let heard = world.heard(0);
        assert!(heard.contains(&told.to_owned()), "{heard:?}");
        assert_eq!(heard.last().map(String::as_str), Some("Z I"));
        assert_eq!(world.say(0, &m::query("select 'c0.2'"))[1], "D c0.2");
    }
}
