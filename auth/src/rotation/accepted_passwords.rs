//! Which generations of a user's password are accepted from clients, and their history.

use std::time::{Duration, SystemTime};

use super::record::{HistoryRecord, SaltId, StoredGeneration};
use super::revocations::{GenerationId, Revocations};
use super::secret_bytes::Time;
use crate::account::{LoginKeys, MatchedPassword, PasswordRank};
use crate::verifier::{MAX_ITERATIONS, SaltParameters, ScramVerifier};

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
///
/// Generations come from this process's source ([`Self::learn`]) and from other replicas
/// ([`Self::merge`]). The newest is the one of the greatest order, a number on which the replicas
/// count; no clock decides it.
#[derive(Clone, Debug)]
pub struct AcceptedPasswords {
    salt_parameters: SaltParameters,
    revocations: Revocations,
    /// The newest last.
    entries: Vec<Entry>,
    extra: Option<LoginKeys>,
}

/// A generation as the source of this process has returned it.
#[derive(Debug)]
pub struct SourceGeneration {
    /// Its number among the source's, the greatest for the newest.
    pub number: u32,
    /// The source's date of the password; `None` when the source has none.
    pub rotated_at: Option<SystemTime>,
    /// The keys of the password.
    pub keys: LoginKeys,
}

/// One accepted generation.
#[derive(Clone, Debug)]
struct Entry {
    number: u32,
    /// Whether this process's source has returned the password since the start.
    is_own: bool,
    /// Whether this process's source has said, since it was heard of, that another one is newer.
    is_contested: bool,
    /// As in [`StoredGeneration`].
    order: u64,
    returns: u32,
    rotated_at: Option<SystemTime>,
    keys: LoginKeys,
    /// `None` without a verifier: it is in no record then.
    id: Option<GenerationId>,
    first_seen: SystemTime,
    retired_at: Option<SystemTime>,
}

impl AcceptedPasswords {
    /// Makes an empty list: until [`Self::learn`] is called no generation is accepted. `extra`
    /// holds the keys of the password of `accept_also`, which is accepted beside all generations;
    /// `None` when there is none.
    #[must_use]
    pub fn new(salt_parameters: SaltParameters, extra: Option<LoginKeys>) -> Self {
        let revocations = Revocations::default();
        Self { salt_parameters, revocations, entries: Vec::new(), extra }
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

    /// Adds a generation that the source of this process has returned, and returns whether clients
    /// may show it: `false` when it was revoked, here or elsewhere.
    ///
    /// It becomes the newest, and all others are retired (`retired_at` = `now`, those that were
    /// retired before keep their date), unless the source has returned one with a larger number, or
    /// another replica knows one that the source dates later: the source of this process lags then.
    /// Keys of a password that is in the list renumber its entry, and keep its `first_seen`.
    pub fn learn(&mut self, returned: SourceGeneration, now: SystemTime) -> bool {
        let SourceGeneration { number, rotated_at, keys } = returned;
        let id = keys.verifier().map(|verifier| GenerationId::of(verifier.keys().0));
        if id.is_some_and(|id| self.revocations.names(id)) {
            return false;
        }
        let is_known = |entry: &Entry| entry.is_of(&keys);
        let known = self.entries.iter().position(is_known).map(|at| self.entries.remove(at));
        let is_newer = |entry: &&Entry| match entry.is_own {
            true => entry.number > number,
            false => rotated_at.is_some() && entry.rotated_at > rotated_at,
        };
        let newer = self.entries.iter().filter(is_newer).map(|entry| entry.order).min();
        let own = known.as_ref().map_or(0, |entry| entry.order);
        let order = match newer {
            Some(newer) => {
                if known.is_some() {
                    own
                } else {
                    newer.saturating_sub(1)
                }
            }
            None if own > self.greatest_order() => own,
            // A clock helps only where this process knows nothing of the others' passwords.
            None => Time::of(now).seconds().max(self.greatest_order().saturating_add(1)),
        };
        if newer.is_some() && id.is_some_and(|id| self.revocations.covers(id, order)) {
            return false;
        }
        let mut entry = Entry {
            number,
            is_own: true,
            is_contested: false,
            order,
            returns: known.as_ref().map_or(0, |entry| entry.returns),
            rotated_at,
            keys,
            id,
            first_seen: known.as_ref().map_or(now, |entry| entry.first_seen),
            retired_at: known.and_then(|entry| entry.retired_at),
        };
        if newer.is_none() && order > own && entry.retired_at.take().is_some() {
            entry.returns += 1;
        }
        self.entries.push(entry);
        self.put_in_order(now);
        true
    }

    /// Adds a generation of the password cache at the start, as [`Self::learn`] does; but one that
    /// is in the list already keeps its place: the source has not said anything yet.
    pub fn restore(&mut self, returned: SourceGeneration, now: SystemTime) -> bool {
        match self.entries.iter_mut().find(|entry| entry.is_of(&returned.keys)) {
            Some(entry) => {
                (entry.number, entry.keys) = (returned.number, returned.keys);
                true
            }
            None => self.learn(returned, now),
        }
    }

    /// Notes that the source has returned its newest password again, in a fetch that was sent after
    /// the last [`Self::merge`]. If another replica has told of one that it takes to be newer, and
    /// dates do not tell, this one becomes the newest again: once for each such password, so that
    /// two replicas whose sources disagree do not go on for ever. Returns whether it did.
    pub fn confirm(&mut self, now: SystemTime) -> bool {
        let own = self.own_newest();
        let is_own = |entry: &Entry| entry.is_own && Some(entry.number) == own;
        let order = self.greatest_order().saturating_add(1);
        let Some((top, older)) = self.entries.split_last_mut() else { return false };
        let Some(entry) = older.iter_mut().find(|entry| is_own(entry)) else { return false };
        let is_late = entry.rotated_at.is_some() && entry.rotated_at < top.rotated_at;
        if is_late || std::mem::replace(&mut top.is_contested, true) {
            return false;
        }
        entry.order = order;
        entry.returns += u32::from(entry.retired_at.take().is_some());
        self.put_in_order(now);
        true
    }

    /// Whether another replica knows a password that it takes to be newer than the newest of this
    /// process's source: the source should be asked.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.entries.last().is_some_and(|top| !top.is_own && !top.is_contested)
    }

    /// Takes over what other replicas have learned of the user: their generations, when each was
    /// retired, and what was revoked. Generations that were made with another salt, and those that
    /// `grace` does not cover at `now`, are left out. New ones are numbered by `number`, which
    /// must not return one twice. Returns whether the accepted passwords have changed, so that the
    /// account must be made anew.
    pub fn merge(
        &mut self,
        record: &HistoryRecord,
        grace: Grace,
        now: SystemTime,
        number: impl FnMut() -> u32,
    ) -> bool {
        let before: Vec<_> = self.entries.iter().map(|entry| (entry.id, entry.number)).collect();
        self.add(record, number);
        self.put_in_order(now);
        self.handle_timeout(grace, now);
        !before.into_iter().eq(self.entries.iter().map(|entry| (entry.id, entry.number)))
    }

    fn add(&mut self, record: &HistoryRecord, mut number: impl FnMut() -> u32) {
        self.revocations.merge(&record.revocations);
        self.revocations.prune();
        let salt_id = SaltId::of(&self.salt_parameters);
        let is_usable = !self.salt_parameters.salt.is_empty()
            && (1..=MAX_ITERATIONS).contains(&self.salt_parameters.iterations);
        let mut stored: Vec<_> = record.generations.iter().collect();
        stored.sort_by_key(|one| one.place());
        for one in stored {
            let id = one.id();
            if !is_usable || one.salt_id != salt_id || self.revocations.covers(id, one.order) {
                continue;
            }
            match self.entries.iter_mut().find(|entry| entry.id == Some(id)) {
                Some(entry) => entry.merge(one),
                None => self.entries.push(Entry::of(one, id, &self.salt_parameters, number())),
            }
        }
        self.keep_own_newest();
        let revocations = &self.revocations;
        self.entries.retain(|one| one.id.is_none_or(|id| !revocations.covers(id, one.order)));
    }

    /// Puts the newest password of this process's source above the others where their orders do not
    /// tell which is newer: another replica has given another password the same order, or one that
    /// the source dates earlier a greater order, or it has ended all before its own newest and did
    /// not know this one. Not if it was revoked by name, or another one is dated later.
    fn keep_own_newest(&mut self) {
        let place = |entry: &Entry| (entry.order, entry.rotated_at, entry.id);
        let Some(top) = self.entries.iter().map(place).max() else { return };
        let (own, order) = (self.own_newest(), self.greatest_order().saturating_add(1));
        let latest = self.entries.iter().filter_map(|entry| entry.rotated_at).max();
        let (ended, revocations) = (self.revocations.ended(), &self.revocations);
        for entry in &mut self.entries {
            let is_named = entry.id.is_some_and(|id| revocations.names(id));
            let is_late = entry.rotated_at.is_some() && entry.rotated_at < latest;
            let is_tied = entry.order == top.0 && place(entry) != top;
            let is_latest =
                entry.rotated_at.is_some() && entry.rotated_at > top.1 && top.1.is_some();
            let is_doubtful = is_tied || is_latest || entry.order <= ended;
            let is_own_newest = entry.is_own && Some(entry.number) == own;
            if is_own_newest && !is_named && !is_late && is_doubtful {
                entry.order = order;
                entry.returns += u32::from(entry.retired_at.take().is_some());
            }
        }
    }

    /// Sorts the entries, and retires all but the newest that are not retired yet.
    fn put_in_order(&mut self, now: SystemTime) {
        self.entries.sort_by_key(|entry| (entry.order, entry.rotated_at, entry.id));
        if let Some((_, older)) = self.entries.split_last_mut() {
            for entry in older {
                entry.retired_at.get_or_insert(now);
            }
        }
    }

    fn greatest_order(&self) -> u64 {
        let orders = self.entries.iter().map(|entry| entry.order);
        orders.max().unwrap_or(0).max(self.revocations.greatest())
    }

    /// The newest of those that this process's source has returned, by number.
    fn own_newest(&self) -> Option<u32> {
        self.entries.iter().filter(|entry| entry.is_own).map(|entry| entry.number).max()
    }

    /// Revokes all generations but the newest (REVOKE of an operator): those of this list and of
    /// `known`, the user's record in the document, by name, and whatever is older than the newest
    /// by its order. Neither [`Self::learn`] nor [`Self::merge`] brings them back. No effect
    /// without generations. The password of `accept_also` stays. The caller must make the account
    /// and the history anew.
    pub fn revoke_old(&mut self, known: &HistoryRecord) {
        let Some(newest) = self.entries.pop() else { return };
        // What another replica knows may be newer in truth, though this one has another order.
        let is_later = |date| newest.rotated_at.is_some() && date > newest.rotated_at;
        let (kept, dropped): (Vec<_>, Vec<_>) =
            self.entries.drain(..).partition(|entry| is_later(entry.rotated_at));
        let dropped = dropped.iter().filter_map(|one| Some((one.id?, one.order)));
        let known = known.generations.iter();
        let known = known.filter(|stored| !is_later(stored.rotated_at.map(Time::time)));
        for (id, order) in dropped.chain(known.map(|stored| (stored.id(), stored.order))) {
            if Some(id) != newest.id {
                self.revocations.revoke(id, order.min(newest.order));
            }
        }
        if kept.is_empty() {
            self.revocations.end(newest.order.saturating_sub(1));
        }
        self.entries = kept;
        self.entries.push(newest);
    }

    /// Whether any generation was revoked or has ended for good, here or elsewhere.
    #[must_use]
    pub fn has_revoked(&self) -> bool {
        self.revocations != Revocations::default()
    }

    /// Drops the generations that `grace` no longer covers, never the newest, nor the newest that
    /// this process's source has returned. Returns whether any was dropped, so that the account
    /// must be made anew. A generation ends at the very moment of `retired_at` + `grace.age`; it
    /// counts as retired no earlier than the source dates its successor, because the clock of the
    /// replica that noticed it may be slow. The password of `accept_also` stays.
    pub fn handle_timeout(&mut self, grace: Grace, now: SystemTime) -> bool {
        let before = self.entries.len();
        let own = self.own_newest();
        let ends = self.ends(grace);
        let mut older = self.entries.len();
        let mut ends = ends.into_iter();
        self.entries.retain(|entry| {
            older -= 1;
            let end = ends.next().flatten();
            let is_covered = older < grace.generations && end.is_none_or(|end| now < end);
            older == 0 || is_covered || entry.is_own && Some(entry.number) == own
        });
        self.entries.len() != before
    }

    /// The time at which [`Self::handle_timeout`] must be called next, because an old generation
    /// reaches `grace.age`. `None` when there is only one generation, or `grace.age` is `None`. It
    /// may be past. `grace.generations` gives no time: call [`Self::handle_timeout`] after each
    /// [`Self::learn`] as well.
    #[must_use]
    pub fn next_timeout(&self, grace: Grace) -> Option<SystemTime> {
        let own = self.own_newest();
        let ends = self.entries.iter().zip(self.ends(grace));
        ends.filter(|(entry, _)| !entry.is_own || Some(entry.number) != own)
            .filter_map(|(_, end)| end)
            .min()
    }

    /// The time at which the grace of each entry ends; `None` for the newest, and without a limit
    /// in time.
    fn ends(&self, grace: Grace) -> Vec<Option<SystemTime>> {
        let successors = self.entries.iter().skip(1).map(Some).chain([None]);
        let end = |(entry, successor): (&Entry, Option<&Entry>)| {
            let retired_at =
                entry.retired_at?.max(successor?.rotated_at.unwrap_or(entry.first_seen));
            retired_at.checked_add(grace.age?)
        };
        self.entries.iter().zip(successors).map(end).collect()
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

    /// The list as a record for the document that replicas share: StoredKey and ServerKey of RFC
    /// 5802 and times. Generations without a verifier are left out. It has no password, but whoever
    /// reads it can guess passwords.
    #[must_use]
    pub fn record(&self) -> HistoryRecord {
        let salt_id = SaltId::of(&self.salt_parameters);
        let mut record =
            HistoryRecord { revocations: self.revocations.clone(), ..HistoryRecord::default() };
        for entry in &self.entries {
            let Some((stored_key, server_key)) = entry.keys.verifier().map(ScramVerifier::keys)
            else {
                continue;
            };
            record.insert(StoredGeneration {
                order: entry.order,
                returns: entry.returns,
                rotated_at: entry.rotated_at.map(Time::of),
                salt_id,
                stored_key: (*stored_key).into(),
                server_key: (*server_key).into(),
                first_seen: Time::of(entry.first_seen),
                retired_at: entry.retired_at.map(Time::of),
                unknown: <_>::default(),
            });
        }
        record
    }

    /// Makes the list from a record, numbered from 1, the oldest first. Generations that were made
    /// with another salt than `salt_parameters` are left out, because their verifiers cannot be
    /// used with it; what is revoked stays so. `extra` as in [`Self::new`].
    #[must_use]
    pub fn of_record(
        record: &HistoryRecord,
        salt_parameters: SaltParameters,
        extra: Option<LoginKeys>,
    ) -> Self {
        let mut accepted = Self::new(salt_parameters, extra);
        let mut numbers = 1..;
        accepted.add(record, || numbers.next().unwrap_or(u32::MAX));
        accepted.entries.sort_by_key(|entry| (entry.order, entry.rotated_at, entry.id));
        accepted
    }
}

impl Entry {
    fn of(
        stored: &StoredGeneration,
        id: GenerationId,
        salt_parameters: &SaltParameters,
        number: u32,
    ) -> Self {
        let keys = ScramVerifier::of_keys(salt_parameters, *stored.stored_key, *stored.server_key);
        Self {
            number,
            is_own: false,
            is_contested: false,
            order: stored.order,
            returns: stored.returns,
            rotated_at: stored.rotated_at.map(Time::time),
            keys: LoginKeys::of_verifier(keys),
            id: Some(id),
            first_seen: stored.first_seen.time(),
            retired_at: stored.retired_at.map(Time::time),
        }
    }

    /// Takes over what another replica says of the same generation.
    fn merge(&mut self, stored: &StoredGeneration) {
        let theirs = stored.retired_at.map(Time::time);
        if self.returns == stored.returns {
            self.retired_at = match (self.retired_at, theirs) {
                (Some(own), Some(theirs)) => Some(own.min(theirs)),
                (own, theirs) => own.or(theirs),
            };
        } else if self.returns < stored.returns {
            (self.returns, self.retired_at) = (stored.returns, theirs);
        }
        self.order = self.order.max(stored.order);
        self.rotated_at = self.rotated_at.max(stored.rotated_at.map(Time::time));
        self.first_seen = self.first_seen.min(stored.first_seen.time());
    }

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
}
