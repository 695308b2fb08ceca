//! README.md, the pages of `docs` and ARCHITECTURE.md say what is so.
//!
//! `UPDATE_DOCS=1 cargo test -p pgimbal-tests --test documents` writes the option reference anew.
#![allow(missing_docs, reason = "a test's name is its documentation")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test a failed expectation is the point"
)]

#[path = "documents/code_map.rs"]
mod code_map;
#[path = "documents/links.rs"]
mod links;
#[path = "documents/names.rs"]
mod names;
#[path = "documents/observability.rs"]
mod observability;
#[path = "documents/statements.rs"]
mod statements;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use pgimbal_tests::sources::{root, sources};

/// Where the option reference stands.
const REFERENCE: &str = "docs/configuration.md";
/// ARCHITECTURE.md, and the pages that it links to for people who change pgimbal.
const DEVELOPER_PAGES: [&str; 4] =
    ["ARCHITECTURE.md", "docs/internals.md", "docs/internals-reads.md", "docs/invariants.md"];

#[test]
fn configuration_has_the_option_reference() {
    let page = read(REFERENCE);
    let (before, rest) = page.split_once("<!-- options:begin -->\n").expect("options:begin");
    let (written, after) = rest.split_once("<!-- options:end -->").expect("options:end");
    // It stands below the page's own title.
    let demoted =
        |line: &str| if line.starts_with('#') { format!("#{line}\n") } else { format!("{line}\n") };
    let reference: String = pgimbal_config::reference().lines().map(demoted).collect();
    if written != reference && std::env::var_os("UPDATE_DOCS").is_some() {
        let page =
            format!("{before}<!-- options:begin -->\n{reference}<!-- options:end -->{after}");
        fs::write(root().join(REFERENCE), page).expect("the page can be written");
        return;
    }
    let differs = written.lines().zip(reference.lines()).find(|(old, new)| old != new);
    assert!(
        written == reference,
        "the options in {REFERENCE} are stale, first at {differs:?}; \
         UPDATE_DOCS=1 cargo test -p pgimbal-tests --test documents writes them anew"
    );
}

#[test]
fn no_merge_is_left_half_done() {
    let others = ["ARCHITECTURE.md", "CHANGELOG.md"].map(page);
    for (name, text) in user_pages().into_iter().chain(developer_pages()).chain(others) {
        let mark = text.lines().find(|line| line.starts_with("<<<<<<< ") || *line == "=======");
        assert_eq!(mark, None, "{name}");
    }
}

#[test]
fn readme_has_at_most_250_lines() {
    let lines = read("README.md").lines().count();
    assert!(lines <= 250, "README.md has {lines} lines: what is longer has a page in docs");
}

#[test]
fn no_line_of_prose_has_more_than_100_characters() {
    for (name, text) in user_pages().into_iter().chain(developer_pages()) {
        for (number, line) in prose(&text) {
            let is_generated = name == REFERENCE && number > line_of(&text, "<!-- options:begin");
            let is_short = line.chars().count() <= 100 || line.starts_with('|');
            assert!(is_short || is_generated, "{name}:{number}: {line}");
        }
    }
}

#[test]
fn readmes_figures_are_those_of_the_benchmarks_page() {
    let benchmarks = read("docs/benchmarks.md");
    let readme = read("README.md");
    let rows: Vec<&str> = readme.lines().filter(|line| line.contains("| pgbouncer |")).collect();
    assert!(rows.len() > 2, "{rows:?}");
    let table = between(&readme, "## Benchmarks", "## Documentation");
    for row in table.lines().filter(|line| line.starts_with('|')) {
        assert!(benchmarks.lines().any(|line| line == row), "docs/benchmarks.md lacks {row}");
    }
}

#[test]
fn pooling_names_every_pin_reason() {
    let source = read("proxy/pooler/src/session/pin.rs");
    let names = between(&source, "pub const fn as_str", "impl PinReasons");
    let reasons: BTreeSet<&str> = names.lines().filter_map(quoted).collect();
    assert!(reasons.len() > 10, "{reasons:?}");
    let pooling = read("docs/pooling.md");
    for reason in reasons {
        assert!(pooling.contains(&format!("| `{reason}` |")), "pooling.md has no row for {reason}");
    }
}

#[test]
fn failover_names_every_state_of_a_node() {
    let source = read("proxy/pooler/src/topology/view.rs");
    let words = between(&source, "const fn word", "fn old_word");
    let states: Vec<&str> = words.lines().filter_map(quoted).collect();
    assert!(states.len() > 5, "{states:?}");
    let failover = read("docs/failover.md");
    let table = between(&failover, "| state | is | gets |", "A prober waits");
    for state in states {
        assert!(table.contains(&format!("| `{state}` |")), "failover.md has no row for {state}");
    }
}

#[test]
fn operations_names_the_metric_families_that_there_are() {
    let made = families();
    let operations = read("docs/operations.md");
    let shown = words_with("pgimbal_", between(&operations, "## Metrics", "## Alerts"));
    assert!(made.len() > 20, "{made:?}");
    assert_eq!(shown, made, "the families of operations.md, and those that are served");
    let of_module = words_with("pgimbal_", &names::module());
    for (name, text) in user_pages() {
        // A word in capitals stands for what a person puts there.
        let words = words_with("pgimbal_", &text).into_iter();
        for word in words.filter(|word| *word == word.to_lowercase()) {
            let is_known = made.contains(&word) || of_module.contains(&word);
            assert!(is_known, "{name} names {word}, which is not served");
        }
    }
}

#[test]
fn operations_names_every_console_command() {
    let operations = read("docs/operations.md");
    let table = between(&operations, "| command | shows or does |", "\n\n");
    let shown: BTreeSet<&str> = table.lines().filter_map(|row| backticked(row).next()).collect();
    let commands = console_commands();
    let commands: BTreeSet<&str> = commands.iter().map(String::as_str).collect();
    assert!(commands.len() > 5, "{commands:?}");
    assert_eq!(shown, commands, "the commands of operations.md, and those of SHOW HELP");
}

#[test]
fn pgbouncers_options_move_to_options_that_exist() {
    let from_pgbouncer = read("docs/from-pgbouncer.md");
    let table = between(&from_pgbouncer, "| PgBouncer | pgimbal |", "\n\n");
    let reference = pgimbal_config::reference();
    for row in table.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let [theirs, ours] = cells[..] else { panic!("{row}") };
        let side = if ours.trim().starts_with("the same") { theirs } else { ours };
        for name in backticked(side).filter(|name| is_key(name)) {
            let words = ["require", "trust", "password", "md5", "plain", "transaction"];
            let is_option = reference.contains(&format!("| `{name}` |"));
            assert!(is_option || words.contains(&name), "`{name}` is no option: {row}");
        }
    }
}

#[test]
fn a_transactions_status_is_kept_in_one_place() {
    for file in sources(&["proxy/pooler/src"]) {
        let is_owner = file.ends_with("pooler/src/server.rs");
        let text = fs::read_to_string(&file).expect("a source file");
        let fields = text.lines().filter(|line| line.trim_end().ends_with(": TransactionStatus,"));
        assert_eq!(fields.count(), usize::from(is_owner), "{}", file.display());
    }
}

#[test]
fn ready_for_query_is_checked_in_one_place() {
    for file in sources(&["proxy/pooler/src"]) {
        let text = fs::read_to_string(&file).expect("a source file");
        let checks = text.contains("backend::READY_FOR_QUERY");
        // The connection that listens for all clients serves no session.
        let places = ["server/server_turn.rs", "listener/steps.rs"];
        let may = places.iter().any(|place| file.ends_with(place));
        assert_eq!(checks, may, "{}", file.display());
    }
}

#[test]
fn secrets_are_looked_at_in_two_crates_only() {
    for file in sources(&["proxy/wire/src", "proxy/pooler/src", "proxy/src"]) {
        let text = fs::read_to_string(&file).expect("a source file");
        assert!(!text.contains(".expose()"), "{} looks at a secret", file.display());
    }
}

#[test]
fn a_session_is_512_bytes_at_most() {
    let size = size_of::<pgimbal_pooler::session::Session>();
    assert!(size <= 512, "{size} bytes for each of 10,000 idle clients");
}

#[test]
fn the_changelog_has_what_is_not_released() {
    assert!(read("CHANGELOG.md").contains("## [Unreleased]"));
}

/// The text of a file of the repository.
fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A page and its text.
fn page(path: &str) -> (String, String) {
    (path.to_owned(), read(path))
}

/// What people read who change pgimbal.
fn developer_pages() -> [(String, String); 4] {
    DEVELOPER_PAGES.map(page)
}

/// The metric families that pgimbal serves.
fn families() -> BTreeSet<String> {
    let shipped = |file: &PathBuf| {
        let text = fs::read_to_string(file).expect("a source file");
        text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned()
    };
    let files = sources(&["proxy/src/admin/metrics"]);
    let code: String =
        files.iter().filter(|file| !file.ends_with("tests.rs")).map(shipped).collect();
    let code = ["pooler", "auth", "tests"]
        .iter()
        .fold(code, |code, name| code.replace(&format!("pgimbal_{name}::"), ""));
    words_with("pgimbal_", &code)
}

/// The commands of the console as `SHOW HELP` has them.
fn console_commands() -> BTreeSet<String> {
    let source = read("proxy/src/admin/console/command.rs");
    let help = between(&source, "const HELP", "];");
    let commands = help.lines().filter_map(quoted).chain(["SHOW HELP"]);
    commands.map(str::to_owned).collect()
}

/// README.md and the other pages of `docs`, what users read.
fn user_pages() -> Vec<(String, String)> {
    let names = ["docs", "docs/runbooks"].into_iter().flat_map(|folder| {
        let entries = fs::read_dir(root().join(folder)).expect("a folder").flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name.ends_with(".md")).map(move |name| format!("{folder}/{name}"))
    });
    let names = names.filter(|name| !DEVELOPER_PAGES.contains(&name.as_str()));
    let mut pages: Vec<_> = names.map(|name| page(&name)).collect();
    assert!(pages.len() >= 12, "{} pages in docs", pages.len());
    pages.push(page("README.md"));
    pages
}

/// The lines outside of code blocks, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    let numbered = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    numbered.filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// The number of the first line that begins so.
fn line_of(text: &str, beginning: &str) -> usize {
    text.lines().position(|line| line.starts_with(beginning)).map_or(usize::MAX, |at| at + 1)
}

/// What stands between two texts.
fn between<'t>(text: &'t str, from: &str, to: &str) -> &'t str {
    let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("there is no {from}"));
    rest.split_once(to).unwrap_or_else(|| panic!("nothing ends at {to}")).0
}

/// The first text in quotes of a line.
fn quoted(line: &str) -> Option<&str> {
    line.split('"').nth(1)
}

/// What stands in backticks.
fn backticked(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Whether `name` could be an option or a function.
fn is_key(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// Every word of `text` that begins with `prefix`.
fn words_with(prefix: &str, text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| word.len() > prefix.len() && word.starts_with(prefix))
        .map(str::to_owned)
        .collect()
}
