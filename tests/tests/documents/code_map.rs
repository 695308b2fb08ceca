//! ARCHITECTURE.md and the pages behind it name files, functions and tests that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use pgimbal_tests::sources::{root, sources};

use super::{backticked, developer_pages, is_key, prose, read, words_with};

/// Folders that a file's name may be relative to.
const FOLDERS: [&str; 6] =
    ["", "config/src/", "auth/src/", "proxy/wire/src/", "proxy/pooler/src/", "proxy/src/"];

/// What may stand in front of the name of an item where it is defined.
const KEYWORDS: [&str; 7] =
    ["fn ", "struct ", "enum ", "trait ", "type ", "const ", "macro_rules! "];

/// Names of Linux that no source of pgimbal has.
const FOREIGN: [&str; 1] = ["epoll_wait"];

#[test]
fn architecture_fits_three_screens() {
    for (name, most) in [("ARCHITECTURE.md", 200), ("docs/internals.md", 250)] {
        let lines = read(name).lines().count();
        assert!(lines <= most, "{name} has {lines} lines, {most} are allowed");
    }
}

#[test]
fn files_that_are_named_exist() {
    let mut found = 0;
    for (page, text) in developer_pages() {
        for name in spans(&text) {
            let is_file = name.ends_with(".rs") || name.ends_with(".toml") || name.ends_with('/');
            if is_file && !name.contains(' ') {
                let exists = FOLDERS.iter().any(|folder| root().join(folder).join(name).exists());
                assert!(
                    exists || !files_named(name).is_empty(),
                    "{page} names {name}, which does not exist"
                );
                found += 1;
            }
        }
    }
    assert!(found > 150, "{found} names of files");
}

#[test]
fn every_file_and_folder_of_a_crate_is_on_the_map() {
    let map = read("ARCHITECTURE.md");
    for folder in &FOLDERS[1..] {
        for entry in fs::read_dir(root().join(folder)).expect("a crate").flatten() {
            let file = entry.file_name().into_string().expect("a name");
            let stem = file.trim_end_matches(".rs");
            // What stands below `name.rs` is in `name/`; one of them is enough.
            let names = [format!("{stem}.rs"), format!("{stem}/")];
            let is_named = spans(&map).any(|span| names.iter().any(|name| span == name));
            let is_left_out = ["lib", "main", "scratch"].contains(&stem);
            assert!(is_named || is_left_out, "ARCHITECTURE.md does not name {folder}{file}");
        }
    }
}

#[test]
fn items_that_are_named_exist() {
    // The names of lints stand in the workspace's manifest.
    let code = code() + &read("Cargo.toml");
    let known = words_with("", &code);
    let mut found = 0;
    let mut unknown = BTreeSet::new();
    for (page, text) in developer_pages() {
        let names = spans(&text).filter(|name| is_path(name) && !FOREIGN.contains(name));
        for name in names {
            found += 1;
            if !name.split("::").all(|part| known.contains(part)) {
                unknown.insert(format!("{page}: {name}"));
            }
        }
    }
    assert!(unknown.is_empty(), "the code has nowhere what is named: {unknown:#?}");
    assert!(found > 150, "{found} names of items");
}

#[test]
fn tests_that_are_named_exist() {
    let code = code();
    let page = read("docs/invariants.md");
    let mut rules = 0;
    let mut tests = 0;
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let (_, kept_by) = row.trim_matches('|').rsplit_once(" | ").unwrap_or_default();
        assert!(!kept_by.trim().is_empty(), "nothing keeps this rule: {row}");
        rules += usize::from(kept_by.contains('`'));
        for name in backticked(kept_by).filter(|name| is_key(name) && name.matches('_').count() > 2)
        {
            assert!(code.contains(&format!("fn {name}(")), "there is no test {name}");
            tests += 1;
        }
    }
    assert!(rules > 35 && tests > 60, "{rules} rules, {tests} tests");
}

#[test]
fn the_map_of_changes_names_what_is_there() {
    let page = read("ARCHITECTURE.md");
    let (_, table) =
        page.split_once("| change | folder | file | function or type |\n").expect("map");
    let rows = table.lines().skip(1).take_while(|line| !line.is_empty());
    let mut found = 0;
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [_, folder, names, items] = cells[..] else { panic!("{row}") };
        let folder = folder.trim_matches('`');
        let files: Vec<PathBuf> = backticked(names).flat_map(files_named).collect();
        let first = backticked(names).next().map(files_named).unwrap_or_default();
        let is_in_folder = |file: &PathBuf| file.to_string_lossy().contains(folder);
        assert!(first.iter().any(is_in_folder), "{folder} lacks the first file: {row}");
        let read = |file| fs::read_to_string(file).expect("a source file");
        let code: String = files.iter().map(read).collect();
        let words = words_with("", &code);
        for name in backticked(items) {
            let (owner, item) = name.rsplit_once("::").unwrap_or((name, name));
            assert!(defines(&code, item.trim_end_matches('!')), "{name} is not there: {row}");
            assert!(words.contains(owner.trim_end_matches('!')), "{owner} is not there: {row}");
            found += 1;
        }
    }
    assert!(found > 50, "{found} functions and types");
}

/// Whether the code defines an item of this name.
fn defines(code: &str, item: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    KEYWORDS.iter().any(|keyword| {
        let definition = format!("{keyword}{item}");
        let mut ends = code.match_indices(&definition).map(|(at, _)| at + definition.len());
        ends.any(|end| !code[end..].starts_with(is_name))
    })
}

/// The text of all Rust files.
fn code() -> String {
    let files = sources(&["config", "auth", "proxy", "tests", "benches"]);
    files.iter().map(|file| fs::read_to_string(file).expect("a file")).collect()
}

/// The Rust files whose path ends in `name`, or, for the name of a folder, that are below it.
fn files_named(name: &str) -> Vec<PathBuf> {
    let folder = format!("/{}/", name.trim_end_matches('/'));
    let is_named = |file: &PathBuf| match name.ends_with(".rs") {
        true => file.ends_with(name),
        false => file.to_string_lossy().contains(&folder),
    };
    sources(&["config", "auth", "proxy", "tests", "benches"]).into_iter().filter(is_named).collect()
}

/// What stands in backticks outside of code blocks, on one line.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    prose(text).flat_map(|(_, line)| backticked(line))
}

/// Whether a name is that of an item of the code: `Link::Ready`, `PinReason`, `only_reads`.
fn is_path(name: &str) -> bool {
    let is_name = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    // A word in small letters may be a crate or a folder.
    let is_item = name.contains("::") || name.contains('_') || name.contains(char::is_uppercase);
    is_item && name.split("::").all(is_name)
}

#[test]
fn paths_are_told_from_other_spans() {
    let items: BTreeSet<&str> = ["Link::Ready", "PinReason", "only_reads", "SHOWN"].into();
    let others: BTreeSet<&str> = ["wire", "pin.rs", "a b", "settings!", "Link::"].into();
    assert!(items.iter().all(|name| is_path(name)));
    assert!(!others.iter().any(|name| is_path(name)));
}
