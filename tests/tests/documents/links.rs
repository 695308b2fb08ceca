//! Links lead somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use pgimbal_tests::sources::{root, sources};

use super::{developer_pages, page, prose, read, user_pages};

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let others = ["CHANGELOG.md", "benches/README.md"].map(page);
    let mut checked = 0;
    for (name, text) in user_pages().into_iter().chain(developer_pages()).chain(others) {
        let text: String = prose(&text).map(|(_, line)| format!("{line}\n")).collect();
        for target in targets(&text) {
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let folder = Path::new(&name).parent().unwrap_or(Path::new(""));
            let file = if file.is_empty() { Path::new(&name).into() } else { folder.join(file) };
            let path = root().join(&file);
            assert!(path.exists(), "{name} links to {target}, which does not exist");
            if !anchor.is_empty() {
                let text = fs::read_to_string(&path).expect("a page");
                assert!(anchors(&text).contains(anchor), "{name}: there is no heading {target}");
            }
            checked += 1;
        }
    }
    assert!(checked > 30, "{checked} links");
}

#[test]
fn every_page_is_reached_from_readme() {
    let readme = read("README.md");
    let linked: BTreeSet<&str> = targets(&readme).collect();
    // The runbooks are reached from a list of their own.
    let is_runbook = |name: &str| name.starts_with("docs/runbooks/Pgimbal");
    for (name, _) in user_pages().into_iter().filter(|(name, _)| !is_runbook(name)) {
        assert!(name == "README.md" || linked.contains(name.as_str()), "README.md has no {name}");
    }
}

#[test]
fn every_page_for_developers_is_reached_from_architecture() {
    let architecture = read("ARCHITECTURE.md");
    let linked: BTreeSet<&str> = targets(&architecture).collect();
    for (name, _) in developer_pages() {
        let is_reached = name == "ARCHITECTURE.md" || linked.contains(name.as_str());
        assert!(is_reached, "ARCHITECTURE.md has no link to {name}");
    }
}

#[test]
fn pages_that_code_and_scripts_name_exist() {
    let mut files = sources(&["config", "auth", "proxy", "tests", "benches"]);
    let scripts = ["deploy/pgimbal.toml", "deploy/bench", "deploy/test", "deploy/packages"];
    let others = ["deploy/demo/run", "Makefile", ".ci/run", "CHANGELOG.md", "ARCHITECTURE.md"];
    files.extend(scripts.iter().chain(&others).map(|name| root().join(name)));
    let mut found = 0;
    for file in files {
        let text = fs::read_to_string(&file).expect("a file");
        for (at, _) in text.match_indices("docs/") {
            let rest = &text[at..];
            let is_name = |c: char| c.is_ascii_alphanumeric() || "/-._".contains(c);
            let name = rest.find(|c| !is_name(c)).map_or(rest, |end| &rest[..end]);
            if let Some((stem, _)) = name.split_once(".md") {
                let page = format!("{stem}.md");
                assert!(root().join(&page).exists(), "{} names {page}", file.display());
                found += 1;
            }
        }
    }
    assert!(found > 5, "{found} names of pages");
}

#[test]
fn headings_have_githubs_anchors() {
    let page = "# A `SHOW x`: what, why\n## A\n```\n# no heading\n```\n## A\n### e_f-g (h)\n";
    let expected = ["a-show-x-what-why", "a", "a-1", "e_f-g-h"].map(str::to_owned);
    assert_eq!(anchors(page), BTreeSet::from(expected));
}

/// What the links of a page lead to. A link's text may stand on two lines, its target on one.
pub(super) fn targets(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
}

/// The anchors that GitHub gives to a page's headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let headings = prose(text).filter(|(_, line)| line.starts_with('#'));
    for (_, heading) in headings {
        let title = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let numbered = (1..).map(|number| format!("{anchor}-{number}"));
        let mut names = std::iter::once(anchor.clone()).chain(numbered);
        names.find(|name| found.insert(name.clone()));
    }
    found
}
