//! Files that import each other in a circle, and types that are spread over files.
//!
//! A file depends on another when it uses a name that the other one defines. A re-export passes a
//! name on: who uses the name depends on the file that defines it, and a file that does nothing but
//! re-export depends on nothing. Declaring a module is no use of it. Tests are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use pgimbal_tests::sources::{root, sources};

/// The crates that this holds for.
const CRATES: [&str; 8] = [
    "config/src",
    "auth/src",
    "proxy/wire/src",
    "proxy/pooler/src",
    "proxy/src",
    "tests/src",
    "tests/tests",
    "benches/src",
];
/// So many files may import each other in a circle: a parent and two children that need it.
const LARGEST_CIRCLE: usize = 3;
/// In so many files a type may have inherent impls.
const MOST_FILES_OF_A_TYPE: usize = 2;

#[test]
fn no_more_than_three_files_import_each_other_in_a_circle() {
    for folder in CRATES {
        let circles = Crate::read(folder).circles();
        assert!(circles.is_empty(), "{folder}: these import each other in a circle: {circles:#?}");
    }
}

#[test]
fn a_types_methods_stand_in_at_most_two_files() {
    for folder in CRATES {
        let spread = Crate::read(folder).spread_types();
        assert!(spread.is_empty(), "{folder}: these types have methods in many files: {spread:#?}");
    }
}

#[test]
fn a_circle_and_a_spread_type_are_seen() {
    let broken = Crate::of([
        ("lib.rs", "mod a;\nmod b;\nmod d;\npub use a::Passed;\n"),
        ("a.rs", "use crate::b::{self, Other as Second};\npub struct Passed;\nimpl Passed {}\n"),
        ("b.rs", "mod c;\npub use c::Other;\npub fn f() -> Other { c::make() }\n"),
        ("b/c.rs", "use super::super::d;\npub struct Other;\nimpl crate::Passed {\n}\n"),
        ("d.rs", "pub const D: fn() = || { crate::Passed; };\nimpl<'a> super::Passed {\n}\n"),
    ]);
    assert_eq!(broken.circles(), [["a.rs", "b.rs", "b/c.rs", "d.rs"].map(str::to_owned).into()]);
    let files = ["a.rs", "b/c.rs", "d.rs"].map(str::to_owned);
    assert_eq!(broken.spread_types(), [("Passed".to_owned(), files.into())]);
    let whole = Crate::of([
        ("lib.rs", "mod a;\npub use a::Passed;\n"),
        ("a.rs", "mod b;\npub use b::One;\npub struct Passed;\n// crate::a::b::One\n"),
        ("a/b.rs", "use super::Passed;\nmod c;\n#[cfg(test)]\nmod tests {\n    use crate::a;\n}\n"),
        ("a/b/c.rs", "pub(in crate::a::b) struct C;\nimpl From<C> for crate::Passed {\n}\n"),
    ]);
    let none: [BTreeSet<String>; 0] = [];
    assert_eq!(whole.circles(), none);
    assert!(whole.depends_on("a/b.rs", "a.rs") && !whole.depends_on("a.rs", "a/b.rs"));
}

/// A module's path in its crate, without `crate`.
type ModulePath = Vec<String>;

/// The modules of a crate that stand in files of their own.
struct Crate {
    modules: BTreeMap<ModulePath, Module>,
}

struct Module {
    /// The file, from the crate's folder.
    file: String,
    uses: Vec<Use>,
    /// The rest of it, without comments, tests and uses.
    code: String,
}

struct Use {
    is_public: bool,
    path: Vec<String>,
    /// What it is called here; `*` for everything.
    name: String,
}

impl Crate {
    fn read(folder: &str) -> Self {
        let folder = root().join(folder);
        let name = folder.strip_prefix(root()).expect("a folder of it").to_str().expect("a name");
        let files = sources(&[name]);
        let texts = files.iter().map(|path| {
            let file = path.strip_prefix(&folder).expect("a file of it").to_string_lossy();
            (file.into_owned(), fs::read_to_string(path).expect("a source file"))
        });
        let crate_ = Self::of(texts);
        assert!(crate_.modules.len() > 5, "{name} has next to no files");
        crate_
    }

    fn of<T: Into<String>>(files: impl IntoIterator<Item = (T, T)>) -> Self {
        let files = files.into_iter().map(|(file, text)| (file.into(), text.into()));
        let is_test =
            |file: &str| file.split('/').any(|part| part == "tests" || part == "tests.rs");
        let modules = files.filter(|(file, _): &(String, String)| !is_test(file));
        let modules = modules.map(|(file, text)| {
            let stem = file.trim_end_matches(".rs").trim_end_matches("/mod");
            let path = match stem {
                "lib" | "main" => Vec::new(),
                stem => stem.split('/').map(str::to_owned).collect(),
            };
            (path, Module::read(file, &text))
        });
        Self { modules: modules.collect() }
    }

    /// Files that depend on each other, where they are too many.
    fn circles(&self) -> Vec<BTreeSet<String>> {
        let direct: BTreeMap<_, _> =
            self.modules.keys().map(|path| (path, self.dependencies(path))).collect();
        let reached: BTreeMap<_, _> =
            direct.keys().map(|path| (*path, reached_from(path, &direct))).collect();
        let circle = |path: &ModulePath| -> BTreeSet<String> {
            let back = reached[path].iter().filter(|other| reached[*other].contains(path));
            back.map(|other| self.modules[other].file.clone()).collect()
        };
        let circles: BTreeSet<_> = self.modules.keys().map(circle).collect();
        circles.into_iter().filter(|circle| circle.len() > LARGEST_CIRCLE).collect()
    }

    /// Types with inherent impls in too many files, and these.
    fn spread_types(&self) -> Vec<(String, BTreeSet<String>)> {
        let mut files = BTreeMap::<_, BTreeSet<String>>::new();
        for (path, module) in &self.modules {
            for of in inherent_impls(&module.code) {
                let defined_in = self.defined_in(path, &of, 0).unwrap_or_else(|| path.clone());
                let name = of.last().cloned().unwrap_or_default();
                files.entry((defined_in, name)).or_default().insert(module.file.clone());
            }
        }
        let spread = files.into_iter().filter(|(_, files)| files.len() > MOST_FILES_OF_A_TYPE);
        spread.map(|((_, name), files)| (name, files)).collect()
    }

    fn depends_on(&self, file: &str, other: &str) -> bool {
        let path = |file: &str| self.modules.iter().find(|(_, module)| module.file == file);
        let (Some((path, _)), Some((other, _))) = (path(file), path(other)) else { return false };
        self.dependencies(path).contains(other)
    }

    /// The modules that define what this one uses.
    fn dependencies(&self, path: &ModulePath) -> BTreeSet<ModulePath> {
        let module = &self.modules[path];
        let named = words(&module.code);
        let is_needed = |one: &&Use| !one.is_public || named.contains(one.name.as_str());
        let imported = module.uses.iter().filter(is_needed).map(|one| one.path.clone());
        let written = paths(&module.code);
        let used = imported.chain(written).filter_map(|used| self.defined_in(path, &used, 0));
        used.filter(|used| used != path).collect()
    }

    /// The module that defines what `name` means in module `at`; `None` for what is of another
    /// crate.
    fn defined_in(&self, at: &ModulePath, name: &[String], depth: usize) -> Option<ModulePath> {
        /// Longer chains of re-exports are circles of globs.
        const DEEPEST: usize = 10;
        let (first, rest) = name.split_first().filter(|_| depth < DEEPEST)?;
        let mut base = at.clone();
        let mut rest = match first.as_str() {
            "crate" => {
                base.clear();
                rest
            }
            "self" => rest,
            "super" => {
                base.pop();
                let ups = rest.iter().take_while(|part| *part == "super").count();
                base.truncate(base.len().saturating_sub(ups));
                &rest[ups..]
            }
            _ if self.has_child(at, first) => name,
            _ => {
                let import = self.modules.get(at)?.uses.iter().find(|one| one.name == *first)?;
                let meant: Vec<String> = import.path.iter().chain(rest).cloned().collect();
                return (meant != name).then(|| self.defined_in(at, &meant, depth + 1)).flatten();
            }
        };
        while let Some((part, further)) = rest.split_first()
            && self.has_child(&base, part)
        {
            base.push(part.clone());
            rest = further;
        }
        let module = self.modules.get(&base)?;
        let Some(item) = rest.first().filter(|item| *item != "*") else { return Some(base) };
        if let Some(passed_on) = module.uses.iter().find(|one| one.name == *item) {
            return self.defined_in(&base, &passed_on.path, depth + 1);
        }
        let globs = module.uses.iter().filter(|one| one.is_public && one.name == "*");
        for glob in globs {
            let mut path = glob.path.clone();
            path.pop();
            path.push(item.clone());
            if let Some(found) = self.defined_in(&base, &path, depth + 1)
                && words(&self.modules[&found].code).contains(item.as_str())
            {
                return Some(found);
            }
        }
        Some(base)
    }

    fn has_child(&self, path: &ModulePath, name: &str) -> bool {
        let child: ModulePath = path.iter().cloned().chain([name.to_owned()]).collect();
        self.modules.contains_key(&child)
    }
}

impl Module {
    fn read(file: String, text: &str) -> Self {
        let (mut uses, mut code) = (Vec::new(), String::new());
        let mut lines = without_tests(text).into_iter();
        while let Some(line) = lines.next() {
            let Some((is_public, tree)) = use_of(line) else {
                code.push_str(line);
                code.push('\n');
                continue;
            };
            let mut tree = tree.to_owned();
            while !tree.ends_with(';') {
                tree.push_str(lines.next().expect("the end of a use").trim());
            }
            let pairs = expand(tree.trim_end_matches(';'));
            uses.extend(pairs.into_iter().map(|(path, name)| Use { is_public, path, name }));
        }
        // A visibility is no use.
        while let Some((before, rest)) = code.split_once("pub(in ") {
            let (_, after) = rest.split_once(')').expect("the end of a visibility");
            code = format!("{before}pub {after}");
        }
        Self { file, uses, code }
    }
}

/// The lines without comments and without items that only tests have.
fn without_tests(text: &str) -> Vec<&str> {
    let mut code = Vec::new();
    let mut lines = text.lines().map(|line| line.split("//").next().unwrap_or_default().trim_end());
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            code.push(line);
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        // rustfmt ends an item as far to the right as it began.
        lines.find(|line| {
            let at = line.len() - line.trim_start().len();
            at == indent && (line.ends_with(';') || line.ends_with('}'))
        });
    }
    code
}

/// What stands behind `use` in a line that begins one, and whether it passes names on.
fn use_of(line: &str) -> Option<(bool, &str)> {
    let line = line.trim();
    if let Some(tree) = line.strip_prefix("use ") {
        return Some((false, tree));
    }
    let (_, tree) = line.strip_prefix("pub").and_then(|rest| rest.split_once("use "))?;
    let visibility = line.strip_prefix("pub")?.split("use ").next()?.trim();
    (visibility.is_empty() || visibility.starts_with('(')).then_some((true, tree))
}

/// Each path of a `use`, and what it is called.
fn expand(tree: &str) -> Vec<(Vec<String>, String)> {
    let tree = tree.trim();
    let Some((prefix, group)) = tree.split_once('{') else {
        let (path, name) =
            tree.split_once(" as ").map_or((tree, None), |(path, name)| (path, Some(name)));
        let path: Vec<String> = path.split("::").map(|part| part.trim().to_owned()).collect();
        let name = name.map_or_else(|| path.last().cloned().unwrap_or_default(), str::to_owned);
        return vec![(path, name)];
    };
    let prefix: Vec<String> = prefix
        .split("::")
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect();
    let group = group.strip_suffix('}').expect("a group that ends");
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for c in group.chars() {
        match c {
            ',' if depth == 0 => parts.push(String::new()),
            other => {
                depth += usize::from(other == '{');
                depth -= usize::from(other == '}');
                parts.last_mut().expect("one").push(other);
            }
        }
    }
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    let inner = parts.flat_map(|part| expand(part)).map(|(path, name)| {
        let own = path.first().is_some_and(|part| part == "self");
        let whole: Vec<String> =
            prefix.iter().chain(path.iter().skip(own.into())).cloned().collect();
        let is_renamed = path.last() != Some(&name);
        let name =
            if own && !is_renamed { whole.last().cloned().unwrap_or_default() } else { name };
        (whole, name)
    });
    inner.collect()
}

/// The paths in code, such as `crate::dial::dial`.
fn paths(code: &str) -> Vec<Vec<String>> {
    let of_path = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':');
    let words = code.split(|c| !of_path(c)).filter(|word| word.contains("::"));
    let whole = words.filter(|word| !word.starts_with(':'));
    whole
        .map(|path| path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect())
        .collect()
}

fn words(code: &str) -> BTreeSet<&str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').collect()
}

/// The types of inherent impls, as they are written.
fn inherent_impls(code: &str) -> Vec<Vec<String>> {
    let starts =
        code.match_indices("impl").filter(|(at, _)| *at == 0 || code[..*at].ends_with('\n'));
    let headers = starts.filter_map(|(at, _)| code[at + "impl".len()..].split('{').next());
    let inherent = headers.filter(|header| !header.contains(" for "));
    let of = inherent.filter_map(|header| {
        let mut depth = 0;
        let mut rest = header;
        if header.starts_with('<') {
            let end = header.char_indices().find(|(_, c)| {
                depth += i32::from(*c == '<') - i32::from(*c == '>');
                depth == 0
            })?;
            rest = &header[end.0 + 1..];
        }
        let name = rest.trim().split(['<', ' ', '\n']).next().filter(|name| !name.is_empty())?;
        Some(name.split("::").map(str::to_owned).collect())
    });
    of.collect()
}

/// Everything that can be reached, the start itself where a way leads back to it.
fn reached_from(
    start: &ModulePath,
    direct: &BTreeMap<&ModulePath, BTreeSet<ModulePath>>,
) -> BTreeSet<ModulePath> {
    let mut reached = BTreeSet::new();
    let mut open = vec![start];
    while let Some(path) = open.pop() {
        for next in direct.get(path).into_iter().flatten() {
            if reached.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    reached
}
