//! Which transactions and logins are traced, and what is kept of them until the driver takes it.

use std::time::Instant;

use crate::ids::PoolId;

/// The most samples that are kept between two calls of the driver; further ones are left out. A
/// call processes one buffer of one connection, which holds few transactions.
const SAMPLES_LIMIT: usize = 64;

/// A transaction or login that was chosen to be traced: when its parts began and ended. It has
/// nothing of what the client has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The pool of the login, or of the server connection that ran the transaction.
    pub pool: PoolId,
    /// What was chosen.
    pub what: Sampled,
    /// When the client began to wait for the server connection, and when it had it. `None` for a
    /// login, and for a transaction on a connection that the client had kept.
    pub wait: Option<(Instant, Instant)>,
    /// When it began: the startup packet had come, or the first message was sent to the server.
    pub began: Instant,
    /// When it ended: with ReadyForQuery.
    pub ended: Instant,
}

/// What a [`Sample`] is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampled {
    /// The login of a client.
    Login,
    /// A transaction.
    Transaction,
}

/// Chooses what is traced. It draws no lots: with a ratio of a hundredth it is each hundredth.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    /// The part that is chosen, in millionths; 0 for none.
    millionths: u32,
    /// What is left of the part from one to the next.
    rest: u32,
    chosen: Vec<Sample>,
}

impl Sampler {
    /// Chooses this part from now on, in millionths.
    pub(crate) fn set_ratio(&mut self, millionths: u32) {
        self.millionths = millionths;
    }

    /// Whether the one at hand is chosen; called once for each.
    #[inline]
    pub(crate) fn chooses(&mut self) -> bool {
        if self.millionths == 0 {
            return false;
        }
        self.rest += self.millionths;
        let chosen = self.rest >= 1_000_000;
        if chosen {
            self.rest -= 1_000_000;
        }
        chosen
    }

    /// Keeps one that was chosen.
    pub(crate) fn keep(&mut self, sample: Sample) {
        if self.chosen.len() < SAMPLES_LIMIT {
            self.chosen.push(sample);
        }
    }

    /// Whether any are kept.
    #[inline]
    pub(crate) fn has_any(&self) -> bool {
        !self.chosen.is_empty()
    }

    /// Takes those that are kept, the oldest first.
    pub(crate) fn take(&mut self) -> Vec<Sample> {
        std::mem::take(&mut self.chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_that_is_chosen_is_the_ratio() {
        for (millionths, of_a_thousand) in [(0, 0), (1_000_000, 1000), (250_000, 250), (1_500, 1)] {
            let mut sampler = Sampler::default();
            sampler.set_ratio(millionths);
            let chosen = (0..1000).filter(|_| sampler.chooses()).count();
            assert_eq!(chosen, of_a_thousand, "{millionths}");
        }
    }

    #[test]
    fn what_nobody_takes_is_bounded() {
        let (mut sampler, now) = (Sampler::default(), Instant::now());
        let (pool, what) = (PoolId(0), Sampled::Login);
        for _ in 0..100 {
            sampler.keep(Sample { pool, what, wait: None, began: now, ended: now });
        }
        assert_eq!(sampler.take().len(), SAMPLES_LIMIT);
        assert!(!sampler.has_any());
    }
}
