//! The demonstration as its user meets it.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a Ctrl-C may take: nothing that has begun is waited for. All of the start takes 5 s.
const AT_ONCE: Duration = Duration::from_secs(2);

#[test]
fn ctrl_c_at_the_start_ends_the_demonstration_at_once_and_without_a_verdict() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"))
        .env("PGIMBAL_BIN", "/bin/false")
        .env("DEMO_CREDENTIALS", "directory")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C reaches a terminal's whole process group.
        .process_group(0)
        .spawn()
        .expect("the demonstration");
    let mut out = BufReader::new(demo.stdout.take().expect("its output"));
    let mut line = String::new();
    out.read_line(&mut line).expect("a line");
    assert!(line.starts_with("starting a throwaway primary"), "{line}");
    let pressed = Instant::now();
    let group = format!("-{}", demo.id());
    let sent = Command::new("bash").args(["-c", "kill -INT -- \"$0\"", &group]).status();
    assert!(sent.expect("bash").success());
    let (mut rest, mut errors) = (String::new(), String::new());
    out.read_to_string(&mut rest).expect("its output");
    demo.stderr.take().expect("its errors").read_to_string(&mut errors).expect("its errors");
    let status = demo.wait().expect("its end");
    assert!(pressed.elapsed() < AT_ONCE, "it took {:?}", pressed.elapsed());
    assert_eq!(status.code(), Some(130), "{rest}{errors}");
    assert_eq!(rest, "", "no verdict");
    assert_eq!(errors.trim(), "demo: interrupted before it began");
}
