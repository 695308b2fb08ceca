//! Suggestions ("did you mean"): the known name nearest to a mistyped one.

/// The one of `names` that is nearest to `typed` by edit distance with transpositions (optimal
/// string alignment), in characters and with regard to case; of equally near ones the first in the
/// alphabet. `None` when the distance exceeds a third of the name's characters, rounded up, and
/// without names. Used for the hints "did you mean" of configuration and console.
#[must_use]
pub fn nearest<'a>(typed: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|name| (strsim::osa_distance(typed, name), name))
        .min()
        .filter(|(distance, name)| *distance <= name.chars().count().div_ceil(3))
        .map(|(_, name)| name)
}

/// The sentence for a suggestion, to be appended to an error; empty without one.
pub(crate) fn did_you_mean(name: Option<&str>) -> String {
    name.map(|name| format!(" (did you mean \"{name}\"?)")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        let names = ["pool_size", "pool_mode", "listen"];
        assert_eq!(nearest("pool_sise", names.into_iter()), Some("pool_size"));
        assert_eq!(nearest("lisetn", names.into_iter()), Some("listen"));
        assert_eq!(nearest("verbose", names.into_iter()), None);
    }
}
