//! Who goes when, by the clock that the test moves.

use pgimbal_wire::frame;

use super::time::{ACTIVE_UNTIL, IDLE_UNTIL, PINNED_FROM, at_last};
use super::*;
use crate::ids::SessionId;
use crate::plan::{Plan, Stop};
use crate::pool::checkout::Checkout;
use crate::session::pin::PinReason;
use crate::tests::Fixture;

const WHOLE: Duration = Duration::from_secs(100);
const SOON: Duration = Duration::from_millis(10);

/// A core with sessions, which were active when the clock began, and what has become of them.
struct Drain<const N: usize> {
    fixture: Fixture<N>,
    plan: Plan,
    begin: Instant,
    now: Instant,
}

impl<const N: usize> Drain<N> {
    fn new(mode: PoolMode) -> Self {
        let fixture = Fixture::<N>::new(|pool| pool.mode = mode);
        let begin = fixture.now;
        Self { fixture, plan: Plan::default(), begin, now: begin }
    }

    fn begin(&mut self) {
        self.begin = self.now;
        let time = DrainTime { begin: self.now, end: self.now + WHOLE };
        self.fixture.pooler.drain(time, self.now);
    }

    /// The clock stands at this part of the time, and all timers have run.
    fn at(&mut self, part: f64) -> &mut Self {
        self.now = self.begin + WHOLE.mul_f64(part);
        self.fixture.pooler.handle_timeout(self.now);
        self
    }

    fn session(&self, which: usize) -> &Session {
        self.fixture.pooler.session(self.fixture.sessions[which]).expect("a session")
    }

    fn has_gone(&self, which: usize) -> bool {
        self.session(which).final_error.is_some()
    }

    fn say(&mut self, which: usize, bytes: &[u8]) -> Stop {
        let id = self.fixture.sessions[which];
        loop {
            self.plan.clear();
            let pooler = &mut self.fixture.pooler;
            let processed = pooler.handle_client_bytes(id, self.now, bytes, &mut self.plan);
            match processed.stop {
                Stop::Checkout => {
                    let linked = pooler.checkout(id, self.now);
                    assert_eq!(linked, Checkout::Linked(self.fixture.server));
                }
                stop => return stop,
            }
        }
    }

    /// The server answers with this status; a connection that is free is given back.
    fn answer(&mut self, status: u8) {
        let ready = [b"C\0\0\0\x06A\0Z\0\0\0\x05".as_slice(), &[status]].concat();
        self.plan.clear();
        let (pooler, server) = (&mut self.fixture.pooler, self.fixture.server);
        let processed = pooler.handle_server_bytes(server, self.now, &ready, &mut self.plan);
        if processed.stop == Stop::Checkin {
            pooler.checkin(server, self.now);
        }
    }

    fn pin(&mut self, which: usize) {
        let id = self.fixture.sessions[which];
        let session = self.fixture.pooler.core().sessions.get_mut(id).expect("a session");
        session.pin_mut().set(PinReason::TooManySettings, true, self.now);
    }

    fn place(&self, which: usize) -> f64 {
        place_of(self.fixture.sessions[which])
    }
}

fn query(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len() + 5).expect("a short text").to_be_bytes();
    [b"Q", &length[..], text.as_bytes(), b"\0"].concat()
}

#[test]
fn clients_idle_for_long_go_in_their_order_through_the_time() {
    let mut drain = Drain::<8>::new(PoolMode::Transaction);
    drain.begin();
    for part in [0.05, 0.2, 0.5, 0.7, 0.9] {
        drain.at(part);
        for which in 0..8 {
            let due = part >= IDLE_UNTIL * drain.place(which);
            assert_eq!(drain.has_gone(which), due, "{which} at {part}");
        }
    }
    let gone = (0..8).filter(|which| drain.has_gone(*which)).count();
    assert_eq!(gone, 8);
}

#[test]
fn places_lie_evenly_however_many_there_are() {
    for count in [10_u32, 300, 5000] {
        let places = (1..=count).map(|serial| place_of(SessionId { slot: 0, serial }));
        let first_third = places.filter(|place| *place < 1.0 / 3.0).count();
        let expected = f64::from(count) / 3.0;
        let off = (first_third as f64 - expected).abs();
        assert!(off <= 2.0, "{first_third} of {count} in the first third");
    }
}

#[test]
fn a_client_that_was_active_a_moment_ago_stays_until_the_last_tenth() {
    let mut drain = Drain::<1>::new(PoolMode::Transaction);
    drain.begin();
    let last = at_last(drain.place(0));
    let parts = (1..90).map(|step| f64::from(step) / 100.0);
    for part in parts.chain([last - 0.001]) {
        drain.now = drain.begin + WHOLE.mul_f64(part);
        assert_ne!(drain.say(0, &query("select 2")), Stop::Wait);
        drain.answer(b'I');
        drain.now += SOON;
        drain.fixture.pooler.handle_timeout(drain.now);
        assert!(!drain.has_gone(0), "gone at {part}");
    }
    assert!(drain.at(last + 0.001).has_gone(0));
}

#[test]
fn a_client_at_work_has_its_turn_early_and_goes_in_its_next_pause() {
    let mut drain = Drain::<1>::new(PoolMode::Transaction);
    drain.begin();
    drain.now = drain.begin + WHOLE.mul_f64(ACTIVE_UNTIL);
    drain.say(0, &query("select 2"));
    drain.answer(b'I');
    let begun = drain.now;
    for (paused, goes) in [(0, false), (600, false), (1100, false), (1200, true)] {
        drain.now = begun + Duration::from_millis(paused);
        drain.fixture.pooler.handle_timeout(drain.now + SOON);
        assert_eq!(drain.has_gone(0), goes, "after {paused} ms");
    }
}

#[test]
fn in_the_last_tenth_a_short_pause_is_enough() {
    let mut drain = Drain::<1>::new(PoolMode::Transaction);
    drain.begin();
    drain.now = drain.begin + WHOLE.mul_f64(0.91);
    drain.say(0, &query("select 2"));
    drain.answer(b'I');
    let begun = drain.now;
    for (paused, goes) in [(200, false), (500, false), (650, true)] {
        drain.now = begun + Duration::from_millis(paused);
        drain.fixture.pooler.handle_timeout(drain.now);
        assert_eq!(drain.has_gone(0), goes, "after {paused} ms");
    }
}

#[test]
fn a_client_in_a_transaction_goes_when_that_has_ended() {
    let mut drain = Drain::<1>::new(PoolMode::Transaction);
    drain.say(0, &query("begin"));
    drain.answer(b'T');
    drain.begin();
    for part in [0.5, 0.96, 1.0, 1.5] {
        assert!(!drain.at(part).has_gone(0), "cut at {part}");
        drain.say(0, &query("select 1"));
        drain.answer(b'T');
        assert!(!drain.has_gone(0), "cut at {part}");
    }
    drain.say(0, &query("commit"));
    assert!(!drain.has_gone(0), "cut in its COMMIT");
    drain.answer(b'I');
    assert!(drain.has_gone(0), "it stays after its transaction");
}

#[test]
fn a_client_that_never_pauses_is_closed_between_two_transactions() {
    for mode in [PoolMode::Transaction, PoolMode::Session] {
        let mut drain = Drain::<1>::new(mode);
        drain.begin();
        drain.now = drain.begin + WHOLE.mul_f64(0.99);
        drain.say(0, &query("select 2"));
        if mode == PoolMode::Session && !drain.has_gone(0) {
            drain.answer(b'I');
            assert_eq!(drain.say(0, &query("select 3")), Stop::Wait);
        }
        assert!(drain.has_gone(0), "{mode:?}");
        assert!(drain.plan.to_server().is_empty(), "half of it was sent");
    }
}

#[test]
fn a_pools_question_is_a_moment_to_go_once_it_is_due() {
    let mut drain = Drain::<1>::new(PoolMode::Transaction);
    drain.begin();
    let due = ACTIVE_UNTIL * drain.place(0);
    drain.now = drain.begin + WHOLE.mul_f64(due) - SOON;
    drain.say(0, &query(""));
    drain.answer(b'I');
    assert!(!drain.has_gone(0), "before it is due");
    drain.now += SOON * 2;
    drain.say(0, &query("insert into t values (1)"));
    assert!(!drain.plan.to_server().is_empty(), "it is served");
    drain.answer(b'I');
    assert!(!drain.has_gone(0), "what is no question ends nothing");
    assert_eq!(drain.say(0, &query("-- ping")), Stop::Wait);
    assert!(drain.has_gone(0), "after it is due");
}

#[test]
fn a_pinned_client_keeps_its_connection_until_the_end() {
    let mut drain = Drain::<1>::new(PoolMode::Transaction);
    drain.say(0, &query("begin"));
    drain.answer(b'T');
    drain.pin(0);
    drain.say(0, &query("commit"));
    drain.answer(b'I');
    assert!(drain.session(0).link().server().is_some(), "it is pinned");
    drain.begin();
    assert!(!drain.at(PINNED_FROM - 0.01).has_gone(0));
    assert!(drain.at(PINNED_FROM + 0.001).has_gone(0));
}

#[test]
fn a_pinned_client_that_never_pauses_goes_between_two_transactions() {
    let mut drain = Drain::<1>::new(PoolMode::Transaction);
    drain.say(0, &query("begin"));
    drain.answer(b'T');
    drain.pin(0);
    drain.begin();
    assert!(!drain.at(0.99).has_gone(0), "in its transaction");
    drain.say(0, &query("commit"));
    drain.answer(b'I');
    assert_eq!(drain.say(0, &query("begin")), Stop::Wait);
    assert!(drain.has_gone(0));
}

#[test]
fn no_time_lets_all_go_that_are_in_no_transaction() {
    let mut drain = Drain::<3>::new(PoolMode::Transaction);
    drain.say(0, &query("begin"));
    drain.answer(b'T');
    let now = drain.now;
    drain.fixture.pooler.drain(DrainTime { begin: now, end: now }, now);
    assert!(!drain.has_gone(0) && drain.has_gone(1) && drain.has_gone(2));
    drain.fixture.pooler.cut_off();
    assert!(drain.has_gone(0), "what is left is cut");
}

#[test]
fn a_barrier_that_nothing_is_pending_behind_keeps_nobody() {
    let mut drain = Drain::<1>::new(PoolMode::Transaction);
    let id = drain.fixture.sessions[0];
    let session = drain.fixture.pooler.core().sessions.get_mut(id).expect("a session");
    session.set_phase(Phase::Barrier);
    drain.begin();
    assert!(drain.at(IDLE_UNTIL).has_gone(0));
}

#[test]
fn every_session_is_looked_at_slice_by_slice() {
    let mut drain = Drain::<7>::new(PoolMode::Transaction);
    let sessions = &mut drain.fixture.pooler.core().sessions;
    let mut seen: Vec<SessionId> = (0..8).flat_map(|_| sessions.next_to_look_at(2)).collect();
    seen.sort_by_key(|id| id.slot);
    seen.dedup();
    assert_eq!(seen.len(), 7);
}

#[test]
fn what_a_pool_asks() {
    for text in ["", ";", " ", "-- ping", "/* no */ select 1", "select 1", "SELECT 1;", "select\n1"]
    {
        let is = !text.contains("no");
        assert_eq!(is_pools_question(&query(text)), is, "{text:?}");
    }
    for text in ["select 2", "select 1, 2", "select 1 from t", "commit", "select 11"] {
        assert!(!is_pools_question(&query(text)), "{text:?}");
    }
    let parse = b"P\0\0\0\x10s1\0SELECT 1\0\0\0";
    assert!(frame::peek(parse).is_ok() && is_pools_question(parse));
    for no in [&b""[..], b"Q", b"Q\0\0\0\x05", b"X\0\0\0\x04", b"Q\0\0\x01\xf4\0"] {
        assert!(!is_pools_question(no), "{}", no.escape_ascii());
    }
}
