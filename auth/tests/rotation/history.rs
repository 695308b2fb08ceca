//! What clients may show, what is kept of it, and how two histories become one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgimbal_auth::account::{LoginKeys, PasswordRank};
use pgimbal_auth::rotation::{
    AcceptedPasswords, CachedPassword, Grace, HistoryRecord, MAX_REVOKED, PasswordCache,
    SourceGeneration, Unreadable, parse_history_file,
};
use pgimbal_auth::verifier::SaltParameters;
use pgimbal_config::Secret;

const NANO: Duration = Duration::from_nanos(1);
const GRACE: Grace = Grace { generations: 3, age: Some(Duration::from_secs(100)) };

fn salt_parameters() -> SaltParameters {
    SaltParameters { salt: Box::from(*b"0123456789abcdef"), iterations: 2 }
}

fn keys(password: &str) -> LoginKeys {
    LoginKeys::derive("ann", &Secret::from(password), &salt_parameters()).expect("keys")
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

fn learn(accepted: &mut AcceptedPasswords, number: u32, seconds: u64) {
    let password = format!("password-{number}");
    accepted.learn(returned(number, Some(seconds), &password), at(seconds));
}

fn returned(number: u32, dated: Option<u64>, password: &str) -> SourceGeneration {
    SourceGeneration { number, rotated_at: dated.map(at), keys: keys(password) }
}

fn of_record(record: &HistoryRecord) -> AcceptedPasswords {
    AcceptedPasswords::of_record(record, salt_parameters(), None)
}

fn numbers(accepted: &AcceptedPasswords) -> Vec<u32> {
    accepted.generations().map(|(number, _)| number).collect()
}

#[test]
fn rotation_2_the_grace_ends_by_count_and_by_age() {
    let mut accepted = AcceptedPasswords::new(salt_parameters(), Some(keys("also")));
    for number in 1..=4 {
        learn(&mut accepted, number, u64::from(number) * 10);
    }
    assert!(accepted.handle_timeout(GRACE, at(41)));
    assert_eq!(numbers(&accepted), [4, 3, 2]);
    let ranks: Vec<_> = accepted.accepted().map(|(matched, _)| matched.rank).collect();
    let all =
        [PasswordRank::Newest, PasswordRank::Previous, PasswordRank::Older, PasswordRank::Extra];
    assert_eq!(ranks, all);
    // The second was retired when the third was seen.
    assert_eq!(accepted.next_timeout(GRACE), Some(at(130)));
    assert!(!accepted.handle_timeout(GRACE, at(129)));
    assert!(accepted.handle_timeout(GRACE, at(130)));
    assert_eq!(numbers(&accepted), [4, 3]);
    accepted.handle_timeout(Grace { generations: 1, age: None }, at(131));
    assert_eq!(numbers(&accepted), [4]);
    assert!(!accepted.handle_timeout(GRACE, at(100_000)), "the newest is never too old");
}

#[test]
fn rotation_11_keys_that_come_late_do_not_make_a_generation_the_newest() {
    let mut accepted = AcceptedPasswords::new(salt_parameters(), None);
    for number in [1, 3, 2] {
        learn(&mut accepted, number, u64::from(number));
    }
    assert_eq!(numbers(&accepted), [3, 2, 1]);
    accepted.revoke_old(&HistoryRecord::default());
    assert_eq!(numbers(&accepted), [3]);
    learn(&mut accepted, 2, 2);
    assert_eq!(numbers(&accepted), [3], "what was revoked stays so, however late its keys come");
    learn(&mut accepted, 4, 4);
    assert_eq!(numbers(&accepted), [4, 3]);
}

#[test]
fn rotation_2_a_revoked_generation_never_returns() {
    let mut accepted = AcceptedPasswords::new(salt_parameters(), None);
    (1..=3).for_each(|number| learn(&mut accepted, number, u64::from(number)));
    let before = accepted.record();
    accepted.revoke_old(&before);
    assert_eq!(numbers(&accepted), [3]);
    let mut merged = accepted.record();
    merged.merge(before.clone());
    assert_eq!(numbers(&of_record(&merged)).len(), 1);
    let mut merged = before.clone();
    merged.merge(accepted.record());
    assert_eq!(numbers(&of_record(&merged)).len(), 1);
    assert!(!accepted.merge(&before, GRACE, at(4), || 9));
    assert_eq!(numbers(&accepted), [3]);
}

#[test]
fn rotation_23_a_password_that_is_the_newest_here_is_refused_when_it_was_revoked_elsewhere() {
    let mut behind = AcceptedPasswords::new(salt_parameters(), None);
    learn(&mut behind, 1, 1);
    let mut ahead = of_record(&behind.record());
    learn(&mut ahead, 2, 2);
    ahead.revoke_old(&ahead.record());
    assert!(behind.merge(&ahead.record(), GRACE, at(3), || 7));
    assert_eq!(numbers(&behind), [7]);
    assert!(!behind.learn(returned(8, Some(1), "password-1"), at(4)), "the source lags");
    assert_eq!(numbers(&behind), [7]);
}

#[test]
fn rotation_2_what_was_pruned_before_a_revoke_does_not_come_back_after_it() {
    let mut accepted = AcceptedPasswords::new(salt_parameters(), None);
    learn(&mut accepted, 1, 1);
    let long_ago = accepted.record();
    for number in 2..=6 {
        learn(&mut accepted, number, u64::from(number));
        accepted.handle_timeout(GRACE, at(7));
    }
    let mut record = accepted.record();
    record.prune();
    accepted.revoke_old(&record);
    accepted.merge(&long_ago, GRACE, at(8), || 9);
    assert_eq!(numbers(&accepted), [6]);
}

#[test]
fn rotation_2_the_memory_of_revocations_is_bounded() {
    let mut accepted = AcceptedPasswords::new(salt_parameters(), None);
    let mut first = None;
    for number in 1..=2 * MAX_REVOKED as u32 {
        learn(&mut accepted, number, u64::from(number));
        first.get_or_insert_with(|| accepted.record());
        accepted.revoke_old(&accepted.record());
    }
    let mut record = accepted.record();
    let named = |record: &HistoryRecord| {
        let json = serde_json::to_value(record).expect("JSON");
        json["revoked"].as_object().map_or(0, serde_json::Map::len)
    };
    assert_eq!(named(&record), MAX_REVOKED);
    record.merge(first.expect("a record"));
    record.prune();
    assert_eq!(numbers(&of_record(&record)).len(), 1, "the first one has ended by its order");
}

#[test]
fn rotation_12_a_lagging_source_does_not_make_an_old_password_the_newest() {
    let mut ahead = AcceptedPasswords::new(salt_parameters(), None);
    (1..=2).for_each(|number| learn(&mut ahead, number, u64::from(number)));
    let mut behind = of_record(&ahead.record());
    behind.learn(returned(9, Some(1), "password-1"), at(50));
    assert_eq!(numbers(&behind), [2, 9], "a start with a standby's answer");
    // Without dates the source's word is all there is, and the password has come back.
    behind.learn(returned(10, None, "password-1"), at(60));
    assert_eq!(numbers(&behind), [10, 2]);
    let mut merged = ahead.record();
    merged.merge(behind.record());
    assert_eq!(of_record(&merged).accepted().next().map(|(one, _)| one.generation), Some(2));
    let again = of_record(&merged);
    assert_eq!(again.next_timeout(GRACE), Some(at(160)), "only the other one has retired");
}

#[test]
fn rotation_12_the_grace_of_a_password_counts_from_no_time_before_its_successor_was_made() {
    let mut slow = AcceptedPasswords::new(salt_parameters(), None);
    slow.learn(returned(1, Some(5_000), "password-1"), at(5_000));
    // The clock of this replica is an hour behind.
    slow.learn(returned(2, Some(9_000), "password-2"), at(5_400));
    let mut right = of_record(&slow.record());
    assert!(!right.handle_timeout(GRACE, at(9_099)), "100 s of grace");
    assert!(right.handle_timeout(GRACE, at(9_100)));
}

#[test]
fn rotation_11_a_history_read_back_knows_what_was_accepted() {
    let mut accepted = AcceptedPasswords::new(salt_parameters(), None);
    (1..=3).for_each(|number| learn(&mut accepted, number, u64::from(number)));
    let text = serde_json::to_string(&accepted.record()).expect("JSON");
    assert!(!text.contains("password-"), "{text}");
    let read: HistoryRecord = serde_json::from_str(&text).expect("the same record");
    assert_eq!(read, accepted.record());
    assert!(!format!("{read:?}").contains("=="));
    let mut again = of_record(&read);
    assert_eq!(numbers(&again), [3, 2, 1]);
    // The source says the newest again: it is the same one, by its verifier.
    again.learn(returned(9, Some(3), "password-3"), at(50));
    assert_eq!(numbers(&again), [9, 2, 1]);
    let salted = SaltParameters { salt: Box::from(*b"other"), iterations: 2 };
    let other = AcceptedPasswords::of_record(&read, salted, None);
    assert_eq!(numbers(&other), [0_u32; 0], "another salt is demanded");
}

#[test]
fn rotation_11_a_newest_generation_that_its_history_calls_retired_ends_never() {
    let mut accepted = AcceptedPasswords::new(salt_parameters(), None);
    learn(&mut accepted, 1, 1);
    let text = serde_json::to_string(&accepted.record()).expect("JSON");
    let retired = text.replace("\"retired_at\":null", "\"retired_at\":1");
    assert_ne!(retired, text);
    let mut again = of_record(&serde_json::from_str(&retired).expect("a record"));
    assert!(!again.handle_timeout(GRACE, at(1_000_000)));
    assert_eq!(again.next_timeout(GRACE), None, "it would be looked at again and again");
}

#[test]
fn rotation_11_the_history_file_of_earlier_versions_is_read() {
    let base = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let (old, new) = (format!("{base}E="), format!("{base}I="));
    let text = format!(
        r#"{{"version": 1, "users": {{"ann": {{"salt": "MDEyMzQ1Njc4OWFiY2RlZg==",
        "iterations": 2, "revoked_before": null, "generations": [
        {{"rotated_at": 2, "stored_key": "{new}", "server_key": "{new}", "first_seen": 2,
          "retired_at": null}},
        {{"rotated_at": 1, "stored_key": "{old}", "server_key": "{old}", "first_seen": 1,
          "retired_at": 2}}]}}}}}}"#
    );
    let users = parse_history_file(text.as_bytes()).expect("a history");
    let read = of_record(&users["ann"]);
    assert_eq!(numbers(&read), [2, 1]);
    assert_eq!(read.next_timeout(GRACE), Some(UNIX_EPOCH + Duration::from_secs(100) + 2 * NANO));
    for length in 0..text.len() {
        let half = parse_history_file(&text.as_bytes()[..length]);
        assert!(matches!(half, Err(Unreadable::Malformed { .. })), "{length} bytes are accepted");
    }
    let later = text.replace("\"version\": 1", "\"version\": 9");
    assert_eq!(parse_history_file(later.as_bytes()), Err(Unreadable::Version(9)));
}

#[test]
fn what_a_later_version_has_written_survives() {
    let mut accepted = AcceptedPasswords::new(salt_parameters(), None);
    learn(&mut accepted, 1, 1);
    let mut text = serde_json::to_value(accepted.record()).expect("JSON");
    text["later"] = 1.into();
    text["generations"][0]["later"] = serde_json::json!({"a": [1, 2]});
    let read: HistoryRecord = serde_json::from_value(text.clone()).expect("a record");
    let mut merged = accepted.record();
    merged.merge(read.clone());
    assert_eq!(serde_json::to_value(&merged).expect("JSON"), text);
    // What this replica remembers of such a field may be older than what the store has.
    text["later"] = 0.into();
    let stored: HistoryRecord = serde_json::from_value(text.clone()).expect("a record");
    merged.merge(stored.clone());
    merged.follow(&stored);
    assert_eq!(serde_json::to_value(&merged).expect("JSON"), text);
}

#[test]
fn cached_passwords_read_back() {
    let cached = CachedPassword::new(Secret::from("pa\"word"), Some(at(7)));
    let cache = PasswordCache::new([("app".to_owned(), vec![cached])].into());
    assert!(!format!("{cache:?}").contains("pa\\\"word"));
    let bytes = cache.to_bytes().expect("bytes");
    let read = PasswordCache::parse(&bytes).expect("the same cache");
    let password = &read.roles["app"][0];
    assert_eq!((password.password().expose(), password.rotated_at()), ("pa\"word", Some(at(7))));
    assert!(PasswordCache::parse(&bytes[..bytes.len() - 3]).is_err());
}

#[test]
fn a_history_that_somebody_has_edited_to_the_greatest_number_ends_nothing() {
    let mut before = AcceptedPasswords::new(salt_parameters(), None);
    learn(&mut before, 1, 10);
    let mut json = serde_json::to_value(before.record()).expect("JSON");
    json["generations"][0]["order"] = u64::MAX.into();
    let record: HistoryRecord = serde_json::from_value(json).expect("a record");
    let mut accepted = of_record(&record);
    learn(&mut accepted, 2, 20);
    let newest = accepted.generations().next();
    assert_eq!(newest, Some((2, at(20))), "the later date is the newer one");
    let mut numbers = 3..;
    accepted.merge(&record, GRACE, at(30), || numbers.next().expect("a number"));
    accepted.confirm(at(40));
    assert_eq!(accepted.generations().count(), 2);
    accepted.revoke_old(&record);
    assert_eq!(accepted.generations().map(|(_, born)| born).collect::<Vec<_>>(), [at(20)]);
    learn(&mut accepted, 1, 10);
    assert_eq!(accepted.generations().count(), 1, "it was revoked");
}
