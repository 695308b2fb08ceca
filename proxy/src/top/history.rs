//! The last minutes of a few figures, for the sparklines.

use std::collections::VecDeque;
use std::time::Duration;

use super::table::Table;

/// Number of samples that are kept: five minutes of one each second.
const SAMPLES: usize = 300;

/// The figures of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    /// Transactions so far, of all databases; `None` when the console does not count them.
    pub(super) transactions: Option<u64>,
    /// Clients that wait for a server connection.
    pub(super) waiting: u64,
    /// Server connections that are in use.
    pub(super) active: u64,
}

impl Sample {
    /// The figures of the answers to SHOW POOLS and SHOW STATS.
    pub(super) fn of(pools: &Table, stats: &Table) -> Self {
        Self {
            transactions: stats.sum("total_xact_count"),
            waiting: pools.sum("cl_waiting").unwrap_or(0),
            active: pools.sum("sv_active").unwrap_or(0),
        }
    }
}

/// A figure's name and its values, the oldest first.
pub(super) type Series<'a> = (&'static str, &'a VecDeque<u64>);

/// The figures of the last five minutes.
#[derive(Debug, Default)]
pub(super) struct History {
    last: Option<(u64, Duration)>,
    transactions: VecDeque<u64>,
    waiting: VecDeque<u64>,
    active: VecDeque<u64>,
}

impl History {
    /// Adds the sample of `now`, a time since any fixed moment. A count that is smaller than the
    /// last one is that of a program that began anew: it has no rate.
    pub(super) fn add(&mut self, sample: Sample, now: Duration) {
        if let Some(total) = sample.transactions {
            if let Some((before, then)) = self.last
                && total >= before
                && now > then
            {
                let rate = (total - before) as f64 / (now - then).as_secs_f64();
                push(&mut self.transactions, rate.round() as u64);
            }
            self.last = Some((total, now));
        }
        push(&mut self.waiting, sample.waiting);
        push(&mut self.active, sample.active);
    }

    /// All figures, in the order in which they are shown.
    pub(super) fn series(&self) -> [Series<'_>; 3] {
        [
            ("transactions/s", &self.transactions),
            ("clients waiting", &self.waiting),
            ("servers active", &self.active),
        ]
    }
}

fn push(values: &mut VecDeque<u64>, value: u64) {
    if values.len() == SAMPLES {
        values.pop_front();
    }
    values.push_back(value);
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::table;
    use super::*;

    #[test]
    fn counts_become_rates_and_only_five_minutes_are_kept() {
        let mut history = History::default();
        let sample = |transactions| Sample { transactions, waiting: 1, active: 2 };
        let rates = |history: &History| history.series()[0].1.iter().copied().collect::<Vec<_>>();
        for (total, at) in [(100, 0), (150, 1), (250, 3), (20, 4), (30, 5)] {
            history.add(sample(Some(total)), Duration::from_secs(at));
        }
        assert_eq!(rates(&history), [50, 50, 10]);
        history.add(sample(None), Duration::from_secs(6));
        assert_eq!(rates(&history).len(), 3);
        for at in 0..1000 {
            history.add(sample(Some(1000 + at)), Duration::from_secs(10 + at));
        }
        assert!(history.series().iter().all(|(_, values)| values.len() == SAMPLES));
    }

    #[test]
    fn figures_are_sums_over_pools() {
        let pools = table(&["cl_waiting", "sv_active"], &[&["1", "2"], &["3", "4"]]);
        let stats = table(&["total_xact_count"], &[&["10"], &["5"]]);
        let expected = Sample { transactions: Some(15), waiting: 4, active: 6 };
        assert_eq!(Sample::of(&pools, &stats), expected);
        assert_eq!(Sample::of(&Table::default(), &Table::default()), Sample::default());
    }
}
