//! The files of the image, and what a runtime makes of them.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use pgimbal_tests::certificates::Certificates;
use pgimbal_tests::http::get;
use pgimbal_tests::pgimbal::{program, undisturbed};
use pgimbal_tests::port::free_port;
use pgimbal_tests::process::{Directory, directory};
use pgimbal_tests::program::run;
use pgimbal_tests::{Login, Postgres, WireClient};

use super::{Confined, LIMIT, deploy, text_of};

/// The files of the image with the program under test in it.
struct Image {
    folder: Directory,
}

impl Image {
    fn lay_out() -> Self {
        let folder = directory("image");
        let mut command = Command::new(deploy("docker/rootfs"));
        command.arg(folder.join("root")).arg(program());
        let _ = run(&mut command, LIMIT).succeeded();
        Self { folder }
    }

    fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// Every file and folder, as the path in the image.
    fn paths(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let mut folders = vec![self.root()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path.clone());
                }
                found.insert(path.strip_prefix(self.root()).expect("inside").to_owned());
            }
        }
        found
    }

    /// pgimbal as this user in the image, which it can only read, without any capability. It has
    /// the network of the test, and the machine's libraries: the program under test is not static.
    fn as_user(&self, user: u32, group: u32) -> Command {
        let mut command = undisturbed("setpriv");
        command.args([format!("--reuid={user}"), format!("--regid={group}")]);
        command.args([
            "--clear-groups",
            "--inh-caps=-all",
            "--bounding-set=-all",
            "--no-new-privs",
        ]);
        command.args(["bwrap", "--die-with-parent", "--clearenv", "--ro-bind"]);
        command.arg(self.root()).arg("/");
        for libraries in ["/lib", "/lib64", "/usr/lib"] {
            if Path::new(libraries).exists() {
                let place = self.root().join(&libraries[1..]);
                std::fs::create_dir_all(place).expect("where to mount");
                command.args(["--ro-bind", libraries, libraries]);
            }
        }
        command.args(["--ro-bind", "/proc", "/proc", "--dev", "/dev"]);
        let file = text_of("docker/Containerfile");
        for line in file.lines().filter_map(|line| line.strip_prefix("ENV ")) {
            let (name, value) = line.split_once('=').expect("a value");
            command.args(["--setenv", name, value.trim_matches('"')]);
        }
        command
    }
}

#[test]
fn the_image_has_the_program_and_nothing_to_run_beside_it() {
    let image = Image::lay_out();
    let expected = "dev etc etc/group etc/passwd etc/pgimbal etc/pgimbal/pgimbal.toml etc/ssl \
        etc/ssl/certs etc/ssl/certs/ca-certificates.crt proc run run/pgimbal sys tmp usr usr/bin \
        usr/bin/pgimbal usr/share usr/share/doc usr/share/doc/pgimbal \
        usr/share/doc/pgimbal/LICENSE var var/lib var/lib/pgimbal";
    let expected: BTreeSet<PathBuf> = expected.split_whitespace().map(PathBuf::from).collect();
    assert_eq!(image.paths(), expected);
    for path in expected {
        let meta = std::fs::symlink_metadata(image.root().join(&path)).expect("a file");
        let mode = meta.permissions().mode() & 0o7777;
        let is_program = path.ends_with("bin/pgimbal");
        let right = if meta.is_dir() || is_program { 0o755 } else { 0o644 };
        assert_eq!(mode, right, "{}: {mode:o}", path.display());
    }
}

#[test]
fn the_image_names_a_user_who_is_not_root() {
    let image = Image::lay_out();
    let file = text_of("docker/Containerfile");
    let user = file.lines().find_map(|line| line.strip_prefix("USER ")).expect("a USER");
    let (user, group) = user.split_once(':').expect("a user and a group");
    assert!(user.parse::<u32>().is_ok_and(|user| user > 0), "Kubernetes wants a number: {user}");
    let passwd = std::fs::read_to_string(image.root().join("etc/passwd")).expect("a file");
    assert!(passwd.starts_with(&format!("pgimbal:x:{user}:{group}:")), "{passwd}");
    assert!(file.lines().any(|line| line == "FROM scratch"));
    assert!(file.contains("STOPSIGNAL SIGTERM"), "it drains");
}

#[test]
fn the_image_serves_as_any_user_from_a_root_it_can_only_read() {
    let image = Image::lay_out();
    let pg = Postgres::start();
    // The image's own, and one that OpenShift picks.
    for (user, group) in [(65532, 65532), (1_000_670_000, 0)] {
        let (port, http_port) = (free_port(), free_port());
        let variables = [
            ("PGIMBAL_LISTEN", format!("127.0.0.1:{port}")),
            ("PGIMBAL_HTTP_LISTEN", format!("127.0.0.1:{http_port}")),
            ("PGIMBAL_UPSTREAM", format!("postgres://app:app-secret@127.0.0.1:{}/app", pg.port)),
            ("PGIMBAL_SHUTDOWN_GRACE", "1s".to_owned()),
            ("PGIMBAL_DRAIN_DELAY", "0s".to_owned()),
        ];
        let mut command = image.as_user(user, group);
        for (name, value) in &variables {
            command.args(["--setenv", name, value]);
        }
        command.arg("/usr/bin/pgimbal");
        let mut proxy = Confined::start(command, &[port, http_port]);
        let mut client = WireClient::tcp(port);
        client.log_in(&Login::new("app", "app", "app-secret")).expect("a login");
        assert_eq!(client.value("select 41 + 1"), "42");
        assert_eq!(get(http_port, "/readyz").0, 200);
        let status = format!("/proc/{}/status", proxy.pid().as_raw_nonzero());
        let status = std::fs::read_to_string(status).expect("a living process");
        let is = |line: &str| assert!(status.lines().any(|it| it == line), "{line} in {status}");
        is(&format!("Uid:\t{user}\t{user}\t{user}\t{user}"));
        is("CapEff:\t0000000000000000");
        is("NoNewPrivs:\t1");
        client.terminate();
        assert_eq!(proxy.drain(), Some(0), "{}", proxy.process.log());
    }
}

#[test]
fn the_images_configuration_opens_its_ports_and_its_root_takes_no_file() {
    let image = Image::lay_out();
    let file = text_of("docker/Containerfile");
    let ports = file.lines().find_map(|line| line.strip_prefix("EXPOSE ")).expect("EXPOSE");
    let mut command = image.as_user(65532, 65532);
    // Where nobody else has these ports.
    command.args(["--unshare-net", "--setenv", "PGIMBAL_UPSTREAM"]);
    command.args(["postgres://app:x@127.0.0.1:1/app", "/usr/bin/pgimbal", "check"]);
    let finished = run(&mut command, LIMIT);
    for port in ports.split_whitespace() {
        let line = format!("listen 0.0.0.0:{port}: ok");
        assert!(finished.stdout.contains(&line), "{line} in {finished:?}");
    }
    let mut command = image.as_user(65532, 65532);
    command.args(["--setenv", "PGIMBAL_UPSTREAM", "postgres://app:x@127.0.0.1:1/app"]);
    command.args(["--setenv", "PGIMBAL_STATE_DIR", "/var/lib/pgimbal/state", "/usr/bin/pgimbal"]);
    let finished = run(&mut command, LIMIT);
    assert_eq!(finished.code, Some(78), "{}", finished.stderr);
    assert!(finished.stderr.contains("Read-only file system"), "{}", finished.stderr);
}

/// A program for `deploy/docker/try` is whatever answers as pgimbal does.
#[test]
fn a_program_that_does_not_work_is_not_packed() {
    let folder = directory("tried");
    let architecture = run(Command::new("dpkg").arg("--print-architecture"), LIMIT).succeeded();
    let tried = |program: &Path| {
        let mut command = Command::new(deploy("docker/try"));
        command.arg(architecture.stdout.trim_end()).arg(program);
        run(&mut command, LIMIT)
    };
    let _ = tried(&program()).succeeded();
    let version = format!("[ \"$1\" = --version ] && exec '{}' --version", program().display());
    for (script, complaint) in [
        ("echo pgimbal 9.9.9".to_owned(), "--version says pgimbal 9.9.9"),
        ("echo an instruction >&2; exit 132".to_owned(), "--version fails\n  an instruction"),
        (format!("{version}; exit 0"), "/livez does not answer"),
    ] {
        let broken = folder.join("broken");
        std::fs::write(&broken, format!("#!/bin/sh\n{script}\n")).expect("a file");
        std::fs::set_permissions(&broken, Permissions::from_mode(0o755)).expect("its mode");
        let finished = tried(&broken);
        assert_eq!(finished.code, Some(1), "{script}: {finished:?}");
        assert!(finished.stderr.contains(complaint), "{script}: {finished:?}");
    }
}

#[test]
fn the_image_trusts_the_authorities_that_browsers_trust() {
    let image = Image::lay_out();
    let certificates = Certificates::new();
    let pg = Postgres::with_tls(&certificates);
    // As a runtime does.
    std::fs::write(image.root().join("etc/hosts"), "127.0.0.1 localhost\n").expect("a file");
    let mut command = image.as_user(65532, 65532);
    let upstream =
        format!("postgres://app:app-secret@localhost:{}/app?sslmode=verify-full", pg.port);
    command.args(["--setenv", "PGIMBAL_UPSTREAM", &format!("{upstream}&sslrootcert=system")]);
    command.args(["--setenv", "PGIMBAL_LISTEN", &format!("127.0.0.1:{}", free_port())]);
    command.args(["--setenv", "PGIMBAL_HTTP_LISTEN", &format!("127.0.0.1:{}", free_port())]);
    command.args(["/usr/bin/pgimbal", "check"]);
    let finished = run(&mut command, LIMIT);
    // It has authorities, and the test's own is none of them.
    assert!(finished.stdout.contains("which is not in ca_file"), "{finished:?}");
    let all = image.root().join("etc/ssl/certs/ca-certificates.crt");
    let all = std::fs::read_to_string(all).expect("a file");
    let count = all.lines().filter(|line| *line == "-----BEGIN CERTIFICATE-----").count();
    let packed = std::fs::read_dir("/usr/share/ca-certificates/mozilla").expect("a folder").count();
    assert!(count == packed && count > 100, "{count} of {packed}");
}
