//! The Debian package on a minimal Debian that has booted: installed, started, upgraded under a
//! client, purged. Each command is the one of docs/deploy-vm.md.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use pgimbal_tests::certificates::Certificates;
use pgimbal_tests::leash::Leash;
use pgimbal_tests::library::minimal_debian;
use pgimbal_tests::pages::{block, with_own};
use pgimbal_tests::port::free_port;
use pgimbal_tests::process::{Directory, Process, directory};
use pgimbal_tests::program::{Finished, run};
use pgimbal_tests::sources::root;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::vault::reads;
use pgimbal_tests::{Cluster, Login, Node, Postgres, Vault, WireClient};
use rustix::process::{Pid, Signal};

use super::{LIMIT, as_root, child_of, deploy, stripped_program};

/// A booted copy of a minimal Debian with the network of the test.
struct Machine {
    root: PathBuf,
    init: String,
    _leash: Leash,
    process: Process,
    _folder: Directory,
}

impl Machine {
    /// Copies and boots it, which takes root.
    fn boot() -> Self {
        let folder = directory("debian");
        let root_folder = folder.join("root");
        let leash = Leash::start("rm -rf -- \"$0\"", [&root_folder]);
        let mut copy = as_root("cp");
        copy.args(["-a", "--reflink=auto"]).arg(minimal_debian()).arg(&root_folder);
        let _ = run(&mut copy, LIMIT).succeeded();
        let mut boot = as_root(&root().join("tests/debian/boot").display().to_string());
        boot.arg(&root_folder);
        let mut process = Process::start(boot, &folder, Signal::KILL);
        let mut init = None;
        eventually("systemd begins", SOON, || {
            assert!(process.ended().is_none(), "it does not boot: {}", process.log());
            init = init_below(process.id());
            init.is_some()
        });
        let init = init.expect("a process").as_raw_nonzero().to_string();
        let machine = Self { root: root_folder, init, _leash: leash, process, _folder: folder };
        eventually("it has booted", LIMIT, || {
            let state = machine.run(&["systemctl", "is-system-running", "--wait"]).stdout;
            ["running", "degraded"].contains(&state.trim_end())
        });
        machine
    }

    fn run(&self, words: &[&str]) -> Finished {
        let mut command = as_root("nsenter");
        command.args(["-t", &self.init, "-m", "-u", "-i", "-p", "env", "-i"]);
        command.arg("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.args(["DEBIAN_FRONTEND=noninteractive", "SYSTEMD_PAGER="]).args(words);
        run(&mut command, LIMIT)
    }

    /// Runs `script` in its shell, which must succeed; returns what it prints.
    fn sh(&self, script: &str) -> String {
        let finished = self.run(&["sh", "-euc", script]);
        assert!(finished.success, "{script}: {finished:?}\n{}", self.journal());
        finished.stdout
    }

    fn journal(&self) -> String {
        self.run(&["journalctl", "-o", "cat", "-u", "pgimbal*"]).stdout
    }

    /// A property of the service.
    fn property(&self, name: &str) -> String {
        let value = self.sh(&format!("systemctl show -p {name} --value pgimbal.service"));
        value.trim_end().to_owned()
    }

    /// Installs `package` by a line of the page, which calls it `shown`.
    fn install(&self, line: &str, shown: &str, package: &Path) {
        let inside = self.root.join("var/pgimbal.deb");
        let _ = run(as_root("cp").arg(package).arg(inside), LIMIT).succeeded();
        let _ = self.sh(&with_own(line, &[(shown, "/var/pgimbal.deb")]));
        let _ = self.sh("rm /var/pgimbal.deb");
        assert_eq!(self.sh("dpkg --audit"), "");
    }

    /// Writes a program of the machine's administrator.
    fn has_program(&self, name: &str, script: &str) {
        let place = format!("/usr/local/bin/{name}");
        let _ = self.sh(&format!(
            "cat >{place} <<'END'\n#!/bin/sh\nset -e\n{script}END\nchmod 755 {place}"
        ));
    }

    /// Every file but the books of dpkg, apt and systemd, and the users, who stay.
    fn files(&self) -> BTreeSet<String> {
        let found = self.sh(
            "find / -xdev \\( -path /var/lib/dpkg -o -path /var/lib/systemd -o -path /var/log \
                -o -path /var/lib/apt -o -path /var/cache/apt -o -path /tmp -o -path /var/tmp \
                -o -path '/etc/*-' -o -name .pwd.lock \\) -prune \
                -o -print; ls -d /run/pgimbal* 2>/dev/null || :",
        );
        found.lines().map(str::to_owned).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the journal ---\n{}", self.journal());
        }
        self.process.signal(Signal::KILL);
        eventually("it stops", SOON, || self.process.ended().is_some());
        let _ = run(as_root("rm").arg("-rf").arg(&self.root), LIMIT);
        let group = format!("pgimbal-{}", self.process.id());
        let script = "find /sys/fs/cgroup -depth -type d -path \"*/$0*\" -exec rmdir {} +";
        let _ = run(as_root("sh").args(["-c", script, &group]), LIMIT);
    }
}

/// The systemd that a process has started, or one that it has started, such as sudo.
fn init_below(pid: u32) -> Option<Pid> {
    let mut at = child_of(pid)?;
    loop {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", at.as_raw_nonzero())).ok()?;
        if name.trim_end() == "systemd" {
            return Some(at);
        }
        at = child_of(at.as_raw_nonzero().get().unsigned_abs())?;
    }
}

/// The package with this revision, of `program`; in `folder`.
fn package(folder: &Path, program: &Path, revision: u32) -> PathBuf {
    let architecture = run(Command::new("dpkg").arg("--print-architecture"), LIMIT).succeeded();
    let mut command = Command::new(deploy("systemd/package"));
    command.arg(architecture.stdout.trim_end()).arg(program).env("REVISION", revision.to_string());
    // Quickly rather than small.
    command.arg("--fast").env("CARGO_TARGET_DIR", folder);
    let finished = run(&mut command, LIMIT).succeeded();
    PathBuf::from(finished.stdout.trim_end())
}

/// The machine with the package on it, and what a client needs.
struct Service<'a> {
    machine: &'a Machine,
    port: u16,
}

impl Service<'_> {
    fn client(&self) -> WireClient {
        let mut client = WireClient::tcp(self.port);
        client.log_in(&Login::new("app", "app", "app-secret")).expect("a login");
        client
    }

    fn pid(&self) -> String {
        self.machine.property("MainPID")
    }
}

/// The lines of the block of docs/deploy-vm.md that begins so.
fn lines_of_page<const N: usize>(beginning: &str) -> [String; N] {
    let shown = block("docs/deploy-vm.md", beginning);
    let lines: Vec<String> = shown.lines().map(str::to_owned).collect();
    lines.try_into().unwrap_or_else(|lines| panic!("{N} lines were expected: {lines:?}"))
}

/// What a minimal Debian has of `sudo`.
const SUDO: &str = "\
if [ \"$1\" = -u ]; then
    user=$2
    shift 2
    exec setpriv --reuid=\"$user\" --regid=\"$user\" --init-groups \"$@\"
fi
exec \"$@\"
";

#[test]
fn the_package_installs_serves_upgrades_under_a_client_and_leaves_nothing() {
    let pg = Postgres::start();
    let folder = directory("package");
    let machine = Machine::boot();
    machine.has_program("sudo", SUDO);
    machine.has_program("editor", "exit 1\n");
    let before = machine.files();
    let program = stripped_program(&folder);
    let [install, edit, check, enable, psql] = lines_of_page("sudo apt install ./pgimbal_VERSION");
    let shown = "./pgimbal_VERSION-1_amd64.deb";
    machine.install(&install, shown, &package(&folder, &program, 1));
    has_its_files_and_waits_to_be_configured(&machine, &check);

    let service = configured(&machine, &pg, [&edit, &check, &enable]);
    is_reached_by_its_socket(&service, &psql);
    is_confined(&service);
    reloads(&service);
    upgrades_under_a_client(&service, &package(&folder, &program, 2));
    starts_anew_under_a_client(&service);
    is_restarted_when_it_dies(&service);
    is_started_by_its_socket(&service);

    let _ = machine.sh("dpkg --purge pgimbal");
    // systemd may remember the name of a unit whose file is gone.
    let units = "systemctl list-units --all --plain --legend=no 'pgimbal*'";
    let without_file = "sed '/ not-found inactive dead /d'";
    assert_eq!(machine.sh(&format!("{units} | {without_file}")), "");
    let left: Vec<_> = machine.files().difference(&before).cloned().collect();
    assert_eq!(left, [""; 0]);
    assert!(machine.sh("cat /etc/passwd").contains("pgimbal:"), "as Debian's do");
}

fn has_its_files_and_waits_to_be_configured(machine: &Machine, check: &str) {
    let listed = machine.sh(
        "stat -c '%n %a %U %G' /etc/pgimbal /etc/pgimbal/pgimbal.toml /var/lib/pgimbal /run/pgimbal",
    );
    let expected = "/etc/pgimbal 750 root pgimbal\n/etc/pgimbal/pgimbal.toml 640 root pgimbal\n\
        /var/lib/pgimbal 700 pgimbal pgimbal\n/run/pgimbal 755 pgimbal pgimbal\n";
    assert_eq!(listed, expected);
    for file in [
        "usr/share/man/man1/pgimbal.1.gz",
        "usr/share/man/man1/pgimbal-check.1.gz",
        "usr/share/man/man5/pgimbal.toml.5.gz",
        "usr/share/bash-completion/completions/pgimbal",
        "usr/share/zsh/vendor-completions/_pgimbal",
        "usr/share/fish/vendor_completions.d/pgimbal.fish",
    ] {
        assert!(machine.root.join(file).exists(), "{file}");
    }
    let version = machine.sh("pgimbal --version");
    assert!(version.starts_with("pgimbal "), "{version}");
    assert_eq!(machine.property("ActiveState"), "inactive");
    assert_eq!(machine.property("UnitFileState"), "disabled");

    let refused = machine.run(&["sh", "-c", check]);
    assert_eq!(refused.code, Some(78));
    assert!(refused.stderr.contains("users: there is no user"), "{}", refused.stderr);
    assert!(!machine.run(&["systemctl", "start", "pgimbal"]).success);
    assert_eq!(machine.property("ExecMainStatus"), "78");
    assert_eq!(machine.property("NRestarts"), "0", "it does not become better");
}

/// Edits the configuration as an administrator does, has it checked, and enables the service.
fn configured<'a>(machine: &'a Machine, pg: &Postgres, lines: [&str; 3]) -> Service<'a> {
    let (port, http_port) = (free_port(), free_port());
    let edit = format!(
        "sed -i 's/:6432/:{port}/; s/:9127/:{http_port}/; s|/var/run/postgresql|127.0.0.1|' \"$1\"
        sed -i '/^# Any database/i drain_delay = \"0s\"' \"$1\"
        printf 'port = {}\\n[users.app]\\npassword = \"app-secret\"\\n' >>\"$1\"\n",
        pg.port
    );
    machine.has_program("editor", &edit);
    for line in lines {
        let _ = machine.sh(line);
    }
    let service = Service { machine, port };
    assert_eq!(service.client().value("select 1"), "1");
    service
}

/// The package's service before a cluster with a standby and a far one for disasters, with a
/// password of Vault's: the configurations of docs/failover.md and docs/rotation.md.
#[test]
fn the_service_follows_a_cluster_with_passwords_of_vault() {
    let mut cluster = Cluster::start(2);
    cluster.nodes[0].run("create role shop login; create table t (x int); grant all on t to shop");
    cluster.settle(0);
    let vault = Vault::with_tls(&Certificates::new());
    vault.serve_any(&[cluster.nodes[0].port, cluster.nodes[1].port]);
    vault.static_role("shop", 86_400);
    let folder = directory("package");
    let machine = Machine::boot();
    machine.has_program("sudo", SUDO);
    let [install, edit, check, enable, _] = lines_of_page("sudo apt install ./pgimbal_VERSION");
    let program = stripped_program(&folder);
    machine.install(&install, "./pgimbal_VERSION-1_amd64.deb", &package(&folder, &program, 1));

    let [role_id, secret_id] = vault.approle(&reads("database/static-creds/*"), "1h");
    let authority = std::fs::read_to_string(vault.authority()).expect("a certificate");
    for (name, text) in [("secret-id", secret_id), ("vault-ca.crt", authority)] {
        let place = format!("/etc/pgimbal/{name}");
        let _ = machine.sh(&format!(
            "cat >{place} <<'END'\n{text}\nEND\nchown root:pgimbal {place}; chmod 640 {place}"
        ));
    }
    let port = free_port();
    let own = of_cluster(&cluster) + &of_vault(&vault, &role_id);
    let edit_it = format!(
        "sed -i 's/:6432/:{port}/; s/:9127/:{}/; /^.databases/,$d' \"$1\"\n\
         cat >>\"$1\" <<'TOML'\n{own}TOML\n",
        free_port()
    );
    machine.has_program("editor", &edit_it);
    for line in [&edit, &check, &enable] {
        let _ = machine.sh(line);
    }

    let login = |password: &str| {
        let mut client = WireClient::tcp(port);
        client.log_in(&Login::new("shop", "app", password)).map(|_| client)
    };
    let mut client = login(&vault.role("shop").password).expect("Vault's password");
    client.ok("insert into t values (1)");
    let _ = vault.rotate("shop");
    let rotated = vault.role("shop").password;
    eventually("the new password is taken", SOON, || login(&rotated).is_ok());
    // The far one is promoted by mistake: it gets nothing. The standby gets what waits.
    cluster.nodes[0].kill();
    cluster.nodes[2].promote();
    cluster.nodes[1].promote();
    client.ok("insert into t values (2)");
    assert_eq!(cluster.nodes[1].value("select count(*) from t"), "2");
    assert_eq!(cluster.nodes[2].value("select count(*) from t"), "1");
    let _ = machine.sh("systemctl restart pgimbal");
    eventually("it serves again", SOON, || login(&rotated).is_ok());
    let _ = machine.sh("test -s /var/lib/pgimbal/store");
}

/// The configuration of docs/failover.md without what the package's has already.
fn of_cluster(cluster: &Cluster) -> String {
    let shown = block("docs/failover.md", "state_dir = ");
    let (_, shown) = shown.split_once("\n\n").expect("the package sets state_dir");
    let host = |node: &Node| format!("host = \"{}\"\nport = {}", node.host, node.port);
    let hosts: Vec<String> = cluster.nodes.iter().map(host).collect();
    let own = [
        ("…", "probe-secret"),
        ("host = \"10.0.0.1\"", &hosts[0]),
        ("host = \"10.0.0.2\"", &hosts[1]),
        ("host = \"10.9.0.1\"", &hosts[2]),
    ];
    with_own(shown, &own)
}

/// The configuration of docs/rotation.md, with the files where docs/deploy-vm.md wants them.
fn of_vault(vault: &Vault, role_id: &str) -> String {
    let addresses = "\"https://vault-0.internal:8200\", \"https://vault-1.internal:8200\"";
    let own = [
        (addresses, &*format!("\"{}\"", vault.address())),
        ("7f4c...", role_id),
        ("/run/secrets/vault/secret-id", "/etc/pgimbal/secret-id"),
        ("[users.app]\nvault_role = \"app\"", "[users.shop]\nvault_role = \"shop\""),
    ];
    with_own(&block("docs/rotation.md", "[vaults.main]"), &own)
}

/// The machine has no psql: this one goes through the machine's root directory.
fn is_reached_by_its_socket(service: &Service<'_>, psql: &str) {
    let folder = format!("/proc/{}/root/run/pgimbal", service.machine.init);
    let port = service.port.to_string();
    let psql = with_own(psql, &[("/run/pgimbal", folder.as_str()), ("6432", &port)]);
    let mut command = as_root("env");
    command.args(["PGPASSWORD=app-secret", "sh", "-c"]).arg(format!("{psql} -Atc 'select 17'"));
    assert_eq!(run(&mut command, LIMIT).succeeded().stdout, "17\n");
}

fn is_confined(service: &Service<'_>) {
    let pid = service.pid();
    let status = service.machine.sh(&format!("cat /proc/{pid}/status"));
    for line in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line} in {status}");
    }
    assert!(!status.contains("Uid:\t0"), "{status}");
    for place in ["etc", "usr/bin", "var/lib", "tmp/.."] {
        let touch = format!("touch /proc/{pid}/root/{place}/written");
        assert!(!service.machine.run(&["sh", "-c", &touch]).success, "{place}");
    }
}

fn reloads(service: &Service<'_>) {
    let _ = service.machine.sh("systemctl reload pgimbal");
    eventually("it reloads", SOON, || service.machine.journal().contains("reloaded"));
    assert_eq!(service.machine.property("ActiveState"), "active");
}

fn upgrades_under_a_client(service: &Service<'_>, package: &Path) {
    let machine = service.machine;
    let configuration = machine.sh("cat /etc/pgimbal/pgimbal.toml");
    let before = service.pid();
    let mut client = service.client();
    client.ok("begin");
    let [upgrade] = lines_of_page("sudo apt install ./pgimbal_NEW");
    machine.install(&upgrade, "./pgimbal_NEW.deb", package);
    eventually("the new program takes over", SOON, || service.pid() != before);
    assert_eq!(client.ok("commit").commands(), ["COMMIT"]);
    assert_eq!(service.client().value("select 1"), "1");
    assert_eq!(machine.property("ActiveState"), "active");
    assert_eq!(machine.property("NRestarts"), "0");
    let installed = machine.sh("dpkg-query -W -f '${Version}' pgimbal");
    assert!(installed.ends_with("-2"), "{installed}");
    assert_eq!(machine.sh("cat /etc/pgimbal/pgimbal.toml"), configuration, "it is left alone");
    assert!(!machine.journal().contains("only permitted for main"), "{}", machine.journal());
}

fn starts_anew_under_a_client(service: &Service<'_>) {
    let before = service.pid();
    let mut client = service.client();
    client.ok("begin");
    let [kill] = lines_of_page("sudo systemctl kill");
    let _ = service.machine.sh(&kill);
    eventually("the new process takes over", SOON, || service.pid() != before);
    assert_eq!(client.ok("commit").commands(), ["COMMIT"]);
    assert_eq!(service.client().value("select 1"), "1");
    assert_eq!(service.machine.property("NRestarts"), "0");
}

/// Although systemd did not start the process that has taken over.
fn is_restarted_when_it_dies(service: &Service<'_>) {
    let _ = service.machine.sh("systemctl kill --kill-who=main --signal=SIGKILL pgimbal");
    eventually("it is restarted", SOON, || service.machine.property("NRestarts") == "1");
    eventually("it serves", SOON, || WireClient::try_tcp(service.port).is_ok());
    assert_eq!(service.client().value("select 1"), "1");
}

fn is_started_by_its_socket(service: &Service<'_>) {
    let port = service.port;
    let _ = service.machine.sh(&format!(
        "mkdir /etc/systemd/system/pgimbal.socket.d
        printf '[Socket]\\nListenStream=\\nListenStream=127.0.0.1:{port}\\n\
            ListenStream=/run/pgimbal/.s.PGSQL.{port}\\n' \
            >/etc/systemd/system/pgimbal.socket.d/port.conf
        systemctl daemon-reload"
    ));
    let lines: [String; 2] = lines_of_page("sudo systemctl stop pgimbal");
    for line in lines {
        let _ = service.machine.sh(&line);
    }
    assert_eq!(service.client().value("select 1"), "1");
    // While it is down, a client waits in the queue and starts it.
    let _ = service.machine.sh("systemctl stop pgimbal.service");
    assert_eq!(service.machine.property("ActiveState"), "inactive");
    assert_eq!(service.client().value("select 1"), "1");
    assert_eq!(service.machine.property("ActiveState"), "active");
    let _ = service.machine.sh(&format!("test -S /run/pgimbal/.s.PGSQL.{port}"));
    assert!(!service.machine.journal().contains("no option names it"));
    let _ = service.machine.sh("rm -r /etc/systemd/system/pgimbal.socket.d");
}
