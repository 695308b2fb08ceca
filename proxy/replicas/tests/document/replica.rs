//! One replica, as the proxy drives it: its document, the passwords that it accepts, its source.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgimbal_auth::account::LoginKeys;
use pgimbal_auth::rotation::{AcceptedPasswords, Grace, HistoryRecord, SourceGeneration};
use pgimbal_auth::verifier::{SaltKey, SaltParameters};
use pgimbal_config::Secret;
use pgimbal_replicas::InstanceId;
use pgimbal_replicas::document::{Document, SaltsKey};

/// Long against a story, short enough that a clock an hour off would end it in between.
pub(crate) const GRACE: Grace = Grace { generations: 2, age: Some(Duration::from_secs(6 * 3600)) };
pub(crate) const USER: &str = "ann";
pub(crate) const CLUSTER: &str = "main";

/// A password of the source: its number and, where the source has dates, its date in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Password {
    pub(crate) number: u32,
    pub(crate) dated: Option<u64>,
}

/// Keys of passwords, which take long to derive, by salt and password.
#[derive(Default)]
pub(crate) struct Keys(BTreeMap<([u8; 16], u32), LoginKeys>);

impl Keys {
    pub(crate) fn of(&mut self, salt: [u8; 16], password: u32) -> LoginKeys {
        let parameters = SaltParameters { salt: salt.into(), iterations: 1 };
        let derive = || {
            let secret = Secret::new(format!("password-{password}"));
            LoginKeys::derive(USER, &secret, &parameters).expect("keys")
        };
        self.0.entry((salt, password)).or_insert_with(derive).clone()
    }
}

pub(crate) struct Replica {
    pub(crate) instance: InstanceId,
    /// How far its clock is off, in seconds.
    pub(crate) clock: i64,
    pub(crate) document: Document,
    /// `None` until the salts' key is known.
    accepted: Option<AcceptedPasswords>,
    number: u32,
    /// What its source said last; `None` before the first answer.
    pub(crate) source: Option<Password>,
    /// Which of its passwords has become an accepted one.
    learned: Option<Password>,
    /// The version and content of a write that it is about to send to the store.
    pub(crate) write: Option<(u64, Document)>,
    /// What it has to write, or wants to see written.
    pub(crate) is_behind: bool,
}

impl Replica {
    pub(crate) fn new(instance: u64, clock: i64) -> Self {
        Self {
            instance: InstanceId(instance),
            clock,
            document: Document::default(),
            accepted: None,
            number: 0,
            source: None,
            learned: None,
            write: None,
            is_behind: true,
        }
    }

    fn wall(&self, time: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000_000_u64.saturating_add_signed(self.clock) + time)
    }

    fn salt(&self) -> Option<[u8; 16]> {
        self.document.salts().map(|key| SaltKey::new(*key.bytes()).salt(USER.as_bytes()))
    }

    /// What must follow from a change of the document.
    pub(crate) fn follow(&mut self, time: u64, keys: &mut Keys) {
        let Some(salt) = self.salt() else { return };
        let wall = self.wall(time);
        let none = HistoryRecord::default();
        let record = self.document.user(USER).unwrap_or(&none);
        let number = &mut self.number;
        let accepted = self.accepted.get_or_insert_with(|| {
            let parameters = SaltParameters { salt: salt.into(), iterations: 1 };
            let accepted = AcceptedPasswords::of_record(record, parameters, None);
            *number = accepted.last_number();
            accepted
        });
        accepted.merge(record, GRACE, wall, || {
            *number += 1;
            *number
        });
        let record = accepted.record();
        self.document.merge_user(USER, record);
        self.document.prune();
        self.learn(time, keys);
    }

    pub(crate) fn merge(&mut self, other: Document, time: u64, keys: &mut Keys) {
        let before = self.document.clone();
        self.document.merge(other);
        self.document.prune();
        self.follow(time, keys);
        self.is_behind |= self.document != before;
    }

    pub(crate) fn fetch(&mut self, password: Password, time: u64, keys: &mut Keys) {
        let is_same = self.learned == Some(password);
        self.source = Some(password);
        self.follow(time, keys);
        let wall = self.wall(time);
        if let Some(accepted) = self.accepted.as_mut().filter(|_| is_same)
            && accepted.confirm(wall)
        {
            self.document.merge_user(USER, accepted.record());
            self.document.prune();
            self.is_behind = true;
        }
    }

    /// Makes the source's password an accepted one, once the salts' key is known.
    fn learn(&mut self, time: u64, keys: &mut Keys) {
        let Some(password) = self.source.filter(|source| self.learned != Some(*source)) else {
            return;
        };
        let (Some(salt), wall) = (self.salt(), self.wall(time)) else { return };
        self.number += 1;
        let rotated_at = password.dated.map(|date| UNIX_EPOCH + Duration::from_secs(date));
        let keys = keys.of(salt, password.number);
        let returned = SourceGeneration { number: self.number, rotated_at, keys };
        if let Some(accepted) = &mut self.accepted {
            accepted.learn(returned, wall);
            accepted.handle_timeout(GRACE, wall);
            self.learned = self.source;
            self.document.merge_user(USER, accepted.record());
            self.document.prune();
            self.is_behind = true;
        }
    }

    /// REVOKE OLD. Returns the numbers of the passwords that must be refused from now on.
    pub(crate) fn revoke_old(&mut self, keys: &mut Keys, passwords: u32) -> Vec<u32> {
        let before = self.accepted(keys, passwords);
        let Some(accepted) = &mut self.accepted else { return Vec::new() };
        accepted.revoke_old(self.document.user(USER).unwrap_or(&HistoryRecord::default()));
        self.document.merge_user(USER, accepted.record());
        self.document.prune();
        self.is_behind = true;
        let after = self.accepted(keys, passwords);
        before.into_iter().filter(|number| !after.contains(number)).collect()
    }

    /// The numbers of the passwords that clients may show, of those below `passwords`.
    pub(crate) fn accepted(&self, keys: &mut Keys, passwords: u32) -> Vec<u32> {
        let (Some(accepted), Some(salt)) = (&self.accepted, self.salt()) else {
            return Vec::new();
        };
        let mut is_accepted = |number: &u32| {
            let keys = keys.of(salt, *number);
            let verifier = keys.verifier().expect("a verifier");
            accepted
                .accepted()
                .any(|(_, own)| own.verifier().is_some_and(|own| own.keys().0 == verifier.keys().0))
        };
        (0..passwords).filter(|number| is_accepted(number)).collect()
    }

    /// What is to be written over `stored`; `None` when the store has it all. A replica that has
    /// no salts' key makes one, and uses it once it is written.
    pub(crate) fn prepare(&self, stored: &Document, random: [u8; 32]) -> Option<Document> {
        let mut wanted = self.document.clone();
        wanted.merge(stored.clone());
        wanted.follow(stored);
        if wanted.salts().is_none() {
            wanted.set_salts(SaltsKey::new(random));
        }
        wanted.prune();
        (wanted != *stored).then_some(wanted)
    }
}
