//! What the sessions and server connections of a worker share by reference: prepared statements,
//! sets of settings, and sets of reported settings, each kept once.

use crate::cluster::parsing::Parsing;
use crate::ids::{PoolId, ServerId, WorkerId};
use crate::listener::work::ChannelWork;
use crate::sample::Sampler;
use crate::server::prepared::{ParsedUnder, StatementKey, StatementTable};
use crate::server::reported::ReportedTable;
use crate::session::settings::{SettingsId, SettingsTable, is_looked_at_again};
use crate::sql::Kinds;
use crate::topology::ProbeHint;

/// What sessions and servers of a worker share by reference.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) worker: u16,
    pub(crate) statements: StatementTable,
    pub(crate) settings: SettingsTable,
    pub(crate) reported: ReportedTable,
    /// What a server connection of this pool has said that its cluster's prober should look at.
    pub(crate) probe_hint: Option<(PoolId, ProbeHint)>,
    /// The kinds of state about which a server does not answer questions to this pool's user.
    pub(crate) denied: Option<(PoolId, Kinds)>,
    /// A server connection of this pool was closed because it would not take any settings.
    pub(crate) rejected: Option<PoolId>,
    /// Whose channels a step has changed.
    pub(crate) channel_work: ChannelWork,
    /// The texts that another thread is to parse.
    pub(crate) parsing: Parsing,
    /// What is traced.
    pub(crate) sampler: Sampler,
}

impl Tables {
    /// Empty tables. Equal keys on every worker let a server connection keep its prepared
    /// statements when it moves.
    pub(crate) fn new(worker: WorkerId, key: StatementKey) -> Self {
        Self {
            worker: worker.0,
            statements: StatementTable::new(key, worker.0),
            settings: SettingsTable::new(key.seed()),
            reported: ReportedTable::default(),
            probe_hint: None,
            denied: None,
            rejected: None,
            channel_work: ChannelWork::default(),
            parsing: Parsing::default(),
            sampler: Sampler::default(),
        }
    }

    /// A number that nobody can tell beforehand: what `random()` goes on from in this transaction
    /// of a server connection.
    pub(crate) fn seed(&self, server: ServerId, transaction: u64) -> u16 {
        let (serial, count) = (server.serial.to_be_bytes(), transaction.to_be_bytes());
        self.statements.fingerprint([(&serial[..], &count[..])].into_iter()) as u16
    }

    /// The settings that matter to Parse, as numbers that are equal on every worker.
    pub(crate) fn parse_fingerprint(&self, settings: SettingsId) -> ParsedUnder {
        let settings = self.settings.parse_affecting(settings);
        if settings == SettingsId::EMPTY {
            return ParsedUnder::DEFAULTS;
        }
        let values = || self.settings.settings(settings).iter().map(|s| (&*s.name, &*s.value));
        let fixed = || values().filter(|(name, _)| !is_looked_at_again(name));
        let fixed = match fixed().next() {
            None => 0,
            Some(_) => self.statements.fingerprint(fixed()),
        };
        ParsedUnder::Settings { all: self.statements.fingerprint(values()), fixed }
    }
}
