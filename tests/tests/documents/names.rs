//! Options, variables, flags and commands that README and docs name exist.

use std::collections::BTreeSet;
use std::fs;

use pgimbal_config::{Overrides, load};
use pgimbal_tests::process::directory;
use pgimbal_tests::sources::sources;

use super::{backticked, between, console_commands, is_key, read, user_pages, words_with};

/// Names of PostgreSQL, PgBouncer, Vault, libpq, Linux and Prometheus that no source of pgimbal
/// has.
const FOREIGN: &[&str] = &["auth_query", "max_standby_streaming_delay", "runbook_url", "_xact_"];

#[test]
fn a_name_in_backticks_is_an_option_or_stands_in_the_code() {
    let code: String = sources(&["config/src", "auth/src", "proxy"])
        .iter()
        .map(|file| fs::read_to_string(file).expect("a source file"))
        .collect();
    // Its databases are named where the page says how to use it.
    let laptop = read("deploy/compose/pgimbal.toml");
    let reference = pgimbal_config::reference();
    let known = words_with("", &format!("{code}{reference}{}{laptop}", module()));
    let mut unknown = BTreeSet::new();
    for (page, text) in user_pages() {
        // PgBouncer's names stand in a table that has a test of its own.
        let text =
            text.lines().filter(|line| page != "docs/from-pgbouncer.md" || !line.starts_with('|'));
        let text: String = text.map(|line| format!("{line}\n")).collect();
        let is_known = |name: &str| known.contains(name) || FOREIGN.contains(&name);
        unknown.extend(
            names(&text).filter(|name| !is_known(name)).map(|name| format!("{page}: {name}")),
        );
    }
    assert!(unknown.is_empty(), "the code has nowhere what is named: {unknown:#?}");
}

/// The variables and outputs of the Terraform module.
pub(super) fn module() -> String {
    let files = ["variables.tf", "outputs.tf"];
    files.map(|file| read(&format!("deploy/terraform/modules/pgimbal/{file}"))).concat()
}

#[test]
fn what_is_given_a_value_is_an_option() {
    let reference = pgimbal_config::reference();
    // Of PostgreSQL and of URLs.
    let others = ["wal_log_hints", "gssencmode", "sslmode"];
    let mut found = 0;
    for (page, text) in user_pages() {
        for span in spans(&text) {
            let Some((name, _)) = span.split_once(" = ") else { continue };
            if is_key(name) && !others.contains(&name) {
                found += 1;
                let is_option = reference.contains(&format!("| `{name}` |"));
                assert!(is_option, "{page} sets `{span}`, and `{name}` is no option");
            }
        }
    }
    assert!(found > 10, "{found} options with a value");
}

#[test]
fn variables_are_those_of_options() {
    let reference = pgimbal_config::reference();
    let known = words_with("PGIMBAL_", &reference);
    let others = ["PGIMBAL_CONFIG", "PGIMBAL_UPSTREAM", "PGIMBAL_VERSION"];
    for (page, text) in user_pages() {
        for name in words_with("PGIMBAL_", &text) {
            // A database's or user's own name stands where the reference has NAME.
            let parts: Vec<&str> = name.split("__").collect();
            let general = match parts[..] {
                [table, _, ref rest @ ..] if !rest.is_empty() => {
                    format!("{table}__NAME__{}", rest.join("__"))
                }
                _ => name.clone(),
            };
            let is_known = known.contains(&general) || others.contains(&name.as_str());
            assert!(is_known, "{page} names {name}, which sets no option");
        }
    }
}

#[test]
fn flags_and_subcommands_exist() {
    let cli = read("proxy/src/cli.rs");
    let fields = between(&cli, "struct CheckFlags", "impl Cli {");
    let has_flag = |flag: &str| fields.contains(&format!(" {}: ", flag.replace('-', "_")));
    let verbs = ["run", "check", "route", "top", "config reference", "completions"];
    let mut found = 0;
    for (page, text) in user_pages() {
        for span in
            spans(&text).filter(|span| span.starts_with("--") || span.starts_with("pgimbal "))
        {
            found += 1;
            let words: Vec<&str> = span.split(' ').collect();
            for flag in words.iter().filter_map(|word| word.strip_prefix("--")) {
                let flag = flag.split('=').next().unwrap_or(flag);
                // `--k=v` is one of PostgreSQL's forms of `options`.
                assert!(has_flag(flag) || flag == "k", "{page}: `{span}`: there is no --{flag}");
            }
            let rest = span.strip_prefix("pgimbal ").unwrap_or("--");
            let is_verb = rest.starts_with("--") || verbs.iter().any(|verb| rest.starts_with(verb));
            assert!(is_verb, "{page} names `{span}`, and there is no such command");
        }
    }
    assert!(found > 20, "{found} flags and commands");
}

#[test]
fn targets_of_make_exist() {
    let makefile = read("Makefile");
    let bench = read("benches/README.md");
    let mut found = 0;
    for (page, text) in user_pages() {
        let lines = text.lines().filter_map(|line| line.strip_prefix("make "));
        let inline = spans(&text).filter_map(|span| span.split_once("make ").map(|(_, rest)| rest));
        for command in lines.chain(inline) {
            found += 1;
            let target = command.split(' ').next().unwrap_or(command);
            let exists = makefile.contains(&format!("\n{target}:"));
            assert!(exists, "{page}: there is no `make {target}`");
        }
        for word in text.split("BENCH=").skip(1) {
            let word = word.split(|c: char| !c.is_ascii_lowercase()).next().unwrap_or_default();
            assert!(bench.contains(&format!("BENCH={word}`")), "{page}: there is no BENCH={word}");
        }
    }
    assert!(found > 5, "{found} commands");
}

#[test]
fn console_commands_exist() {
    let commands = console_commands();
    let ours = ["SHOW ", "HOLD ", "ADOPT ", "REFRESH ", "REVOKE "];
    let mut found = 0;
    for (page, text) in user_pages() {
        let is_ours = |span: &&str| ours.iter().any(|word| span.starts_with(word));
        for span in spans(&text).filter(is_ours) {
            found += 1;
            let verb: Vec<&str> = span.split(' ').take_while(|w| is_upper(w)).collect();
            let verb = verb.join(" ");
            let is_command = commands.iter().any(|command| {
                let fixed: Vec<&str> = command.split(' ').take_while(|w| is_upper(w)).collect();
                fixed.join(" ") == verb
            });
            assert!(
                is_command || span == "SHOW ",
                "{page} names `{span}`, which the console lacks"
            );
        }
    }
    assert!(found > 20, "{found} commands");
}

#[test]
fn every_configuration_that_is_shown_is_understood() {
    let mut found = 0;
    for (page, text) in user_pages() {
        for block in text.split("```toml\n").skip(1) {
            found += 1;
            let (block, _) = block.split_once("```").expect("the end of a block");
            let folder = directory("shown");
            let path = folder.join("pgimbal.toml");
            fs::write(&path, block).expect("a file");
            let overrides = Overrides { config: Some(path), ..Overrides::default() };
            let Err(errors) = load(&overrides, std::iter::empty()) else { continue };
            for error in errors.iter() {
                // A block shows what belongs to its page, and names files of another machine.
                let is_elsewhere = [
                    "No such file",
                    "there is no database",
                    "there is no user",
                    "there is no Vault",
                ];
                let text = error.to_string();
                assert!(is_elsewhere.iter().any(|part| text.contains(part)), "{page}: {text}");
            }
        }
    }
    assert!(found > 5, "{found} blocks");
}

/// What stands in backticks outside of code blocks, on one line.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    super::prose(text).flat_map(|(_, line)| backticked(line))
}

/// Names in backticks that could only be an option, a column or the like; not those of tests, of
/// PostgreSQL's own and of metrics.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let others = ["pg", "behaviour_", "rotation_", "state_case_"];
    let is_ours = move |name: &str| !others.iter().any(|other| name.starts_with(other));
    spans(text).filter(move |name| is_key(name) && name.contains('_') && is_ours(name))
}

/// Whether a word of a command is written as it is typed.
fn is_upper(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
}
