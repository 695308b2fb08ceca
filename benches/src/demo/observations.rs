//! What the applications saw and were told, and whether it is true.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Limit of accidents whose text is kept.
const KEPT: usize = 8;

/// The kind of statements that an application repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Workload {
    /// INSERTs, each outside of a transaction block.
    Writes,
    /// Transaction blocks of several statements.
    Transactions,
    /// SELECTs on the primary.
    Reads,
    /// SELECTs on replicas, which a startup option asks for.
    ReplicaReads,
    /// INSERTs and SELECTs that read them back. Which of them go to a replica decides pgimbal
    /// (`route = "auto"`).
    OwnWrites,
    /// What notifies the clients that listen.
    Notifications,
}

impl Workload {
    /// All workloads, in the order of the report.
    pub const ALL: [Self; 6] = [
        Self::Writes,
        Self::Transactions,
        Self::Reads,
        Self::ReplicaReads,
        Self::OwnWrites,
        Self::Notifications,
    ];

    /// The workload's name in the report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Writes => "single writes",
            Self::Transactions => "transactions",
            Self::Reads => "reads",
            Self::ReplicaReads => "replica reads",
            Self::OwnWrites => "own writes read back",
            Self::Notifications => "notifications",
        }
    }
}

/// The outcome of a write as an application was told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The write is committed.
    Done,
    /// The write is certainly rolled back.
    RolledBack,
    /// The server was lost before its answer (SQLSTATE 08007), so that the outcome is not known.
    Unknown,
}

/// Everything that the applications have seen, shared by their threads.
#[derive(Debug, Default)]
pub struct Observations(Mutex<Seen>);

/// The counts and texts of everything that the applications have seen since the start.
#[derive(Debug, Default)]
pub struct Seen {
    /// Number of transactions that succeeded, for each of [`Workload::ALL`].
    pub done: [u64; Workload::ALL.len()],
    /// Errors that leave the connection open and that a dying primary explains, by workload and
    /// SQLSTATE: their number and the text of one of them.
    pub errors: BTreeMap<(Workload, String), (u64, String)>,
    /// Number of events that must not happen: logins that were refused, connections that were
    /// closed, and errors that nothing explains.
    pub accidents: u64,
    /// Texts of the first accidents.
    pub words: Vec<String>,
    /// Number of logins that succeeded.
    pub logins: u64,
    /// Number of reads that asked for a replica, and of those that a replica served.
    pub replica_reads: [u64; 2],
    /// What the reads of own writes have shown.
    pub own: OwnReads,
    /// The time of each transaction in microseconds, since the list was last taken.
    pub latencies: Vec<u32>,
    last: [Option<Instant>; Workload::ALL.len()],
    /// The longest time without a success while the primary was missing, for each of
    /// [`Workload::ALL`].
    pub gaps: [Duration; Workload::ALL.len()],
    disturbed: bool,
    writes: HashMap<String, WriteOutcome>,
}

/// The reads with which applications have looked for what they had written themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnReads {
    /// Number of reads after a write that was acknowledged.
    pub checked: u64,
    /// Number of those that a replica has served, in the words of the server.
    pub on_replicas: u64,
    /// Number of those that did not show the write.
    pub stale: u64,
}

impl OwnReads {
    /// Counts a read: whether a replica served it, and whether it showed the write.
    pub fn read(&mut self, replica: bool, shown: bool) {
        self.checked += 1;
        self.on_replicas += u64::from(replica);
        self.stale += u64::from(!shown);
    }
}

/// The differences between what the applications were told of their writes and the rows in the
/// table.
#[derive(Debug, Default)]
pub struct Discrepancies {
    /// Number of writes that were acknowledged and are missing.
    pub lost: usize,
    /// Number of writes that were said to be rolled back and are there.
    pub unexpected: usize,
    /// Number of writes that are there more than once.
    pub twice: usize,
    /// Number of writes whose outcome was unknown, and of those among them that are there.
    pub unknown: [usize; 2],
    /// Number of writes that were acknowledged.
    pub acknowledged: usize,
}

impl Observations {
    /// Locks the record for reading or changing it.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Counts a transaction of this workload that succeeded and took this time.
    pub fn succeeded(&mut self, workload: Workload, took: Duration) {
        let index = workload as usize;
        self.done[index] += 1;
        self.latencies.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        let now = Instant::now();
        if let Some(last) = self.last[index].replace(now).filter(|_| self.disturbed) {
            self.gaps[index] = self.gaps[index].max(now - last);
        }
    }

    /// Counts a read that asked for a replica; `replica` says whether a replica served it.
    pub fn read(&mut self, replica: bool) {
        self.replica_reads[0] += 1;
        self.replica_reads[1] += u64::from(replica);
    }

    /// Records the outcome of the write with this id.
    pub fn wrote(&mut self, id: String, told: WriteOutcome) {
        self.writes.insert(id, told);
    }

    /// Sets whether a dying primary explains errors from now on.
    pub fn disturbed(&mut self, disturbed: bool) {
        self.disturbed = disturbed;
    }

    /// Whether a dying primary explains errors now.
    #[must_use]
    pub fn is_disturbed(&self) -> bool {
        self.disturbed
    }

    /// Counts an error with this SQLSTATE and message that leaves the connection open; it is an
    /// accident when nothing explains it.
    pub fn refused(&mut self, workload: Workload, code: &str, message: &str) {
        if !self.disturbed || explanation(code).is_none() {
            self.accident(format!("{}: {code} {message}", workload.name()));
            return;
        }
        let entry = self.errors.entry((workload, code.to_owned()));
        entry.or_insert_with(|| (0, message.to_owned())).0 += 1;
    }

    /// Counts an event that must not happen; `words` describes it.
    pub fn accident(&mut self, words: String) {
        self.accidents += 1;
        if self.words.len() < KEPT {
            self.words.push(words);
        }
    }

    /// Compares what the applications were told with `rows`, the ids of the writes that are there.
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

/// The reason why an error with this SQLSTATE could not be hidden from an application whose primary
/// died; `None` when there is none, so that the error is an accident.
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
    fn a_read_that_does_not_show_the_own_write_is_stale() {
        let mut own = OwnReads::default();
        for (replica, shown) in [(true, true), (false, true), (true, false)] {
            own.read(replica, shown);
        }
        assert_eq!(own, OwnReads { checked: 3, on_replicas: 2, stale: 1 });
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
