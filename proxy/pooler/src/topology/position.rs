//! Positions in the write-ahead log, timelines and system identifiers, as PostgreSQL writes them.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A server's `system_identifier` (`pg_control_system()`): initdb makes it for a new cluster, and
/// every copy of the data has it. Written in decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SystemId(pub u64);

/// A timeline of the write-ahead log (documentation chapter "Continuous Archiving", "Timelines"): 1
/// for a new cluster, higher after each promotion. Written in decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimelineId(pub u32);

/// A position in the write-ahead log in bytes from its start (`pg_lsn`), written as `16/B374D848`:
/// the upper and the lower 32 bits in hexadecimal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lsn(pub u64);

/// The error for a text that is not a valid [`Lsn`], [`TimelineId`] or [`SystemId`], or whose
/// number is too large: from their `FromStr`. It is the same for all three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a position of the write-ahead log")]
pub struct BadPosition;

/// PostgreSQL's XLOG_BLCKSZ unless it was built otherwise.
const PAGE: u64 = 8192;
/// SizeOfXLogShortPHD: the header of a page.
const SHORT_HEADER: u64 = 24;
/// SizeOfXLogLongPHD: the header of the first page of a segment.
const LONG_HEADER: u64 = 40;

impl Lsn {
    /// Makes the insert position of a primary comparable with the replay position of a standby:
    /// just behind a page's header nothing has been written on that page, and a standby stays at
    /// the start of the page, which is returned then. Any other position stays. Pages have 8192
    /// bytes (XLOG_BLCKSZ). `segment_size` is `wal_segment_size` in bytes: the first page of a
    /// segment has a longer header. With 0 no page counts as such.
    #[must_use]
    pub const fn reachable(self, segment_size: u64) -> Self {
        let page = self.0 - self.0 % PAGE;
        let first = segment_size != 0 && page.is_multiple_of(segment_size);
        let header = if first { LONG_HEADER } else { SHORT_HEADER };
        if self.0 - page == header { Self(page) } else { self }
    }

    /// Returns how many bytes of the write-ahead log this position is before `ahead`; 0 if it is
    /// not before it.
    #[must_use]
    pub const fn behind(self, ahead: Self) -> u64 {
        ahead.0.saturating_sub(self.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = BadPosition;

    fn from_str(text: &str) -> Result<Self, BadPosition> {
        let half = |text: &str| -> Result<u64, BadPosition> {
            let digits =
                (1..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !digits {
                return Err(BadPosition);
            }
            u64::from_str_radix(text, 16).map_err(|_| BadPosition)
        };
        let (high, low) = text.split_once('/').ok_or(BadPosition)?;
        Ok(Self(half(high)? << 32 | half(low)?))
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for TimelineId {
    type Err = BadPosition;

    fn from_str(text: &str) -> Result<Self, BadPosition> {
        text.parse().map(Self).map_err(|_| BadPosition)
    }
}

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SystemId {
    type Err = BadPosition;

    /// `system_identifier` is a bigint in SQL, so the upper half is written as negative numbers.
    fn from_str(text: &str) -> Result<Self, BadPosition> {
        if let Ok(signed) = text.parse::<i64>() {
            return Ok(Self(signed.cast_unsigned()));
        }
        text.parse().map(Self).map_err(|_| BadPosition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_written_as_postgresql_writes_them() {
        for (text, value) in
            [("0/0", 0), ("16/B374D848", 0x16_B374_D848), ("0/1000028", 0x100_0028)]
        {
            assert_eq!(text.parse(), Ok(Lsn(value)));
            assert_eq!(Lsn(value).to_string(), text);
        }
        for text in ["", "/", "1/", "/1", "1", "1/123456789", "-1/2", "+1/2", "1/2/3", "1/g"] {
            assert_eq!(text.parse::<Lsn>(), Err(BadPosition), "{text}");
        }
    }

    #[test]
    fn identifiers_may_be_written_signed() {
        assert_eq!("-1".parse(), Ok(SystemId(u64::MAX)));
        assert_eq!("7212345678901234567".parse(), Ok(SystemId(7_212_345_678_901_234_567)));
        assert_eq!("18446744073709551615".parse(), Ok(SystemId(u64::MAX)));
        assert!("x".parse::<SystemId>().is_err());
    }

    #[test]
    fn a_position_just_behind_a_page_header_is_the_pages_begin() {
        let segment = 16 << 20;
        assert_eq!(Lsn(0x300_2018).reachable(segment), Lsn(0x300_2000));
        assert_eq!(Lsn(0x300_0028).reachable(segment), Lsn(0x300_0000));
        // A long header is at a segment's begin only, a short one everywhere else.
        for untouched in [0x300_2028, 0x300_0018, 0x300_2020, 0x300_2000] {
            assert_eq!(Lsn(untouched).reachable(segment), Lsn(untouched));
        }
    }

    #[test]
    fn what_is_ahead_is_not_behind() {
        assert_eq!(Lsn(5).behind(Lsn(12)), 7);
        assert_eq!(Lsn(12).behind(Lsn(5)), 0);
    }
}
