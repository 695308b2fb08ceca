//! What the applications saw and were told, and whether it is true.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Accidents whose text is kept.
const KEPT: usize = 8;

/// What an application does over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Workload {
    /// An INSERT outside any block.
    Writes,
    /// Transactions of several statements.
    Transactions,
    /// SELECTs on the primary.
    Reads,
    /// SELECTs on replicas, chosen by a startup option.
    ReplicaReads,
}

impl Workload {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Writes, Self::Transactions, Self::Reads, Self::ReplicaReads];

    /// Its name in the report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Writes => "single writes",
            Self::Transactions => "transactions",
            Self::Reads => "reads",
            Self::ReplicaReads => "replica reads",
        }
    }
}

/// What an application was told of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It is committed.
    Done,
    /// It is rolled back, for certain.
    RolledBack,
    /// The server was lost before its answer (08007).
    Unknown,
}

/// Everything that the applications have seen; shared by their threads.
#[derive(Debug, Default)]
pub struct Observations(Mutex<Seen>);

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// What succeeded, for each workload.
    pub done: [u64; Workload::ALL.len()],
    /// Errors that leave the connection open and that a dying primary explains, with one text each.
    pub errors: BTreeMap<(Workload, String), (u64, String)>,
    /// Logins that were refused, connections that were closed, errors that nothing explains:
    /// what must not happen.
    pub accidents: u64,
    /// Texts of the first of them.
    pub words: Vec<String>,
    /// Logins that succeeded.
    pub logins: u64,
    /// Reads of those who asked for a replica, and of them those that a replica served.
    pub replica_reads: [u64; 2],
    /// Microseconds of each transaction since this was last taken.
    pub latencies: Vec<u32>,
    last: [Option<Instant>; Workload::ALL.len()],
    /// The longest time without a success while the primary was missing, for each workload.
    pub gaps: [Duration; Workload::ALL.len()],
    disturbed: bool,
    writes: HashMap<String, WriteOutcome>,
}

/// What the applications were told that is not so.
#[derive(Debug, Default)]
pub struct Discrepancies {
    /// Writes that were acknowledged and are not there.
    pub lost: usize,
    /// Writes that were said to be rolled back and are there.
    pub unexpected: usize,
    /// Writes that are there more than once.
    pub twice: usize,
    /// Writes of which nobody knew, and of them those that are there.
    pub unknown: [usize; 2],
    /// Writes that were acknowledged.
    pub acknowledged: usize,
}

impl Observations {
    /// What was seen so far.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// A transaction has succeeded.
    pub fn succeeded(&mut self, workload: Workload, took: Duration) {
        let index = workload as usize;
        self.done[index] += 1;
        self.latencies.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        let now = Instant::now();
        if let Some(last) = self.last[index].replace(now).filter(|_| self.disturbed) {
            self.gaps[index] = self.gaps[index].max(now - last);
        }
    }

    /// A read of somebody who asked for a replica came from one, or not.
    pub fn read(&mut self, replica: bool) {
        self.replica_reads[0] += 1;
        self.replica_reads[1] += u64::from(replica);
    }

    /// A write has this end.
    pub fn wrote(&mut self, id: String, told: WriteOutcome) {
        self.writes.insert(id, told);
    }

    /// From now on, or no longer, a dying primary explains errors.
    pub fn disturbed(&mut self, disturbed: bool) {
        self.disturbed = disturbed;
    }

    /// An error came that leaves the connection open.
    pub fn refused(&mut self, workload: Workload, code: &str, message: &str) {
        if !self.disturbed || explanation(code).is_none() {
            self.accident(format!("{}: {code} {message}", workload.name()));
            return;
        }
        let entry = self.errors.entry((workload, code.to_owned()));
        entry.or_insert_with(|| (0, message.to_owned())).0 += 1;
    }

    /// Something happened that must not.
    pub fn accident(&mut self, words: String) {
        self.accidents += 1;
        if self.words.len() < KEPT {
            self.words.push(words);
        }
    }

    /// Compares what was told with the rows that are there.
    #[must_use]
    pub fn discrepancies<'a>(&self, rows: impl Iterator<Item = &'a str>) -> Discrepancies {
        let mut there: HashMap<&str, usize> = HashMap::new();
        for row in rows {
            *there.entry(row).or_default() += 1;
        }
        let twice = there.values().filter(|count| **count > 1).count();
        let mut discrepancies = Discrepancies { twice, ..Discrepancies::default() };
        for (id, told) in &self.writes {
            let there = there.contains_key(id.as_str());
            discrepancies.acknowledged += usize::from(*told == WriteOutcome::Done);
            match (told, there) {
                (WriteOutcome::Done, false) => discrepancies.lost += 1,
                (WriteOutcome::RolledBack, true) => discrepancies.unexpected += 1,
                (WriteOutcome::Unknown, _) => {
                    discrepancies.unknown[0] += 1;
                    discrepancies.unknown[1] += usize::from(there);
                }
                _ => {}
            }
        }
        discrepancies
    }
}

/// Why an error with this SQLSTATE could not be hidden from an application whose primary died.
#[must_use]
pub fn explanation(code: &str) -> Option<&'static str> {
    match code {
        "57P01" | "40001" => Some(
            "rolled back for certain, with the server it ran on: only reads are run again unseen, and \
             no transaction whose first answers the application has had",
        ),
        "08007" => Some(
            "sent, and its server lost before the answer: only the application can find out \
             whether it took effect, and running it again might do it twice",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_compared_with_what_is_there() {
        let mut seen = Seen::default();
        for (id, told) in [
            ("done", WriteOutcome::Done),
            ("lost", WriteOutcome::Done),
            ("unexpected", WriteOutcome::RolledBack),
            ("gone", WriteOutcome::RolledBack),
            ("unknown", WriteOutcome::Unknown),
            ("twice", WriteOutcome::Done),
        ] {
            seen.wrote(id.to_owned(), told);
        }
        let discrepancies =
            seen.discrepancies(["done", "unexpected", "twice", "twice"].into_iter());
        assert_eq!(
            (
                discrepancies.lost,
                discrepancies.unexpected,
                discrepancies.twice,
                discrepancies.unknown
            ),
            (1, 1, 1, [1, 0])
        );
        assert_eq!(discrepancies.acknowledged, 3);
    }

    #[test]
    fn errors_are_explained_only_by_a_dying_primary() {
        let mut seen = Seen::default();
        seen.refused(Workload::Transactions, "57P01", "lost");
        assert_eq!(seen.accidents, 1);
        seen.disturbed(true);
        seen.refused(Workload::Transactions, "57P01", "lost");
        assert_eq!(seen.accidents, 1);
        seen.refused(Workload::Transactions, "25006", "read-only");
        assert_eq!((seen.accidents, seen.errors.len()), (2, 1));
    }
}
