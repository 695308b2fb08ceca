//! Single cases of the budget, told step by step.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use pgimbal_replicas::InstanceId;
use pgimbal_replicas::budget::slots::Slots;
use pgimbal_replicas::budget::{Allowance, Budget, Demand, Standing};

const NODE: &str = "node:5432";

/// The processes of a replica: there are none that matter.
fn no_pids(_: &str) -> BTreeSet<u32> {
    BTreeSet::new()
}

/// A replica that has taken a slot of the store.
fn with_slot(id: u64, of: u16, store: &mut Slots, now: Instant) -> Budget {
    let mut budget = Budget::new(InstanceId(id), of);
    let claimed = budget.change(store, now).expect("a slot is free");
    *store = claimed;
    budget.handle_stored(store, now);
    budget
}

/// Has the server show for a while no process but those of the replicas.
fn look(budget: &mut Budget, from: Instant, seconds: u64) {
    for second in 0..=seconds {
        let at = from + Duration::from_secs(second);
        budget.handle_look(NODE, at, &BTreeSet::new(), &BTreeSet::new(), at);
    }
}

fn tell(from: &mut Budget, to: &mut Budget, now: Instant) {
    let message = from.poll_message(now, no_pids).expect("something to say");
    to.handle_message(message, now);
}

const fn demand(used: u32, waiting: u32) -> Demand {
    Demand { used, reserved: 0, waiting }
}

#[test]
fn a_slot_is_not_written_for_ever_because_a_server_cannot_be_looked_at() {
    let now = Instant::now();
    let mut budget = with_slot(1, 2, &mut Slots::default(), now);
    budget.handle_total(NODE, 20, now);
    let reserved = Demand { used: 2, reserved: 2, waiting: 0 };
    let later = now + Duration::from_secs(3600);
    for at in [now, now + Duration::from_secs(15), later] {
        budget.settle(NODE, reserved, at);
        assert!(!budget.wants_change(at), "nobody needs a token there");
    }
    budget.settle(NODE, Demand { waiting: 2, ..reserved }, later);
    assert!(budget.wants_change(later), "clients wait");
}

/// Two replicas that have their tokens, of which the second could lend some.
fn two(now: Instant) -> (Budget, Budget, Slots, Instant) {
    let mut store = Slots::default();
    let mut first = with_slot(1, 2, &mut store, now);
    let mut second = with_slot(2, 2, &mut store, now);
    first.handle_stored(&store, now);
    for budget in [&mut first, &mut second] {
        budget.handle_total(NODE, 20, now);
        budget.settle(NODE, demand(1, 0), now);
    }
    tell(&mut first, &mut second, now);
    tell(&mut second, &mut first, now);
    look(&mut first, now, 3);
    look(&mut second, now, 3);
    let now = now + Duration::from_secs(3);
    // The first uses its share and wants more.
    let allowed = first.settle(NODE, demand(10, 8), now);
    assert_eq!(allowed.limit, 10);
    (first, second, store, now)
}

#[test]
fn a_replica_that_leaves_lends_nothing() {
    let (mut first, mut second, store, now) = two(Instant::now());
    second.settle(NODE, demand(0, 0), now);
    second.leave();
    let released = second.change(&store, now).expect("it has a slot");
    // The wish arrives before the store has taken the slot back.
    tell(&mut first, &mut second, now);
    let allowed = second.settle(NODE, demand(0, 0), now);
    assert_eq!(allowed, Allowance { limit: 0, reclaim: 0, lendable: 0 });
    tell(&mut second, &mut first, now);
    assert_eq!(first.status(NODE).map(|status| status.borrowed), Some(0));
    let next = released.claim(InstanceId(3), 2).expect("its slot is free");
    assert!(next.holding_of(InstanceId(3)).is_some_and(|holding| holding.even));
}

#[test]
fn connections_are_asked_of_one_that_has_no_tokens_left() {
    let (mut first, mut second, _, now) = two(Instant::now());
    assert_eq!(second.settle(NODE, demand(10, 0), now).lendable, 0, "nobody has asked yet");
    tell(&mut first, &mut second, now);
    assert_eq!(second.settle(NODE, demand(10, 0), now).lendable, 8);
    assert_eq!(second.settle(NODE, demand(10, 1), now).lendable, 0, "somebody waits here too");
    // Half of what is closed goes to the other at once.
    assert_eq!(second.settle(NODE, demand(6, 0), now).lendable, 6);
    tell(&mut second, &mut first, now);
    assert_eq!(first.status(NODE).map(|status| status.borrowed), Some(2));
}

#[test]
fn tokens_of_a_server_that_the_next_holder_never_meets_are_not_forgotten() {
    for meets_it in [false, true] {
        let (mut first, mut second, store, now) = two(Instant::now());
        tell(&mut first, &mut second, now);
        second.settle(NODE, demand(0, 0), now);
        tell(&mut second, &mut first, now);
        assert_eq!(first.status(NODE).map(|status| status.borrowed), Some(5));
        first.settle(NODE, demand(15, 0), now);
        // The lender dies; the one who gets its slot has nothing to do with the server, and leaves.
        let dead = store.holding_of(InstanceId(2)).expect("a slot").tenure;
        let mut store = store.sweep(dead, &BTreeSet::from([NODE.into()])).expect("it had a slot");
        let mut next = with_slot(3, 2, &mut store, now);
        next.handle_total(if meets_it { NODE } else { "other:5432" }, 20, now);
        first.handle_stored(&store, now);
        tell(&mut first, &mut next, now);
        next.leave();
        let store = next.change(&store, now).expect("it has a slot");
        let last = store.claim(InstanceId(4), 2).expect("its slot is free");
        let held = last.holding_of(InstanceId(4)).expect("a slot");
        assert!(!held.even, "the first has five tokens of it");
    }
}

#[test]
fn a_server_that_is_gone_is_forgotten_unless_tokens_are_on_loan_there() {
    let (mut first, mut second, _, now) = two(Instant::now());
    for budget in [&mut first, &mut second] {
        budget.handle_total("gone:5432", 20, now);
        budget.handle_gone("gone:5432");
        let message = budget.poll_message(now, no_pids).expect("something to say");
        assert!(!message.nodes.contains_key("gone:5432") && message.nodes.contains_key(NODE));
        assert_eq!(budget.status("gone:5432"), None);
    }
    let mut heard = first;
    let now = now + Duration::from_secs(1);
    tell(&mut heard, &mut second, now);
    second.settle(NODE, demand(1, 0), now);
    second.settle(NODE, demand(0, 0), now);
    second.handle_gone(NODE);
    let _ = second.poll_message(now + Duration::from_secs(1), no_pids);
    assert!(second.status(NODE).is_some_and(|status| status.lent > 0 && status.share == 0));
    second.handle_total(NODE, 20, now);
    assert!(second.status(NODE).is_some_and(|status| status.lent > 0 && status.share == 10));
}

#[test]
fn the_first_holder_of_all_slots_looks_before_it_uses_its_share() {
    let now = Instant::now();
    let mut budget = with_slot(1, 2, &mut Slots::default(), now);
    budget.handle_total(NODE, 20, now);
    budget.handle_look(NODE, now, &BTreeSet::from([7]), &BTreeSet::new(), now);
    assert_eq!(budget.settle(NODE, demand(1, 5), now).limit, 2);
    // The document was emptied, and another replica has not said so yet: its process is there.
    for second in 1..20 {
        let at = now + Duration::from_secs(second);
        budget.handle_look(NODE, at, &BTreeSet::from([7]), &BTreeSet::new(), at);
        assert_eq!(budget.settle(NODE, demand(1, 5), at).limit, 2);
    }
    let at = now + Duration::from_secs(21);
    budget.handle_look(NODE, at, &BTreeSet::new(), &BTreeSet::new(), at);
    assert_eq!(budget.settle(NODE, demand(1, 5), at).limit, 10);
}

#[test]
fn a_share_that_serves_nobody_leaves_one_connection_for_clients() {
    let now = Instant::now();
    let mut budget = with_slot(1, 4, &mut Slots::default(), now);
    budget.handle_total(NODE, 8, now);
    for second in 0..3 {
        let at = now + Duration::from_secs(second);
        budget.handle_look(NODE, at, &BTreeSet::new(), &BTreeSet::new(), at);
    }
    let now = now + Duration::from_secs(2);
    let mut limit = |reserved| {
        let demand = Demand { used: reserved, reserved, waiting: 5 };
        let limit = budget.settle(NODE, demand, now).limit;
        let status = budget.status(NODE).expect("it is known");
        assert_eq!((status.share, status.standing), (2, Standing::Usable));
        limit
    };
    assert_eq!((limit(0), limit(1), limit(2), limit(3)), (2, 2, 3, 4));
    budget.handle_gone(NODE);
    assert_eq!(budget.settle(NODE, demand(0, 0), now).limit, 0, "nobody is to connect there");
}
