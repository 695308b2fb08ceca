//! What pools had counted that are gone: the totals of their databases do not go back.

use std::collections::BTreeMap;

use super::stats::PoolStats;

/// Databases that are remembered by name. Clients choose the names where a `*` stands for any; an
/// entry takes up to some 10 KB.
const DATABASES_LIMIT: usize = 1_000;

/// The name under which the counters of retired pools are summed once 1000 databases are remembered
/// by name: that of all further databases together.
pub const OTHERS: &str = "(others)";

/// The counters of a worker's retired pools, by database.
#[derive(Debug, Default)]
pub(crate) struct RetiredStats {
    by_database: BTreeMap<Box<str>, PoolStats>,
}

impl RetiredStats {
    /// Adds those of one more pool. A database that was never served is forgotten with its failures:
    /// a client may have made its name up.
    pub(crate) fn add(&mut self, database: &str, stats: &PoolStats) {
        let is_known = self.by_database.contains_key(database);
        if !is_known && !stats.has_served() {
            return;
        }
        let fits = is_known || self.by_database.len() < DATABASES_LIMIT;
        let name = if fits { database } else { OTHERS };
        match self.by_database.get_mut(name) {
            Some(sum) => sum.add(stats),
            None => drop(self.by_database.insert(name.into(), stats.clone())),
        }
    }

    /// The databases and their sums.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &PoolStats)> {
        self.by_database.iter().map(|(name, stats)| (&**name, stats))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_grow_and_names_beyond_the_limit_share_one() {
        let one = PoolStats { transactions: 1, ..PoolStats::default() };
        let mut retired = RetiredStats::default();
        let failed = PoolStats { server_login_failures: 1, ..PoolStats::default() };
        retired.add("never served", &failed);
        for n in 0..DATABASES_LIMIT + 3 {
            retired.add(&format!("d{n:04}"), &one);
        }
        retired.add("d0000", &one);
        let sums: BTreeMap<&str, u64> =
            retired.iter().map(|(name, stats)| (name, stats.transactions)).collect();
        assert_eq!(sums.len(), DATABASES_LIMIT + 1);
        assert_eq!((sums["d0000"], sums[OTHERS]), (2, 3));
    }
}
