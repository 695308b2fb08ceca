//! The network of a Kubernetes on one machine: a bridge of the test's own, on which every pod has
//! an address, and every Service.

use std::net::Ipv4Addr;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU8, Ordering};

use crate::leash::Leash;
use crate::port::random;

/// A pod's interface inside of its network namespace.
const INNER: &str = "eth0";

/// The last byte of the first address that a pod may get. Those before it are the machine's.
const FIRST_POD: u8 = 32;

/// A bridge of this machine with a range of addresses for pods and one for Services. It goes when
/// this is dropped, with the namespaces that are left, and when the test is killed.
pub struct Network {
    bridge: String,
    second: u8,
    third: u8,
    next: AtomicU8,
    _leash: Leash,
}

/// A pod's network namespace. Dropping it removes it.
pub struct PodNetwork {
    /// The namespace's name, a file in `/run/netns`.
    pub name: String,
    /// The pod's address.
    pub address: Ipv4Addr,
}

impl Network {
    /// Makes a bridge with two ranges of 10.0.0.0/8 that no other test has at this moment.
    ///
    /// # Panics
    /// When this user is not root, or there is no iproute2.
    #[must_use]
    pub fn new() -> Self {
        let mut last = String::new();
        for _ in 0..20 {
            let (second, third) = (64 + random(128), 2 * random(128));
            let bridge = format!("pgk-{second}-{third}");
            // The name of the bridge is the lock of its addresses.
            // A hardware address that is said stays: otherwise it is a port's, another one after
            // each pod, and the pods that know the one of before reach nobody for a while.
            let own = format!("02:00:0a:{second:02x}:{third:02x}:01");
            let made = ip(&["link", "add", &bridge, "address", &own, "type", "bridge"]);
            if !made.status.success() {
                last = String::from_utf8_lossy(&made.stderr).into_owned();
                continue;
            }
            let script = "for name in $(ip netns list | cut -d' ' -f1); do \
                          case $name in \"$0\"-*) ip netns del \"$name\";; esac; done; \
                          ip link del \"$0\"";
            let leash = Leash::start(script, [&bridge]);
            let next = AtomicU8::new(FIRST_POD);
            let network = Self { bridge, second, third, next, _leash: leash };
            must(&["addr", "add", &format!("{}/24", network.machine()), "dev", &network.bridge]);
            must(&["link", "set", &network.bridge, "up"]);
            return network;
        }
        panic!("no bridge can be made, which takes root and iproute2: {last}");
    }

    fn address(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.second, self.third, last)
    }

    /// The machine's own address on the bridge, which pods reach.
    #[must_use]
    pub fn machine(&self) -> Ipv4Addr {
        self.address(1)
    }

    /// The addresses of Services, as `--service-cluster-ip-range`.
    #[must_use]
    pub fn services(&self) -> String {
        format!("10.{}.{}.0/24", self.second, self.third + 1)
    }

    /// The first address of Services, which the API server has.
    #[must_use]
    pub fn api_server(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.second, self.third + 1, 1)
    }

    /// One more address of the machine on the bridge, for a server that pods reach; `number` is
    /// from 0 to 29.
    ///
    /// # Panics
    /// When the number is greater.
    #[must_use]
    pub fn further(&self, number: u8) -> Ipv4Addr {
        assert!(number < FIRST_POD - 2, "{number} is a pod's");
        let address = self.address(2 + number);
        self.add(address);
        address
    }

    /// Makes `address` one of the machine's, as kube-proxy does for a Service.
    ///
    /// # Panics
    /// When it is one already.
    pub fn add(&self, address: Ipv4Addr) {
        must(&["addr", "add", &format!("{address}/32"), "dev", &self.bridge]);
    }

    /// Takes an address away from the machine again.
    pub fn remove(&self, address: Ipv4Addr) {
        let _ = ip(&["addr", "del", &format!("{address}/32"), "dev", &self.bridge]);
    }

    /// Makes the network namespace of a pod. Addresses are not given twice before 200 pods more.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn pod(&self) -> PodNetwork {
        let next = |last: u8| Some(if last >= 250 { FIRST_POD } else { last + 1 });
        let last = self.next.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
        let last = last.expect("a number");
        let (name, outer) = (format!("{}-{last}", self.bridge), format!("{}-{last}", self.bridge));
        must(&["netns", "add", &name]);
        let pod = PodNetwork { name, address: self.address(last) };
        let name = pod.name.as_str();
        must(&["link", "add", &outer, "type", "veth", "peer", "name", INNER, "netns", name]);
        must(&["link", "set", &outer, "master", &self.bridge, "up"]);
        must(&["-n", name, "addr", "add", &format!("{}/24", pod.address), "dev", INNER]);
        must(&["-n", name, "link", "set", INNER, "up"]);
        must(&["-n", name, "link", "set", "lo", "up"]);
        let machine = self.machine().to_string();
        must(&["-n", name, "route", "add", "default", "via", &machine]);
        pod
    }

    /// The names of the namespaces that are there.
    #[must_use]
    pub fn namespaces(&self) -> Vec<String> {
        let prefix = format!("{}-", self.bridge);
        let names = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with(&prefix)).collect()
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in self.namespaces() {
            let _ = ip(&["netns", "del", &name]);
        }
        let _ = ip(&["link", "del", &self.bridge]);
    }
}

impl Drop for PodNetwork {
    fn drop(&mut self) {
        // The pair of interfaces goes with the namespace; its address is free at once.
        let _ = ip(&["-n", &self.name, "link", "del", INNER]);
        let _ = ip(&["netns", "del", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> Output {
    Command::new("ip").args(arguments).output().expect("ip, of the package iproute2")
}

fn must(arguments: &[&str]) {
    let output = ip(arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments:?}: {error}");
}
