//! The rules, the dashboard and the runbooks fit each other, and what the program serves.

use std::collections::BTreeSet;
use std::fs;

use pgimbal_tests::charts::objects;
use pgimbal_tests::sources::root;
use serde_json::Value;

use super::links::targets;
use super::{between, console_commands, families, page, read, words_with};

/// The parts of a runbook, in their order.
const PARTS: [&str; 4] = ["## Meaning", "## Impact", "## Diagnosis", "## Remedy"];
const RULES: &str = "deploy/observability/rules.yaml";
const DASHBOARD: &str = "deploy/observability/dashboard.json";

/// All rules, alerts and records.
fn rules() -> Vec<Value> {
    let [file] = &objects(&read(RULES))[..] else { panic!("one document") };
    let groups = file["groups"].as_array().unwrap().iter();
    groups.flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

/// The names of the rules that have this key, `alert` or `record`.
fn named(key: &str) -> BTreeSet<String> {
    rules().iter().filter_map(|rule| Some(rule[key].as_str()?.to_owned())).collect()
}

/// The alerts' pages, without the list of them.
fn runbooks() -> Vec<(String, String)> {
    let entries = fs::read_dir(root().join("docs/runbooks")).expect("runbooks").flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let names = names.filter(|name| name != "README.md");
    names.map(|name| page(&format!("docs/runbooks/{name}"))).collect()
}

#[test]
fn the_rules_and_the_dashboard_are_the_charts() {
    for path in [RULES, DASHBOARD] {
        let name = path.rsplit('/').next().unwrap();
        let to = fs::read_link(root().join(path)).expect("a link");
        assert_eq!(to.to_str(), Some(&*format!("../helm/pgimbal/files/{name}")));
    }
}

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
    let alerts = named("alert");
    assert!(alerts.len() > 20, "{alerts:?}");
    let pages = runbooks();
    let of = |path: &str| path.rsplit('/').next().unwrap().trim_end_matches(".md").to_owned();
    assert_eq!(pages.iter().map(|(path, _)| of(path)).collect::<BTreeSet<_>>(), alerts);
    let index = read("docs/runbooks/README.md");
    let listed: BTreeSet<String> = targets(&index).filter(|to| !to.contains('/')).map(of).collect();
    assert_eq!(listed, alerts, "docs/runbooks/README.md");
    for rule in rules().iter().filter(|rule| rule["alert"].is_string()) {
        let name = rule["alert"].as_str().unwrap();
        let url = rule["annotations"]["runbook_url"].as_str().unwrap_or_default();
        assert!(url.ends_with(&format!("/docs/runbooks/{name}.md")), "{name}: {url}");
        for text in ["summary", "description"] {
            assert!(rule["annotations"][text].is_string(), "{name} has no {text}");
        }
        let severity = rule["labels"]["severity"].as_str().unwrap_or_default();
        let row = format!("| [{name}]({name}.md) | {severity} |");
        assert!(index.contains(&row), "docs/runbooks/README.md has no row {row}");
    }
    for (path, text) in pages {
        assert!(text.starts_with(&format!("# {}\n", of(&path))), "{path}: the title");
        let headings: Vec<&str> = text.lines().filter(|line| line.starts_with("## ")).collect();
        assert_eq!(headings, PARTS, "{path}");
        let commands = between(&text, "## Diagnosis\n\n```\n", "```");
        assert!(commands.lines().count() > 0, "{path} has no command");
    }
}

#[test]
fn rules_and_dashboard_name_metrics_and_records_that_there_are() {
    let families = families();
    let recorded = named("record");
    for path in [RULES, DASHBOARD] {
        let text = read(path);
        let used = words_with("pgimbal_", &text);
        assert!(used.len() > 20, "{path} has {}", used.len());
        for name in used {
            let plain = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let is_served = families.contains(&name) || plain.is_some_and(|n| families.contains(n));
            assert!(is_served, "{path}: {name} is not served");
        }
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        for name in text.split(|c| !is_part(c)).filter(|word| word.starts_with("pgimbal:")) {
            assert!(recorded.contains(name), "{path}: {name} is not recorded");
        }
    }
}

#[test]
fn the_dashboard_is_in_order() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let (mut ids, mut titles, mut places) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is another's");
        assert!(titles.insert(title), "two panels are called {title}");
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{title} does not fit the width");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(places.insert((x, y)), "{title} lies on another panel");
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(panel["description"].is_string(), "{title} has no description");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title}");
        for target in targets {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            let query = target["expr"].as_str().unwrap();
            let is_bound = query.matches("job=~\"$job\"").count();
            assert_eq!(is_bound, query.matches(['{']).count(), "{title} leaves out $job");
        }
    }
}

#[test]
fn every_command_of_the_console_in_a_runbook_exists() {
    let known = console_commands();
    let mut found = 0;
    for (path, text) in runbooks() {
        let lines = text.lines().filter_map(|line| line.split_once(":6432/pgimbal -c '"));
        for (_, rest) in lines {
            let command = rest.split('\'').next().unwrap_or_default();
            found += 1;
            // What is named is in capitals too, in place of a person's own name.
            let is_known = known.iter().any(|form| match form.split_once('<') {
                Some((fixed, _)) => command.starts_with(fixed.trim_end_matches('[')),
                None => command == form,
            });
            assert!(is_known, "{path}: the console has no {command}");
        }
    }
    assert!(found > 20, "{found} commands");
}
