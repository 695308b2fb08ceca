//! The names of the functions of `pg_catalog`.

/// The distinct names in `pg_proc` of PostgreSQL 15 with `pronamespace =
/// 'pg_catalog'::regnamespace`, one a line, sorted by their bytes: `SELECT DISTINCT proname COLLATE
/// "C" FROM pg_proc WHERE … ORDER BY 1`.
const FUNCTIONS: &str = include_str!("catalog_functions.txt");

/// Whether a function of `pg_catalog` has this name. One that came with a later server does not.
pub(super) fn has_function(name: &[u8]) -> bool {
    let mut lines = FUNCTIONS.as_bytes();
    while !lines.is_empty() {
        let middle = lines.len() / 2;
        let start = lines[..middle].iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        let length = lines[start..].iter().position(|&b| b == b'\n');
        let end = length.map_or(lines.len(), |length| start + length);
        match name.cmp(&lines[start..end]) {
            std::cmp::Ordering::Equal => return true,
            std::cmp::Ordering::Less => lines = &lines[..start],
            std::cmp::Ordering::Greater => lines = lines.get(end + 1..).unwrap_or_default(),
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_sorted_and_each_is_found() {
        assert!(FUNCTIONS.lines().is_sorted());
        assert!(FUNCTIONS.lines().all(|name| has_function(name.as_bytes())));
        for name in ["", "zzz", "A", "my_function", "uppe", "upperx"] {
            assert!(!has_function(name.as_bytes()), "{name}");
        }
    }
}
