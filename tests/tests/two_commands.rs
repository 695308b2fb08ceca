//! The scripts behind `make demo` and `make test`: what they say of a failure.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pgimbal_tests::process::{Directory, directory};
use pgimbal_tests::program::{Finished, run};
use pgimbal_tests::sources::{root, sources};

/// A directory of programs for a script.
fn programs(scripts: &[(&str, &str)]) -> Directory {
    let directory = directory("bin");
    for (name, text) in scripts {
        let path = directory.join(name);
        fs::write(&path, format!("#!/bin/bash\n{text}\n")).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("permissions");
    }
    directory
}

fn script(name: &str, arguments: &[&str], path: &str) -> Finished {
    let mut command = Command::new("/bin/bash");
    command.arg(root().join(name)).args(arguments).env("PATH", path);
    run(&mut command, Duration::from_secs(60))
}

#[test]
fn make_test_counts_its_steps_and_ends_with_what_failed() {
    let make = "[[ $2 == unit ]] && { echo 'test a::b ... FAILED'; echo 'c::d --- FAILED'; exit 2; }\n\
                echo \"doing $2\"";
    let bin = programs(&[("make", make), ("sudo", "exit 1")]);
    let path = |bin: &Path| format!("{}:/usr/bin:/bin", bin.display());
    let finished = script("deploy/test", &[], &path(&bin));
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let said = finished.stdout;
    assert!(said.contains("==> step 3 of 7: lint\ndoing lint\n"), "{said}");
    assert!(said.contains("==> step 7 of 7: demo-check"), "what fails hides nothing: {said}");
    let verdict = "in 1 of 7 steps:\n  unit: a::b c::d   (again: make unit)\n";
    assert!(said.ends_with(verdict), "{said}");

    let bin = programs(&[("make", "exit 0"), ("sudo", "exit 1")]);
    let finished = script("deploy/test", &[], &path(&bin));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stdout.contains("make test: all 7 steps passed"), "{}", finished.stdout);
}

#[test]
fn what_apt_says_is_shown_when_it_fails_and_only_then() {
    let apt = "echo \"apt $2 speaks\"; [[ $2 != \"$FAILS\" ]]";
    let bin = programs(&[("apt-get", apt), ("sudo", "exec \"$@\""), ("cargo", ":")]);
    let system = ["bash", "cat", "cc", "dirname", "mkdir", "mktemp", "psql", "rm", "tee"];
    for name in system {
        let found = ["/usr/bin", "/bin"].map(|place| Path::new(place).join(name));
        let found = found.iter().find(|path| path.exists()).expect(name);
        symlink(found, bin.join(name)).expect("a link");
    }
    // There is no setpriv: util-linux is missing.
    let packages = |fails: &str| {
        let mut command = Command::new("/bin/bash");
        command.arg(root().join("deploy/packages")).arg("demo");
        command.env("PATH", &*bin).env("FAILS", fails);
        run(&mut command, Duration::from_secs(60))
    };
    let failed = packages("update");
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stdout.contains("root rights") && failed.stdout.contains("util-linux"));
    assert!(failed.stderr.contains("apt update speaks\napt-get update failed"), "{failed:?}");
    let well = packages("nothing");
    assert_eq!(well.code, Some(0), "{well:?}");
    assert!(!format!("{}{}", well.stdout, well.stderr).contains("speaks"), "{well:?}");
}

/// The tests whose text has the word, by a reading of the sources of its own.
fn that_cut_a_network() -> Vec<String> {
    let word = ["in", "namespace"].join("_");
    let mut names = Vec::new();
    for path in sources(&["tests/tests"]) {
        let text = fs::read_to_string(path).expect("a source");
        for body in text.split("\n#[test]\nfn ").skip(1) {
            if body.split("\n}\n").next().is_some_and(|body| body.contains(&word)) {
                names.push(body.split('(').next().expect("a name").to_owned());
            }
        }
    }
    names.sort();
    names
}

/// `make test` as a user who is not root and has no sudo: says all that cannot be done, by name.
#[test]
fn make_test_tells_a_plain_user_exactly_what_it_cannot_do() {
    let bin = programs(&[("make", "exit 0"), ("sudo", "exit 1")]);
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "/bin/bash"]);
        command
    } else {
        Command::new("/bin/bash")
    };
    fs::set_permissions(&*bin, fs::Permissions::from_mode(0o755)).expect("permissions");
    command.arg(root().join("deploy/test"));
    command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
    let finished = run(&mut command, Duration::from_secs(60));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let said = finished.stdout;
    assert!(said.contains("You are not root"), "{said}");
    assert!(said.contains("install Debian packages"), "{said}");
    let mut named: Vec<String> =
        said.lines().filter_map(|line| line.strip_prefix("      ")).map(str::to_owned).collect();
    named.sort();
    let cannot = that_cut_a_network();
    assert!(cannot.len() >= 4, "{cannot:?}");
    assert_eq!(named, cannot, "{said}");
}
