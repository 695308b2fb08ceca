use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::source::scratch::Directory;

/// So long that no test is saved by looking now and then.
const NEVER: Duration = Duration::from_secs(3600);
const DEADLINE: Duration = Duration::from_secs(10);

struct Followed {
    watcher: Watcher,
    changes: watch::Receiver<u64>,
    probe: PathBuf,
    probed: watch::Receiver<u64>,
}

impl Followed {
    /// Follows `path`, and is there when inotify does.
    fn new(directory: &Directory, path: &str) -> Self {
        let watcher = Watcher::new(NEVER);
        let changes = watcher.follow(directory.path(path));
        let probe = directory.file("probe-directory/probe", "0");
        let probed = watcher.follow(probe.clone());
        let mut followed = Self { watcher, changes, probe, probed };
        followed.settle();
        followed
    }

    /// The thread looks at all paths in turn: when it has seen a change of the probe, it has seen
    /// what was changed before.
    fn settle(&mut self) {
        self.probed.mark_unchanged();
        eventually("the watcher is at work", || {
            fs::write(&self.probe, rand::random::<u64>().to_string()).expect("a write");
            thread::sleep(SETTLED * 2);
            self.probed.has_changed().expect("a watcher")
        });
    }

    /// Makes a change and waits for its tick.
    fn ticks(&mut self, what: &str, change: impl FnOnce()) {
        self.settle();
        self.changes.mark_unchanged();
        change();
        eventually(what, || self.changes.has_changed().expect("a watcher"));
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < DEADLINE, "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_volume_that_is_swapped_ticks_each_time() {
    let directory = Directory::new();
    directory.publish("v", "..0", &[("username", "u"), ("password", "0")]);
    for path in ["v", "v/password"] {
        let mut followed = Followed::new(&directory, path);
        for generation in 1..=3 {
            let name = format!("..{path}{generation}").replace('/', "-");
            followed.ticks(&format!("swap {generation} of {path}"), || {
                directory.publish("v", &name, &[("username", "u"), ("password", &name)]);
            });
        }
        drop(followed.watcher);
    }
}

#[test]
fn a_file_ticks_when_it_is_written_renamed_over_removed_and_made_again() {
    let directory = Directory::new();
    let path = directory.file("s", "one");
    let mut followed = Followed::new(&directory, "s");
    followed.ticks("written", || fs::write(&path, "two").expect("a write"));
    followed.ticks("renamed over", || {
        fs::rename(directory.file("s.new", "three"), &path).expect("a rename");
    });
    followed.ticks("made unreadable", || {
        fs::set_permissions(&path, Permissions::from_mode(0o0)).expect("chmod");
    });
    followed.ticks("removed", || fs::remove_file(&path).expect("a removal"));
    followed.ticks("made again", || fs::write(&path, "four").expect("a write"));
}

#[test]
fn a_directory_that_appears_later_is_followed_from_then_on() {
    let directory = Directory::new();
    let mut followed = Followed::new(&directory, "a/b/c");
    followed.ticks("appeared", || drop(directory.file("a/b/c/password", "one")));
    followed.ticks("written", || drop(directory.file("a/b/c/password", "two")));
    followed.ticks("removed", || {
        fs::remove_dir_all(directory.path("a")).expect("a removal");
    });
    followed.ticks("appeared again", || drop(directory.file("a/b/c/password", "three")));
    followed.ticks("written again", || drop(directory.file("a/b/c/password", "four")));
}

#[test]
fn links_on_the_way_are_followed_to_where_they_lead() {
    let directory = Directory::new();
    directory.file("releases/1/s/password", "one");
    directory.file("releases/2/s/password", "two");
    symlink("releases/1", directory.path("current")).expect("a link");
    let mut followed = Followed::new(&directory, "current/s/password");
    followed.ticks("written behind the link", || {
        drop(directory.file("releases/1/s/password", "one and a half"));
    });
    followed.ticks("the link swapped", || {
        symlink("releases/2", directory.path("new")).expect("a link");
        fs::rename(directory.path("new"), directory.path("current")).expect("a rename");
    });
    followed.ticks("written behind the new link", || {
        drop(directory.file("releases/2/s/password", "two and a half"));
    });
}

#[test]
fn a_neighbour_ticks_nothing() {
    let directory = Directory::new();
    directory.file("s", "one");
    let mut followed = Followed::new(&directory, "s");
    let neighbour = followed.watcher.follow(directory.file("t", "one"));
    followed.changes.mark_unchanged();
    eventually("the neighbour ticks", || {
        fs::write(directory.path("t"), rand::random::<u64>().to_string()).expect("a write");
        *neighbour.borrow() > 0
    });
    assert!(!followed.changes.has_changed().expect("a watcher"));
}

#[test]
fn what_inotify_missed_is_found_by_looking() {
    let directory = Directory::new();
    directory.file("s", "one");
    let (orders, received) = sync_channel(MAX_ORDERS);
    let watcher = Watcher { orders: orders.clone(), writing: Writing::default() };
    let changes = watcher.follow(directory.path("s"));
    let mut follower = Follower::new(orders, Writing::default());
    follower.inotify = None;
    let thread = thread::spawn(move || follower.run(&received, Duration::from_millis(20)));
    fs::write(directory.path("s"), "another").expect("a write");
    eventually("the poll has found it", || *changes.borrow() > 0);
    drop(watcher);
    thread.join().expect("the thread has ended");
}

#[test]
fn a_path_is_left_alone_when_nobody_listens() {
    let directory = Directory::new();
    let followed = Followed::new(&directory, "s");
    let (orders, _received) = sync_channel(MAX_ORDERS);
    let mut follower = Follower::new(orders, Writing::default());
    let (ticks, changes) = watch::channel(0);
    let path = directory.file("s", "one");
    follower.spots.push(Spot { seen: Fingerprint::of(&path), path, ticks, glimpsed: None });
    follower.look();
    assert_eq!((follower.spots.len(), follower.watched.len()), (1, 1));
    drop(changes);
    follower.look();
    assert_eq!((follower.spots.len(), follower.watched.len()), (0, 0));
    drop(followed);
}

#[test]
fn rotation_26_a_file_that_is_being_written_ticks_when_it_is_closed() {
    let directory = Directory::new();
    let path = directory.file("s", "before");
    let mut followed = Followed::new(&directory, "s");
    let writing = followed.watcher.writing();
    followed.changes.mark_unchanged();
    let mut file = fs::File::create(&path).expect("a file");
    file.write_all(b"half").expect("a half");
    eventually("it is known to be written", || writing.covers(&path));
    // The thread has looked after the half was there.
    followed.settle();
    assert!(!followed.changes.has_changed().expect("a watcher"), "the half was believed");
    assert!(writing.answer(&path, "user").is_err(), "the half can be read");
    file.write_all(b" and half").expect("the other half");
    drop(file);
    eventually("it ticks", || followed.changes.has_changed().expect("a watcher"));
    let answer = writing.answer(&path, "user").expect("it is whole");
    assert_eq!(answer.password.expose(), "half and half");
}
