//! Limits of connections that have not logged in yet, and of HTTP connections.
//!
//! A client that is not logged in costs a socket and memory before it has proved anything, so such
//! connections have limits of their own. Beyond a limit the oldest connection is closed, because a
//! login takes a moment and only a silent client stays.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgimbal_config::ClientConfig;
use tokio::sync::oneshot;

/// The source of a connection, to which limits for one address apply: an IPv4 address, or the /64
/// of an IPv6 address, whose other bits its owner can choose. `None` is a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subnet(Option<IpAddr>);

impl Subnet {
    /// The subnet of `address`; `None` for a Unix socket. An IPv4-mapped IPv6 address counts as
    /// IPv4.
    #[must_use]
    pub fn of(address: Option<IpAddr>) -> Self {
        const HOST_BITS: u32 = 64;
        Self(address.map(|address| match address.to_canonical() {
            IpAddr::V6(six) => IpAddr::V6((six.to_bits() >> HOST_BITS << HOST_BITS).into()),
            four => four,
        }))
    }

    /// Whether the source is an address of a network, to which limits for one address apply;
    /// `false` for a Unix socket, which only the limits of all concern.
    #[must_use]
    pub const fn is_network(self) -> bool {
        self.0.is_some()
    }
}

/// The kind of connection that a client has, with its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP connection from this address, which a PROXY header may have named.
    Tcp(SocketAddr),
    /// A Unix socket; TLS is neither offered nor demanded.
    Unix,
}

impl Peer {
    /// The source for which limits for each address count this client: the IPv4 address or IPv6
    /// /64, or the Unix socket.
    #[must_use]
    pub fn subnet(self) -> Subnet {
        match self {
            Self::Tcp(address) => Subnet::of(Some(address.ip())),
            Self::Unix => Subnet::of(None),
        }
    }
}

/// Limits of the clients that have not logged in yet: `max_login_conn` and
/// `max_login_conn_per_address`, or fewer when file descriptors are short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingLoginLimits {
    /// Limit of all connections together.
    pub all: usize,
    /// Limit of the connections from one [`Subnet`].
    pub one_address: usize,
}

impl From<&ClientConfig> for PendingLoginLimits {
    fn from(clients: &ClientConfig) -> Self {
        Self {
            all: clients.login_conn() as usize,
            one_address: clients.login_conn_per_address() as usize,
        }
    }
}

/// The connections that have not logged in yet, with their limits.
#[derive(Debug)]
pub struct PendingLogins(Mutex<Waiting>);

#[derive(Debug)]
struct Waiting {
    limits: PendingLoginLimits,
    next: u64,
    /// The oldest first.
    all: BTreeMap<u64, (Subnet, oneshot::Sender<()>)>,
    by_subnet: HashMap<Subnet, BTreeSet<u64>>,
}

/// A connection that counts towards the limits until it is dropped.
#[derive(Debug)]
pub struct PendingLogin {
    pending: Arc<PendingLogins>,
    number: u64,
    evicted: oneshot::Receiver<()>,
}

/// A handle to a [`PendingLogin`], for the task that learns the client's address later.
#[derive(Debug)]
pub struct PendingLoginHandle {
    pending: Arc<PendingLogins>,
    number: u64,
}

impl PendingLogins {
    /// Makes an empty set with these limits. pgimbal has one for clients that have not logged in,
    /// and one for HTTP connections.
    #[must_use]
    pub fn new(limits: PendingLoginLimits) -> Arc<Self> {
        let waiting = Waiting { limits, next: 0, all: BTreeMap::new(), by_subnet: HashMap::new() };
        Arc::new(Self(Mutex::new(waiting)))
    }

    /// Sets the limits after a reload. The oldest connections beyond the new limit of all are
    /// evicted; a lower limit of one address takes effect with its next connection.
    pub fn set_limits(&self, limits: PendingLoginLimits) {
        let mut waiting = self.waiting();
        waiting.limits = limits;
        while waiting.all.len() > limits.all {
            waiting.evict_oldest();
        }
    }

    /// Adds a connection, which counts until the result is dropped. If a limit is exceeded, the
    /// oldest connection of its address, or the oldest of all, is evicted; with a limit of 0 that
    /// is the new one itself. Unix sockets have no limit of their own.
    #[must_use]
    pub fn add(self: &Arc<Self>, from: Subnet) -> PendingLogin {
        let (evict, evicted) = oneshot::channel();
        let mut waiting = self.waiting();
        let number = waiting.next;
        waiting.next += 1;
        waiting.insert(number, from, evict);
        if waiting.all.len() > waiting.limits.all {
            waiting.evict_oldest();
        }
        drop(waiting);
        PendingLogin { pending: Arc::clone(self), number, evicted }
    }

    /// Number of connections that count towards the limits now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting().all.len()
    }

    /// Whether no connection counts towards the limits now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Locks the state. Every change under the lock is complete, so that a panic elsewhere does not
    /// matter.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn insert(&mut self, number: u64, from: Subnet, evict: oneshot::Sender<()>) {
        self.all.insert(number, (from, evict));
        let neighbours = self.by_subnet.entry(from).or_default();
        neighbours.insert(number);
        let crowded = from.is_network() && neighbours.len() > self.limits.one_address;
        if let Some(oldest) = neighbours.first().copied().filter(|_| crowded) {
            self.evict(oldest);
        }
    }

    /// Moves a connection to another subnet, once its true source is known.
    fn set_source(&mut self, number: u64, from: Subnet) {
        // It may have been evicted meanwhile.
        if let Some(evict) = self.remove(number) {
            self.insert(number, from, evict);
        }
    }

    fn evict_oldest(&mut self) {
        if let Some(oldest) = self.all.keys().next().copied() {
            self.evict(oldest);
        }
    }

    fn evict(&mut self, number: u64) {
        if let Some(evict) = self.remove(number) {
            // It may just have left.
            let _ = evict.send(());
        }
    }

    fn remove(&mut self, number: u64) -> Option<oneshot::Sender<()>> {
        let (from, evict) = self.all.remove(&number)?;
        if let Some(neighbours) = self.by_subnet.get_mut(&from) {
            neighbours.remove(&number);
            if neighbours.is_empty() {
                self.by_subnet.remove(&from);
            }
        }
        Some(evict)
    }
}

impl PendingLoginHandle {
    /// Sets the source of the connection, once a load balancer's PROXY header has named it, so that
    /// it counts for that address; its oldest connection is evicted if that exceeds the limit. No
    /// effect when the connection has ended or was evicted.
    pub fn set_source(&self, from: Subnet) {
        self.pending.waiting().set_source(self.number, from);
    }
}

impl PendingLogin {
    /// A handle by which the source of this connection can be changed from another task.
    #[must_use]
    pub fn handle(&self) -> PendingLoginHandle {
        PendingLoginHandle { pending: Arc::clone(&self.pending), number: self.number }
    }

    /// Waits until the connection must be closed to make room for another; without an eviction it
    /// never returns. The caller then closes the connection and drops this.
    pub async fn evicted(&mut self) {
        // The sender is dropped only together with the receiver's owner.
        let _ = (&mut self.evicted).await;
    }
}

impl Drop for PendingLogin {
    fn drop(&mut self) {
        self.pending.waiting().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(all: usize, one_address: usize) -> Arc<PendingLogins> {
        PendingLogins::new(PendingLoginLimits { all, one_address })
    }

    fn from(address: &str) -> Subnet {
        Subnet::of(Some(address.parse().unwrap()))
    }

    fn is_evicted(login: &mut PendingLogin) -> bool {
        login.evicted.try_recv().is_ok()
    }

    #[test]
    fn the_oldest_leaves_when_there_are_too_many() {
        let pending = pending(2, 2);
        let mut first = pending.add(from("10.0.0.1"));
        let mut second = pending.add(from("10.0.0.2"));
        let mut third = pending.add(from("10.0.0.3"));
        let gone = [&mut first, &mut second, &mut third].map(is_evicted);
        assert_eq!(gone, [true, false, false]);
        drop((first, second));
        assert_eq!(pending.len(), 1, "a connection counts once");
    }

    #[test]
    fn an_address_with_too_many_pushes_out_its_own() {
        let pending = pending(10, 2);
        let mut other = pending.add(from("10.0.0.9"));
        let mut mine = [(); 3].map(|()| pending.add(from("10.0.0.1")));
        assert_eq!(mine.each_mut().map(is_evicted), [true, false, false]);
        assert!(!is_evicted(&mut other));
        // Somebody with an IPv6 network has a /64 of it.
        let mut six = [1, 2, 3].map(|host| pending.add(from(&format!("2001:db8::{host}"))));
        assert_eq!(six.each_mut().map(is_evicted), [true, false, false]);
        assert!(!is_evicted(&mut pending.add(from("2001:db8:0:1::1"))));
        assert_eq!(from("::ffff:10.0.0.1"), from("10.0.0.1"));
    }

    #[test]
    fn local_connections_have_no_limit_of_their_own() {
        let pending = pending(10, 1);
        let mut logins = [(); 3].map(|()| pending.add(Subnet::of(None)));
        assert_eq!(logins.each_mut().map(is_evicted), [false; 3]);
        pending.set_limits(PendingLoginLimits { all: 1, one_address: 1 });
        assert_eq!(logins.each_mut().map(is_evicted), [true, true, false]);
    }

    #[test]
    fn those_behind_a_load_balancer_count_for_their_own_addresses() {
        let pending = pending(10, 2);
        let mut logins = [(); 4].map(|()| pending.add(Subnet::of(None)));
        for (login, host) in logins.iter().zip([1, 1, 1, 2]) {
            login.handle().set_source(from(&format!("10.0.0.{host}")));
        }
        assert_eq!(logins.each_mut().map(is_evicted), [true, false, false, false]);
        logins[0].handle().set_source(from("10.0.0.2"));
        drop(logins);
        assert!(pending.is_empty() && pending.waiting().by_subnet.is_empty());
    }

    #[test]
    fn nothing_is_kept_of_those_who_left() {
        let pending = pending(2, 1);
        drop([1, 2, 3, 4].map(|host| pending.add(from(&format!("10.0.0.{host}")))));
        assert!(pending.is_empty() && pending.waiting().by_subnet.is_empty());
    }
}
