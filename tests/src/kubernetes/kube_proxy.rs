//! kube-proxy: every Service is an address of this machine, where an HAProxy sends each connection
//! to an endpoint by chance. It learns of a change one to three seconds late, as on a large cluster.
//!
//! It knows no health of its own, and leaves connections alone whose endpoint is gone.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::api::Api;
use super::network::Network;
use super::watch::{Key, Watch};
use crate::port::free_port;
use crate::process::{Directory, Process, directory};
use crate::until::SOON;

/// Endpoints that a port of a Service may have at a time; pods that drain keep theirs.
const PLACES: usize = 24;

/// A running kube-proxy. Dropping it ends every connection through it.
pub struct KubeProxy {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    services: Watch,
    slices: Watch,
    network: Arc<Network>,
    /// The port of 127.0.0.1 for each port of a Service.
    local: Mutex<BTreeMap<(Key, u16), u16>>,
    is_over: AtomicBool,
}

/// A Service with its HAProxy.
struct Proxied {
    balancer: Balancer,
    /// What it sends to now, for each port.
    applied: Endpoints,
    /// What it shall send to, and from when on.
    pending: Option<(Endpoints, Instant)>,
}

/// The endpoints for each port of a Service.
type Endpoints = BTreeMap<u16, Vec<SocketAddrV4>>;

impl KubeProxy {
    /// Begins to serve all Services that have an address. `seed` decides how late each change is
    /// seen.
    #[must_use]
    pub fn start(api: &Api, network: &Arc<Network>, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            services: Watch::of(api, "/api/v1/services"),
            slices: Watch::of(api, "/apis/discovery.k8s.io/v1/endpointslices"),
            network: Arc::clone(network),
            local: Mutex::default(),
            is_over: AtomicBool::new(false),
        });
        let own = Arc::clone(&shared);
        let thread = Some(std::thread::spawn(move || own.run(seed)));
        Self { shared, thread }
    }

    /// A port of 127.0.0.1 that leads to this port of a Service; `None` while it is not served.
    #[must_use]
    pub fn local_port(&self, namespace: &str, service: &str, port: u16) -> Option<u16> {
        let local = self.shared.local.lock().unwrap_or_else(PoisonError::into_inner);
        local.get(&((namespace.to_owned(), service.to_owned()), port)).copied()
    }
}

impl Drop for KubeProxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, mut seed: u64) {
        let mut proxied: BTreeMap<Key, Proxied> = BTreeMap::new();
        while !self.is_over.load(Ordering::Relaxed) {
            let (services, slices) = (self.services.all(), self.slices.all());
            let gone: Vec<Key> =
                proxied.keys().filter(|key| !services.contains_key(*key)).cloned().collect();
            for key in gone {
                if let Some(it) = proxied.remove(&key) {
                    self.network.remove(it.balancer.address);
                    self.publish(&key, &BTreeMap::new());
                }
            }
            for (key, service) in &services {
                let Some(address) = cluster_address(service) else { continue };
                let it = proxied.entry(key.clone()).or_insert_with(|| {
                    self.network.add(address);
                    let balancer = Balancer::start(address, &ports(service));
                    self.publish(key, &balancer.local);
                    Proxied { balancer, applied: Endpoints::new(), pending: None }
                });
                it.follow(endpoints(service, key, &slices), &mut seed);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        for it in proxied.values() {
            self.network.remove(it.balancer.address);
        }
    }

    /// Says at which ports of 127.0.0.1 the Service is reached.
    fn publish(&self, key: &Key, ports: &BTreeMap<u16, u16>) {
        let mut local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        local.retain(|(service, _), _| service != key);
        local.extend(ports.iter().map(|(port, own)| ((key.clone(), *port), *own)));
    }
}

impl Proxied {
    /// Takes the endpoints over when they have been known for long enough.
    fn follow(&mut self, endpoints: Endpoints, seed: &mut u64) {
        if let Some((next, due)) = &self.pending
            && Instant::now() >= *due
        {
            for (port, to) in next {
                self.balancer.send_to(*port, to);
            }
            self.applied = next.clone();
            self.pending = None;
        }
        let last = self.pending.as_ref().map_or(&self.applied, |(next, _)| next);
        if *last != endpoints {
            *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let late = Duration::from_millis(1000 + (*seed >> 33) % 2000);
            // Further changes go with the one that is on its way.
            let due = self.pending.as_ref().map_or(Instant::now() + late, |(_, due)| *due);
            self.pending = Some((endpoints, due));
        }
    }
}

/// The Service's address; `None` for a headless one.
fn cluster_address(service: &Value) -> Option<Ipv4Addr> {
    service["spec"]["clusterIP"].as_str()?.parse().ok()
}

fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok())
}

fn ports(service: &Value) -> Vec<u16> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    ports.filter_map(|port| number(&port["port"])).collect()
}

/// Where each port of the Service leads: to its ready endpoints, else to those that still serve
/// while they end.
fn endpoints(service: &Value, key: &Key, slices: &BTreeMap<Key, Value>) -> Endpoints {
    let own = |slice: &&Value| {
        slice["metadata"]["namespace"] == *key.0
            && slice["metadata"]["labels"]["kubernetes.io/service-name"] == *key.1
    };
    let mut all = Endpoints::new();
    for port in service["spec"]["ports"].as_array().into_iter().flatten() {
        let Some(outer) = number(&port["port"]) else { continue };
        let (mut ready, mut ending) = (Vec::new(), Vec::new());
        for slice in slices.values().filter(own) {
            let mut inner = slice["ports"].as_array().into_iter().flatten();
            // A port without a name is an empty one here and none there.
            let name = |port: &Value| port["name"].as_str().unwrap_or_default().to_owned();
            let inner = inner.find(|it| name(it) == name(port)).and_then(|it| number(&it["port"]));
            let Some(inner) = inner else { continue };
            for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
                let Some(Ok(ip)) = endpoint["addresses"][0].as_str().map(str::parse) else {
                    continue;
                };
                let conditions = &endpoint["conditions"];
                if conditions["ready"] != false {
                    ready.push(SocketAddrV4::new(ip, inner));
                } else if conditions["serving"] == true {
                    ending.push(SocketAddrV4::new(ip, inner));
                }
            }
        }
        let mut chosen = if ready.is_empty() { ending } else { ready };
        chosen.sort();
        all.insert(outer, chosen);
    }
    all
}

/// An HAProxy at the address of a Service.
struct Balancer {
    address: Ipv4Addr,
    local: BTreeMap<u16, u16>,
    directory: Directory,
    _process: Process,
    /// Who has which place, for each port.
    places: BTreeMap<u16, [Option<SocketAddrV4>; PLACES]>,
}

impl Balancer {
    fn start(address: Ipv4Addr, ports: &[u16]) -> Self {
        let directory = directory("service");
        let local: BTreeMap<u16, u16> = ports.iter().map(|port| (*port, free_port())).collect();
        let mut text = format!(
            "global\n    stats socket {} level admin\n    maxconn 4000\n\
             defaults\n    mode tcp\n    timeout connect 3s\n    timeout client 1h\n    \
             timeout server 1h\n    retries 0\n",
            directory.join("stats").display()
        );
        for (port, own) in &local {
            text.push_str(&format!(
                "listen port{port}\n    bind {address}:{port}\n    bind 127.0.0.1:{own}\n    \
                 balance random(1)\n    server-template s 1-{PLACES} 127.0.0.1:1 disabled\n"
            ));
        }
        let file = directory.join("haproxy.cfg");
        std::fs::write(&file, text).expect("a configuration");
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&file);
        let mut process = Process::start(command, &directory, Signal::KILL);
        let own: Vec<u16> = local.values().copied().collect();
        process.wait_until_it_listens("haproxy", &own);
        let places = local.keys().map(|port| (*port, [None; PLACES])).collect();
        Self { address, local, directory, _process: process, places }
    }

    /// Sends new connections of `port` to these endpoints alone.
    fn send_to(&mut self, port: u16, endpoints: &[SocketAddrV4]) {
        let places = self.places.get_mut(&port).expect("a port of the Service");
        let mut commands = Vec::new();
        for (place, holder) in places.iter_mut().enumerate() {
            if holder.is_some_and(|holder| !endpoints.contains(&holder)) {
                *holder = None;
                // Its connections stay.
                commands.push(format!("set server port{port}/s{} state maint", place + 1));
            }
        }
        for endpoint in endpoints {
            if places.contains(&Some(*endpoint)) {
                continue;
            }
            let place = places.iter().position(Option::is_none).expect("a free place");
            places[place] = Some(*endpoint);
            let (name, to) = (format!("port{port}/s{}", place + 1), endpoint);
            commands.push(format!("set server {name} addr {} port {}", to.ip(), to.port()));
            commands.push(format!("set server {name} state ready"));
        }
        if !commands.is_empty() {
            self.command(&commands.join(";"));
        }
    }

    fn command(&self, commands: &str) {
        let mut socket =
            UnixStream::connect(self.directory.join("stats")).expect("HAProxy's socket");
        socket.set_read_timeout(Some(SOON)).expect("a limit");
        socket.write_all(format!("{commands}\n").as_bytes()).expect("a command");
        let mut answer = String::new();
        let _ = socket.read_to_string(&mut answer);
        let is_fine = |line: &str| line.trim().is_empty() || line.contains("changed from");
        assert!(answer.lines().all(is_fine), "{commands}: {answer}");
    }
}
