//! What ARCHITECTURE.md claims and a program can check.
#![allow(missing_docs, reason = "a test's name is its documentation")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test a failed expectation is the point"
)]

#[path = "architecture/imports.rs"]
mod imports;

use std::ffi::OsStr;
use std::fs;
use std::process::Command;

use pgimbal_tests::sources::{root, sources};

/// Crates that decide and never do IO.
const PURE: [&str; 7] = [
    "pgimbal-config",
    "pgimbal-auth",
    "pgimbal-wire",
    "pgimbal-lexer",
    "pgimbal-reads",
    "pgimbal-pooler",
    "pgimbal-replicas",
];
/// Where those of them live that may not even read a file or a clock.
const SANS_IO: [&str; 6] = [
    "auth/src",
    "proxy/wire/src",
    "proxy/lexer/src",
    "proxy/reads/src",
    "proxy/pooler/src",
    "proxy/replicas/src",
];
/// All code that is shipped.
const SHIPPED: [&str; 8] = [
    "config/src",
    "auth/src",
    "proxy/wire/src",
    "proxy/lexer/src",
    "proxy/reads/src",
    "proxy/pooler/src",
    "proxy/replicas/src",
    "proxy/src",
];
/// A longer file decides more than one thing.
const LONGEST_FILE: usize = 800;
/// Half of the files are shorter.
const MEDIAN_FILE: usize = 200;

#[test]
fn the_core_never_depends_on_a_runtime() {
    for name in PURE {
        let tree = dependencies(name);
        assert!(tree.iter().any(|line| line == name), "{tree:?}");
        for runtime in ["tokio", "mio", "async-std", "socket2", "polling"] {
            assert!(!tree.iter().any(|line| line == runtime), "{name} depends on {runtime}");
        }
    }
}

#[test]
fn only_where_passwords_come_from_needs_a_runtime_in_auth() {
    let tree = dependencies_with("pgimbal-auth", &["sources"]);
    assert!(tree.iter().any(|line| line == "tokio"), "{tree:?}");
    for banned in ["openssl-sys", "native-tls", "ring"] {
        assert!(!tree.iter().any(|line| line == banned), "the sources depend on {banned}");
    }
}

#[test]
fn crates_depend_in_one_direction_only() {
    let ours = |name: &str| -> Vec<String> {
        let tree = dependencies(name);
        tree.into_iter().filter(|line| line.starts_with("pgimbal") && line != name).collect()
    };
    assert_eq!(ours("pgimbal-wire"), [""; 0]);
    assert_eq!(ours("pgimbal-config"), [""; 0]);
    assert_eq!(ours("pgimbal-auth"), ["pgimbal-config"]);
    assert_eq!(ours("pgimbal-lexer"), [""; 0]);
    assert_eq!(ours("pgimbal-reads"), ["pgimbal-lexer"]);
    let pooler = ["pgimbal-config", "pgimbal-lexer", "pgimbal-reads", "pgimbal-wire"];
    assert_eq!(ours("pgimbal-pooler"), pooler);
    assert_eq!(ours("pgimbal-replicas"), ["pgimbal-auth", "pgimbal-config"]);
}

#[test]
fn the_core_reads_no_clock_draws_no_number_and_does_no_io() {
    let forbidden = [
        "Instant::now",
        "SystemTime::now",
        "std::fs",
        "std::io",
        "TcpStream",
        "UnixStream",
        "tokio",
        "thread_rng",
        "rand::",
        "std::thread",
    ];
    for file in sources(&SANS_IO) {
        // auth/src/source is where secrets come from, and that is IO; a feature turns it on.
        let is_source = |part: &OsStr| {
            // Tests may ask for any moment to begin with.
            ["source", "source.rs", "tests", "tests.rs"].iter().any(|free| part == *free)
        };
        if file.components().any(|part| is_source(part.as_os_str())) {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a source file");
        for line in code(&text) {
            for word in forbidden {
                let names = |at| !line[..at].ends_with(|before: char| before.is_alphanumeric());
                let named = line.match_indices(word).any(|(at, _)| names(at));
                assert!(!named, "{}: {word} in {line}", file.display());
            }
        }
    }
}

#[test]
fn only_the_state_directory_writes_files() {
    let writes = ["fs::write", "File::create", "OpenOptions", "fs::rename", "create_dir"];
    for file in sources(&SHIPPED) {
        let free = ["state_dir.rs", "scratch.rs", "tests", "tests.rs"];
        if file.components().any(|part| free.iter().any(|name| part.as_os_str() == *name)) {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a source file");
        let shipped = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        for line in code(shipped) {
            let written = writes.iter().find(|word| line.contains(**word));
            assert!(written.is_none(), "{}: {line}", file.display());
        }
    }
}

#[test]
fn nothing_is_static_but_the_allocator() {
    for file in sources(&SHIPPED) {
        let text = fs::read_to_string(&file).expect("a source file");
        let mut before = "";
        for line in code(&text) {
            let words =
                line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
            let is_static = words.starts_with("static ") || words.contains("thread_local!");
            let allocator = before.contains("global_allocator");
            assert!(!is_static || allocator, "{}: {line}", file.display());
            before = line;
        }
    }
}

#[test]
fn files_stay_short_and_are_named_for_what_they_decide() {
    let folders = [&SHIPPED[..], &["benches/src", "tests/src", "tests/tests"]].concat();
    let mut lengths = Vec::new();
    for file in sources(&folders) {
        let lines = fs::read_to_string(&file).expect("a source file").lines().count();
        assert!(lines < LONGEST_FILE, "{} has {lines} lines", file.display());
        lengths.push(lines);
        let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let vague = ["utils", "util", "common", "helpers", "helper", "misc"];
        assert!(!vague.contains(&stem), "{} says nothing", file.display());
    }
    lengths.sort_unstable();
    let median = lengths[lengths.len() / 2];
    assert!(median < MEDIAN_FILE, "half of the files have {median} lines or more");
}

/// The lines before the unit tests, without comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let before_tests = text.lines().take_while(|line| !line.starts_with("mod tests"));
    before_tests.filter(|line| !line.trim_start().starts_with("//"))
}

/// The crates that `name` links, itself included, by name.
fn dependencies(name: &str) -> Vec<String> {
    dependencies_with(name, &[])
}

/// The crates that `name` links with these features of its own.
fn dependencies_with(name: &str, features: &[&str]) -> Vec<String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--offline", "--edges", "normal,no-proc-macro", "--prefix", "none"])
        .args(["--format", "{p}", "--package", name])
        .args(features.iter().flat_map(|feature| ["--features", feature]))
        .current_dir(root())
        .output()
        .expect("cargo tree");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let names = text.lines().filter_map(|line| line.split(' ').next());
    let mut names: Vec<String> = names.filter(|name| !name.is_empty()).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}
