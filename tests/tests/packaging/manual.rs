//! The manual pages and completions.

use std::process::Command;

use pgimbal_tests::pgimbal::{program, undisturbed};
use pgimbal_tests::process::directory;
use pgimbal_tests::program::run;

use super::LIMIT;

fn said(words: &[&str]) -> String {
    let mut command = undisturbed(program());
    run(command.args(words), LIMIT).succeeded().stdout
}

/// The long flags in a text.
fn flags(text: &str) -> Vec<String> {
    let text = text.replace("\\-", "-");
    let ends = |letter: char| !letter.is_ascii_lowercase() && letter != '-';
    let words = text.split(ends).filter(|word| word.starts_with("--") && word.len() > 3);
    words.map(str::to_owned).collect()
}

#[test]
fn each_manual_page_has_what_help_says() {
    let page = |name: &str| said(&["man", name]);
    let commands: [(&str, &[&str]); 7] = [
        ("pgimbal.1", &[]),
        ("pgimbal-run.1", &["run"]),
        ("pgimbal-check.1", &["check"]),
        ("pgimbal-top.1", &["top"]),
        ("pgimbal-config-reference.1", &["config", "reference"]),
        ("pgimbal-completions.1", &["completions"]),
        ("pgimbal-man.1", &["man"]),
    ];
    for (name, words) in commands {
        let known = flags(&page(name));
        for flag in flags(&said(&[words, &["--help"]].concat())) {
            assert!(known.contains(&flag), "{name} lacks {flag}");
        }
    }
    assert_eq!(page("pgimbal.1"), said(&["man"]));
    for word in ["SIGUSR2", "NOTIFY_SOCKET", "78", "pgimbal\\-check(1)", "/etc/pgimbal"] {
        assert!(page("pgimbal.1").contains(word), "{word}");
    }
}

#[test]
fn the_manual_pages_are_read_without_a_warning() {
    let folder = directory("man");
    let names = said(&["man", "--list"]);
    for name in names.lines() {
        let file = folder.join(name);
        std::fs::write(&file, said(&["man", name])).expect("a file");
        let mut command = Command::new("groff");
        command.args(["-man", "-ww", "-Tutf8", "-P-cbou"]).arg(file);
        let finished = run(&mut command, LIMIT).succeeded();
        assert_eq!(finished.stderr, "", "{name}");
        assert!(finished.stdout.contains("NAME"), "{}", finished.stdout);
    }
    assert_eq!(names.lines().count(), 10, "a command each, and pgimbal.toml(5): {names}");
}

#[test]
fn a_page_that_there_is_not_is_said() {
    let mut command = undisturbed(program());
    let finished = run(command.args(["man", "pgimbal-typo.1"]), LIMIT);
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains("pgimbal man --list"), "{}", finished.stderr);
}
