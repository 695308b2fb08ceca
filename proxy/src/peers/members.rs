//! Who the other replicas are, from what they have said and where they were found. It reads no
//! clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hyper::body::Bytes;

use super::hello::Hello;
use pgimbal_replicas::InstanceId;

/// A peer that has said nothing for so long is shown as silent, and asked nothing: five hellos were
/// lost.
pub const SILENT: Duration = Duration::from_secs(5);
/// A silent peer is forgotten after this: by then its pod is gone, or has another process.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// How often an address that has turned out to be one's own is asked again.
const OWN: Duration = Duration::from_secs(5);
/// Limit of peers, and of addresses: a deployment has a handful.
const MOST: usize = 64;

/// A replica as another one knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its instance id; `None` for an address at which nobody has answered yet.
    pub instance: Option<InstanceId>,
    /// What it is called; its address while it has not said.
    pub name: String,
    /// The version that it runs; empty while it has not said.
    pub version: String,
    /// Where it is reached.
    pub address: SocketAddr,
    /// The peer id in the cancel keys that it hands out.
    pub peer_id: Option<u16>,
    /// Peer ids in keys that it has handed out before.
    pub former: Vec<u16>,
    /// Whether it accepts clients.
    pub ready: bool,
    /// How long ago it was heard; `None` when it never was.
    pub heard: Option<Duration>,
    /// The bytes of its last heartbeat; empty when it has none.
    pub heartbeat: Bytes,
    /// What is wrong with it, in words; empty when nothing is.
    pub why: String,
}

impl PeerStatus {
    /// Whether it has been heard within the last 5 s.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.heard.is_some_and(|heard| heard <= SILENT)
    }
}

/// A change among the members, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Found(String, SocketAddr),
    Silent(String),
    Back(String),
    Forgotten(String),
    /// The two replicas that hand out one peer id.
    SameId(String, String, u16),
}

/// The members, without this replica.
#[derive(Debug)]
pub(super) struct Members {
    own: InstanceId,
    peers: BTreeMap<InstanceId, Member>,
    places: BTreeMap<SocketAddr, Place>,
    /// The pairs that were found to have one peer id, so that each is told once.
    same: BTreeSet<(InstanceId, InstanceId, u16)>,
}

#[derive(Debug)]
struct Member {
    hello: Hello,
    address: SocketAddr,
    heard: Instant,
    heartbeat: Bytes,
    silent: bool,
}

/// An address at which a replica may be.
#[derive(Debug)]
struct Place {
    /// Whether the configuration or DNS names it now; the others are where peers were heard from.
    listed: bool,
    found: Found,
    /// A hello is on its way.
    asking: bool,
    /// No hello before this.
    next: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Own,
    Peer(InstanceId),
    Failure(String),
}

impl Members {
    pub(super) const fn new(own: InstanceId) -> Self {
        Self { own, peers: BTreeMap::new(), places: BTreeMap::new(), same: BTreeSet::new() }
    }

    /// The addresses of the configuration, or of DNS, as they are now.
    /// Returns whether one is new.
    pub(super) fn list(&mut self, addresses: &BTreeSet<SocketAddr>, now: Instant) -> bool {
        let before = self.places.len();
        for place in self.places.values_mut() {
            place.listed = false;
        }
        for address in addresses.iter().take(MOST) {
            self.place(*address, now).listed = true;
        }
        self.places.len() > before
    }

    /// Whether a replica is, or may be, at this address.
    pub(super) fn knows(&self, address: &SocketAddr) -> bool {
        self.places.contains_key(address)
    }

    /// Whether a replica is, or may be, at this host: what it costs is not counted with the rest.
    pub(super) fn knows_host(&self, host: IpAddr) -> bool {
        let host = host.to_canonical();
        self.places.keys().any(|place| place.ip() == host)
    }

    fn place(&mut self, address: SocketAddr, now: Instant) -> &mut Place {
        let new = || Place { listed: false, found: Found::Nothing, asking: false, next: now };
        self.places.entry(address).or_insert_with(new)
    }

    /// The addresses to say hello to now; each is asked once until [`Self::answered`] or
    /// [`Self::failed`].
    pub(super) fn due(&mut self, now: Instant) -> Vec<SocketAddr> {
        let due = |(address, place): (&SocketAddr, &mut Place)| {
            let is_due = !place.asking && place.next <= now;
            place.asking |= is_due;
            is_due.then_some(*address)
        };
        self.places.iter_mut().filter_map(due).collect()
    }

    /// A hello to `address` was answered.
    pub(super) fn answered(
        &mut self,
        address: SocketAddr,
        hello: Hello,
        heartbeat: Bytes,
        now: Instant,
    ) -> Vec<Event> {
        let own = hello.instance == self.own;
        let instance = hello.instance;
        let Some(place) = self.places.get_mut(&address) else { return Vec::new() };
        place.asking = false;
        place.found = if own { Found::Own } else { Found::Peer(instance) };
        if own {
            place.next = now + OWN;
            return Vec::new();
        }
        if hello.moved && hello.listen.port() != address.port() {
            // Over a connection from before: whoever comes now meets the other process.
            place.found = Found::Nothing;
            return self.heard(hello, address.ip(), heartbeat, now);
        }
        let events = self.hear(hello, address, heartbeat, now);
        if let Some(member) = self.peers.get_mut(&instance)
            && self.places.get(&member.address).is_none_or(|at| at.found != Found::Peer(instance))
        {
            member.address = address;
        }
        events
    }

    /// Greets the places that were this process's own anew: another one may answer there.
    pub(super) fn greet_own(&mut self, now: Instant) {
        for place in self.places.values_mut().filter(|place| place.found == Found::Own) {
            place.found = Found::Nothing;
            place.next = now;
        }
    }

    /// A hello to `address` had no answer that can be used.
    pub(super) fn failed(&mut self, address: SocketAddr, why: String) {
        if let Some(place) = self.places.get_mut(&address) {
            place.asking = false;
            place.found = Found::Failure(why);
        }
    }

    /// A peer at `from` has said hello.
    pub(super) fn heard(
        &mut self,
        hello: Hello,
        from: IpAddr,
        heartbeat: Bytes,
        now: Instant,
    ) -> Vec<Event> {
        if hello.instance == self.own {
            return Vec::new();
        }
        let seen = SocketAddr::new(from.to_canonical(), hello.listen.port());
        // Where it comes from, when that is listed: it may not know that addresses are translated.
        let is_listed = self.places.get(&seen).is_some_and(|place| place.listed);
        let is_everywhere = hello.listen.ip().is_unspecified();
        let own_word = SocketAddr::new(hello.listen.ip().to_canonical(), hello.listen.port());
        let address = if is_listed || is_everywhere { seen } else { own_word };
        let is_known = self.peers.contains_key(&hello.instance);
        if (hello.moved || !is_known) && self.places.len() < 2 * MOST {
            // DNS may name it later.
            self.place(address, now);
        }
        let (instance, moved) = (hello.instance, hello.moved);
        let events = self.hear(hello, address, heartbeat, now);
        if let Some(member) = self.peers.get_mut(&instance).filter(|_| moved) {
            member.address = address;
        }
        events
    }

    fn hear(
        &mut self,
        hello: Hello,
        address: SocketAddr,
        heartbeat: Bytes,
        now: Instant,
    ) -> Vec<Event> {
        let instance = hello.instance;
        let mut events = Vec::new();
        if let Some(member) = self.peers.get_mut(&instance) {
            if std::mem::take(&mut member.silent) {
                events.push(Event::Back(hello.name.clone()));
            }
            (member.hello, member.heartbeat, member.heard) = (hello, heartbeat, now);
        } else if self.peers.len() < MOST {
            events.push(Event::Found(hello.name.clone(), address));
            let member = Member { hello, address, heard: now, heartbeat, silent: false };
            self.peers.insert(instance, member);
        }
        events
    }

    /// Notes who is silent and who is gone, and, with the own name and peer id, who has the peer id
    /// of another.
    pub(super) fn tick(&mut self, own: (&str, Option<u16>), now: Instant) -> Vec<Event> {
        let mut events = Vec::new();
        for member in self.peers.values_mut() {
            let silent = now.duration_since(member.heard) > SILENT;
            if silent && !std::mem::replace(&mut member.silent, true) {
                events.push(Event::Silent(member.hello.name.clone()));
            }
        }
        let is_gone = |(id, member): (&InstanceId, &Member)| {
            // Another process may have taken its place.
            let replaced = self
                .places
                .get(&member.address)
                .is_some_and(|place| matches!(&place.found, Found::Peer(other) if other != id));
            let is_gone = now.duration_since(member.heard) > SILENT + FORGOTTEN;
            (is_gone || (member.silent && replaced)).then_some(*id)
        };
        let gone: Vec<InstanceId> = self.peers.iter().filter_map(is_gone).collect();
        for id in gone {
            events.extend(self.forget(id));
        }
        let peers = &self.peers;
        self.places.retain(|address, place| {
            place.listed || place.asking || peers.values().any(|member| member.address == *address)
        });
        events.extend(self.same_ids(own));
        events
    }

    fn forget(&mut self, id: InstanceId) -> Option<Event> {
        let member = self.peers.remove(&id)?;
        self.same.retain(|(a, b, _)| *a != id && *b != id);
        Some(Event::Forgotten(member.hello.name))
    }

    fn same_ids(&mut self, (name, own): (&str, Option<u16>)) -> Vec<Event> {
        let alive = self.peers.iter().filter(|(_, member)| !member.silent);
        let mut ids: Vec<(InstanceId, &str, u16)> = alive
            .filter_map(|(id, member)| Some((*id, &*member.hello.name, member.hello.peer_id?)))
            .collect();
        ids.extend(own.map(|own| (self.own, name, own)));
        let mut found = BTreeSet::new();
        let mut events = Vec::new();
        for (index, (a, a_name, id)) in ids.iter().enumerate() {
            for (b, b_name, _) in ids[..index].iter().filter(|(_, _, other)| other == id) {
                let pair = ((*a).min(*b), (*a).max(*b), *id);
                found.insert(pair);
                if !self.same.contains(&pair) {
                    let names = (a_name.to_string(), b_name.to_string());
                    events.push(Event::SameId(names.0, names.1, *id));
                }
            }
        }
        self.same = found;
        events
    }

    /// All peers, and the addresses at which nobody has answered yet, by name.
    pub(super) fn status(&self, now: Instant) -> Vec<PeerStatus> {
        let peer = |(id, member): (&InstanceId, &Member)| PeerStatus {
            instance: Some(*id),
            name: member.hello.name.clone(),
            version: member.hello.version.clone(),
            address: member.address,
            peer_id: member.hello.peer_id,
            former: member.hello.former.clone(),
            ready: member.hello.ready,
            heard: Some(now.duration_since(member.heard)),
            heartbeat: member.heartbeat.clone(),
            why: self.why(*id, member),
        };
        let mut all: Vec<PeerStatus> = self.peers.iter().map(peer).collect();
        let known =
            |address: &SocketAddr| self.peers.values().any(|member| member.address == *address);
        for (address, place) in &self.places {
            let why = match &place.found {
                Found::Own | Found::Peer(_) => continue,
                _ if !place.listed || known(address) => continue,
                Found::Nothing => "nobody has answered there yet".to_owned(),
                Found::Failure(why) => why.clone(),
            };
            all.push(PeerStatus {
                instance: None,
                name: address.to_string(),
                version: String::new(),
                address: *address,
                peer_id: None,
                former: Vec::new(),
                ready: false,
                heard: None,
                heartbeat: Bytes::new(),
                why,
            });
        }
        all.sort_by(|a, b| (&a.name, a.instance).cmp(&(&b.name, b.instance)));
        all
    }

    fn why(&self, id: InstanceId, member: &Member) -> String {
        let mut parts = Vec::new();
        if let Some(Place { found: Found::Failure(why), .. }) = self.places.get(&member.address) {
            parts.push(why.clone());
        }
        if let Some((a, b, number)) = self.same.iter().find(|(a, b, _)| *a == id || *b == id) {
            let other = if *a == id { b } else { a };
            let name = self.peers.get(other).map_or("this replica", |peer| &*peer.hello.name);
            parts.push(format!("hands out peer id {number}, as {name} does"));
        }
        parts.join("; ")
    }

    /// Where the peer `id` is reached.
    pub(super) fn address(&self, id: InstanceId) -> Option<SocketAddr> {
        self.peers.get(&id).map(|member| member.address)
    }

    /// Whether the peer `id` is known and not silent.
    pub(super) fn is_alive(&self, id: InstanceId, now: Instant) -> bool {
        let heard = self.peers.get(&id).map(|member| member.heard);
        heard.is_some_and(|heard| now.duration_since(heard) <= SILENT)
    }

    /// The peers that are not silent, each with its address.
    pub(super) fn alive(&self, now: Instant) -> impl Iterator<Item = (InstanceId, &Hello)> {
        let alive = move |member: &Member| now.duration_since(member.heard) <= SILENT;
        self.peers
            .iter()
            .filter(move |(_, member)| alive(member))
            .map(|(id, member)| (*id, &member.hello))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(instance: u64, peer_id: Option<u16>) -> Hello {
        Hello {
            instance: InstanceId(instance),
            name: format!("r{instance}"),
            version: "1".to_owned(),
            listen: "0.0.0.0:1".parse().unwrap(),
            moved: false,
            you: None,
            ready: true,
            peer_id,
            former: Vec::new(),
        }
    }

    fn at(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 1))
    }

    const OURS: (&str, Option<u16>) = ("r0", Some(9));

    #[test]
    fn a_peer_is_found_falls_silent_comes_back_and_is_forgotten() {
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let mut members = Members::new(InstanceId(0));
        members.list(&BTreeSet::from([at(0), at(1), at(2)]), start);
        assert_eq!(members.due(start), [at(0), at(1), at(2)]);
        assert_eq!(members.due(later(1)), [], "each has one hello on its way");
        assert_eq!(members.answered(at(0), hello(0, None), Bytes::new(), start), []);
        let found = members.answered(at(1), hello(1, None), Bytes::from_static(b"x"), start);
        assert_eq!(found, [Event::Found("r1".to_owned(), at(1))]);
        members.failed(at(2), "refused".to_owned());
        let status = members.status(later(5));
        assert_eq!(status.len(), 2, "the own address is no peer: {status:?}");
        assert_eq!((&*status[0].why, status[0].is_alive()), ("refused", false));
        assert_eq!((&*status[1].name, status[1].is_alive()), ("r1", true));
        assert_eq!(members.alive(later(5)).count(), 1);
        assert_eq!(members.tick(OURS, later(6)), [Event::Silent("r1".to_owned())]);
        assert_eq!((members.tick(OURS, later(7)), members.alive(later(7)).count()), (vec![], 0));
        let back = members.heard(hello(1, None), at(1).ip(), Bytes::new(), later(8));
        assert_eq!(back, [Event::Back("r1".to_owned())]);
        let events = [later(20), later(80)].map(|now| members.tick(OURS, now));
        assert_eq!(events.concat().last(), Some(&Event::Forgotten("r1".to_owned())));
    }

    #[test]
    fn a_peer_that_dns_does_not_name_yet_is_known_by_its_hello() {
        let now = Instant::now();
        let mut members = Members::new(InstanceId(0));
        members.list(&BTreeSet::new(), now);
        members.heard(hello(3, None), at(3).ip(), Bytes::new(), now);
        assert_eq!(members.due(now), [at(3)]);
        assert_eq!(members.address(InstanceId(3)), Some(at(3)));
        assert_eq!(members.heard(hello(0, None), at(9).ip(), Bytes::new(), now), []);
    }

    #[test]
    fn a_new_process_takes_the_place_of_the_old_one() {
        let now = Instant::now();
        let mut members = Members::new(InstanceId(0));
        members.list(&BTreeSet::from([at(1)]), now);
        members.answered(at(1), hello(1, None), Bytes::new(), now);
        let later = now + Duration::from_secs(6);
        members.answered(at(1), hello(2, None), Bytes::new(), later);
        let events = members.tick(OURS, later);
        assert!(events.contains(&Event::Forgotten("r1".to_owned())), "{events:?}");
        assert_eq!(members.status(later).len(), 1);
    }

    #[test]
    fn a_process_that_was_taken_over_is_reached_at_its_new_port() {
        let now = Instant::now();
        let mut members = Members::new(InstanceId(0));
        members.list(&BTreeSet::from([at(1)]), now);
        members.answered(at(1), hello(1, None), Bytes::new(), now);
        let moved = Hello { moved: true, listen: "0.0.0.0:7".parse().unwrap(), ..hello(1, None) };
        // Over a connection from before, and by its own hello.
        members.answered(at(1), moved.clone(), Bytes::new(), now);
        members.heard(moved, at(1).ip(), Bytes::new(), now);
        members.answered(at(1), hello(2, None), Bytes::new(), now);
        members.tick(OURS, now);
        let new_port = SocketAddr::new(at(1).ip(), 7);
        assert_eq!(members.address(InstanceId(1)), Some(new_port));
        assert_eq!(members.address(InstanceId(2)), Some(at(1)));
        assert!(members.due(now).contains(&new_port));
    }

    #[test]
    fn one_peer_id_of_two_replicas_is_told_once() {
        let now = Instant::now();
        let mut members = Members::new(InstanceId(0));
        members.heard(hello(1, Some(9)), at(1).ip(), Bytes::new(), now);
        members.heard(hello(2, Some(4)), at(2).ip(), Bytes::new(), now);
        let told = members.tick(OURS, now);
        assert_eq!(told, [Event::SameId("r0".to_owned(), "r1".to_owned(), 9)]);
        assert_eq!(members.tick(OURS, now), []);
        assert!(members.status(now)[0].why.contains("peer id 9, as this replica"));
        members.heard(hello(1, Some(8)), at(1).ip(), Bytes::new(), now);
        assert_eq!(members.tick(OURS, now), []);
        assert_eq!(members.status(now)[0].why, "");
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let now = Instant::now();
        let mut members = Members::new(InstanceId(u64::MAX));
        for instance in 0..1000 {
            let host = [10, 1, (instance / 250) as u8, (instance % 250) as u8];
            members.heard(hello(instance, None), host.into(), Bytes::new(), now);
        }
        assert!(members.peers.len() <= MOST && members.places.len() <= 2 * MOST);
    }
}
