//! The Debian package in a minimal Debian: installed, upgraded under a client, purged.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use pgimbal_tests::library::minimal_debian;
use pgimbal_tests::port::free_port;
use pgimbal_tests::process::{Directory, directory};
use pgimbal_tests::program::{Finished, run};
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Login, Postgres, WireClient};

use super::{Confined, LIMIT, as_root, deploy, stripped_program};

/// Stands for the systemd of a running machine: it writes down what it is told, and passes on the
/// signal.
const SYSTEMCTL: &str = r#"#!/bin/sh
echo "$*" >>/tmp/systemctl.log
case "$*" in
*--signal=SIGUSR2*) kill -USR2 "$(cat /tmp/pgimbal.pid)" ;;
esac
"#;

/// A copy of a minimal Debian, whose files belong to root.
struct Machine {
    folder: Directory,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { folder: directory("debian") };
        let mut copy = as_root("cp");
        copy.args(["-a", "--reflink=auto"]).arg(minimal_debian()).arg(machine.root());
        let _ = run(&mut copy, LIMIT).succeeded();
        machine
    }

    fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// `words` as its root, with the network of the test.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = as_root("bwrap");
        command.args(["--die-with-parent", "--clearenv", "--cap-add", "ALL", "--bind"]);
        command.arg(self.root()).args(["/", "--proc", "/proc", "--dev", "/dev"]);
        command.args(["--setenv", "DEBIAN_FRONTEND", "noninteractive", "--setenv", "PATH"]);
        command.arg("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").args(words);
        command
    }

    fn run(&self, words: &[&str]) -> Finished {
        run(&mut self.command(words), LIMIT)
    }

    /// Runs `script` in its shell, which must succeed; returns what it prints.
    fn sh(&self, script: &str) -> String {
        self.run(&["sh", "-euc", script]).succeeded().stdout
    }

    fn install(&self, package: &Path) {
        let inside = self.root().join("tmp/pgimbal.deb");
        let _ = run(as_root("cp").arg(package).arg(inside), LIMIT).succeeded();
        let _ = self.run(&["dpkg", "-i", "/tmp/pgimbal.deb"]).succeeded();
    }

    /// Every file but dpkg's own books and what the test writes.
    fn files(&self) -> BTreeSet<String> {
        let script = "find / -xdev \\( -path /proc -o -path /dev -o -path /tmp -o -path /usr/local \
            -o -path /var/lib/dpkg -o -path /var/log -o -path /run/systemd \\) -prune -o -print";
        self.sh(script).lines().map(str::to_owned).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = run(as_root("rm").arg("-rf").arg(self.root()), LIMIT);
    }
}

/// The package with this revision, of the program under test.
fn package(folder: &Path, revision: u32) -> PathBuf {
    let program = stripped_program(folder);
    let architecture = run(Command::new("dpkg").arg("--print-architecture"), LIMIT).succeeded();
    let mut command = Command::new(deploy("systemd/package"));
    command.arg(architecture.stdout.trim_end()).arg(program).env("REVISION", revision.to_string());
    // Quickly rather than small.
    command.arg("--fast").env("CARGO_TARGET_DIR", folder);
    let finished = run(&mut command, LIMIT).succeeded();
    PathBuf::from(finished.stdout.trim_end())
}

#[test]
fn the_package_installs_upgrades_under_a_client_and_leaves_nothing() {
    let pg = Postgres::start();
    let folder = directory("package");
    let machine = Machine::new();
    let before = machine.files();

    machine.install(&package(&folder, 1));
    assert_eq!(machine.sh("dpkg --audit"), "");
    let version = machine.sh("pgimbal --version");
    assert!(version.starts_with("pgimbal "), "{version}");
    let listed = machine.sh(
        "stat -c '%n %a %U %G' /etc/pgimbal /etc/pgimbal/pgimbal.toml /var/lib/pgimbal /run/pgimbal",
    );
    let expected = "/etc/pgimbal 750 root pgimbal\n/etc/pgimbal/pgimbal.toml 640 root pgimbal\n\
        /var/lib/pgimbal 700 pgimbal pgimbal\n/run/pgimbal 755 pgimbal pgimbal\n";
    assert_eq!(listed, expected);
    for file in [
        "/usr/lib/systemd/system/pgimbal.service",
        "/usr/lib/systemd/system/pgimbal.socket",
        "/usr/share/man/man1/pgimbal.1.gz",
        "/usr/share/man/man1/pgimbal-check.1.gz",
        "/usr/share/man/man5/pgimbal.toml.5.gz",
        "/usr/share/bash-completion/completions/pgimbal",
        "/usr/share/zsh/vendor-completions/_pgimbal",
        "/usr/share/fish/vendor_completions.d/pgimbal.fish",
    ] {
        assert!(machine.root().join(&file[1..]).exists(), "{file}");
    }
    let unit = "systemd-analyze verify --man=no pgimbal.service pgimbal.socket";
    assert_eq!(machine.run(&["sh", "-c", unit]).succeeded().stderr, "");

    // As it stands it says what is missing.
    let as_user = "setpriv --reuid=pgimbal --regid=pgimbal --clear-groups pgimbal";
    let refused = machine.run(&["sh", "-c", &format!("{as_user} check")]);
    assert_eq!(refused.code, Some(78));
    assert!(refused.stderr.contains("users"), "{}", refused.stderr);

    upgrade_under_a_client(&machine, &pg, &package(&folder, 2));

    let _ = machine.run(&["dpkg", "--purge", "pgimbal"]).succeeded();
    let left: Vec<_> = machine.files().difference(&before).cloned().collect();
    // The user stays, as Debian's do.
    let left: Vec<_> = left.iter().filter(|file| !file.starts_with("/etc/.pwd.lock")).collect();
    assert_eq!(left, [""; 0]);
    assert!(machine.sh("cat /etc/passwd").contains("pgimbal:"));
}

/// Edits the configuration, starts the service as its unit does, and installs `package` while a
/// client has a transaction open.
fn upgrade_under_a_client(machine: &Machine, pg: &Postgres, package: &Path) {
    let (port, http_port) = (free_port(), free_port());
    let edits = format!(
        "sed -i 's/:6432/:{port}/; s/:9127/:{http_port}/; s|/var/run/postgresql|127.0.0.1|' \
            /etc/pgimbal/pgimbal.toml
        printf 'port = {}\\n[users.app]\\npassword = \"app-secret\"\\n' >>/etc/pgimbal/pgimbal.toml
        sed -i '/^# Any database/i drain_delay = \"0s\"' /etc/pgimbal/pgimbal.toml
        mkdir -p /run/systemd/system",
        pg.port
    );
    let _ = machine.sh(&edits);
    let edited = machine.sh("cat /etc/pgimbal/pgimbal.toml");
    let systemctl = machine.folder.join("systemctl");
    std::fs::write(&systemctl, SYSTEMCTL).expect("a script");
    let mut put = as_root("install");
    put.args(["-m", "0755"]).arg(systemctl).arg(machine.root().join("usr/local/bin/systemctl"));
    let _ = run(&mut put, LIMIT).succeeded();

    let start = "echo $$ >/tmp/pgimbal.pid; exec setpriv --reuid=pgimbal --regid=pgimbal \
        --clear-groups /usr/bin/pgimbal run --config /etc/pgimbal/pgimbal.toml";
    let service = Confined::start(machine.command(&["sh", "-c", start]), &[port, http_port]);
    let login = Login::new("app", "app", "app-secret");
    let mut client = WireClient::tcp(port);
    client.log_in(&login).expect("a login");
    client.ok("begin");

    machine.install(package);
    let told = machine.sh("cat /tmp/systemctl.log");
    assert!(told.contains("daemon-reload"), "{told}");
    assert!(!told.contains("stop") && !told.contains("restart"), "{told}");
    eventually("the new program takes over", SOON, || {
        service.process.log().contains("another process has taken over")
    });
    assert_eq!(client.ok("commit").commands(), ["COMMIT"]);
    let mut late = WireClient::tcp(port);
    late.log_in(&login).expect("a login");
    assert_eq!(late.value("select 1"), "1");
    let installed = machine.sh("dpkg-query -W -f '${Version}' pgimbal");
    assert!(installed.ends_with("-2"), "{installed}");
    assert_eq!(machine.sh("cat /etc/pgimbal/pgimbal.toml"), edited, "an upgrade leaves it alone");
    drop(service);
}
