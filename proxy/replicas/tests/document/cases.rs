//! Single cases of the document.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use pgimbal_replicas::InstanceId;
use pgimbal_replicas::document::{Document, DocumentError, MAX_INFLATED, SaltsKey, Unreadable};

fn deflated(text: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).expect("deflated");
    encoder.finish().expect("deflated")
}

#[test]
fn what_is_no_document_is_refused() {
    assert_eq!(Document::parse(b""), Ok(Document::default()), "a new store");
    assert_eq!(Document::parse(b"\n"), Ok(Document::default()), "a new store");
    let mut document = Document::default();
    document.set_salts(SaltsKey::new([7; 32]));
    let bytes = document.to_bytes();
    assert_eq!(Document::parse(&bytes).as_ref(), Ok(&document));
    for length in 1..bytes.len() {
        assert!(Document::parse(&bytes[..length]).is_err(), "{length} bytes are accepted");
    }
    for index in 0..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[index] ^= 0x10;
        let read = Document::parse(&changed);
        assert!(read.is_err() || read.as_ref() == Ok(&document), "byte {index} was changed");
    }
    for text in ["{", "{}", "[]", r#"{"version": "1"}"#, r#"{"version": 1, "users": 7}"#] {
        let broken = Document::parse(text.as_bytes());
        assert!(broken.is_err(), "{text}");
        assert!(Document::parse(&deflated(text.as_bytes())).is_err(), "{text}");
    }
}

#[test]
fn another_version_is_refused_whatever_else_it_has() {
    let text = br#"{"version": 2, "users": ["of another form"]}"#;
    let refused = Err(DocumentError::Unreadable(Unreadable::Version(2)));
    assert_eq!(Document::parse(text), refused);
    assert_eq!(Document::parse(&deflated(text)), refused);
}

#[test]
fn a_text_that_inflates_without_end_is_refused() {
    let bomb = deflated(&vec![b' '; 2 * MAX_INFLATED as usize]);
    assert!(bomb.len() < 40_000);
    assert_eq!(Document::parse(&bomb), Err(DocumentError::TooLarge));
}

#[test]
fn a_document_may_be_written_by_hand() {
    let text = br#" {"version": 1, "clusters": {"main": {"hold":
        {"counter": 3, "instance": "ff", "value": true, "why": "maintenance"}}}}"#;
    let document = Document::parse(text).expect("a document");
    assert!(document.cluster("main").expect("the cluster").is_held());
    let again = String::from_utf8(serde_json::to_vec(&document).expect("JSON")).expect("text");
    assert!(again.contains("maintenance"), "a field of a decision survives: {again}");
}

#[test]
fn secrets_are_not_shown() {
    let mut document = Document::default();
    document.set_salts(SaltsKey::new([7; 32]));
    assert!(format!("{document:?}").contains("***"));
    assert!(!format!("{document:?}").contains("7, 7"));
}

#[test]
fn the_last_word_of_an_operator_wins_and_an_adopted_history_counts_more_than_any_timeline() {
    let (mut a, mut b) = (Document::default(), Document::default());
    let (one, two) = (InstanceId(1), InstanceId(2));
    let (of_a, of_b) = (a.cluster_mut("main"), b.cluster_mut("main"));
    of_a.see(5, 70);
    of_b.merge(of_a.clone());
    of_b.adopt(6, 2, [("old", true), ("new", false)], two);
    of_a.see(5, 71);
    of_a.merge(of_b.clone());
    let history = of_a.history().expect("a history");
    assert_eq!((history.system, history.timeline), (6, 2));
    assert_eq!(of_a.quarantined().collect::<Vec<_>>(), ["old"]);
    assert!(!of_a.see(5, 72), "what was there before the adoption");
    assert!(of_a.see(6, 3));
    assert!(of_a.set_quarantined("old", false, one));
    assert!(!of_a.set_hold(true, one));
    of_b.merge(of_a.clone());
    assert!(of_b.set_hold(false, two), "it was held");
    of_a.merge(of_b.clone());
    assert!(!of_a.is_held());
    assert_eq!(of_a.quarantined().count(), 0);
    // Two who do not know of each other: the greater instance.
    of_a.set_hold(true, one);
    of_b.set_hold(false, two);
    of_a.merge(of_b.clone());
    assert!(!of_a.is_held());
}

/// A document of so many users with as many generations as are written.
fn large(users: u32) -> Document {
    let mut random = crate::random::Random::new(7);
    let mut key = || {
        let bytes: Vec<u8> = (0..32).map(|_| random.next() as u8).collect();
        pgimbal_auth::rotation::SecretBytes::from(bytes)
    };
    let mut generation = |order: u32| {
        serde_json::json!({
            "order": 1_790_000_000 + order, "rotated_at": 1_790_000_000_123_456_789_u64,
            "salt_id": order * 77_777, "stored_key": key(), "server_key": key(),
            "first_seen": 1_790_000_001_123_456_789_u64, "retired_at": 1_790_000_002_123_456_789_u64,
        })
    };
    let generations = pgimbal_auth::rotation::MAX_WRITTEN as u32;
    let mut user = |number: u32| {
        let generations: Vec<_> =
            (0..generations).map(|order| generation(number + order)).collect();
        (format!("tenant_{number}_app"), serde_json::json!({ "generations": generations }))
    };
    let users: serde_json::Map<_, _> = (0..users).map(&mut user).collect();
    let text = serde_json::json!({ "version": 1, "users": users }).to_string();
    Document::parse(text.as_bytes()).expect("a document")
}

#[test]
fn a_thousand_users_fit_into_half_of_what_a_store_holds() {
    let document = large(1_000);
    let (text, bytes) = (serde_json::to_vec(&document).expect("JSON").len(), document.to_bytes());
    println!("{text} bytes of JSON, {} deflated", bytes.len());
    assert!(bytes.len() < 400_000, "{}", bytes.len());
    assert_eq!(Document::parse(&bytes), Ok(document));
}
