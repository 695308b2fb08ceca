//! Tests of what is wanted at once, and of who may want it.

use super::tests::{POLL, seconds};
use super::*;

#[test]
fn rotation_13_mismatches_that_one_fetch_answers_cost_one_token() {
    let start = any_moment();
    let mut schedule = Schedule::new(Some(POLL), 1, start, start);
    assert!(schedule.begin_fetch(start));
    for flood in 1..50 {
        let during = start + seconds(0.001 * f64::from(flood));
        assert!(
            schedule.request_fetch(FetchCause::Mismatch, during),
            "the next fetch answers {flood}"
        );
    }
    schedule.handle_answer(start + seconds(0.1), None, false);
    assert!(schedule.begin_fetch(start + seconds(0.1)));
    schedule.handle_answer(start + seconds(0.2), None, false);
    assert!(schedule.request_fetch(FetchCause::Mismatch, start + seconds(0.3)), "two are left");
}

#[test]
fn rotation_13_strangers_take_nothing_from_a_roles_own_clients() {
    let start = any_moment();
    let mut schedule = Schedule::new(Some(POLL), 1, start, start);
    let mut fetches = 0;
    for tick in 0..100 {
        let now = start + seconds(0.01 * f64::from(tick));
        schedule.request_fetch(FetchCause::StandIn, now);
        fetches += usize::from(schedule.begin_fetch(now));
        schedule.handle_answer(now, None, false);
    }
    assert!(fetches <= 4, "{fetches} fetches in a second");
    assert!(schedule.request_fetch(FetchCause::Mismatch, start + seconds(1.0)));
}

#[test]
fn another_place_is_asked_at_once_whatever_the_first_one_wanted() {
    let start = any_moment();
    let mut schedule = Schedule::new(None, 1, start, start);
    assert!(schedule.begin_fetch(start));
    schedule.handle_answer(start, None, true);
    assert_eq!(schedule.next_timeout(start), None, "a file tells its changes itself");
    schedule.set_poll(Some(POLL));
    schedule.restart(start);
    assert_eq!(schedule.next_timeout(start), Some(start));
}

#[test]
fn rotation_27_a_question_that_must_wait_is_asked_all_the_same() {
    let start = any_moment();
    let mut schedule = Schedule::new(Some(Duration::from_secs(3600)), 1, start, start);
    assert!(schedule.begin_fetch(start));
    schedule.handle_answer(start, None, true);
    // One who tries again and again uses up what there is.
    for second in 1..60 {
        let now = start + seconds(f64::from(second));
        schedule.request_fetch(FetchCause::Mismatch, now);
        if schedule.begin_fetch(now) {
            schedule.handle_answer(now, None, false);
        }
    }
    let came = start + seconds(60.5);
    assert!(schedule.request_fetch(FetchCause::Mismatch, came));
    let asked = schedule.next_timeout(came).expect("it is asked");
    assert!(asked <= came + MISMATCH_PAUSE, "{:?}", asked - came);
}
