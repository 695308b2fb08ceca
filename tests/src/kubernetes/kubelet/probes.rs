//! The probes of a container, in a thread of their own while it runs.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::container::Container;

/// What the probes have found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// Whether it has started; without a startup probe it has.
    pub(super) has_started: bool,
    /// Whether it is ready; without a readiness probe it is once it has started.
    pub(super) is_ready: bool,
    /// Whether the startup or the liveness probe has given it up.
    pub(super) has_failed: bool,
}

/// The probes of one container. Dropping it ends them.
pub(super) struct Probes {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    health: Mutex<Health>,
    /// A container that is ended is not asked whether it lives.
    is_ending: AtomicBool,
    is_over: AtomicBool,
}

/// One probe of the three.
struct Probe {
    specification: Value,
    ways: Way,
    due: Instant,
    successes: u64,
    failures: u64,
}

enum Way {
    Http { address: SocketAddr, path: String },
    Tcp(SocketAddr),
    Exec(Arc<Mutex<Container>>, Vec<String>),
}

impl Probes {
    /// Begins to ask the container, which has this address.
    ///
    /// # Panics
    /// When a probe is of a kind that this kubelet does not know.
    #[must_use]
    pub(super) fn start(
        specification: &Value,
        address: Ipv4Addr,
        own: &Arc<Mutex<Container>>,
    ) -> Self {
        let probe = |key: &str| Probe::of(specification, key, address, own);
        let probes = ["startupProbe", "readinessProbe", "livenessProbe"].map(probe);
        let shared = Arc::new(Shared {
            health: Mutex::default(),
            is_ending: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        });
        let its = Arc::clone(&shared);
        let thread = std::thread::spawn(move || its.run(probes));
        Self { shared, thread: Some(thread) }
    }

    /// What they have found.
    #[must_use]
    pub(super) fn health(&self) -> Health {
        *self.shared.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the container is being ended.
    pub(super) fn say_it_ends(&self) {
        self.shared.is_ending.store(true, Ordering::Relaxed);
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, [mut startup, mut readiness, mut liveness]: [Option<Probe>; 3]) {
        while !self.is_over.load(Ordering::Relaxed) {
            let mut health = *self.health.lock().unwrap_or_else(PoisonError::into_inner);
            match startup.as_mut().filter(|_| !health.has_started) {
                Some(probe) => match probe.ask() {
                    Some(true) => health.has_started = true,
                    Some(false) => health.has_failed = true,
                    None => {}
                },
                None => health.has_started = true,
            }
            if health.has_started {
                match &mut readiness {
                    Some(probe) => health.is_ready = probe.ask().unwrap_or(health.is_ready),
                    None => health.is_ready = true,
                }
                let asked = liveness.as_mut().filter(|_| !self.is_ending.load(Ordering::Relaxed));
                health.has_failed |= asked.and_then(Probe::ask) == Some(false);
            }
            *self.health.lock().unwrap_or_else(PoisonError::into_inner) = health;
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Probe {
    fn of(
        container: &Value,
        key: &str,
        address: Ipv4Addr,
        own: &Arc<Mutex<Container>>,
    ) -> Option<Self> {
        let specification = container.get(key)?.clone();
        let at = |port: &Value| SocketAddr::from((address, port_of(container, port)));
        let ways = if let Some(http) = specification.get("httpGet") {
            assert_eq!(http["scheme"].as_str().unwrap_or("HTTP"), "HTTP", "{specification}");
            let path = http["path"].as_str().unwrap_or("/").to_owned();
            Way::Http { address: at(&http["port"]), path }
        } else if let Some(tcp) = specification.get("tcpSocket") {
            Way::Tcp(at(&tcp["port"]))
        } else if let Some(exec) = specification.get("exec") {
            let words = exec["command"].as_array().into_iter().flatten();
            let words = words.map(|word| word.as_str().expect("a text").to_owned());
            Way::Exec(Arc::clone(own), words.collect())
        } else {
            panic!("this kubelet does not know this probe: {specification}")
        };
        let delay = specification["initialDelaySeconds"].as_u64().unwrap_or(0);
        let due = Instant::now() + Duration::from_secs(delay);
        Some(Self { specification, ways, due, successes: 0, failures: 0 })
    }

    fn number(&self, key: &str, default: u64) -> u64 {
        self.specification[key].as_u64().unwrap_or(default)
    }

    /// Asks when that is due. Returns what counts by now, and `None` while that has not changed.
    fn ask(&mut self) -> Option<bool> {
        if Instant::now() < self.due {
            return None;
        }
        self.due = Instant::now() + Duration::from_secs(self.number("periodSeconds", 10));
        let limit = Duration::from_secs(self.number("timeoutSeconds", 1));
        if self.ways.works(limit) {
            (self.successes, self.failures) = (self.successes + 1, 0);
            return (self.successes >= self.number("successThreshold", 1)).then_some(true);
        }
        (self.successes, self.failures) = (0, self.failures + 1);
        (self.failures >= self.number("failureThreshold", 3)).then_some(false)
    }
}

impl Way {
    fn works(&self, limit: Duration) -> bool {
        match self {
            Self::Http { address, path } => get(*address, path, limit).unwrap_or(false),
            Self::Tcp(address) => TcpStream::connect_timeout(address, limit).is_ok(),
            Self::Exec(container, words) => {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let mut command =
                    container.lock().unwrap_or_else(PoisonError::into_inner).exec(&words);
                let started = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
                let Ok(mut child) = started else { return false };
                let end = Instant::now() + limit;
                while Instant::now() < end {
                    if let Ok(Some(status)) = child.try_wait() {
                        return status.success();
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
                let _ = child.kill();
                let _ = child.wait();
                false
            }
        }
    }
}

/// Whether the answer is a good one: 2xx or 3xx, within `limit`.
fn get(address: SocketAddr, path: &str, limit: Duration) -> std::io::Result<bool> {
    let end = Instant::now() + limit;
    let mut socket = TcpStream::connect_timeout(&address, limit)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes())?;
    let mut head = [0; 12];
    let mut read = 0;
    while read < head.len() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(&mut head[read..])? {
            0 => return Ok(false),
            count => read += count,
        }
    }
    Ok(matches!(&head[9..10], b"2" | b"3"))
}

/// A port of a container by number or by name.
pub(super) fn port_of(container: &Value, port: &Value) -> u16 {
    let number = match port.as_str() {
        Some(name) => {
            let mut ports = container["ports"].as_array().into_iter().flatten();
            let port = ports.find(|port| port["name"] == name);
            port.and_then(|port| port["containerPort"].as_u64())
        }
        None => port.as_u64(),
    };
    number.and_then(|number| u16::try_from(number).ok()).expect("a port of the container")
}
