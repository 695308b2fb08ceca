//! Durations and sizes as people write them: a number and a unit, `30s`, `4MiB`.
//!
//! A bare number is refused: seconds in one pooler are milliseconds in the server.

use std::time::Duration;

/// A unit's name and how many of the base unit (nanoseconds, bytes) it is.
type Unit = (&'static str, u64);

const DURATION_UNITS: &[Unit] = &[
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("min", 60_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

const SIZE_UNITS: &[Unit] = &[
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
];

/// Reads `250ms`, `30s`, `5min`, `1h`, `7d`. Zero needs no unit.
///
/// # Errors
/// The cause in words, without the text itself.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    scaled(text, DURATION_UNITS).map(Duration::from_nanos).ok_or_else(|| {
        "expected a number with a unit (us, ms, s, min, h, d), such as \"30s\"".to_owned()
    })
}

/// Reads `512B`, `64KiB`, `4MiB`, `1GB`. Zero needs no unit.
///
/// # Errors
/// The cause in words, without the text itself.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    scaled(text, SIZE_UNITS).and_then(|bytes| usize::try_from(bytes).ok()).ok_or_else(|| {
        "expected a number with a unit (B, KiB, MiB, GiB, kB, MB, GB), such as \"4MiB\"".to_owned()
    })
}

/// `None` for a missing or unknown unit, a number that is none, or one too large.
fn scaled(text: &str, units: &[Unit]) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let unit = unit.trim_start();
    if unit.is_empty() && number == 0 {
        return Some(0);
    }
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_and_a_unit() {
        for (text, expected) in [
            ("750us", Duration::from_micros(750)),
            ("500ms", Duration::from_millis(500)),
            ("30s", Duration::from_secs(30)),
            (" 30 s ", Duration::from_secs(30)),
            ("5min", Duration::from_secs(300)),
            ("5m", Duration::from_secs(300)),
            ("2h", Duration::from_secs(7200)),
            ("7d", Duration::from_secs(604_800)),
            ("0", Duration::ZERO),
        ] {
            assert_eq!(duration(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_size_is_a_number_and_a_unit() {
        for (text, expected) in [
            ("512B", 512),
            ("1kB", 1000),
            ("64KiB", 65_536),
            ("4MiB", 4 << 20),
            ("1 GB", 1_000_000_000),
        ] {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_missing_unit_a_strange_unit_and_an_overflow_are_refused() {
        for text in ["", "30", "s", "-1s", "1.5s", "30 parsecs", "30S", "99999999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
        for text in ["", "4", "MiB", "-1B", "4mib", "4s", "99999999999999999GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
