//! The numbers of a server's budget, and who gives way to whom.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use pgimbal_config::{ServerBudget, ServerLimit};

use super::claims::{Claim, Claimant, Claims, PATIENCE, Scope};
use super::limits::{Cap, Caps, LearnedLimits};
use super::{Offered, Token, Wish};
use crate::ids::WorkerId;

/// How many connections are opened to a server under `auto` before it has said what it allows; the
/// first one asks it.
pub const UNKNOWN_LIMIT: u32 = 2;

/// How long a server's refusal (53300) is its limit: others may leave at any time.
const REFUSAL_LIFETIME: Duration = Duration::from_secs(1);

/// How long a connection was idle that is closed although the pool that waits has others.
const IDLE_ENOUGH: Duration = Duration::from_millis(100);

/// How long a pool keeps its only connection that another pool waits for which has none. Closing
/// and opening one takes a tenth of it or so.
const TURN: Duration = Duration::from_millis(200);

/// Processes that are remembered after their end: as many as end within seconds on a busy server.
const MAX_ENDED: usize = 1024;

/// How long a worker's idle connection stands for it: workers look at theirs every 100 ms.
const OFFER_LIFETIME: Duration = Duration::from_millis(150);

/// How long the workers have to say what they have, and the pause before they are asked again.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// The numbers of a server's budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetStatus {
    /// How many connections the deployment may have, those of probers included; `None` for no
    /// limit, and while the server has not said what it allows.
    pub budget: Option<u32>,
    /// How many of them this process may have; `u32::MAX` for no limit.
    pub limit: u32,
    /// Connections of pools, those being opened included.
    pub used: u32,
    /// Connections that belong to no pool.
    pub reserved: u32,
    /// Pools that wait for one, counted once for each worker.
    pub waiting: u32,
    /// Pools that have one.
    pub pools: u32,
    /// Connections that were closed so that another pool or replica could have one, since the
    /// start.
    pub given_up: u64,
    /// Connections that the server refused because it had too many (53300), since the start.
    pub refused: u64,
}

/// What a process has of one server, and wants, when a share is decided about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The server's whole budget; `None` while it is not known, or has no limit.
    pub budget: Option<u32>,
    /// Connections that count, those being opened and those of no pool included.
    pub used: u32,
    /// Those of them that belong to no pool.
    pub reserved: u32,
    /// How many are waited for.
    pub waiting: u32,
}

/// What a process may have of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// How many connections, those of no pool included; more stay, but none is opened.
    pub limit: u32,
    /// How many of the pools' connections are to be closed as soon as they are released or idle.
    pub reclaim: u32,
    /// How many of them other replicas could use, once they have been idle for a while.
    pub lendable: u32,
}

/// The limit that a [`Grant`] leaves the pools.
#[derive(Clone, Copy, Debug)]
struct Granted {
    limit: u32,
    /// How many connections of pools stay; `None` for all of them.
    keep: Option<u32>,
}

#[derive(Debug)]
pub(super) struct State {
    config: ServerBudget,
    /// What the server allows under `auto`, and when it said so.
    settings: Option<(u32, u32, Instant)>,
    /// What the replicas' budget allows this one; `None` where there is no other replica.
    granted: Option<Granted>,
    /// The configuration no longer leads to the server.
    is_gone: bool,
    taken: u32,
    closing: u32,
    pools: HashMap<usize, u32, RandomState>,
    roles: Caps,
    databases: Caps,
    claims: Claims,
    refusal: Option<(u32, Instant)>,
    asked_at: Option<Instant>,
    offers: Vec<Option<Offer>>,
    given_up: u64,
    refused: u64,
    processes: BTreeSet<u32>,
    /// Processes whose connections have ended since this was last asked.
    ended: VecDeque<u32>,
}

/// The longest idle connection of a worker, if it has one.
#[derive(Clone, Copy, Debug)]
struct Offer {
    since: Option<Instant>,
    at: Instant,
}

impl State {
    pub(super) fn new(config: ServerBudget, is_shared: bool) -> Self {
        Self {
            config,
            settings: None,
            granted: is_shared.then_some(Granted { limit: UNKNOWN_LIMIT, keep: None }),
            is_gone: false,
            taken: 0,
            closing: 0,
            pools: HashMap::default(),
            roles: Caps::default(),
            databases: Caps::default(),
            claims: Claims::default(),
            refusal: None,
            asked_at: None,
            offers: Vec::new(),
            given_up: 0,
            refused: 0,
            processes: BTreeSet::new(),
            ended: VecDeque::new(),
        }
    }

    pub(super) const fn configure(&mut self, config: ServerBudget) {
        self.config = config;
    }

    pub(super) const fn set_gone(&mut self, is_gone: bool) {
        self.is_gone = is_gone;
    }

    pub(super) const fn is_gone(&self) -> bool {
        self.is_gone
    }

    pub(super) fn is_contended(&self) -> bool {
        self.is_over() || !self.claims.is_empty()
    }

    /// The budget of the whole deployment.
    fn budget(&self) -> Option<u32> {
        match self.config.limit {
            ServerLimit::Connections(limit) => Some(limit),
            ServerLimit::Off => None,
            ServerLimit::Auto => {
                self.settings.map(|(most, reserved, _)| self.config.of_settings(most, reserved))
            }
        }
    }

    /// How many connections this process may have, those without a pool included.
    fn limit(&self) -> u32 {
        let unknown = match self.config.limit {
            ServerLimit::Off => u32::MAX,
            _ => UNKNOWN_LIMIT.saturating_add(self.config.reserved),
        };
        match (self.config.limit, self.granted) {
            (ServerLimit::Off, _) | (_, None) => self.budget().unwrap_or(unknown),
            (_, Some(granted)) => granted.limit,
        }
    }

    /// How many connections of pools there may be. A process that shares with none has one at the
    /// least; where replicas share, none may be one that another one has.
    fn limit_of_pools(&self) -> u32 {
        let limit = self.limit().saturating_sub(self.config.reserved);
        if self.granted.is_some() { limit } else { limit.max(1) }
    }

    /// Whether more connections are there, those being closed aside, than there may be: other
    /// replicas want some, or the limit was lowered.
    fn is_over(&self) -> bool {
        let open = self.taken - self.closing;
        match (self.config.limit, self.granted) {
            (ServerLimit::Off, _) | (_, None) => open > self.limit_of_pools(),
            (_, Some(granted)) => granted.keep.is_some_and(|keep| open > keep),
        }
    }

    /// How many more connections of pools there may be.
    fn free(&self, now: Instant) -> u32 {
        let pools = self.limit_of_pools();
        let seen = self.refusal.filter(|(_, until)| *until > now).map(|(limit, _)| limit);
        pools.min(seen.unwrap_or(u32::MAX)).saturating_sub(self.taken)
    }

    pub(super) fn take(&mut self, claimant: Claimant, wish: &Wish<'_>, now: Instant) -> bool {
        self.claims.expire(now);
        if let Some(scope) = self.obstacle(claimant, wish, now) {
            if wish.is_awaited {
                self.claims.note(claimant, scope, now);
            }
            return false;
        }
        self.claims.remove(claimant);
        self.taken += 1;
        *self.pools.entry(claimant.pool).or_default() += 1;
        self.roles.of(wish.role, now).taken += 1;
        self.databases.of(wish.database, now).taken += 1;
        true
    }

    /// The first limit that stands in the way.
    fn obstacle(&mut self, claimant: Claimant, wish: &Wish<'_>, now: Instant) -> Option<Scope> {
        let open_of = |pool| self.pools.get(&pool).copied().unwrap_or(0);
        if self.free(now) <= self.claims.ahead(claimant, &Scope::Server, open_of) {
            return Some(Scope::Server);
        }
        let role = Scope::Role(wish.role.into());
        let ahead = self.claims.ahead(claimant, &role, open_of);
        if self.roles.stands_in_the_way(wish.role, ahead, now) {
            return Some(role);
        }
        let database = Scope::Database(wish.database.into());
        let ahead = self.claims.ahead(claimant, &database, open_of);
        self.databases.stands_in_the_way(wish.database, ahead, now).then_some(database)
    }

    pub(super) fn note_process(&mut self, process_id: u32) {
        self.processes.insert(process_id);
    }

    pub(super) fn process_ids(&mut self) -> (BTreeSet<u32>, Vec<u32>) {
        (self.processes.clone(), self.ended.drain(..).collect())
    }

    pub(super) fn give_back(&mut self, token: &Token) {
        if self.processes.remove(&token.process_id) {
            self.ended.push_back(token.process_id);
            // Nobody asks where there are no replicas.
            if self.ended.len() > MAX_ENDED {
                self.ended.pop_front();
            }
        }
        self.taken -= 1;
        let leaves = u32::from(token.leaves);
        self.closing -= leaves;
        if let Some(open) = self.pools.get_mut(&token.pool) {
            *open -= 1;
            if *open == 0 {
                self.pools.remove(&token.pool);
            }
        }
        self.roles.give_back(&token.role, leaves);
        self.databases.give_back(&token.database, leaves);
        if self.taken == 0 {
            // A server that was restarted may allow another number of connections.
            self.roles.clear();
            self.databases.clear();
            self.settings = self.settings.filter(|_| self.granted.is_some());
        }
    }

    /// The claim of the pool with the fewest connections, another one, that a connection with this token would help, and for which
    /// none is on its way.
    fn helped_by(&self, token: &Token, now: Instant) -> Option<&Claim> {
        let claims = || self.claims.iter().filter(|claim| claim.claimant.pool != token.pool);
        let mut in_order: Vec<&Claim> = claims().collect();
        in_order.sort_by_key(|claim| (self.open_of(claim.claimant.pool), claim.since));
        for claim in in_order {
            let (free, closing, helps) = match &claim.scope {
                Scope::Server => (self.free(now), self.closing, true),
                Scope::Role(role) => {
                    let cap = self.roles.get(role);
                    let free = cap.and_then(Cap::free).unwrap_or(0);
                    (free, cap.map_or(0, |cap| cap.closing), *role == token.role)
                }
                Scope::Database(database) => {
                    let cap = self.databases.get(database);
                    let free = cap.and_then(Cap::free).unwrap_or(0);
                    (free, cap.map_or(0, |cap| cap.closing), *database == token.database)
                }
            };
            let wanted = claims().filter(|other| other.scope == claim.scope).count() as u32;
            if helps && wanted > free.saturating_add(closing) {
                return Some(claim);
            }
        }
        None
    }

    fn open_of(&self, pool: usize) -> u32 {
        self.pools.get(&pool).copied().unwrap_or(0)
    }

    /// Whether a released connection is to be closed for somebody else.
    pub(super) fn gives_way(&mut self, token: &Token, is_wanted: bool, now: Instant) -> bool {
        self.claims.expire(now);
        let mine = self.open_of(token.pool);
        let most = self.pools.values().copied().max().unwrap_or(0);
        let for_claim = self.helped_by(token, now).is_some_and(|claim| {
            let theirs = self.open_of(claim.claimant.pool);
            let waited = now.saturating_duration_since(claim.since) >= PATIENCE;
            // Where all have as many, moving one would only turn them round; but a pool that
            // has none gets the only one of another, after a turn.
            let turn_is_over = now.saturating_duration_since(token.taken_at) >= TURN;
            let is_more = mine >= theirs + 2 || (theirs == 0 && (turn_is_over || !is_wanted));
            is_more && (mine == most || waited || !is_wanted)
        });
        let gives = for_claim || (self.is_over() && (mine == most || !is_wanted));
        if gives {
            self.begin_to_close(token);
        }
        gives
    }

    pub(super) fn begin_to_close(&mut self, token: &Token) {
        self.closing += 1;
        self.given_up += 1;
        self.roles.begin_to_close(&token.role);
        self.databases.begin_to_close(&token.database);
    }

    pub(super) fn may_ask(&mut self, now: Instant) -> bool {
        let may = self.is_contended()
            && self.asked_at.is_none_or(|at| now.saturating_duration_since(at) >= ASK_AGAIN);
        if may {
            self.asked_at = Some(now);
        }
        may
    }

    /// Chooses among the longest idle connections of all workers.
    pub(super) fn offer(
        &mut self,
        token: &Token,
        worker: WorkerId,
        workers: u16,
        since: Instant,
        now: Instant,
    ) -> Offered {
        self.claims.expire(now);
        self.set_offer(worker, workers, Some(since), now);
        let for_claim = self.helped_by(token, now).and_then(|claim| {
            let has_none = self.open_of(claim.claimant.pool) == 0;
            let waited = now.saturating_duration_since(claim.since);
            let idle = now.saturating_duration_since(since);
            (has_none || idle >= IDLE_ENOUGH || waited >= PATIENCE).then_some(waited)
        });
        let Some(waited) = for_claim.or(self.is_over().then_some(ASK_AGAIN)) else {
            return Offered::Keep;
        };
        let fresh = |offer: &Offer| now.saturating_duration_since(offer.at) < OFFER_LIFETIME;
        let offers = || self.offers.iter().map(|offer| offer.filter(fresh));
        if waited < ASK_AGAIN && offers().any(|offer| offer.is_none()) {
            return Offered::Keep;
        }
        let longest = offers()
            .enumerate()
            .filter_map(|(worker, offer)| Some((offer?.since?, WorkerId(worker as u16))))
            .min();
        match longest {
            Some((_, other)) if other != worker => {
                // It may have been used since: then another one is next.
                self.offers[usize::from(other.0)] = None;
                Offered::Tell(other)
            }
            _ => {
                self.offers[usize::from(worker.0)] = None;
                self.begin_to_close(token);
                Offered::Close
            }
        }
    }

    pub(super) fn offer_none(&mut self, worker: WorkerId, workers: u16, now: Instant) {
        self.claims.expire(now);
        self.set_offer(worker, workers, None, now);
    }

    fn set_offer(&mut self, worker: WorkerId, workers: u16, since: Option<Instant>, now: Instant) {
        self.offers.resize(usize::from(workers.max(worker.0 + 1)), None);
        self.offers[usize::from(worker.0)] = Some(Offer { since, at: now });
    }

    pub(super) fn note_refused(&mut self, now: Instant) -> bool {
        self.refused += 1;
        if self.taken > 0 {
            self.refusal = Some((self.taken, now + REFUSAL_LIFETIME));
        }
        self.taken > 0
    }

    pub(super) fn wants_limits(&self, role: &str, database: &str, now: Instant) -> bool {
        if self.config.limit == ServerLimit::Off {
            return false;
        }
        let is_old = |cap: Option<&Cap>| cap.is_none_or(|cap| cap.is_old(now));
        (self.config.limit == ServerLimit::Auto && self.settings.is_none())
            || is_old(self.roles.get(role))
            || is_old(self.databases.get(database))
    }

    pub(super) fn learn(
        &mut self,
        role: &str,
        database: &str,
        limits: LearnedLimits,
        now: Instant,
    ) {
        self.settings = Some((limits.max_connections, limits.reserved, now));
        self.roles.of(role, now).learn(limits.role, now);
        self.databases.of(database, now).learn(limits.database, now);
    }

    pub(super) fn settle(&mut self, decide: impl FnOnce(Usage) -> Grant, now: Instant) -> Grant {
        self.claims.expire(now);
        let grant = decide(Usage {
            budget: self.budget(),
            used: self.taken + self.config.reserved,
            reserved: self.config.reserved,
            waiting: self.claims.len(),
        });
        let keep = (grant.reclaim > 0).then(|| self.taken.saturating_sub(grant.reclaim));
        self.granted = Some(Granted { limit: grant.limit, keep });
        grant
    }

    /// How many names of roles, or of databases, are remembered.
    #[cfg(test)]
    pub(super) fn names(&self) -> usize {
        self.roles.len().max(self.databases.len())
    }

    pub(super) fn status(&mut self, now: Instant) -> BudgetStatus {
        self.claims.expire(now);
        BudgetStatus {
            budget: self.budget(),
            limit: self.limit(),
            used: self.taken,
            reserved: self.config.reserved,
            waiting: self.claims.len(),
            pools: self.pools.len() as u32,
            given_up: self.given_up,
            refused: self.refused,
        }
    }
}
