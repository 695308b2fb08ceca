//! Free ports for the servers of a test.

use std::net::TcpListener;
use std::time::{SystemTime, UNIX_EPOCH};

/// Ports below the kernel's ephemeral range, so that an outgoing connection of another test
/// cannot take one between this look and the server's bind.
const RANGE: std::ops::Range<u16> = 11_000..32_000;

/// A port on 127.0.0.1 at which nothing listens, between 11000 and 31999.
///
/// # Panics
/// When a thousand tries find none.
#[must_use]
pub fn free_port() -> u16 {
    let mut seed = seed();
    for _ in 0..1000 {
        seed = next(seed);
        let offset = (seed >> 33) % u64::from(RANGE.end - RANGE.start);
        let port = RANGE.start + u16::try_from(offset).expect("less than the range");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port in {RANGE:?}");
}

/// A number from 0 to `end` - 1 that other tests most likely do not get at this moment.
///
/// # Panics
/// When `end` is above 256.
#[must_use]
pub fn random(end: u16) -> u8 {
    u8::try_from((next(seed()) >> 33) % u64::from(end)).expect("256 at most")
}

fn seed() -> u64 {
    let nanos =
        SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").subsec_nanos();
    u64::from(nanos) ^ (u64::from(std::process::id()) << 20)
}

fn next(seed: u64) -> u64 {
    seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)
}
