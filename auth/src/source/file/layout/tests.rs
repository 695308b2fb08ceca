use std::fs;
use std::os::unix::net::UnixListener;

use super::*;
use crate::source::scratch::Directory;

fn found(path: &Path) -> (Option<String>, String) {
    let answer = answer(path, "ann").expect("an answer");
    (answer.username.map(String::from), answer.password.expose().to_owned())
}

/// The error, which names the file and never its text.
fn refused(path: &Path) -> (&'static str, String) {
    let error = answer(path, "ann").expect_err("an error");
    let text = format!("{error} {error:?}");
    assert!(!text.contains("hunter2"), "{text}");
    (error.result_label(), error.to_string())
}

#[test]
fn a_file_is_the_password_without_one_line_end() {
    let directory = Directory::new();
    for (text, password) in [
        ("p", "p"),
        ("p\n", "p"),
        ("p\r\n", "p"),
        ("p\n\n", "p\n"),
        (" p \n", " p "),
        ("two\nlines", "two\nlines"),
        ("q'\"\\:é\n", "q'\"\\:é"),
    ] {
        let path = directory.file("secret", text);
        assert_eq!(found(&path), (None, password.to_owned()), "{text:?}");
    }
    let long = "k".repeat(10_240);
    assert_eq!(found(&directory.file("secret", &long)).1, long);
}

#[test]
fn a_directory_has_a_password_and_perhaps_a_username() {
    let directory = Directory::new();
    let path = directory.path("s");
    directory.file("s/password", "p\n");
    assert_eq!(found(&path), (None, "p".to_owned()));
    directory.file("s/username", "app\n");
    assert_eq!(found(&path), (Some("app".to_owned()), "p".to_owned()));
    // What CloudNativePG writes beside them.
    for name in ["uri", "pgpass", "jdbc-uri", "host", "port", "dbname", "user"] {
        directory.file(&format!("s/{name}"), "other");
    }
    assert_eq!(found(&path), (Some("app".to_owned()), "p".to_owned()));
}

#[test]
fn a_password_file_and_a_uri_are_understood_by_name_and_beginning() {
    let directory = Directory::new();
    let path = directory.file(".pgpass", "h:5432:d:bob:no\nh:5432:d:ann:p\\:q\n");
    assert_eq!(found(&path), (None, "p:q".to_owned()));
    let path = directory.file("anything", "postgresql://ann:p%40q@h:5432/d\n");
    assert_eq!(found(&path), (Some("ann".to_owned()), "p@q".to_owned()));
    directory.file("s/pgpass", "*:*:*:ann:p\n");
    assert_eq!(found(&directory.path("s")), (None, "p".to_owned()));
    directory.file("t/uri", "postgres://ann:p@h/d");
    assert_eq!(found(&directory.path("t")), (Some("ann".to_owned()), "p".to_owned()));
}

#[test]
fn a_volume_is_read_out_of_one_generation() {
    let directory = Directory::new();
    directory.publish("v", "..1", &[("username", "ann"), ("password", "one")]);
    assert_eq!(found(&directory.path("v")), (Some("ann".to_owned()), "one".to_owned()));
    directory.publish("v", "..2", &[("username", "ann2"), ("password", "two")]);
    assert_eq!(found(&directory.path("v")), (Some("ann2".to_owned()), "two".to_owned()));
    assert_eq!(found(&directory.path("v/password")), (None, "two".to_owned()));
}

#[test]
fn username_and_password_never_come_from_two_generations() {
    let directory = Directory::new();
    directory.publish("v", "..0", &[("username", "0"), ("password", "0")]);
    let path = directory.path("v");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for generation in (1..).take_while(|_| !stop.load(std::sync::atomic::Ordering::Relaxed))
            {
                let text = generation.to_string();
                let files = [("username", &*text), ("password", &*text)];
                directory.publish("v", &format!("..{generation}"), &files);
            }
        });
        let answers: Vec<_> = (0..300).map(|_| answer(&path, "ann")).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for answer in &answers {
            match answer {
                Ok(answer) => {
                    assert_eq!(answer.username.as_deref(), Some(answer.password.expose()));
                }
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
        }
        assert!(answers.iter().any(Result::is_ok));
    });
}

#[test]
fn what_is_missing_is_named() {
    let directory = Directory::new();
    let (label, text) = refused(&directory.path("none"));
    assert_eq!(label, "missing_file");
    assert!(text.contains("/none: there is no such file"), "{text}");
    directory.file("s/unrelated", "hunter2");
    let (label, text) = refused(&directory.path("s"));
    assert_eq!(label, "missing_file");
    assert!(text.contains("/s: password, pgpass, .pgpass, uri: "), "{text}");
    directory.file("s/username", "ann");
    let (label, text) = refused(&directory.path("s"));
    assert_eq!(label, "half_written");
    assert!(text.contains("/s/password: ") && text.contains("no password"), "{text}");
}

#[test]
fn what_cannot_be_used_is_named_with_the_cause() {
    let directory = Directory::new();
    let large = format!("hunter2{}", "x".repeat(200 << 10));
    let long = format!("hunter2{}", "x".repeat(100 << 10));
    let cases: [(&str, &[u8], &str, &str); 8] = [
        ("empty", b"", "half_written", "it is empty"),
        ("line", b"\n", "half_written", "it is empty"),
        ("binary", b"hunter2\xff\xfe", "malformed", "not UTF-8"),
        ("nul", b"hunter2\0", "unusable", "NUL"),
        ("large", large.as_bytes(), "too_large", "131072"),
        ("long", long.as_bytes(), "unusable", "65534"),
        ("pgpass", b"h:1:d:bob:hunter2\nhunter2", "malformed", "for user \"ann\""),
        ("uri", b"postgres://ann@h/hunter2", "malformed", "no password"),
    ];
    for (name, text, label, cause) in cases {
        let path = directory.file(name, text);
        let refused = refused(&path);
        assert_eq!(refused.0, label, "{name}");
        assert!(
            refused.1.contains(cause) && refused.1.contains(&format!("/{name}")),
            "{refused:?}"
        );
    }
}

#[test]
fn a_volume_names_the_visible_file_and_not_what_it_leads_to() {
    let directory = Directory::new();
    directory.publish("v", "..2025", &[("password", "")]);
    let (label, text) = refused(&directory.path("v"));
    assert_eq!(label, "half_written");
    assert!(text.contains("/v/password: ") && !text.contains("..2025"), "{text}");
}

#[test]
fn what_is_no_plain_file_is_not_opened() {
    let directory = Directory::new();
    let path = directory.path("socket");
    let _socket = UnixListener::bind(&path).expect("a socket");
    assert_eq!(refused(&path).0, "unreadable");
    fs::create_dir_all(directory.path("s/password")).expect("a directory");
    let (label, text) = refused(&directory.path("s"));
    assert_eq!(label, "unreadable");
    assert!(text.contains("/s/password: ") && text.contains("plain file"), "{text}");
}

#[test]
fn links_that_lead_nowhere_or_in_circles_are_errors() {
    let directory = Directory::new();
    let [nowhere, circle] = ["nowhere", "circle"].map(|name| directory.path(name));
    std::os::unix::fs::symlink("gone", &nowhere).expect("a link");
    std::os::unix::fs::symlink("circle", &circle).expect("a link");
    assert_eq!(refused(&nowhere).0, "missing_file");
    assert_eq!(refused(&circle).0, "unreadable");
}
