//! Server connections around a rotation of their role's password.

use std::sync::Arc;
use std::time::Duration;

use pgimbal_pooler::server::credential::CredentialEvent;
use pgimbal_wire::error::{Report, SqlState};
use pgimbal_wire::frame::HEADER_LEN;

use crate::message as m;
use crate::world::{World, pool};

fn told(world: &mut World, news: CredentialEvent) {
    let now = world.now;
    world.poolers[0].handle_credential_event("user", news, now);
}

fn lockout() -> CredentialEvent {
    let mut message = Vec::new();
    let text = "no password of user \"user\" works at a:5432";
    Report::error(SqlState::INVALID_PASSWORD, text).encode_error(&mut message);
    CredentialEvent::LockedOut(Arc::from(&message[HEADER_LEN..]))
}

#[test]
fn rotation_14_connections_are_replaced_one_by_one_and_never_in_a_transaction() {
    let mut world = World::scripted(pool(4));
    for number in 0..4 {
        world.join(number);
        world.say(number, &m::query("begin"));
    }
    for number in 1..4 {
        world.say(number, &m::query("commit"));
    }
    let serial = world.server_of(0).expect("a server").id().serial;
    told(&mut world, CredentialEvent::Rotated);
    let mut open = vec![world.open()];
    for _ in 0..30 {
        world.pass(Duration::from_secs(1));
        world.settle();
        open.push(world.open());
    }
    assert_eq!((open[0], open[30]), (4, 1), "{open:?}");
    assert!(open.contains(&3) && open.contains(&2), "all at once: {open:?}");
    assert_eq!(world.server_of(0).map(|server| server.id().serial), Some(serial));
    world.say(0, &m::query("commit"));
    assert_eq!(world.open(), 0, "it is replaced once it is free");
    let other = CredentialEvent::Rotated;
    world.say(1, &m::query("begin"));
    world.say(1, &m::query("commit"));
    let now = world.now;
    world.poolers[0].handle_credential_event("somebody else", other, now);
    world.pass(Duration::from_secs(60));
    world.settle();
    assert_eq!(world.open(), 1, "another role's password");
}

#[test]
fn rotation_3_what_is_open_is_kept_while_no_password_works() {
    let mut config = pool(2);
    config.server_lifetime = Duration::from_secs(10);
    config.server_idle_timeout = Duration::from_secs(10);
    let mut world = World::scripted(config);
    world.join(0);
    world.say(0, &m::query("begin"));
    told(&mut world, lockout());
    world.pass(Duration::from_secs(60));
    world.say(0, &m::query("commit"));
    world.pass(Duration::from_secs(60));
    world.settle();
    assert_eq!(world.open(), 1, "nothing could take its place");
    told(&mut world, CredentialEvent::LetIn);
    world.pass(Duration::from_secs(60));
    world.settle();
    assert_eq!(world.open(), 0);
}

#[test]
fn rotation_3_a_wait_that_ends_says_that_no_password_works() {
    let mut config = pool(1);
    config.query_wait_timeout = Duration::from_secs(2);
    let mut world = World::scripted(config);
    world.join(0);
    world.join(1);
    world.say(0, &m::query("begin"));
    world.clients[1].disturb();
    told(&mut world, lockout());
    assert_eq!(world.say(1, &m::query("select 'c1.1'")), [""; 0]);
    world.pass(Duration::from_secs(3));
    world.settle();
    let error = "E 28P01 no password of user \"user\" works at a:5432";
    assert_eq!(world.heard(1), [error, "Z I"]);
}
