//! Which generations of a user's password are accepted from clients, and their history.

use std::time::{Duration, SystemTime};

use super::record::{HistoryRecord, StoredGeneration, Time};
use crate::account::{LoginKeys, MatchedPassword, PasswordRank};
use crate::verifier::{SaltParameters, ScramVerifier};

/// How long an old password is still accepted from clients: the options `grace_generations` and
/// `grace_age`. A generation must be within both limits; the newest is always accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grace {
    /// Number of generations that are accepted, the newest included. 0 and 1 accept only the
    /// newest.
    pub generations: usize,
    /// Time for which an old generation is accepted after it was retired, which is when a newer one
    /// became known. `None` for no limit in time.
    pub age: Option<Duration>,
}

/// The generations of one user's password that are accepted from clients, as SCRAM verifiers with
/// one salt, and the password of `accept_also`. Holds no password in clear text.
#[derive(Clone, Debug)]
pub struct AcceptedPasswords {
    salt_parameters: SaltParameters,
    revoked_before: Option<SystemTime>,
    /// The newest last.
    entries: Vec<Entry>,
    extra: Option<LoginKeys>,
}

/// One accepted generation.
#[derive(Clone, Debug)]
struct Entry {
    number: u32,
    rotated_at: Option<SystemTime>,
    keys: LoginKeys,
    first_seen: SystemTime,
    retired_at: Option<SystemTime>,
}

impl AcceptedPasswords {
    /// Makes an empty list: until [`Self::learn`] is called no generation is accepted. `extra`
    /// holds the keys of the password of `accept_also`, which is accepted beside all generations;
    /// `None` when there is none.
    #[must_use]
    pub const fn new(salt_parameters: SaltParameters, extra: Option<LoginKeys>) -> Self {
        Self { salt_parameters, revoked_before: None, entries: Vec::new(), extra }
    }

    /// The salt and the number of iterations of all verifiers in this list. New keys must be
    /// derived with these.
    #[must_use]
    pub const fn salt_parameters(&self) -> &SaltParameters {
        &self.salt_parameters
    }

    /// Replaces the keys of the password of `accept_also`, after a reload; `None` when there is
    /// none any more. The account must be made anew ([`Self::accepted`]) before it counts.
    pub fn set_extra(&mut self, extra: Option<LoginKeys>) {
        self.extra = extra;
    }

    /// Adds a generation and retires (`retired_at` = `now`) all whose number is not larger; those
    /// that were retired before keep their date. `rotated_at` is the source's date, `None` when the
    /// source has none. Keys of a password that is in the list renumber its entry, and keep its
    /// `first_seen`. When a larger number is in the list, the new entry is retired at `now` (one
    /// that was retired already keeps its date), and left out if it was made before the last
    /// [`Self::revoke_old`].
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

    /// Drops all generations but the newest (REVOKE of an operator). The date is remembered, so
    /// that neither [`Self::learn`] nor a merge with another proxy's history brings them back. No
    /// effect without generations. The password of `accept_also` stays. The caller must make the
    /// account and the history anew.
    pub fn revoke_old(&mut self) {
        let Some(newest) = self.entries.pop() else { return };
        let dropped = std::mem::replace(&mut self.entries, vec![newest]);
        // Clocks may disagree, so the newest's own date may not be the latest.
        let born = dropped.iter().chain(&self.entries).map(Entry::born).max();
        self.revoked_before = self.revoked_before.max(born);
    }

    /// Drops the generations that `grace` no longer covers, never the newest. Returns whether any
    /// was dropped, so that the account and the history must be made anew. A generation ends at the
    /// very moment of `retired_at` + `grace.age`. The password of `accept_also` stays.
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

    /// The time at which [`Self::handle_timeout`] must be called next, because an old generation
    /// reaches `grace.age`. `None` when there is only one generation, or `grace.age` is `None`. It
    /// may be past. `grace.generations` gives no time: call [`Self::handle_timeout`] after each
    /// [`Self::learn`] as well.
    #[must_use]
    pub fn next_timeout(&self, grace: Grace) -> Option<SystemTime> {
        // The newest is kept, whatever a history says of it.
        let (_, older) = self.entries.split_last()?;
        older.iter().filter_map(|entry| entry.ends(grace)).min()
    }

    /// The passwords of the list with their keys, for
    /// [`Account::of_keys`](crate::account::Account::of_keys): the generations, the newest first,
    /// and at the end the password of `accept_also` with generation 0. Generations past the grace
    /// are among them until [`Self::handle_timeout`] drops them. Empty before the first
    /// [`Self::learn`] if there is no `accept_also`.
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

    /// The accepted generations, the newest first: number and the time at which the password was
    /// made (the source's date, or else the time at which pgimbal first saw it).
    pub fn generations(&self) -> impl Iterator<Item = (u32, SystemTime)> {
        self.entries.iter().rev().map(|entry| (entry.number, entry.born()))
    }

    /// The largest number of a generation in the list; 0 when the list is empty. The next
    /// generation must have a larger one.
    #[must_use]
    pub fn last_number(&self) -> u32 {
        self.entries.iter().map(|entry| entry.number).max().unwrap_or(0)
    }

    /// The list as a record for the history file: salt, iterations, StoredKey and ServerKey of RFC
    /// 5802 and times. Generations without a verifier are left out. It has no password, but whoever
    /// reads it can guess passwords.
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

    /// Makes the list from a record of the history file, numbered from 1, the oldest first. When
    /// `wanted` is `Some` and is not the record's salt and iterations, the generations are left
    /// out, because their verifiers cannot be used with it; `revoked_before` is kept. `extra` as in
    /// [`Self::new`]. A record with an empty salt or iterations out of range gives no generations.
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
    /// Whether this entry is of the password that `keys` are of. `false` when one has no verifier.
    fn is_of(&self, keys: &LoginKeys) -> bool {
        match (self.keys.verifier(), keys.verifier()) {
            (Some(own), Some(other)) => own.has_same_salt(other) && own.has_keys_of(other),
            _ => false,
        }
    }

    /// The source's date of the password, or else the time at which it was first seen.
    fn born(&self) -> SystemTime {
        self.rotated_at.unwrap_or(self.first_seen)
    }

    /// The time at which the grace of this generation ends; `None` when it is not retired, or has
    /// no limit in time.
    fn ends(&self, grace: Grace) -> Option<SystemTime> {
        self.retired_at?.checked_add(grace.age?)
    }
}
