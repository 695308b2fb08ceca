//! Mutations for the stable toolchain: every run of the tests throws some bytes at the parsers,
//! without libFuzzer. The seed and the number of inputs are fixed, so that every run is the same.
//!
//! `PGIMBAL_FUZZ_INPUTS=n` is a long run, of n inputs for each property;
//! `PGIMBAL_FUZZ_SEED=s` begins with another seed than 1, or replays one.

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

/// Checks `inputs` mutations of `seeds`, or `PGIMBAL_FUZZ_INPUTS`. The seed and the input are
/// printed when the check panics.
pub(crate) fn run(name: &str, check: fn(&[u8]), seeds: &[&[u8]], inputs: u64) {
    let inputs = number("PGIMBAL_FUZZ_INPUTS").unwrap_or(inputs);
    let seed = number("PGIMBAL_FUZZ_SEED").unwrap_or(1);
    let mut random = Random::new(seed);
    for _ in 0..inputs {
        let mut input = seeds[random.below(seeds.len())].to_vec();
        for _ in 0..=random.below(6) {
            mutate(&mut input, seeds, &mut random);
        }
        if std::panic::catch_unwind(|| check(&input)).is_err() {
            panic!("{name}, PGIMBAL_FUZZ_SEED={seed}: b\"{}\"", input.escape_ascii());
        }
    }
    println!("{name}: {inputs} inputs, seed {seed}");
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
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
