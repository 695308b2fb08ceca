//! One course of events each, as the scenarios have them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pgimbal_auth::SourcePassword;
use pgimbal_auth::rotation::{FetchCause, GiveUp, Learned, LoginPlan, Moment, Rotation, Schedule};
use pgimbal_config::Secret;

const NODE: &str = "a:5432";

struct Scenario {
    start: Instant,
    rotation: Rotation,
}

impl Scenario {
    fn new() -> Self {
        let start = Instant::now();
        let schedule = Schedule::new(Some(Duration::from_secs(30)), 7, start, start);
        Self { start, rotation: Rotation::new(schedule, 1) }
    }

    fn at(&self, seconds: f64) -> Instant {
        self.start + Duration::from_secs_f64(seconds)
    }

    fn moment(&self, seconds: f64) -> Moment {
        let instant = self.at(seconds);
        Moment { instant, wall: UNIX_EPOCH + (instant - self.start) + Duration::from_secs(5_000) }
    }

    /// The source says this, with a date so many seconds after some time and an hour to go.
    fn says(&mut self, seconds: f64, password: &str, dated: u64) -> Learned {
        let mut answer = SourcePassword::new("vault", Secret::from(password)).expect("an answer");
        answer.rotated_at = Some(dated_at(dated));
        answer.ttl = Some(Duration::from_secs(3600));
        self.rotation.handle_answer(&answer, self.moment(seconds))
    }

    fn plan_login(&mut self, node: &str, seconds: f64) -> LoginPlan {
        self.rotation.plan_login(node, self.at(seconds))
    }

    /// The password offered.
    fn shown(&mut self, node: &str, seconds: f64) -> (u32, String) {
        match self.plan_login(node, seconds) {
            LoginPlan::Try { generation, password } => (generation, password.expose().to_owned()),
            other => panic!("no password at {seconds}: {other:?}"),
        }
    }

    /// Shows what is offered to a server that wants `right`; what was shown.
    fn log_in(&mut self, node: &str, seconds: f64, right: &str) -> Vec<String> {
        let mut all = Vec::new();
        while let LoginPlan::Try { generation, password } = self.plan_login(node, seconds) {
            all.push(password.expose().to_owned());
            if password.expose() == right {
                self.rotation.handle_accepted(node, generation);
                return all;
            }
            self.rotation.handle_refused(node, generation, self.at(seconds));
        }
        all
    }
}

fn dated_at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

#[test]
fn a_new_password_replaces_a_working_one_once_a_login_with_it_has_succeeded() {
    let mut scenario = Scenario::new();
    assert_eq!(scenario.says(0.0, "one", 0), Learned::Rotated(1));
    assert_eq!(scenario.log_in(NODE, 0.1, "one"), ["one"]);
    assert_eq!(scenario.says(1.0, "two", 1), Learned::Rotated(2));
    // One finds out; the others go on with what works.
    assert_eq!(scenario.shown(NODE, 1.1), (2, "two".into()));
    assert_eq!(scenario.shown(NODE, 1.1), (1, "one".into()));
    scenario.rotation.handle_accepted(NODE, 2);
    scenario.rotation.handle_accepted(NODE, 1);
    assert_eq!(scenario.shown(NODE, 1.2), (2, "two".into()));
    assert_eq!(scenario.shown(NODE, 1.2), (2, "two".into()));
}

#[test]
fn rotation_3_a_login_is_held_and_retried_while_vault_lags() {
    let mut scenario = Scenario::new();
    scenario.says(0.0, "one", 0);
    scenario.log_in(NODE, 0.1, "one");
    assert_eq!(scenario.log_in(NODE, 100.0, "two"), ["one"]);
    assert_eq!(scenario.rotation.failing().count(), 1);
    let mut tries = 0;
    let mut now = 100.0;
    while now < 129.0 {
        match scenario.plan_login(NODE, now) {
            LoginPlan::Wait(until) => now = (until - scenario.start).as_secs_f64() + 0.000_1,
            LoginPlan::Try { generation, .. } => {
                tries += 1;
                scenario.rotation.handle_refused(NODE, generation, scenario.at(now));
            }
            LoginPlan::GiveUp(_) => break,
        }
    }
    assert!((10..=20).contains(&tries), "{tries} tries");
    assert!(now > 128.0, "given up after {now} s");
    assert_eq!(scenario.says(129.0, "two", 1), Learned::Rotated(2));
    assert_eq!(scenario.log_in(NODE, 129.0, "two"), ["two"]);
    assert_eq!(scenario.rotation.failing().count(), 0);
}

#[test]
fn rotation_3_the_hold_ends_and_the_newest_is_still_tried_now_and_then() {
    let mut scenario = Scenario::new();
    scenario.says(0.0, "one", 0);
    scenario.log_in(NODE, 0.1, "one");
    scenario.log_in(NODE, 10.0, "other");
    scenario.log_in(NODE, 30.0, "other");
    let refused = scenario.log_in(NODE, 41.0, "other");
    assert_eq!(refused, ["one"]);
    assert!(matches!(scenario.plan_login(NODE, 41.0), LoginPlan::GiveUp(GiveUp::Refused(_))));
    assert_eq!(scenario.log_in(NODE, 50.0, "one"), ["one"]);
    assert_eq!(scenario.rotation.failing().count(), 0);
}

#[test]
fn rotation_6_an_older_answer_is_ignored_or_tried() {
    let mut scenario = Scenario::new();
    scenario.says(0.0, "two", 10);
    scenario.log_in(NODE, 0.1, "two");
    assert_eq!(scenario.says(1.0, "one", 0), Learned::Older(2));
    assert_eq!(scenario.log_in(NODE, 1.1, "two"), ["two"]);
    // Refused now: what the source says counts, whatever its date.
    assert_eq!(scenario.log_in(NODE, 2.0, "three"), ["two", "one"]);
    let Learned::Candidate(number) = scenario.says(2.1, "three", 5) else { panic!("not tried") };
    let LoginPlan::Try { generation, .. } = scenario.plan_login(NODE, 2.2) else {
        panic!("not offered")
    };
    assert_eq!(generation, number);
    assert_eq!(
        scenario.rotation.handle_accepted(NODE, generation),
        Some(number),
        "it is the newest now"
    );
    assert_eq!(scenario.says(3.0, "four", 6), Learned::Rotated(number + 1));
    assert_eq!(scenario.log_in(NODE, 3.1, "four"), ["four"]);
}

#[test]
fn rotation_8_each_node_has_an_order_of_its_own() {
    let mut scenario = Scenario::new();
    let (primary, replica) = ("p:1", "r:2");
    scenario.says(0.0, "one", 0);
    scenario.log_in(primary, 0.1, "one");
    scenario.log_in(replica, 0.1, "one");
    scenario.says(1.0, "two", 1);
    assert_eq!(scenario.log_in(primary, 1.1, "two"), ["two"]);
    assert_eq!(scenario.log_in(replica, 1.1, "one"), ["two", "one"]);
    for tenth in 12..20 {
        assert_eq!(scenario.log_in(replica, f64::from(tenth) / 10.0, "one"), ["one"]);
    }
    // It has replayed by now: the one that stood in is refused, and the newest works at once.
    assert_eq!(scenario.log_in(replica, 2.05, "two"), ["one", "two"]);
    assert_eq!(scenario.log_in(primary, 2.1, "two"), ["two"]);
}

#[test]
fn rotation_9_the_previous_password_works_where_the_change_was_lost() {
    let mut scenario = Scenario::new();
    scenario.says(0.0, "one", 0);
    scenario.log_in(NODE, 0.1, "one");
    scenario.says(10.0, "two", 1);
    scenario.log_in(NODE, 10.1, "two");
    assert_eq!(scenario.log_in(NODE, 20.0, "one"), ["two", "one"]);
    assert_eq!(scenario.says(21.0, "two", 1), Learned::Same);
    assert_eq!(scenario.log_in(NODE, 21.0, "one").last().map(String::as_str), Some("one"));
    scenario.says(30.0, "three", 2);
    assert_eq!(scenario.log_in(NODE, 30.1, "three"), ["three"]);
}

#[test]
fn rotation_18_a_wrong_password_is_shown_once_for_each_pause() {
    let mut scenario = Scenario::new();
    scenario.says(0.0, "wrong", 0);
    assert_eq!(scenario.log_in(NODE, 0.1, "right"), ["wrong"]);
    scenario.says(0.1, "wrong", 0);
    let mut shown = 0;
    for tenth in 1..100 {
        let now = f64::from(tenth) / 10.0;
        shown += scenario.log_in(NODE, now, "right").len();
        // The source is asked because of it, and says the same.
        scenario.says(now, "wrong", 0);
        assert!(
            matches!(scenario.plan_login(NODE, now), LoginPlan::GiveUp(GiveUp::Refused(_))),
            "held"
        );
    }
    assert!(shown <= 8, "{shown} failed logins in 10 s");
    let unknown = Scenario::new().plan_login(NODE, 0.0);
    assert!(matches!(unknown, LoginPlan::Wait(_)), "{unknown:?}");
}

#[test]
fn rotation_4_a_password_that_never_worked_waits_for_what_the_source_says_next() {
    let mut scenario = Scenario::new();
    scenario.says(0.0, "read at the start", 0);
    assert_eq!(scenario.log_in(NODE, 1.0, "rotated since"), ["read at the start"]);
    assert!(matches!(scenario.plan_login(NODE, 1.1), LoginPlan::Wait(_)), "it may have rotated");
    assert_eq!(scenario.rotation.failing().count(), 1);
    assert_eq!(scenario.says(1.2, "rotated since", 1), Learned::Rotated(2));
    // Nothing is said of a password that was never tried, and no pause is left.
    assert_eq!(scenario.rotation.refusing_newest().count(), 0);
    assert_eq!(scenario.rotation.failing().count(), 1, "what is open is kept");
    assert_eq!(scenario.log_in(NODE, 1.2, "rotated since"), ["rotated since"]);
}

#[test]
fn rotation_25_what_was_set_aside_is_believed_when_a_server_takes_it() {
    let mut scenario = Scenario::new();
    scenario.says(0.0, "of the leader whose clock is ahead", 3600);
    scenario.log_in(NODE, 0.1, "of the leader whose clock is ahead");
    assert_eq!(scenario.says(1.0, "the present one", 60), Learned::Older(2));
    assert_eq!(scenario.says(2.0, "the present one", 60), Learned::Older(2), "it is one");
    assert!(scenario.rotation.is_older(2) && !scenario.rotation.is_older(1));
    assert!(scenario.rotation.promote_older(NODE, 2) && !scenario.rotation.promote_older(NODE, 2));
    assert_eq!(scenario.shown(NODE, 2.1), (2, "the present one".into()));
    assert_eq!(scenario.says(3.0, "the present one", 60), Learned::Same);
    assert_eq!(scenario.says(4.0, "the next one", 61), Learned::Rotated(3));
}

#[test]
fn a_password_that_was_never_known_is_waited_for_and_then_given_up() {
    let mut scenario = Scenario::new();
    assert!(matches!(scenario.plan_login(NODE, 0.0), LoginPlan::Wait(_)));
    assert!(matches!(scenario.plan_login(NODE, 31.0), LoginPlan::GiveUp(GiveUp::Unknown)));
    scenario.says(32.0, "one", 0);
    assert_eq!(scenario.log_in(NODE, 32.0, "one"), ["one"]);
}

#[test]
fn a_place_that_goes_back_to_an_older_password_is_followed() {
    let mut scenario = Scenario::new();
    let undated = |scenario: &mut Scenario, seconds: f64, password: &str| {
        let answer = SourcePassword::new("file", Secret::from(password)).expect("an answer");
        scenario.rotation.handle_answer(&answer, scenario.moment(seconds))
    };
    undated(&mut scenario, 0.0, "one");
    scenario.log_in(NODE, 0.1, "one");
    undated(&mut scenario, 1.0, "two");
    scenario.log_in(NODE, 1.1, "two");
    assert!(matches!(undated(&mut scenario, 2.0, "one"), Learned::Rotated(3)));
    assert_eq!(scenario.log_in(NODE, 2.1, "one"), ["one"]);
    assert_eq!(undated(&mut scenario, 3.0, "one"), Learned::Same);
}

#[test]
fn a_cached_password_is_used_until_the_source_answers() {
    let mut scenario = Scenario::new();
    let moment = scenario.moment(0.0);
    scenario.rotation.remember(Secret::from("one"), None, moment);
    scenario.rotation.remember(Secret::from("two"), None, moment);
    assert_eq!(scenario.log_in(NODE, 0.1, "one"), ["two", "one"]);
    assert_eq!(scenario.says(1.0, "two", 0), Learned::Same);
    assert!(scenario.rotation.schedule.request_fetch(FetchCause::Order, scenario.at(2.0)));
    assert_eq!(scenario.rotation.schedule.next_timeout(scenario.at(2.0)), Some(scenario.at(2.0)));
}
