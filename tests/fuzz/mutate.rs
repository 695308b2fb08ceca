//! Mutations for the stable toolchain: every run of the tests throws some bytes at the parsers,
//! without libFuzzer. Seeded, so that a failure can be replayed.

use std::time::{Duration, Instant};

/// xorshift64*: enough to choose bytes.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit.max(1)
    }
}

/// Checks mutations of `seeds` for `budget`. The seed is `PGIMBAL_FUZZ_SEED`, or the clock; it and
/// the input are printed when the check panics.
pub(crate) fn run(name: &str, check: fn(&[u8]), seeds: &[&[u8]], budget: Duration) {
    let given = std::env::var("PGIMBAL_FUZZ_SEED").ok().and_then(|text| text.parse().ok());
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed: u64 = given.unwrap_or_else(|| clock.map_or(1, |now| now.as_nanos() as u64));
    let mut random = Random::new(seed);
    let end = Instant::now() + budget;
    let mut rounds = 0_u64;
    while Instant::now() < end {
        for _ in 0..64 {
            let mut input = seeds[random.below(seeds.len())].to_vec();
            for _ in 0..=random.below(6) {
                mutate(&mut input, seeds, &mut random);
            }
            if std::panic::catch_unwind(|| check(&input)).is_err() {
                panic!("{name}, PGIMBAL_FUZZ_SEED={seed}: b\"{}\"", input.escape_ascii());
            }
            rounds += 1;
        }
    }
    println!("{name}: {rounds} inputs, seed {seed}");
}

fn mutate(input: &mut Vec<u8>, seeds: &[&[u8]], random: &mut Random) {
    const TELLING: &[u8] = b"\0\x01\x03\x04\x08\x7f\x80\xff,=\\- SP";
    let at = random.below(input.len() + 1);
    match random.below(6) {
        0 => input.truncate(at),
        1 => input.insert(at, TELLING[random.below(TELLING.len())]),
        2 if at < input.len() => {
            input.remove(at);
        }
        3 if at < input.len() => input[at] = TELLING[random.below(TELLING.len())],
        4 if at < input.len() => input[at] ^= 1 << random.below(8),
        _ => {
            let other = seeds[random.below(seeds.len())];
            let from = random.below(other.len());
            input.splice(at..at, other[from..].iter().copied());
        }
    }
}
