//! Documents that somebody has edited: parts of a whole one are replaced, removed and exchanged.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgimbal_auth::account::LoginKeys;
use pgimbal_auth::rotation::{AcceptedPasswords, Grace, SourceGeneration};
use pgimbal_auth::verifier::SaltParameters;
use pgimbal_config::Secret;
use pgimbal_replicas::InstanceId;
use pgimbal_replicas::budget::slots::Proven;
use pgimbal_replicas::document::{Document, SaltsKey};
use serde_json::{Value, json};

use crate::random::Random;

/// Some seconds of a debug build.
const EDITS: u64 = 3_000;
const ME: InstanceId = InstanceId(77);
const GRACE: Grace = Grace { generations: 3, age: Some(Duration::from_secs(100)) };

fn salt_parameters() -> SaltParameters {
    SaltParameters { salt: Box::from(*b"0123456789abcdef"), iterations: 1 }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_790_000_000 + seconds)
}

fn returned(number: u32) -> SourceGeneration {
    let password = Secret::from(&*format!("password-{number}"));
    let keys = LoginKeys::derive("ann", &password, &salt_parameters()).expect("keys");
    SourceGeneration { number, rotated_at: Some(at(number.into())), keys }
}

/// A document with every fact that there is.
fn whole() -> Document {
    let mut document = Document::default();
    document.set_salts(SaltsKey::new([7; 32]));
    let mut accepted = AcceptedPasswords::new(salt_parameters(), None);
    for number in 1..=3 {
        accepted.learn(returned(number), at(number.into()));
        if number == 2 {
            accepted.revoke_old(&accepted.record());
        }
    }
    document.merge_user("ann", accepted.record());
    let main = document.cluster_mut("main");
    main.see(5, 70);
    main.adopt(6, 2, [("old", true), ("new", false)], InstanceId(1));
    main.set_hold(true, InstanceId(2));
    for who in [InstanceId(1), InstanceId(2)] {
        let slots = document.slots().claim(who, 3).expect("a slot");
        document.merge_slots(&slots);
    }
    document
}

/// Every value of a tree, by its path (RFC 6901).
fn paths(value: &Value, path: &str, found: &mut Vec<String>) {
    found.push(path.to_owned());
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let name = name.replace('~', "~0").replace('/', "~1");
                paths(field, &format!("{path}/{name}"), found);
            }
        }
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.for_each(|(index, item)| paths(item, &format!("{path}/{index}"), found));
        }
        _ => {}
    }
}

/// One edit of somewhere in the tree.
fn edit(json: &mut Value, random: &mut Random) {
    let mut all = Vec::new();
    paths(json, "", &mut all);
    let new = match random.below(10) {
        0 => json!(0),
        1 => json!(u64::MAX),
        2 => json!(i64::MIN),
        3 => json!(1.5e300),
        4 => json!(""),
        5 => json!("ffffffffffffffff"),
        6 => Value::Null,
        7 => json!([]),
        8 => json!({}),
        _ => json.pointer(&random.pick(&all)).cloned().unwrap_or_default(),
    };
    let path = random.pick(&all);
    match path.rsplit_once('/') {
        Some((parent, name)) if random.chance(30) => {
            if let Some(Value::Object(fields)) = json.pointer_mut(parent) {
                let name = name.replace("~1", "/").replace("~0", "~");
                let taken = fields.remove(&name).unwrap_or_default();
                fields
                    .insert(random.pick(&["renamed", "ann", "main", "0", "63"]).to_owned(), taken);
            }
        }
        _ => *json.pointer_mut(&path).expect("a value") = new,
    }
}

/// Whatever a document says, it is refused or it is one: merged in any order to the same, and what
/// a replica goes on with.
fn works(edited: Document, whole: &Document) {
    assert_eq!(Document::parse(&edited.to_bytes()).as_ref(), Ok(&edited));
    let (mut here, mut there) = (edited.clone(), whole.clone());
    here.merge(whole.clone());
    there.merge(edited.clone());
    assert_eq!(here, there);
    here.merge(edited.clone());
    assert_eq!(here, there);
    here.prune();
    here.follow(&edited);
    let main = here.cluster_mut("main");
    main.see(6, 3);
    main.set_quarantined("old", false, ME);
    main.adopt(8, 1, [("new", true)], ME);
    main.set_hold(false, ME);
    assert!(!here.cluster("main").expect("the cluster").is_held());
    for changed in [here.slots().claim(ME, 3), here.slots().renew(ME)] {
        let _ = changed.map(|slots| here.merge_slots(&slots));
    }
    let left = here.slots().release(ME, Proven::Everywhere, true);
    let _ = left.map(|slots| here.merge_slots(&slots));
    for (name, record) in edited.users() {
        let mut accepted = AcceptedPasswords::of_record(record, salt_parameters(), None);
        let mut numbers = 100..;
        accepted.merge(record, GRACE, at(10), || numbers.next().expect("a number"));
        // Not if the document says that all up to it have ended, or dates another one later.
        let is_accepted = accepted.learn(returned(4), at(20));
        accepted.confirm(at(30));
        let _ = accepted.next_timeout(GRACE);
        accepted.handle_timeout(GRACE, at(40));
        accepted.revoke_old(record);
        assert!(!is_accepted || accepted.generations().next().is_some(), "{name}: none is left");
        here.merge_user(name, accepted.record());
    }
    here.prune();
    assert_eq!(Document::parse(&here.to_bytes()), Ok(here));
}

#[test]
fn a_document_that_somebody_has_edited_is_refused_or_used_whole() {
    let whole = whole();
    let json = serde_json::to_value(&whole).expect("JSON");
    let mut used = 0;
    for seed in 0..EDITS {
        let (mut random, mut edited) = (Random::new(seed), json.clone());
        for _ in 0..=random.below(4) {
            edit(&mut edited, &mut random);
        }
        let text = edited.to_string();
        if let Ok(document) = Document::parse(text.as_bytes()) {
            used += 1;
            let outcome = std::panic::catch_unwind(|| works(document, &whole));
            assert!(outcome.is_ok(), "seed {seed}: {text}");
        }
    }
    assert!(used > EDITS / 20, "{used} of {EDITS} were documents");
}
