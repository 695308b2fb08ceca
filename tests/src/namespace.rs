//! A network namespace of a test's own, connected to this one by a pair of virtual interfaces.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::process::{Command, Output};

use crate::leash::Leash;
use crate::port::random;

/// Name of the interface inside of the namespace.
const INNER: &str = "inside";

/// A network namespace with one address. It is removed when dropped, and when the test is killed.
pub struct Namespace {
    name: String,
    outer: String,
    /// The address inside of the namespace.
    pub inside: Ipv4Addr,
    /// The address of this side, as seen from inside.
    pub outside: Ipv4Addr,
    _leash: Leash,
}

impl Namespace {
    /// Makes a namespace with two addresses of 198.18.0.0/16, which RFC 2544 reserves for
    /// benchmarks and no network routes.
    ///
    /// # Panics
    /// When this user may not make a namespace.
    #[must_use]
    pub fn new() -> Self {
        let mut last = String::new();
        for _ in 0..20 {
            let (third, fourth) = (random(256), 4 * random(64));
            let name = format!("pgimbal-{third}-{fourth}");
            let made = ip(&["netns", "add", &name]);
            if !made.status.success() {
                // Most likely another test has it: the name is the lock of its addresses.
                last = String::from_utf8_lossy(&made.stderr).into_owned();
                continue;
            }
            return Self::connect(name, third, fourth);
        }
        panic!("no network namespace can be made, which takes root and iproute2: {last}");
    }

    fn connect(name: String, third: u8, fourth: u8) -> Self {
        let outer = format!("pgi-{third}-{fourth}");
        let script = "ip link del \"$1\"; ip netns del \"$0\"";
        let leash = Leash::start(script, [&name, &outer]);
        let outside = Ipv4Addr::new(198, 18, third, fourth + 1);
        let inside = Ipv4Addr::new(198, 18, third, fourth + 2);
        let namespace = Self { name, outer, inside, outside, _leash: leash };
        let (name, outer) = (namespace.name.as_str(), namespace.outer.as_str());
        must(&["link", "add", outer, "type", "veth", "peer", "name", INNER, "netns", name]);
        must(&["addr", "add", &format!("{outside}/30"), "dev", outer]);
        must(&["link", "set", outer, "up"]);
        must(&["-n", name, "addr", "add", &format!("{inside}/30"), "dev", INNER]);
        must(&["-n", name, "link", "set", INNER, "up"]);
        must(&["-n", name, "link", "set", "lo", "up"]);
        // The neighbour is known for good: a cut must be silence, not "no route to host".
        let link = must(&["-n", name, "-o", "link", "show", INNER]);
        let mac = link.split_whitespace().skip_while(|word| *word != "link/ether").nth(1);
        let mac = mac.expect("a hardware address");
        let to = inside.to_string();
        must(&["neigh", "replace", &to, "lladdr", mac, "dev", outer, "nud", "permanent"]);
        namespace
    }

    /// `command` run inside of the namespace, in the same working directory.
    #[must_use]
    pub fn command(&self, command: &Command) -> Command {
        let mut entered = Command::new("nsenter");
        let mut network = OsString::from("--net=/run/netns/");
        network.push(&self.name);
        entered.arg(network).arg("--").arg(command.get_program()).args(command.get_args());
        if let Some(directory) = command.get_current_dir() {
            entered.current_dir(directory);
        }
        entered
    }

    /// Drops every packet from now on. No socket is closed, and neither side is notified.
    pub fn cut(&self) {
        must(&["-n", &self.name, "link", "set", INNER, "down"]);
    }

    /// Lets packets pass again after [`Namespace::cut`].
    pub fn reconnect(&self) {
        must(&["-n", &self.name, "link", "set", INNER, "up"]);
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The namespace lives on without its name as long as a process in it does; the link
        // goes at once.
        let _ = ip(&["link", "del", &self.outer]);
        let _ = ip(&["netns", "del", &self.name]);
    }
}

/// `ip` with `arguments`, through sudo for whoever is not root.
fn ip(arguments: &[&str]) -> Output {
    let mut command = Command::new("ip");
    if !rustix::process::geteuid().is_root() {
        command = Command::new("sudo");
        command.args(["-n", "ip"]);
    }
    command.args(arguments).output().expect("ip, of the package iproute2")
}

fn must(arguments: &[&str]) -> String {
    let output = ip(arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
