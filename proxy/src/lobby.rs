//! Connections that have not logged in yet, and those of HTTP, which never do.
//!
//! Owns how many there may be. A client that is not logged in costs a socket and memory before it
//! has proved anything, so these are counted apart from clients, and when there are too many the
//! oldest goes: a login takes a moment, only silence lasts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgimbal_config::ClientConfig;
use tokio::sync::oneshot;

/// Where a connection comes from as far as limits go: one IPv4 address, or the 64 bits of an IPv6
/// one that its owner cannot choose. `None` is this machine, by a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subnet(Option<IpAddr>);

impl Subnet {
    /// The one that `address` is in.
    #[must_use]
    pub fn of(address: Option<IpAddr>) -> Self {
        const HOST_BITS: u32 = 64;
        Self(address.map(|address| match address.to_canonical() {
            IpAddr::V6(six) => IpAddr::V6((six.to_bits() >> HOST_BITS << HOST_BITS).into()),
            four => four,
        }))
    }

    /// Whether it is one of a network, which limits for each address are about.
    #[must_use]
    pub const fn is_network(self) -> bool {
        self.0.is_some()
    }
}

/// Where a client comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket; TLS is neither offered nor demanded.
    Unix,
}

impl Peer {
    /// What limits for each address count it for.
    #[must_use]
    pub fn subnet(self) -> Subnet {
        match self {
            Self::Tcp(address) => Subnet::of(Some(address.ip())),
            Self::Unix => Subnet::of(None),
        }
    }
}

/// How many clients there may be that are not logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LobbyLimits {
    /// In all.
    pub all: usize,
    /// From one address.
    pub one_address: usize,
}

impl From<&ClientConfig> for LobbyLimits {
    fn from(clients: &ClientConfig) -> Self {
        Self {
            all: clients.login_conn() as usize,
            one_address: clients.login_conn_per_address() as usize,
        }
    }
}

/// Everybody who has not logged in.
#[derive(Debug)]
pub struct Lobby(Mutex<Waiting>);

#[derive(Debug)]
struct Waiting {
    limits: LobbyLimits,
    next: u64,
    /// The oldest first.
    all: BTreeMap<u64, (Subnet, oneshot::Sender<()>)>,
    by_subnet: HashMap<Subnet, BTreeSet<u64>>,
}

/// A place in the lobby, given up when it is dropped.
#[derive(Debug)]
pub struct Seat {
    lobby: Arc<Lobby>,
    number: u64,
    dismissed: oneshot::Receiver<()>,
}

/// One seat among all, for whoever does not own it.
#[derive(Debug)]
pub struct SeatHandle {
    lobby: Arc<Lobby>,
    number: u64,
}

impl Lobby {
    /// An empty one.
    #[must_use]
    pub fn new(limits: LobbyLimits) -> Arc<Self> {
        let waiting = Waiting { limits, next: 0, all: BTreeMap::new(), by_subnet: HashMap::new() };
        Arc::new(Self(Mutex::new(waiting)))
    }

    /// A reload changed the limits.
    pub fn set_limits(&self, limits: LobbyLimits) {
        let mut waiting = self.waiting();
        waiting.limits = limits;
        while waiting.all.len() > limits.all {
            waiting.dismiss_oldest();
        }
    }

    /// Lets a client in. The oldest of its address leaves when there are too many of it, and the
    /// oldest of all when there are too many in all.
    #[must_use]
    pub fn enter(self: &Arc<Self>, from: Subnet) -> Seat {
        let (dismiss, dismissed) = oneshot::channel();
        let mut waiting = self.waiting();
        let number = waiting.next;
        waiting.next += 1;
        waiting.insert(number, from, dismiss);
        if waiting.all.len() > waiting.limits.all {
            waiting.dismiss_oldest();
        }
        drop(waiting);
        Seat { lobby: Arc::clone(self), number, dismissed }
    }

    /// How many are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting().all.len()
    }

    /// Whether nobody is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every change under the lock is whole, whatever panicked beside it.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn insert(&mut self, number: u64, from: Subnet, dismiss: oneshot::Sender<()>) {
        self.all.insert(number, (from, dismiss));
        let neighbours = self.by_subnet.entry(from).or_default();
        neighbours.insert(number);
        let crowded = from.is_network() && neighbours.len() > self.limits.one_address;
        if let Some(oldest) = neighbours.first().copied().filter(|_| crowded) {
            self.dismiss(oldest);
        }
    }

    /// One who was let in comes from elsewhere than was thought.
    fn seat(&mut self, number: u64, from: Subnet) {
        // It may have been dismissed meanwhile.
        if let Some(dismiss) = self.remove(number) {
            self.insert(number, from, dismiss);
        }
    }

    fn dismiss_oldest(&mut self) {
        if let Some(oldest) = self.all.keys().next().copied() {
            self.dismiss(oldest);
        }
    }

    fn dismiss(&mut self, number: u64) {
        if let Some(dismiss) = self.remove(number) {
            // It may just have left.
            let _ = dismiss.send(());
        }
    }

    fn remove(&mut self, number: u64) -> Option<oneshot::Sender<()>> {
        let (from, dismiss) = self.all.remove(&number)?;
        if let Some(neighbours) = self.by_subnet.get_mut(&from) {
            neighbours.remove(&number);
            if neighbours.is_empty() {
                self.by_subnet.remove(&from);
            }
        }
        Some(dismiss)
    }
}

impl SeatHandle {
    /// It is known now for whom the seat is: a load balancer has said it.
    pub fn taken_by(&self, from: Subnet) {
        self.lobby.waiting().seat(self.number, from);
    }
}

impl Seat {
    /// Which one it is.
    #[must_use]
    pub fn place(&self) -> SeatHandle {
        SeatHandle { lobby: Arc::clone(&self.lobby), number: self.number }
    }

    /// Returns when the place is needed for somebody else.
    pub async fn dismissed(&mut self) {
        // The sender is dropped only together with this seat.
        let _ = (&mut self.dismissed).await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.lobby.waiting().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lobby(all: usize, one_address: usize) -> Arc<Lobby> {
        Lobby::new(LobbyLimits { all, one_address })
    }

    fn from(address: &str) -> Subnet {
        Subnet::of(Some(address.parse().unwrap()))
    }

    fn is_dismissed(seat: &mut Seat) -> bool {
        seat.dismissed.try_recv().is_ok()
    }

    #[test]
    fn the_oldest_leaves_when_there_are_too_many() {
        let lobby = lobby(2, 2);
        let mut first = lobby.enter(from("10.0.0.1"));
        let mut second = lobby.enter(from("10.0.0.2"));
        let mut third = lobby.enter(from("10.0.0.3"));
        let gone = [&mut first, &mut second, &mut third].map(is_dismissed);
        assert_eq!(gone, [true, false, false]);
        drop((first, second));
        assert_eq!(lobby.len(), 1, "a seat counts once");
    }

    #[test]
    fn an_address_with_too_many_pushes_out_its_own() {
        let lobby = lobby(10, 2);
        let mut other = lobby.enter(from("10.0.0.9"));
        let mut mine = [(); 3].map(|()| lobby.enter(from("10.0.0.1")));
        assert_eq!(mine.each_mut().map(is_dismissed), [true, false, false]);
        assert!(!is_dismissed(&mut other));
        // Somebody with an IPv6 network has a /64 of it.
        let mut six = [1, 2, 3].map(|host| lobby.enter(from(&format!("2001:db8::{host}"))));
        assert_eq!(six.each_mut().map(is_dismissed), [true, false, false]);
        assert!(!is_dismissed(&mut lobby.enter(from("2001:db8:0:1::1"))));
        assert_eq!(from("::ffff:10.0.0.1"), from("10.0.0.1"));
    }

    #[test]
    fn local_connections_have_no_limit_of_their_own() {
        let lobby = lobby(10, 1);
        let mut seats = [(); 3].map(|()| lobby.enter(Subnet::of(None)));
        assert_eq!(seats.each_mut().map(is_dismissed), [false; 3]);
        lobby.set_limits(LobbyLimits { all: 1, one_address: 1 });
        assert_eq!(seats.each_mut().map(is_dismissed), [true, true, false]);
    }

    #[test]
    fn those_behind_a_load_balancer_count_for_their_own_addresses() {
        let lobby = lobby(10, 2);
        let mut seats = [(); 4].map(|()| lobby.enter(Subnet::of(None)));
        for (seat, host) in seats.iter().zip([1, 1, 1, 2]) {
            seat.place().taken_by(from(&format!("10.0.0.{host}")));
        }
        assert_eq!(seats.each_mut().map(is_dismissed), [true, false, false, false]);
        seats[0].place().taken_by(from("10.0.0.2"));
        drop(seats);
        assert!(lobby.is_empty() && lobby.waiting().by_subnet.is_empty());
    }

    #[test]
    fn nothing_is_kept_of_those_who_left() {
        let lobby = lobby(2, 1);
        drop([1, 2, 3, 4].map(|host| lobby.enter(from(&format!("10.0.0.{host}")))));
        assert!(lobby.is_empty() && lobby.waiting().by_subnet.is_empty());
    }
}
