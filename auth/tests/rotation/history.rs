//! What clients may show, what is kept of it, and how two histories become one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgimbal_auth::account::{LoginKeys, PasswordRank};
use pgimbal_auth::rotation::{
    AcceptedPasswords, CachedPassword, Grace, HistoryDocument, HistoryRecord, Jitter,
    PasswordCache, Unreadable,
};
use pgimbal_auth::verifier::SaltParameters;
use pgimbal_config::Secret;

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
    accepted.learn(number, Some(at(seconds)), keys(&password), at(seconds));
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
    accepted.revoke_old();
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
    accepted.revoke_old();
    assert_eq!(numbers(&accepted), [3]);
    let mut merged = accepted.record();
    merged.merge(before.clone());
    assert_eq!(numbers(&AcceptedPasswords::of_record(&merged, None, None)).len(), 1);
    let mut merged = before;
    merged.merge(accepted.record());
    assert_eq!(numbers(&AcceptedPasswords::of_record(&merged, None, None)).len(), 1);
}

#[test]
fn rotation_11_a_history_read_back_knows_what_was_accepted() {
    let mut accepted = AcceptedPasswords::new(salt_parameters(), None);
    (1..=3).for_each(|number| learn(&mut accepted, number, u64::from(number)));
    let document = HistoryDocument::new([("ann".to_owned(), accepted.record())].into());
    let bytes = document.to_bytes().expect("bytes");
    let text = String::from_utf8(bytes.to_vec()).expect("text");
    assert!(!text.contains("password-"), "{text}");
    let read = HistoryDocument::parse(&bytes).expect("the same document");
    assert_eq!(read, document);
    let mut again = AcceptedPasswords::of_record(&read.users["ann"], None, None);
    assert_eq!(numbers(&again), [3, 2, 1]);
    // The source says the newest again: it is the same one, by its verifier.
    again.learn(9, Some(at(3)), keys("password-3"), at(50));
    assert_eq!(numbers(&again), [9, 2, 1]);
    let salted = SaltParameters { salt: Box::from(*b"other"), iterations: 2 };
    let other = AcceptedPasswords::of_record(&read.users["ann"], Some(salted), None);
    assert_eq!(numbers(&other), [0_u32; 0], "another salt is demanded");
}

#[test]
fn rotation_11_a_newest_generation_that_its_history_calls_retired_ends_never() {
    let mut accepted = AcceptedPasswords::new(salt_parameters(), None);
    learn(&mut accepted, 1, 1);
    let document = HistoryDocument::new([("ann".to_owned(), accepted.record())].into());
    let text = String::from_utf8(document.to_bytes().expect("bytes").to_vec()).expect("text");
    let retired = text.replace("\"retired_at\": null", "\"retired_at\": 1");
    assert_ne!(retired, text);
    let read = HistoryDocument::parse(retired.as_bytes()).expect("a document");
    let mut again = AcceptedPasswords::of_record(&read.users["ann"], None, None);
    assert!(!again.handle_timeout(GRACE, at(1_000_000)));
    assert_eq!(again.next_timeout(GRACE), None, "it would be looked at again and again");
}

#[test]
fn half_a_history_is_refused_whole() {
    let mut accepted = AcceptedPasswords::new(salt_parameters(), None);
    learn(&mut accepted, 1, 1);
    let document = HistoryDocument::new([("ann".to_owned(), accepted.record())].into());
    let bytes = document.to_bytes().expect("bytes");
    for length in 0..bytes.len() {
        let half = HistoryDocument::parse(&bytes[..length]);
        assert!(matches!(half, Err(Unreadable::Malformed { .. })), "{length} bytes are accepted");
    }
    let text = String::from_utf8(bytes.to_vec()).expect("text");
    let later = HistoryDocument::parse(text.replace("\"version\": 1", "\"version\": 9").as_bytes());
    assert_eq!(later, Err(Unreadable::Version(9)));
    assert!(!format!("{document:?}").contains("=="));
}

/// What one of several proxies knows after some events that a seed decides.
fn known(seed: u64) -> HistoryRecord {
    let mut chance = Jitter::new(seed);
    let mut accepted = AcceptedPasswords::new(salt_parameters(), None);
    for number in 1..=5 {
        if chance.fraction() < 0.7 {
            let seen = u64::from(number) * 10 + (chance.fraction() * 9.0) as u64;
            let password = format!("password-{number}");
            accepted.learn(number, Some(at(u64::from(number) * 10)), keys(&password), at(seen));
        }
        if chance.fraction() < 0.1 {
            accepted.revoke_old();
        }
    }
    accepted.record()
}

fn merged(records: &[HistoryRecord]) -> Vec<u8> {
    let mut all = records[0].clone();
    records[1..].iter().for_each(|record| all.merge(record.clone()));
    // In the one order that it is kept in.
    all.merge(all.clone());
    let document = HistoryDocument::new([("ann".to_owned(), all)].into());
    document.to_bytes().expect("bytes").to_vec()
}

#[test]
fn rotation_12_histories_merge_in_any_order_to_the_same() {
    for seed in 0..500 {
        let [a, b, c] = [known(3 * seed), known(3 * seed + 1), known(3 * seed + 2)];
        let one = merged(&[a.clone(), b.clone(), c.clone()]);
        assert_eq!(one, merged(&[c.clone(), a.clone(), b.clone()]), "seed {seed}");
        assert_eq!(one, merged(&[b.clone(), c, a.clone(), b, a]), "seed {seed}");
    }
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
