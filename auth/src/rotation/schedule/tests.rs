use super::*;

pub(super) const POLL: Duration = Duration::from_secs(30);

pub(super) fn seconds(count: f64) -> Duration {
    Duration::from_secs_f64(count)
}

/// Lets time pass until `end`; every moment at which a fetch was sent. Answers take 10 ms.
fn run(
    schedule: &mut Schedule,
    mut now: Instant,
    end: Instant,
    mut answer: impl FnMut(Instant) -> Option<Duration>,
) -> Vec<Instant> {
    let mut sent = Vec::new();
    while let Some(next) = schedule.next_timeout(now) {
        now = now.max(next);
        if now > end {
            break;
        }
        assert!(schedule.begin_fetch(now), "due and not begun");
        assert!(!schedule.begin_fetch(now), "two at once");
        sent.push(now);
        now += seconds(0.01);
        schedule.handle_answer(now, answer(now), false);
    }
    sent
}

#[test]
fn a_role_is_polled_and_asked_each_second_near_its_rotation() {
    let start = any_moment();
    for seed in 0..200 {
        let mut schedule = Schedule::new(Some(POLL), seed, start, start);
        let expected = start + seconds(100.0);
        let ttl = |now: Instant| {
            Some(Duration::from_secs(expected.saturating_duration_since(now).as_secs()))
        };
        let sent = run(&mut schedule, start, start + seconds(300.0), ttl);
        let near: Vec<_> = sent
            .iter()
            .filter(|at| **at + seconds(1.2) > expected && **at < expected + seconds(8.2))
            .collect();
        assert!((7..=10).contains(&near.len()), "seed {seed}: {near:?}");
        assert!(near.windows(2).all(|pair| *pair[1] - *pair[0] <= OFTEN), "seed {seed}");
        let gaps = sent.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.max().is_some_and(|longest| longest <= POLL), "seed {seed}");
        assert!(sent.len() <= 12 + 10, "seed {seed}: {} fetches", sent.len());
    }
}

#[test]
fn rotation_17_many_roles_that_are_due_together_are_asked_apart() {
    let start = any_moment();
    let mut moments = Vec::new();
    for seed in 0..200 {
        let mut schedule = Schedule::new(Some(POLL), seed, start, start);
        let sent = run(&mut schedule, start, start + seconds(120.0), |_| None);
        moments.extend(sent.into_iter().skip(1));
    }
    moments.sort();
    let crowd = moments
        .iter()
        .map(|at| moments.iter().filter(|o| **o >= *at && **o < *at + seconds(1.0)).count())
        .max();
    assert!(crowd.is_some_and(|crowd| crowd <= 30), "{crowd:?} fetches in one second");
    let off = |at: &&Instant| !(**at - start).as_nanos().is_multiple_of(TICK.as_nanos());
    assert_eq!(moments.iter().filter(off).count(), 0, "fetches that wake up alone");
}

#[test]
fn a_refusal_is_answered_only_by_a_fetch_sent_after_it() {
    let start = any_moment();
    let mut schedule = Schedule::new(Some(POLL), 1, start, start);
    assert!(schedule.begin_fetch(start));
    let refused = start + seconds(0.1);
    assert!(schedule.request_fetch(FetchCause::Refusal, refused));
    assert_eq!(schedule.next_timeout(refused), None, "one at a time");
    let answered = start + seconds(0.2);
    schedule.handle_answer(answered, None, false);
    assert_eq!(schedule.next_timeout(answered), Some(answered), "sent before, answers nothing");
    assert!(schedule.begin_fetch(answered));
    schedule.handle_answer(start + seconds(0.3), None, false);
    assert!(schedule.next_timeout(answered) > Some(start + seconds(1.0)));
}

#[test]
fn rotation_13_mismatches_are_bounded_and_failures_pause() {
    let start = any_moment();
    let mut schedule = Schedule::new(Some(Duration::from_secs(3600)), 1, start, start);
    let mut fetches = 0;
    for tick in 0..6_000 {
        let now = start + seconds(f64::from(tick) / 100.0);
        schedule.request_fetch(FetchCause::Mismatch, now);
        if schedule.begin_fetch(now) {
            fetches += 1;
            schedule.handle_answer(now, None, false);
        }
    }
    assert!((25..=35).contains(&fetches), "{fetches} fetches in a minute");
    let mut now = start + seconds(4000.0);
    let mut pauses = Vec::new();
    for _ in 0..12 {
        assert!(schedule.begin_fetch(now));
        schedule.handle_failure(now, None);
        let next = schedule.next_timeout(now).expect("another attempt");
        pauses.push(next - now);
        now = next;
    }
    assert!(pauses[0] < seconds(0.6) && pauses[11] > seconds(20.0), "{pauses:?}");
    assert!(pauses[11] <= LONGEST_PAUSE);
    assert_eq!(schedule.stale_since(), Some(start + seconds(4000.0)));
    schedule.request_fetch(FetchCause::Refusal, now);
    assert!(schedule.next_timeout(now).is_some_and(|next| next <= now + OFTEN));
}
