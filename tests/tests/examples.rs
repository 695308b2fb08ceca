//! `deploy/examples`: each example's own files, unchanged, before a real PostgreSQL, and the drivers
//! and ORMs of its application.
//!
//! The applications themselves cannot be had here. The environment says where the server, pgimbal
//! and the password are in the test.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use pgimbal_tests::Postgres;
use pgimbal_tests::library::{converse, java_in, prisma, python, woodpecker};
use pgimbal_tests::pgimbal::{program, undisturbed};
use pgimbal_tests::port::free_port;
use pgimbal_tests::process::{Directory, Process, directory};
use pgimbal_tests::program::run;
use pgimbal_tests::sources::root;
use pgimbal_tests::until::SOON;
use rustix::process::Signal;

const NAMES: [&str; 6] = ["affine", "authentik", "django", "linkwarden", "spring", "woodpecker"];
const FIRST: &str = "first-secret";
const SECOND: &str = "second-secret";
/// In place of the example's, so that there are more clients than server connections.
const POOL_SIZE: usize = 6;

/// The application's role and database bear the example's name.
struct Example {
    name: &'static str,
    pg: Postgres,
    directory: Directory,
    port: u16,
    process: Option<Process>,
}

impl Example {
    /// Checks the example's configuration, then starts pgimbal with it.
    fn start(name: &'static str) -> Self {
        let directory = directory("example");
        // The server is ended as a crash would, and must not lose what it has acknowledged.
        let pg = Postgres::with(&["synchronous_commit=on"]);
        let mut example = Self { name, pg, directory, port: free_port(), process: None };
        example.pg.run(&format!("create role {name} login password '{FIRST}'"));
        example.pg.run(&format!("create database {name} owner {name}"));
        fs::write(example.password_file(), FIRST).expect("a password");
        let http = free_port();
        let checked =
            run(example.pgimbal("check", http).arg("--config").arg(example.config()), SOON);
        let said = format!("{}{}", checked.stdout, checked.stderr);
        assert_eq!(checked.code, Some(0), "{said}");
        let mut command = example.pgimbal("run", http);
        command.arg("--config").arg(example.config());
        let mut process = Process::start(command, &example.directory, Signal::KILL);
        process.wait_until_it_listens("pgimbal", &[example.port, http]);
        example.process = Some(process);
        example
    }

    fn folder(&self) -> PathBuf {
        root().join("deploy/examples").join(self.name)
    }

    fn config(&self) -> PathBuf {
        self.folder().join("pgimbal.toml")
    }

    fn password_file(&self) -> PathBuf {
        self.directory.join("password")
    }

    fn pgimbal(&self, verb: &str, http: u16) -> Command {
        let name = self.name.to_uppercase();
        let mut command = undisturbed(program());
        command.arg(verb);
        command.env("PGIMBAL_LISTEN", format!("127.0.0.1:{}", self.port));
        command.env("PGIMBAL_HTTP_LISTEN", format!("127.0.0.1:{http}"));
        command.env(format!("PGIMBAL_DATABASES__{name}__HOST"), "127.0.0.1");
        command.env(format!("PGIMBAL_DATABASES__{name}__PORT"), self.pg.port.to_string());
        command.env(format!("PGIMBAL_DATABASES__{name}__POOL_SIZE"), POOL_SIZE.to_string());
        command.env(format!("PGIMBAL_USERS__{name}__PASSWORD_FILE"), self.password_file());
        command
    }

    /// Gives `command` the variables of the example's `.env` file, if there is one, with the
    /// addresses and the password of the test.
    fn with_variables(&self, mut command: Command) -> Command {
        let port = self.port.to_string();
        let secret = format!("/run/secrets/{}", self.name);
        for (key, value) in variables(self.name) {
            let value = value.replace("pgimbal.example", "127.0.0.1").replace("6432", &port);
            let value = value.replace("change-me", FIRST);
            command.env(key, value.replace(&secret, &self.password_file().to_string_lossy()));
        }
        command.env("DB_HOST", "127.0.0.1").env("DB_PORT", port).env("DB_PASSWORD", FIRST);
        command
    }

    /// Runs the program to its end. Its clients keep the password that they began with.
    fn run(mut self, command: Command) {
        let command = self.with_variables(command);
        let (name, port) = (self.name, self.port);
        let complaints = converse(command, "pgimbal", port, |what| self.look(what));
        assert!(!complaints.contains("rror"), "{name}: {complaints}");
        let count = format!("select count(*) from pg_stat_activity where usename = '{name}'");
        let count: usize = self.pg.value(&count).parse().expect("a number");
        assert!(count <= POOL_SIZE, "{name} has {count} server connections");
    }

    fn look(&mut self, what: &str) {
        match what {
            // Nobody tells the clients.
            "the rotation" => {
                self.pg.run(&format!("alter role {} password '{SECOND}'", self.name));
                fs::write(self.password_file(), SECOND).expect("a password");
            }
            // No client is in a transaction.
            "the restart" => {
                self.pg.stop();
                self.pg.restart();
            }
            _ => panic!("look at {what}"),
        }
    }
}

/// The lines `NAME=VALUE` of the example's `.env` file.
fn variables(name: &str) -> Vec<(String, String)> {
    let file = root().join(format!("deploy/examples/{name}/{name}.env"));
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[test]
fn example_authentik() {
    let mut command = python("with_example_settings.py");
    command.arg("authentik");
    Example::start("authentik").run(command);
}

#[test]
fn example_django() {
    let example = Example::start("django");
    let mut command = python("with_example_settings.py");
    command.arg("django").arg(example.folder().join("settings.py"));
    example.run(command);
}

#[test]
fn example_linkwarden() {
    let example = Example::start("linkwarden");
    let command = prisma("linkwarden", &example.folder());
    example.run(command);
}

#[test]
fn example_affine() {
    let example = Example::start("affine");
    let command = prisma("affine", &example.folder());
    example.run(command);
}

#[test]
fn example_woodpecker_with_lib_pq() {
    Example::start("woodpecker").run(woodpecker());
}

#[test]
fn example_woodpecker_with_pgx() {
    let mut command = woodpecker();
    command.env("PGX", "1");
    Example::start("woodpecker").run(command);
}

#[test]
fn example_spring() {
    let example = Example::start("spring");
    let folder = example.folder();
    let mut command = java_in("spring", "shop.Shop", &[]);
    command.arg(format!(
        "--spring.config.location=file:{}",
        folder.join("application.yaml").display()
    ));
    command.arg("--spring.main.banner-mode=off").arg("--logging.level.root=error");
    command.env("FLYWAY_LOCATIONS", format!("filesystem:{}", folder.join("migration").display()));
    example.run(command);
}

/// Each file has a link, each link leads to a file, and the section on pgimbal names its options.
#[test]
fn the_readmes_of_the_examples_name_what_there_is() {
    let reference = pgimbal_config::reference();
    let index = fs::read_to_string(root().join("deploy/examples/README.md")).expect("a page");
    for name in NAMES {
        assert!(index.contains(&format!("({name}/README.md)")), "the index lacks {name}");
        let folder = root().join("deploy/examples").join(name);
        let readme = fs::read_to_string(folder.join("README.md")).expect("a page");
        let files = fs::read_dir(&folder).expect("a folder").flatten();
        for file in files.map(|entry| entry.file_name().to_string_lossy().into_owned()) {
            let is_named = file == "README.md" || readme.contains(&format!("({file})"));
            assert!(is_named, "{name}/README.md does not name {file}");
        }
        let links = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.starts_with("http")) {
            let path = link.split('#').next().unwrap_or_default();
            assert!(folder.join(path).exists(), "{name}/README.md links to {link}");
        }
        let section = readme.split("## pgimbal").nth(1).expect("a section on pgimbal");
        let section = section.split("\n## ").next().unwrap_or_default();
        for word in section.split('`').skip(1).step_by(2) {
            let is_key = word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            let is_option = reference.contains(&format!("| `{word}` |"));
            assert!(is_option || !is_key, "{name}/README.md: {word} is no option");
        }
    }
}
