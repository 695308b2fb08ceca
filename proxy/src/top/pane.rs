//! The panes, each a table of the console.

use std::str::FromStr;

use super::table::Table;

/// A pane: a table of the console, or the part of one that its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pane {
    /// Each pool with its clients, its server connections and the longest wait.
    Pools,
    /// Each node of each cluster with its role, timeline and lag.
    Nodes,
    /// Clients that keep a server connection, and why.
    Pinned,
    /// Passwords that rotate.
    Credentials,
    /// Changes of primary.
    Failovers,
    /// Connections to each server, against what it may have.
    Budget,
    /// Other replicas.
    Peers,
    /// All clients.
    Clients,
    /// All server connections.
    Servers,
    /// Counters of each database.
    Stats,
    /// Databases of the configuration.
    Databases,
}

impl Pane {
    /// All panes in the order of the tabs.
    pub(super) const ALL: [Self; 11] = [
        Self::Pools,
        Self::Nodes,
        Self::Pinned,
        Self::Credentials,
        Self::Failovers,
        Self::Budget,
        Self::Peers,
        Self::Clients,
        Self::Servers,
        Self::Stats,
        Self::Databases,
    ];

    /// Names of the panes, as the option `--table` takes them.
    pub const NAMES: [&'static str; 11] = [
        "pools",
        "nodes",
        "pinned",
        "credentials",
        "failovers",
        "budget",
        "peers",
        "clients",
        "servers",
        "stats",
        "databases",
    ];

    /// The pane's name.
    pub(super) fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The command with which a console shows the pane's table.
    pub(super) const fn command(self) -> &'static str {
        match self {
            Self::Pools => "SHOW POOLS",
            Self::Nodes => "SHOW NODES",
            Self::Pinned | Self::Clients => "SHOW CLIENTS",
            Self::Credentials => "SHOW CREDENTIALS",
            Self::Failovers => "SHOW FAILOVERS",
            Self::Budget => "SHOW BUDGET",
            Self::Peers => "SHOW PEERS",
            Self::Servers => "SHOW SERVERS",
            Self::Stats => "SHOW STATS",
            Self::Databases => "SHOW DATABASES",
        }
    }

    /// The columns to show first, where the console has them.
    const fn first_columns(self) -> &'static [&'static str] {
        match self {
            Self::Pools => &[
                "database",
                "user",
                "cl_active",
                "cl_waiting",
                "maxwait",
                "sv_active",
                "sv_idle",
                "sv_login",
                "cl_pinned",
                "pool_mode",
            ],
            Self::Nodes => &["cluster", "node", "role", "state", "timeline", "lag_bytes", "lag_ms"],
            Self::Pinned => &["user", "database", "pinned", "pinned_seconds", "state", "addr"],
            Self::Credentials => {
                &["user", "generation", "age_seconds", "next_rotation_seconds", "last_result"]
            }
            Self::Clients | Self::Servers => &["user", "database", "state", "addr", "port", "wait"],
            Self::Stats => &[
                "database",
                "avg_xact_count",
                "avg_query_count",
                "avg_wait_time",
                "total_xact_count",
                "total_query_count",
            ],
            Self::Databases => {
                &["name", "host", "port", "database", "pool_size", "current_connections"]
            }
            Self::Failovers | Self::Budget | Self::Peers => &[],
        }
    }

    /// Whether a console with this answer to [`Self::command`] has the pane.
    pub(super) fn is_in(self, answer: &Table) -> bool {
        match self {
            Self::Pinned => answer.column("pinned").is_some(),
            _ => !answer.columns().is_empty(),
        }
    }

    /// The pane's table of an answer to [`Self::command`].
    pub(super) fn of(self, answer: &Table) -> Table {
        match answer.column("pinned") {
            Some(pinned) if self == Self::Pinned => {
                answer.filtered(|row| !row[pinned].is_empty()).with_first(self.first_columns())
            }
            _ => answer.with_first(self.first_columns()),
        }
    }
}

impl FromStr for Pane {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|pane| pane.name() == name);
        found.ok_or_else(|| format!("expected one of {}", Self::NAMES.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::table;
    use super::*;

    #[test]
    fn a_name_leads_to_its_pane() {
        for (pane, name) in Pane::ALL.into_iter().zip(Pane::NAMES) {
            assert_eq!(name.parse(), Ok(pane));
            assert_eq!(format!("{pane:?}").to_lowercase(), name);
        }
        assert!("pool".parse::<Pane>().is_err());
    }

    #[test]
    fn the_pinned_are_the_clients_with_a_reason() {
        let answer =
            table(&["type", "user", "pinned"], &[&["C", "ann", ""], &["C", "bob", "LISTEN"]]);
        assert!(Pane::Pinned.is_in(&answer));
        let pinned = Pane::Pinned.of(&answer);
        assert_eq!(pinned.columns(), ["user", "pinned", "type"]);
        assert_eq!(pinned.rows(), [["bob", "LISTEN", "C"]]);
        assert_eq!(Pane::Clients.of(&answer).rows().len(), 2);
        // As PgBouncer answers.
        let answer = table(&["type", "user"], &[]);
        assert!(!Pane::Pinned.is_in(&answer) && Pane::Clients.is_in(&answer));
        assert!(!Pane::Nodes.is_in(&Table::default()));
    }
}
