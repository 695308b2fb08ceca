//! A replica's share of the reads: by its weight, and little at first after it has come back.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// How long a replica that has come back gets less than its share: its caches are cold, and what
/// made it fail may still be there.
const SLOW_START: Duration = Duration::from_secs(10);
/// What it gets at first, in percent of its share.
const LEAST_SHARE: u64 = 10;
/// The cost of one turn for a weight of 1 at its whole share.
const TURN: u64 = 100 << 20;

/// How many turns the pool of one replica has had, and what its next one costs: of two replicas,
/// the one with twice the weight has two turns for each of the other's.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// The sum of its turns' costs.
    spent: u64,
    /// When it has come back; `None` if it was never away.
    since: Option<Instant>,
    /// Counts the turns of the node's pools on all workers.
    of_node: Arc<AtomicU64>,
}

impl Turns {
    /// No turns; those to come count in `of_node` too.
    pub(crate) fn counted_in(of_node: Arc<AtomicU64>) -> Self {
        Self { of_node, ..Self::default() }
    }

    /// It has come back: it gets its share slowly.
    pub(crate) const fn start_slowly(&mut self, now: Instant) {
        self.since = Some(now);
    }

    /// The cost of one turn at this weight, at least 1.
    pub(crate) fn cost(&self, weight: u32, now: Instant) -> u64 {
        // Rounded up, so that three turns at a weight of 3 are not cheaper than one at 1.
        TURN.div_ceil(u64::from(weight.max(1)) * self.share(now))
    }

    /// Where it stands among others that have spent `least` at least.
    pub(crate) const fn spent(&self, least: u64) -> u64 {
        if self.spent > least { self.spent } else { least }
    }

    /// It has had a turn. Returns where it stood before.
    pub(crate) fn take(&mut self, least: u64, weight: u32, now: Instant) -> u64 {
        self.of_node.fetch_add(1, Relaxed);
        let before = self.spent(least);
        self.spent = before.saturating_add(self.cost(weight, now));
        before
    }

    /// What it gets of its share, in percent.
    fn share(&self, now: Instant) -> u64 {
        let Some(since) = self.since else { return 100 };
        let age = now.saturating_duration_since(since).min(SLOW_START).as_millis() as u64;
        LEAST_SHARE + (100 - LEAST_SHARE) * age / SLOW_START.as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `turns` turns each gets, the first one `ago` after it has come back.
    fn shares(weights: [u32; 2], ago: Option<Duration>, turns: usize) -> [usize; 2] {
        let start = Instant::now();
        let now = start + ago.unwrap_or_default();
        let counters = [Arc::<AtomicU64>::default(), Arc::default()];
        let mut all = counters.clone().map(Turns::counted_in);
        if ago.is_some() {
            all[0].start_slowly(start);
        }
        let (mut had, mut least) = ([0, 0], 0);
        for _ in 0..turns {
            let next = usize::from(all[1].spent(least) < all[0].spent(least));
            least = all[next].take(least, weights[next], now);
            had[next] += 1;
        }
        assert_eq!(had, counters.map(|counter| counter.load(Relaxed) as usize));
        had
    }

    #[test]
    fn turns_follow_the_weights() {
        assert_eq!(shares([1, 1], None, 100), [50, 50]);
        assert_eq!(shares([3, 1], None, 100), [75, 25]);
        let [heavy, light] = shares([1000, 1], None, 2002);
        assert!((1995..=2001).contains(&heavy) && light >= 1, "{heavy} {light}");
    }

    #[test]
    fn who_has_come_back_gets_its_share_slowly() {
        let at = |seconds| shares([1, 1], Some(Duration::from_secs(seconds)), 1100)[0];
        assert!((95..=105).contains(&at(0)), "{}", at(0));
        assert!((370..=405).contains(&at(5)), "{}", at(5));
        assert_eq!(at(10), 550);
        assert_eq!(at(1000), 550);
    }

    #[test]
    fn who_was_away_has_no_turns_to_make_up_for() {
        let now = Instant::now();
        let (mut one, two) = (Turns::default(), Turns::default());
        let mut least = 0;
        for _ in 0..100 {
            least = one.take(least, 1, now);
        }
        assert_eq!(two.spent(least), least);
        assert_eq!(one.spent(least), least + one.cost(1, now));
    }
}
