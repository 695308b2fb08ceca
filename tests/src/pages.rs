//! The pages of `docs` as somebody reads them who types what they show: their fenced blocks, and a
//! shell of a reader's own.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::pgimbal::{program, undisturbed};
use crate::process::{self, Directory};
use crate::program::{Finished, run};
use crate::sources::root;

/// Time limit of a block, which takes seconds on an idle machine.
const LIMIT: Duration = Duration::from_secs(120);

/// The text of a page, such as `docs/operations.md`.
///
/// # Panics
/// When there is no such page.
#[must_use]
pub fn page(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The fenced blocks of a page in their order, without the fences, and without the indentation that
/// a block in a list has.
///
/// # Panics
/// When there is no such page.
#[must_use]
pub fn blocks(path: &str) -> Vec<String> {
    let text = page(path);
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for line in text.lines() {
        let indentation = line.len() - line.trim_start().len();
        let is_fence = line.trim_start().starts_with("```");
        open = match (open, is_fence) {
            (None, true) => Some((indentation, String::new())),
            (Some((_, block)), true) => {
                blocks.push(block);
                None
            }
            (Some((margin, block)), false) => {
                Some((margin, block + line.get(margin..).unwrap_or_default() + "\n"))
            }
            (None, false) => None,
        };
    }
    blocks
}

/// The one block of a page that begins so.
///
/// # Panics
/// When there is none, or more than one.
#[must_use]
pub fn block(path: &str, beginning: &str) -> String {
    let mut found = blocks(path);
    found.retain(|block| block.starts_with(beginning));
    match <[String; 1]>::try_from(found) {
        Ok([block]) => block,
        Err(found) => panic!("{path} has {} blocks that begin {beginning:?}", found.len()),
    }
}

/// The lines of the table of a page that has this head, without the head and the line below it.
///
/// # Panics
/// When there is no such table.
#[must_use]
pub fn table(path: &str, head: &str) -> Vec<Vec<String>> {
    let text = page(path);
    let (_, rest) = text.split_once(head).unwrap_or_else(|| panic!("{path} has no {head}"));
    let rows = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| -> Vec<String> {
        row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()
    };
    rows.map(cells).collect()
}

/// What a page shows with a reader's own names, addresses and passwords in place of the page's.
///
/// # Panics
/// When the page does not have what is to be replaced.
#[must_use]
pub fn with_own(shown: &str, own: &[(&str, &str)]) -> String {
    own.iter().fold(shown.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "there is no {from} to be replaced in:\n{shown}");
        text.replace(from, to)
    })
}

/// A person with a shell, a home of their own, and `pgimbal` on the path.
pub struct Reader {
    home: Directory,
    variables: Vec<(String, String)>,
}

impl Reader {
    /// Gives the reader an empty home.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new() -> Self {
        let home = process::directory("reader");
        fs::create_dir(home.join("bin")).expect("a folder of programs");
        let reader = Self { home, variables: Vec::new() };
        reader.has_program("pgimbal", &program());
        reader
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.variables.push((name.to_owned(), value.to_string()));
        self
    }

    /// The reader's home, where the shell begins.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Puts a program on the path under this name.
    ///
    /// # Panics
    /// When the name is taken.
    pub fn has_program(&self, name: &str, program: &Path) {
        symlink(program, self.home.join("bin").join(name)).expect("a link");
    }

    /// Writes a file of the home that only the reader can read, and returns its path.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.home.join(name);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("permissions");
        path.display().to_string()
    }

    /// Runs lines in the shell, up to the first that fails.
    ///
    /// # Panics
    /// When they have not ended in time.
    #[must_use]
    pub fn types(&self, lines: &str) -> Finished {
        run(&mut self.shell(lines), LIMIT)
    }

    /// The shell that runs these lines.
    #[must_use]
    pub fn shell(&self, lines: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = undisturbed("bash");
        shell
            .args(["-euo", "pipefail", "-c", lines])
            .current_dir(&*self.home)
            .env("HOME", &*self.home)
            .env("PATH", format!("{}:{path}", self.home.join("bin").display()))
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        shell
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}
