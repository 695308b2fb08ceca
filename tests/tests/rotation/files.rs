//! Passwords from files, as Kubernetes mounts them: changes are seen without a poll, and what is
//! half there never replaces what works.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::process::{Directory, directory};
use pgimbal_tests::until::{SOON, always, eventually};
use pgimbal_tests::{Pgimbal, Postgres};

use super::{accepted, eventually_accepted, refused, shop};

fn server(password: &str) -> Postgres {
    let pg = Postgres::start();
    pg.run(&format!("create role shop login password '{password}'"));
    pg
}

fn change(pg: &Postgres, password: &str) {
    pg.run(&format!("alter role shop password '{password}'"));
}

fn config(pg: &Postgres, place: &Path) -> Config {
    let config = Config::before(pg).set("auth_type", "\"scram-sha-256\"");
    config.tables(&format!("[users.shop]\npassword_file = \"{}\"\n", place.display()))
}

fn works(proxy: &Pgimbal, password: &str) {
    assert_eq!(proxy.log_in(&shop(password)).value("select current_user"), "shop");
}

/// A mount as kubelet writes it: files are links into `..data`, a link that is replaced whole.
struct Mount {
    directory: Directory,
    version: u32,
}

impl Mount {
    fn new(files: &[(&str, &str)]) -> Self {
        let mut mount = Self { directory: directory("mount"), version: 0 };
        mount.write(files);
        for (name, _) in files {
            symlink(Path::new("..data").join(name), mount.directory.join(name)).expect("a link");
        }
        mount
    }

    /// Writes a new version beside the old one and swaps `..data` to it.
    fn write(&mut self, files: &[(&str, &str)]) {
        self.version += 1;
        let version = format!("..2026_version_{}", self.version);
        let inside = self.directory.join(&version);
        fs::create_dir(&inside).expect("a directory");
        for (name, text) in files {
            fs::write(inside.join(name), text).expect("a file");
        }
        let old = fs::read_link(self.directory.join("..data"));
        symlink(&version, self.directory.join("..data_tmp")).expect("a link");
        fs::rename(self.directory.join("..data_tmp"), self.directory.join("..data"))
            .expect("the swap");
        if let Ok(old) = old {
            fs::remove_dir_all(self.directory.join(old)).expect("the old version goes");
        }
    }
}

#[test]
fn rotation_1_a_kubernetes_mount_that_is_swapped() {
    let pg = server("first");
    let mut mount = Mount::new(&[("username", "shop"), ("password", "first")]);
    let proxy = config(&pg, &mount.directory).set("grace_generations", 5).start();
    works(&proxy, "first");
    for (number, next) in ["second", "third", "fourth"].into_iter().enumerate() {
        change(&pg, next);
        let start = Instant::now();
        mount.write(&[("username", "shop"), ("password", next)]);
        eventually_accepted(&proxy, number + 2);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        pg.end_backends();
        works(&proxy, next);
        works(&proxy, "first");
    }
    assert_eq!(pg.logged("password authentication failed"), 0);
}

#[test]
fn rotation_1_every_form_that_tools_write() {
    let pg = server("first");
    let port = pg.port;
    let forms: [(&str, String); 4] = [
        ("password", "first\n".to_owned()),
        (".pgpass", format!("127.0.0.1:{port}:app:shop:first\n")),
        ("pgpass", "*:*:*:shop:first\n".to_owned()),
        ("uri", format!("postgresql://shop:first@127.0.0.1:{port}/app")),
    ];
    for (name, text) in forms {
        let folder = directory("form");
        fs::write(folder.join(name), &text).expect("a file");
        for place in [folder.to_path_buf(), folder.join(name)] {
            let proxy = config(&pg, &place).start();
            works(&proxy, "first");
        }
    }
}

#[test]
fn a_rule_gives_each_user_a_file_of_its_own() {
    let pg = server("shop-password");
    pg.run("create role ship login password 'ship-password'");
    let folder = directory("users");
    for user in ["shop", "ship"] {
        fs::write(folder.join(user), format!("{user}-password")).expect("a file");
    }
    let config = Config::before(&pg).set("auth_type", "\"scram-sha-256\"");
    let rule = format!("[users.\"*\"]\npassword_file = \"{}/{{user}}\"\n", folder.display());
    let proxy = config.tables(&rule).start();
    for user in ["shop", "ship"] {
        let login = pgimbal_tests::Login::new(user, "app", &format!("{user}-password"));
        assert_eq!(proxy.log_in(&login).value("select current_user"), user);
    }
    fs::write(folder.join("token"), "shop-password").expect("a file");
    fs::write(folder.join("tls.key"), "shop-password").expect("a file");
    for user in ["nobody", "..", "../users/shop", "token", "tls.key"] {
        let login = pgimbal_tests::Login::new(user, "app", "shop-password");
        assert_eq!(refused(&proxy, &login).code, "28P01", "{user}");
    }
    let proxy = Config::before(&pg)
        .set("auth_type", "\"scram-sha-256\"")
        .tables(&format!("{rule}names = [\"*op\"]\n"))
        .start();
    let login = |user: &str| pgimbal_tests::Login::new(user, "app", &format!("{user}-password"));
    assert_eq!(proxy.log_in(&login("shop")).value("select current_user"), "shop");
    assert_eq!(refused(&proxy, &login("ship")).code, "28P01");
}

#[test]
fn bad_files_leave_the_last_good_password() {
    let pg = server("first");
    let folder = directory("bad");
    let write = |text: &str| fs::write(folder.join("password"), text).expect("a file");
    write("first");
    let proxy = config(&pg, &folder).start();
    works(&proxy, "first");
    let told = |word: &str| {
        let path = folder.display().to_string();
        proxy.log().lines().any(|line| line.contains(&path) && line.contains(word))
    };
    let goes_on = || {
        pg.end_backends();
        works(&proxy, "first");
        assert_eq!(accepted(&proxy, "shop"), 1);
    };
    write("");
    eventually("an empty file is named", SOON, || told("password"));
    goes_on();
    write(&"x".repeat(200_000));
    eventually("a file that is too large is named", SOON, || told("larger"));
    goes_on();
    fs::remove_file(folder.join("password")).expect("it goes");
    eventually("a missing file is named", SOON, || told("no such file"));
    goes_on();
    fs::create_dir(folder.join("password")).expect("a directory");
    eventually("an unreadable file is named", SOON, || told("cannot be read"));
    goes_on();
    fs::remove_dir(folder.join("password")).expect("it goes");
    change(&pg, "second");
    write("second");
    eventually_accepted(&proxy, 2);
    pg.end_backends();
    works(&proxy, "second");
    always("nothing else is made of it", Duration::from_millis(300), || {
        accepted(&proxy, "shop") == 2
    });
}

#[test]
fn a_password_from_the_environment() {
    let pg = server("from-the-environment");
    let config = Config::before(&pg).set("auth_type", "\"scram-sha-256\"");
    let config = config.tables("[users.shop]\npassword_env = \"SHOP_PASSWORD\"\n");
    let proxy = config.through(&["env", "SHOP_PASSWORD=from-the-environment"]).start();
    works(&proxy, "from-the-environment");
    assert!(!proxy.log().contains("from-the-environment"));
}

#[test]
fn a_reload_that_names_another_file_reads_it_at_once() {
    let pg = server("first");
    let folder = directory("places");
    let (one, two) = (folder.join("one"), folder.join("two"));
    fs::write(&one, "first").expect("a file");
    fs::write(&two, "second").expect("a file");
    let mut proxy = config(&pg, &one).start();
    works(&proxy, "first");
    change(&pg, "second");
    proxy.reload(config(&pg, &two));
    eventually_accepted(&proxy, 2);
    works(&proxy, "first");
    works(&proxy, "second");
}

#[test]
fn a_change_right_before_a_reload_is_seen() {
    let pg = server("first");
    let folder = directory("right-before");
    let place = folder.join("password");
    fs::write(&place, "first").expect("a file");
    let config = config(&pg, &place).set("grace_generations", 9);
    let mut proxy = config.clone().start();
    works(&proxy, "first");
    for (number, next) in ["second", "third", "fourth"].into_iter().enumerate() {
        fs::write(&place, next).expect("a file");
        // While its directory is written to, a change counts as unfinished and is not read yet.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let start = Instant::now();
                while start.elapsed() < Duration::from_millis(250) {
                    fs::write(folder.join("busy"), "").expect("a file");
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
            proxy.reload(config.clone());
        });
        eventually_accepted(&proxy, number + 2);
    }
}

#[test]
fn rotation_26_a_file_that_is_written_in_two_halves() {
    let pg = server("first");
    let folder = directory("halves");
    let place = folder.join("password");
    fs::write(&place, "first").expect("a file");
    let proxy = config(&pg, &place).start();
    works(&proxy, "first");
    let mut file = fs::File::create(&place).expect("a file");
    file.write_all(b"second-").expect("a half");
    file.sync_all().expect("it is there");
    // Whoever shows the half has the file read, and so does whoever shows the old password.
    for _ in 0..2 {
        assert_eq!(refused(&proxy, &shop("second-")).code, "28P01");
        works(&proxy, "first");
    }
    always("the half is not believed", Duration::from_secs(2), || accepted(&proxy, "shop") == 1);
    file.write_all(b"half").expect("the other half");
    drop(file);
    change(&pg, "second-half");
    eventually_accepted(&proxy, 2);
    pg.end_backends();
    works(&proxy, "second-half");
    assert_eq!(pg.logged("password authentication failed"), 0);
}
