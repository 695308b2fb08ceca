//! docs/behaviours.md has the statements that tests are named after, and no other.

use std::collections::BTreeSet;
use std::fs;

use pgimbal_tests::sources::sources;

use super::{read, words_with};

/// A family of numbered tests, and whether a name may hold several numbers
/// (`behaviour_12_13_16_17_…`).
const FAMILIES: [(&str, bool); 3] =
    [("behaviour", true), ("rotation", false), ("state_case", false)];

#[test]
fn every_numbered_test_has_its_statement_and_every_statement_its_test() {
    let page = read("docs/behaviours.md");
    let (kept, not_kept) = page.split_once("## Not kept").expect("the last section");
    let files = sources(&["config", "auth", "proxy", "tests"]);
    let code: String = files.iter().map(|file| fs::read_to_string(file).expect("a file")).collect();
    for (family, has_several) in FAMILIES {
        let prefix = format!("{family}_");
        let tested: BTreeSet<u32> = code
            .split("fn ")
            .filter_map(|rest| rest.strip_prefix(&prefix)?.split_once('(').map(|(name, _)| name))
            .flat_map(|name| numbers(name, has_several))
            .collect();
        let stated = statements(kept, &format!("- **{prefix}"));
        assert!(tested.len() > 20, "{family}: {tested:?}");
        assert_eq!(stated.len(), stated.iter().collect::<BTreeSet<_>>().len(), "{family}: twice");
        let stated: BTreeSet<u32> = stated.into_iter().collect();
        let untold: Vec<_> = tested.difference(&stated).collect();
        assert!(untold.is_empty(), "docs/behaviours.md lacks {family}_{untold:?}");
        let untested: Vec<_> = stated.difference(&tested).collect();
        assert!(untested.is_empty(), "no test is named after {family}_{untested:?}");
        for missing in words_with(&prefix, not_kept.split("## ").next().unwrap_or_default()) {
            let [number] = numbers(&missing[prefix.len()..], false)[..] else { continue };
            let is_told_so = not_kept.contains(&format!("- {missing}"));
            assert!(!is_told_so || !tested.contains(&number), "{missing} has a test by now");
        }
    }
}

#[test]
fn a_name_says_its_numbers() {
    assert_eq!(numbers("12_13_16_any_pipeline", true), [12, 13, 16]);
    assert_eq!(numbers("32_1_by_a_column", false), [32]);
    assert_eq!(numbers("01b_nor_does_2", false), [1]);
    assert_eq!(numbers("any_bytes_2", true), [0; 0]);
}

/// The numbers that a test's name begins with.
fn numbers(name: &str, has_several: bool) -> Vec<u32> {
    let words = name.split('_').take(if has_several { usize::MAX } else { 1 });
    let numbers = words.map_while(|word| {
        word.trim_end_matches(|c: char| c.is_ascii_lowercase()).parse::<u32>().ok()
    });
    numbers.collect()
}

/// The numbers of the lines that begin with `prefix`, each as often as it stands there.
fn statements(page: &str, prefix: &str) -> Vec<u32> {
    let rest = page.lines().filter_map(|line| line.strip_prefix(prefix));
    rest.filter_map(|rest| rest.split_once("**")?.0.parse().ok()).collect()
}
