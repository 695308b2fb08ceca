//! Which generations of a user's password clients may still show, and the history of them.

use std::time::{Duration, SystemTime};

use super::record::{HistoryRecord, StoredGeneration, Time};
use crate::account::{LoginKeys, MatchedPassword, PasswordRank};
use crate::verifier::{SaltParameters, ScramVerifier};

/// How long an old password is accepted from clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grace {
    /// So many generations, the newest counted.
    pub generations: usize,
    /// For so long after it was retired.
    pub age: Option<Duration>,
}

/// The generations that clients may show. All verifiers in it share one salt.
#[derive(Clone, Debug)]
pub struct AcceptedPasswords {
    salt_parameters: SaltParameters,
    revoked_before: Option<SystemTime>,
    /// The newest last.
    entries: Vec<Entry>,
    extra: Option<LoginKeys>,
}

#[derive(Clone, Debug)]
struct Entry {
    number: u32,
    rotated_at: Option<SystemTime>,
    keys: LoginKeys,
    first_seen: SystemTime,
    retired_at: Option<SystemTime>,
}

impl AcceptedPasswords {
    /// No generations yet. `extra` is accepted beside all of them.
    #[must_use]
    pub const fn new(salt_parameters: SaltParameters, extra: Option<LoginKeys>) -> Self {
        Self { salt_parameters, revoked_before: None, entries: Vec::new(), extra }
    }

    /// What its verifiers are made with.
    #[must_use]
    pub const fn salt_parameters(&self) -> &SaltParameters {
        &self.salt_parameters
    }

    /// Another password is accepted beside all generations from now on.
    pub fn set_extra(&mut self, extra: Option<LoginKeys>) {
        self.extra = extra;
    }

    /// A generation is the newest from now on; the others retire. One that was known by its
    /// verifier only is the same one. Keys that come later than those of a newer generation take
    /// their place behind it.
    pub fn learn(
        &mut self,
        number: u32,
        rotated_at: Option<SystemTime>,
        keys: LoginKeys,
        now: SystemTime,
    ) {
        let known = self.entries.iter().position(|entry| entry.is_of(&keys));
        let known = known.map(|index| self.entries.remove(index));
        let first_seen = known.as_ref().map_or(now, |entry| entry.first_seen);
        let newer = self.entries.iter().position(|entry| entry.number > number);
        let born = rotated_at.unwrap_or(first_seen);
        if newer.is_some() && self.revoked_before.is_some_and(|limit| born < limit) {
            return;
        }
        let place = newer.unwrap_or(self.entries.len());
        for entry in &mut self.entries[..place] {
            entry.retired_at.get_or_insert(now);
        }
        let retired_at = newer.map(|_| known.and_then(|entry| entry.retired_at).unwrap_or(now));
        self.entries.insert(place, Entry { number, rotated_at, keys, first_seen, retired_at });
    }

    /// Drops all generations but the newest, for good.
    pub fn revoke_old(&mut self) {
        let Some(newest) = self.entries.pop() else { return };
        let dropped = std::mem::replace(&mut self.entries, vec![newest]);
        // Clocks may disagree, so the newest's own date may not be the latest.
        let born = dropped.iter().chain(&self.entries).map(Entry::born).max();
        self.revoked_before = self.revoked_before.max(born);
    }

    /// Drops what the grace no longer covers. Whether there was any.
    pub fn handle_timeout(&mut self, grace: Grace, now: SystemTime) -> bool {
        let before = self.entries.len();
        let newest = self.entries.len().saturating_sub(1);
        let mut index = 0;
        self.entries.retain(|entry| {
            let newer = newest - index;
            index += 1;
            newer == 0 || newer < grace.generations && entry.ends(grace).is_none_or(|end| now < end)
        });
        self.entries.len() != before
    }

    /// When the next generation's age ends its grace.
    #[must_use]
    pub fn next_timeout(&self, grace: Grace) -> Option<SystemTime> {
        // The newest is kept, whatever a history says of it.
        let (_, older) = self.entries.split_last()?;
        older.iter().filter_map(|entry| entry.ends(grace)).min()
    }

    /// What clients may show, the newest first.
    pub fn accepted(&self) -> impl Iterator<Item = (MatchedPassword, LoginKeys)> {
        let generations = self.entries.iter().rev().enumerate().map(|(newer, entry)| {
            let rank = PasswordRank::after(newer);
            (MatchedPassword { generation: entry.number, rank }, entry.keys.clone())
        });
        let extra = self.extra.iter().map(|keys| {
            (MatchedPassword { generation: 0, rank: PasswordRank::Extra }, keys.clone())
        });
        generations.chain(extra)
    }

    /// The numbers of the generations that clients may show, the newest first, and when each was
    /// made.
    pub fn generations(&self) -> impl Iterator<Item = (u32, SystemTime)> {
        self.entries.iter().rev().map(|entry| (entry.number, entry.born()))
    }

    /// The largest number used.
    #[must_use]
    pub fn last_number(&self) -> u32 {
        self.entries.iter().map(|entry| entry.number).max().unwrap_or(0)
    }

    /// What is kept of it: no password, and nothing that is as good as one.
    #[must_use]
    pub fn record(&self) -> HistoryRecord {
        let stored = |entry: &Entry| {
            let (stored_key, server_key) = entry.keys.verifier()?.keys();
            Some(StoredGeneration {
                rotated_at: entry.rotated_at.map(Time::of),
                stored_key: (*stored_key).into(),
                server_key: (*server_key).into(),
                first_seen: Time::of(entry.first_seen),
                retired_at: entry.retired_at.map(Time::of),
            })
        };
        HistoryRecord {
            salt: self.salt_parameters.salt.to_vec().into(),
            iterations: self.salt_parameters.iterations,
            revoked_before: self.revoked_before.map(Time::of),
            generations: self.entries.iter().filter_map(stored).collect(),
        }
    }

    /// The generations of a record. With other salt parameters than `wanted`, where
    /// some are demanded, its verifiers are worth nothing.
    #[must_use]
    pub fn of_record(
        record: &HistoryRecord,
        wanted: Option<SaltParameters>,
        extra: Option<LoginKeys>,
    ) -> Self {
        let own =
            SaltParameters { salt: record.salt.as_slice().into(), iterations: record.iterations };
        let fits = wanted.as_ref().is_none_or(|wanted| *wanted == own);
        let mut accepted = Self::new(wanted.unwrap_or_else(|| own.clone()), extra);
        accepted.revoked_before = record.revoked_before.map(Time::time);
        if fits {
            let entries = record.in_order().zip(1..).map(|(stored, number)| Entry {
                number,
                rotated_at: stored.rotated_at.map(Time::time),
                keys: LoginKeys::of_verifier(ScramVerifier::of_keys(
                    &own,
                    *stored.stored_key,
                    *stored.server_key,
                )),
                first_seen: stored.first_seen.time(),
                retired_at: stored.retired_at.map(Time::time),
            });
            accepted.entries = entries.collect();
        }
        accepted
    }
}

impl Entry {
    fn is_of(&self, keys: &LoginKeys) -> bool {
        match (self.keys.verifier(), keys.verifier()) {
            (Some(own), Some(other)) => own.has_same_salt(other) && own.has_keys_of(other),
            _ => false,
        }
    }

    fn born(&self) -> SystemTime {
        self.rotated_at.unwrap_or(self.first_seen)
    }

    fn ends(&self, grace: Grace) -> Option<SystemTime> {
        self.retired_at?.checked_add(grace.age?)
    }
}
