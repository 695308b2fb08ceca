//! The page: its blocks of code by section, and its tables of failures.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;

use pgimbal_tests::sources::root;

/// Where a block stands: section, language, and its number among those of both.
type Place = (String, String, usize);

/// The page, which remembers what was taken out of it.
pub(super) struct Page {
    blocks: Vec<(Place, String)>,
    rows: Vec<Row>,
    used: RefCell<BTreeSet<Place>>,
}

/// A row of a table whose first column is "what you see".
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) seen: String,
}

impl Row {
    /// The first text in backticks that is a message, not the name of a program.
    pub(super) fn message(&self) -> &str {
        let texts = self.seen.split('`').skip(1).step_by(2);
        texts.filter(|text| text.contains(' ')).last().unwrap_or_else(|| panic!("{self:?}"))
    }
}

impl Page {
    pub(super) fn read() -> Self {
        let text = fs::read_to_string(root().join("docs/deploy-kubernetes.md")).unwrap();
        let (mut blocks, mut rows): (Vec<(Place, String)>, Vec<Row>) = Default::default();
        let (mut section, mut is_about_failures) = (String::new(), false);
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let trimmed = line.trim_start();
            let indent = line.len() - trimmed.len();
            if let Some(language) = trimmed.strip_prefix("```") {
                let own = lines.by_ref().take_while(|line| line.trim() != "```");
                let own: Vec<&str> = own.map(|line| line.get(indent..).unwrap_or("")).collect();
                let same =
                    |(place, _): &&(Place, String)| place.0 == section && place.1 == language;
                let number = blocks.iter().filter(same).count();
                blocks.push(((section.clone(), language.to_owned(), number), own.join("\n")));
            } else if line.starts_with('#') {
                line.trim_start_matches('#').trim().clone_into(&mut section);
            } else if let Some(row) = line.strip_prefix("| ") {
                let seen = row.split(" | ").next().unwrap().to_owned();
                is_about_failures |= seen == "what you see";
                if is_about_failures && seen != "what you see" {
                    rows.push(Row { seen });
                }
            } else if !line.starts_with('|') {
                is_about_failures = false;
            }
        }
        assert!(blocks.len() > 10 && rows.len() > 8, "{blocks:?}, {rows:?}");
        Self { blocks, rows, used: RefCell::default() }
    }

    /// The block of this language in this section, the first with the number 0.
    pub(super) fn block(&self, section: &str, language: &str, number: usize) -> &str {
        let wanted = (section.to_owned(), language.to_owned(), number);
        let found = self.blocks.iter().find(|(place, _)| *place == wanted);
        let (_, text) = found.unwrap_or_else(|| panic!("the page has no {wanted:?}"));
        self.used.borrow_mut().insert(wanted);
        text
    }

    /// The commands of a block of shell, one by one.
    pub(super) fn commands(&self, section: &str, number: usize) -> Vec<String> {
        let text = self.block(section, "sh", number).replace("\\\n", " ");
        text.lines().map(str::to_owned).collect()
    }

    /// The rows of failures.
    pub(super) fn rows(&self) -> Vec<Row> {
        self.rows.clone()
    }

    /// Asserts that every block was taken, but these.
    pub(super) fn assert_all_used(&self, rest: &[(&str, &str, usize, &str)]) {
        let mut used = self.used.borrow().clone();
        for (section, language, number, why) in rest {
            let place = ((*section).to_owned(), (*language).to_owned(), *number);
            assert!(used.insert(place), "{section}: it was run after all, and is not: {why}");
        }
        let all: BTreeSet<Place> = self.blocks.iter().map(|(place, _)| place.clone()).collect();
        assert_eq!(used, all, "run the block, or say in NOT_RUN why it cannot be");
    }
}
