//! How many connections a server may have of pgimbal.

use std::fmt;

use figment::value::Value;

use crate::reader::{Count, Positive, Reader};

/// The limit of pgimbal's connections to one server, `max_server_connections`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerLimit {
    /// What the server allows, by its own settings: `max_connections` less the reserved ones, less
    /// 5 %, less `foreign_connections`.
    #[default]
    Auto,
    /// There is no limit but those of the pools, and the server is not asked for its own.
    Off,
    /// This many, at least 1.
    Connections(u32),
}

impl fmt::Display for ServerLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Off => f.write_str("off"),
            Self::Connections(limit) => limit.fmt(f),
        }
    }
}

/// The budget of one server, over all databases and clusters of the configuration that lead there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerBudget {
    /// The limit: a number, where one of them gives one, else that of all of them.
    pub limit: ServerLimit,
    /// Connections that others than pgimbal are left under `auto`: the greatest value given.
    pub foreign: u32,
    /// Connections of pgimbal that belong to no pool: 1 for the prober of a cluster's node.
    pub reserved: u32,
}

impl ServerBudget {
    /// Returns how many connections pgimbal may have under `auto`, to a server of these settings.
    /// At least 1.
    #[must_use]
    pub fn of_settings(&self, max_connections: u32, reserved: u32) -> u32 {
        let usable = u64::from(max_connections.saturating_sub(reserved));
        let usable = u32::try_from(usable * 95 / 100).unwrap_or(u32::MAX);
        usable.saturating_sub(self.foreign).max(1)
    }

    /// Returns how many connections of pools one of `replicas` may have of `all` those that all may
    /// have together. Where there are several, each has one that looks whose connections are there.
    #[must_use]
    pub fn of_pools(&self, all: u32, replicas: u32) -> u32 {
        (all / replicas.max(1)).saturating_sub(self.reserved_of(replicas))
    }

    /// Returns the least number that leaves each of `replicas` one connection for pools.
    #[must_use]
    pub fn least(&self, replicas: u32) -> u32 {
        replicas.max(1).saturating_mul(self.reserved_of(replicas).saturating_add(1))
    }

    const fn reserved_of(&self, replicas: u32) -> u32 {
        self.reserved.saturating_add((replicas > 1) as u32)
    }

    /// Adds a database or cluster that leads to the server.
    pub(crate) fn add(&mut self, limit: ServerLimit, foreign: u32, reserved: u32) {
        use ServerLimit::{Auto, Connections, Off};
        self.limit = match (self.limit, limit) {
            (Connections(a), Connections(b)) => Connections(a.min(b)),
            (Connections(limit), _) | (_, Connections(limit)) => Connections(limit),
            (Off, _) | (_, Off) => Off,
            (Auto, Auto) => Auto,
        };
        self.foreign = self.foreign.max(foreign);
        self.reserved = self.reserved.max(reserved);
    }
}

/// A number of connections, `auto` or `off`.
pub(crate) struct Limit;

impl Reader for Limit {
    type Out = ServerLimit;
    const KIND: &'static str = "`auto`, `off` or number";

    fn read(value: &Value) -> Result<ServerLimit, String> {
        match value.as_str().map(str::trim) {
            Some("auto") => Ok(ServerLimit::Auto),
            Some("off") => Ok(ServerLimit::Off),
            _ => match Count::read(value) {
                Ok(_) => Positive::read(value).map(ServerLimit::Connections),
                Err(_) => Err("expected auto, off, or a number of connections".to_owned()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_leaves_the_reserved_ones_a_twentieth_and_those_of_others() {
        let budget = ServerBudget { foreign: 10, ..ServerBudget::default() };
        assert_eq!(budget.of_settings(100, 3), 82);
        assert_eq!(budget.of_settings(8, 3), 1);
        assert_eq!(budget.of_settings(u32::MAX, 0), 4_080_218_930 - 10);
    }

    #[test]
    fn each_replica_has_its_part_less_what_belongs_to_no_pool() {
        let plain = ServerBudget::default();
        assert_eq!((plain.of_pools(9, 1), plain.of_pools(9, 3)), (9, 2));
        assert_eq!((plain.least(1), plain.least(4)), (1, 8));
        let of_cluster = ServerBudget { reserved: 1, ..plain };
        assert_eq!((of_cluster.of_pools(9, 1), of_cluster.of_pools(9, 3)), (8, 1));
        assert_eq!((of_cluster.least(1), of_cluster.least(4)), (2, 12));
    }
}
