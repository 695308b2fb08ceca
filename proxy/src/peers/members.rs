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
    /// Where this process was first: its predecessor or successor may be there.
    home: SocketAddr,
    /// The process that this one takes over from, and whether it has not been met.
    before: Option<InstanceId>,
    awaits_it: bool,
    /// When the first addresses were listed, and whether every place has been looked up.
    listed: Option<(Instant, bool)>,
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
    /// Nobody is known yet. `home` is where this process listens; `before` is the one that it takes
    /// over from.
    pub(super) const fn new(own: InstanceId, home: SocketAddr, before: Option<InstanceId>) -> Self {
        Self {
            own,
            home,
            before,
            awaits_it: before.is_some(),
            listed: None,
            peers: BTreeMap::new(),
            places: BTreeMap::new(),
            same: BTreeSet::new(),
        }
    }

    /// The addresses of the configuration, or of DNS, as they are now; `complete` says whether
    /// every name has been resolved once. The own address is always among them: two processes are
    /// there while one takes over from the other. Returns whether one is new.
    pub(super) fn list(
        &mut self,
        addresses: &BTreeSet<SocketAddr>,
        complete: bool,
        now: Instant,
    ) -> bool {
        let since = self.listed.map_or(now, |(since, _)| since);
        self.listed = Some((since, complete));
        let before = self.places.len();
        for place in self.places.values_mut() {
            place.listed = false;
        }
        for address in addresses.iter().take(MOST).chain([&self.home.clone()]) {
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
        let is_late = self.is_late(&hello, now);
        let is_shared = hello.moved || self.awaits_predecessor(now);
        let Some(place) = self.places.get_mut(&address) else { return Vec::new() };
        place.asking = false;
        if is_late {
            return Vec::new();
        }
        place.found = if own { Found::Own } else { Found::Peer(instance) };
        if own {
            // While there is a second process, the next connection may meet that one.
            place.next = now + if is_shared { Duration::ZERO } else { OWN };
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
        if hello.instance == self.own || self.is_late(&hello, now) {
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

    /// Whether its sender has said something after it. After a silence anything counts again.
    fn is_late(&self, hello: &Hello, now: Instant) -> bool {
        let member = self.peers.get(&hello.instance).filter(|_| hello.number != 0);
        member.is_some_and(|member| {
            hello.number < member.hello.number && now.duration_since(member.heard) <= SILENT
        })
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
        self.awaits_it &= self.before != Some(instance);
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
        // A process that was taken over has the configured id of the other one rightly.
        let mut ids: Vec<(InstanceId, &str, u16)> = alive
            .filter(|(_, member)| !member.hello.moved)
            .filter_map(|(id, member)| Some((*id, &*member.hello.name, member.hello.peer_id?)))
            .collect();
        let before = |id| self.peers.get(id).map_or(self.before, |peer| peer.hello.before);
        ids.extend(own.map(|own| (self.own, name, own)));
        let mut found = BTreeSet::new();
        let mut events = Vec::new();
        for (index, (a, a_name, id)) in ids.iter().enumerate() {
            for (b, b_name, _) in ids[..index].iter().filter(|(_, _, other)| other == id) {
                if before(a) == Some(*b) || before(b) == Some(*a) {
                    continue;
                }
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
                _ if !place.listed || known(address) || *address == self.home => continue,
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

    /// The peers, silent ones too, each with what it has said last.
    pub(super) fn all(&self) -> impl Iterator<Item = (InstanceId, &Hello)> {
        self.peers.iter().map(|(id, member)| (*id, &member.hello))
    }

    /// Whether there may be replicas that were never met: a name was not resolved yet, nobody has
    /// answered at an address, or the process that this one takes over from is not known.
    pub(super) fn may_be_more(&self, now: Instant) -> bool {
        let Some((_, true)) = self.listed else { return true };
        let known =
            |address: &SocketAddr| self.peers.values().any(|member| member.address == *address);
        let is_unmet = |(address, place): (&SocketAddr, &Place)| {
            place.listed
                && *address != self.home
                && !known(address)
                && matches!(place.found, Found::Nothing | Found::Failure(_))
        };
        self.awaits_predecessor(now) || self.places.iter().any(is_unmet)
    }

    /// Whether the process that this one takes over from is still to be met.
    pub(super) fn awaits_predecessor(&self, now: Instant) -> bool {
        let since = self.listed.map_or(now, |(since, _)| since);
        self.awaits_it && now.duration_since(since) <= FORGOTTEN
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
            number: 0,
            before: None,
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

    /// A replica alone, whose own address is 127.0.0.1:1.
    fn alone() -> Members {
        Members::new(InstanceId(0), SocketAddr::from(([127, 0, 0, 1], 1)), None)
    }

    const OURS: (&str, Option<u16>) = ("r0", Some(9));

    #[test]
    fn a_peer_is_found_falls_silent_comes_back_and_is_forgotten() {
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let mut members = alone();
        members.list(&BTreeSet::from([at(0), at(1), at(2)]), true, start);
        assert_eq!(members.due(start), [at(0), at(1), at(2), members.home]);
        assert_eq!(members.due(later(1)), [], "each has one hello on its way");
        assert_eq!(members.answered(at(0), hello(0, None), Bytes::new(), start), []);
        let found = members.answered(at(1), hello(1, None), Bytes::from_static(b"x"), start);
        assert_eq!(found, [Event::Found("r1".to_owned(), at(1))]);
        members.failed(at(2), "refused".to_owned());
        let status = members.status(later(5));
        assert_eq!(status.len(), 2, "the own address is no peer: {status:?}");
        assert_eq!((&*status[0].why, status[0].is_alive()), ("refused", false));
        assert_eq!((&*status[1].name, status[1].is_alive()), ("r1", true));
        assert!(members.is_alive(InstanceId(1), later(5)) && members.may_be_more(later(5)));
        assert_eq!(members.tick(OURS, later(6)), [Event::Silent("r1".to_owned())]);
        assert_eq!(members.tick(OURS, later(7)), []);
        assert!(!members.is_alive(InstanceId(1), later(7)));
        assert_eq!(members.all().count(), 1, "a silent one may have sessions");
        let back = members.heard(hello(1, None), at(1).ip(), Bytes::new(), later(8));
        assert_eq!(back, [Event::Back("r1".to_owned())]);
        let events = [later(20), later(80)].map(|now| members.tick(OURS, now));
        assert_eq!(events.concat().last(), Some(&Event::Forgotten("r1".to_owned())));
    }

    #[test]
    fn a_peer_that_dns_does_not_name_yet_is_known_by_its_hello() {
        let now = Instant::now();
        let mut members = alone();
        members.list(&BTreeSet::new(), true, now);
        members.heard(hello(3, None), at(3).ip(), Bytes::new(), now);
        assert_eq!(members.due(now), [at(3), members.home]);
        assert_eq!(members.address(InstanceId(3)), Some(at(3)));
        assert_eq!(members.heard(hello(0, None), at(9).ip(), Bytes::new(), now), []);
    }

    #[test]
    fn a_new_process_takes_the_place_of_the_old_one() {
        let now = Instant::now();
        let mut members = alone();
        members.list(&BTreeSet::from([at(1)]), true, now);
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
        let mut members = alone();
        members.list(&BTreeSet::from([at(1)]), true, now);
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
    fn an_answer_that_was_long_on_its_way_undoes_nothing() {
        let now = Instant::now();
        let mut members = alone();
        members.list(&BTreeSet::from([at(1)]), true, now);
        let numbered = |number| Hello { number, ..hello(1, None) };
        let moved = Hello { moved: true, listen: "0.0.0.0:7".parse().unwrap(), ..numbered(3) };
        members.heard(moved, at(1).ip(), Bytes::from_static(b"new"), now);
        members.answered(at(1), numbered(2), Bytes::from_static(b"old"), now);
        members.heard(numbered(1), at(1).ip(), Bytes::from_static(b"old"), now);
        let status = members.status(now);
        let known = status.last().unwrap();
        assert_eq!((&*known.heartbeat, known.address.port()), (&b"new"[..], 7));
        assert!(members.due(now).contains(&at(1)), "another process may be there");
        // One of a version without numbers, after a roll back, counts.
        members.heard(hello(1, None), at(1).ip(), Bytes::from_static(b"plain"), now);
        assert_eq!(&*members.status(now).last().unwrap().heartbeat, b"plain");
    }

    #[test]
    fn a_process_that_takes_over_looks_for_the_one_before_it_at_its_own_address() {
        let now = Instant::now();
        let home = alone().home;
        let mut members = Members::new(InstanceId(0), home, Some(InstanceId(1)));
        assert!(members.may_be_more(now), "nothing was looked up");
        members.list(&BTreeSet::new(), true, now);
        assert!(members.may_be_more(now) && members.status(now).is_empty());
        for _ in 0..3 {
            // Both accept there.
            assert_eq!(members.due(now), [home]);
            members.answered(home, hello(0, Some(9)), Bytes::new(), now);
        }
        members.due(now);
        members.answered(home, hello(1, Some(9)), Bytes::new(), now);
        assert!(!members.may_be_more(now));
        assert!(!members.tick(OURS, now).iter().any(|event| matches!(event, Event::SameId(..))));
        // A third replica hears of both, then that the first is at another port.
        let mut third = Members::new(InstanceId(7), at(7), None);
        let next = Hello { before: Some(InstanceId(1)), ..hello(2, Some(9)) };
        let moved = Hello { moved: true, ..hello(1, Some(9)) };
        for (before, after) in [(hello(1, Some(9)), next), (moved, hello(3, Some(9)))] {
            third.heard(before, at(1).ip(), Bytes::new(), now);
            third.heard(after, at(1).ip(), Bytes::new(), now);
        }
        let told = third.tick(("r7", Some(3)), now);
        assert_eq!(told, [Event::SameId("r3".to_owned(), "r2".to_owned(), 9)]);
        // It may have ended before it was met.
        let later = now + FORGOTTEN + Duration::from_secs(1);
        let mut members = Members::new(InstanceId(0), home, Some(InstanceId(1)));
        members.list(&BTreeSet::new(), true, now);
        assert!(!members.may_be_more(later));
    }

    #[test]
    fn one_peer_id_of_two_replicas_is_told_once() {
        let now = Instant::now();
        let mut members = alone();
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
        let mut members = Members::new(InstanceId(u64::MAX), at(0), None);
        for instance in 0..1000 {
            let host = [10, 1, (instance / 250) as u8, (instance % 250) as u8];
            members.heard(hello(instance, None), host.into(), Bytes::new(), now);
        }
        assert!(members.peers.len() <= MOST && members.places.len() <= 2 * MOST);
    }
}
