//! The workers with all that they share, and the handles through which they are reached.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::SystemTime;

use pgimbal_config::Config;
use pgimbal_pooler::cluster::explain::ExplainedRoute;
use pgimbal_pooler::ids::WorkerId;
use pgimbal_pooler::server::credential::CredentialEvent;
use pgimbal_pooler::server::renewal::{Renewal, Renewed};
use tokio::sync::{mpsc, watch};

use super::http_task::Shown;
use super::{Prepared, ServeError};
use crate::accept::AcceptContext;
use crate::admin::collect::{Collector, ProcessStats, SnapshotRequest};
use crate::admin::console::{Console, Control};
use crate::budget::{self, ReplicaBudget, ServerBudgets};
use crate::cancel_keys::WrongKeyLimiter;
use crate::credentials::CredentialManager;
use crate::descriptors;
use crate::facts::Facts;
use crate::inherited::Inherited;
use crate::names;
use crate::peers::{Asked, Handlers, Kind, Peers, PeersError};
use crate::pending_logins::PendingLogins;
use crate::telemetry::{Event, Telemetry, Traces};
use crate::topology::Clusters;
use crate::worker::{self, Channels, Common, Message};

/// Limit of workers, whose numbers are seven bits of a cancel key.
pub(super) const MAX_WORKERS: u16 = 126;

/// The requests of other replicas, by what they are about.
pub(super) struct PeerRequests {
    cancels: mpsc::UnboundedReceiver<Asked>,
    commands: mpsc::UnboundedReceiver<Asked>,
    rows: mpsc::UnboundedReceiver<Asked>,
}

/// Begins to look for the other replicas, unless `listener`, that of `peers.listen`, is `None`. The
/// last of what is returned are their documents of facts.
pub(super) fn start_peers(
    config: &Config,
    listener: Option<std::net::TcpListener>,
    inherited: &Inherited,
) -> Result<(Peers, PeerRequests, mpsc::UnboundedReceiver<Asked>), PeersError> {
    let mut handlers = Handlers::default();
    let requests = PeerRequests {
        cancels: handlers.on(Kind::Cancel),
        commands: handlers.on(Kind::Command),
        rows: handlers.on(Kind::Rows),
    };
    let facts = handlers.on(Kind::Facts);
    let peers = match listener {
        Some(listener) => Peers::start(config, listener, handlers, inherited.predecessor())?,
        None => Peers::default(),
    };
    Ok((peers, requests, facts))
}

/// The workers, and the handles through which they are reached.
pub(super) struct Workers {
    senders: Arc<[mpsc::UnboundedSender<Message>]>,
    threads: Vec<JoinHandle<()>>,
    telemetry: Telemetry,
    collector: Collector,
    clusters: Clusters,
    credentials: CredentialManager,
    facts: Facts,
    replicas: Option<ReplicaBudget>,
    console: Arc<Console>,
    logins: Arc<PendingLogins>,
    cancel_keys: Arc<WrongKeyLimiter>,
    /// Limit of open files of the process.
    open_files: u64,
}

impl Workers {
    pub(super) fn start(
        prepared: &mut Prepared,
        process: &Arc<ProcessStats>,
        control: Control,
        configs: &watch::Sender<Arc<Config>>,
        facts: &Facts,
        peers: &Peers,
    ) -> Result<Self, ServeError> {
        let (mut telemetry, traces) = std::mem::take(&mut prepared.telemetry);
        let count =
            u16::try_from(prepared.config.workers).unwrap_or(u16::MAX).clamp(1, MAX_WORKERS);
        let (senders, askers, channels) = channels(count);
        let (credentials, clusters) = follow(prepared, facts, &senders, &traces)?;
        let replicas = ReplicaBudget::start(
            &configs.subscribe(),
            &prepared.directory,
            &credentials,
            facts,
            peers,
        );
        let budgets = Arc::clone(prepared.directory.budgets());
        tokio::spawn(budget::follow(configs.subscribe(), clusters.clone(), Arc::clone(&budgets)));
        let collector = Collector::new(askers, Arc::clone(process))
            .with_budgets(ServerBudgets::new(budgets, replicas.clone()))
            .with_clusters(clusters.clone())
            .with_credentials(credentials.clone())
            .with_peers(peers.clone())
            .with_facts(facts.clone());
        let console = Arc::new(Console::new(collector.clone(), configs.subscribe(), control));
        let cancel_keys = Arc::default();
        let common = Common {
            directory: Arc::clone(&prepared.directory),
            login: prepared.login.clone(),
            workers: Arc::clone(&senders),
            process: Arc::clone(process),
            console: Arc::clone(&console),
            clusters: clusters.clone(),
            cancel_keys: Arc::clone(&cancel_keys),
            peers: peers.clone(),
            credentials: credentials.clone(),
            traces,
            inherited_tcp: prepared.config.clients.tcp.clone(),
            key: prepared.key,
        };
        let threads = spawn(&common, channels)?;
        telemetry.begin(&collector);
        let logins = PendingLogins::new((&prepared.config.clients).into());
        let open_files = descriptors::raise_limit();
        let facts = facts.clone();
        Ok(Self {
            senders,
            threads,
            telemetry,
            collector,
            clusters,
            credentials,
            facts,
            replicas,
            console,
            logins,
            cancel_keys,
            open_files,
        })
    }

    /// Handle from which metrics and probes are collected.
    pub(super) const fn collector(&self) -> &Collector {
        &self.collector
    }

    /// What is shown over HTTP, with the configuration in force.
    pub(super) fn shown(&self, configs: &watch::Sender<Arc<Config>>) -> Shown {
        Shown {
            collector: self.collector.clone(),
            console: Arc::clone(&self.console),
            config: configs.subscribe(),
        }
    }

    /// The durable facts of the replicas.
    pub(super) const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The budget over all replicas; `None` for a single process.
    pub(super) const fn replicas(&self) -> Option<&ReplicaBudget> {
        self.replicas.as_ref()
    }

    /// The passwords that rotate.
    pub(super) const fn credentials(&self) -> &CredentialManager {
        &self.credentials
    }

    /// The watched clusters.
    pub(super) const fn clusters(&self) -> &Clusters {
        &self.clusters
    }

    /// Number of workers.
    pub(super) fn count(&self) -> usize {
        self.senders.len()
    }

    /// What accepting sockets needs.
    pub(super) fn accept_context(&self, process: &Arc<ProcessStats>) -> AcceptContext {
        AcceptContext {
            workers: Arc::clone(&self.senders),
            process: Arc::clone(process),
            pending_logins: Arc::clone(&self.logins),
        }
    }

    /// Begins the tasks beside the workers: averages of the console, the names of plain hosts, and
    /// the requests of other replicas.
    pub(super) fn begin_tasks(&self, configs: &watch::Sender<Arc<Config>>, requests: PeerRequests) {
        let console = Arc::clone(&self.console);
        tokio::spawn(async move { console.keep_averages().await });
        tokio::spawn(names::follow(configs.subscribe(), Arc::clone(&self.senders)));
        self.serve_peers(requests);
    }

    /// Serves what other replicas ask.
    fn serve_peers(&self, requests: PeerRequests) {
        let PeerRequests { cancels, commands, rows } = requests;
        let (senders, keys) = (Arc::clone(&self.senders), Arc::clone(&self.cancel_keys));
        tokio::spawn(worker::serve_peer_cancels(cancels, senders, keys));
        let console = Arc::clone(&self.console);
        tokio::spawn(async move { console.serve_peers(commands, rows).await });
    }

    /// Sets the limits of clients to the configured ones, or to what file descriptors allow.
    pub(super) fn limit_clients(&self, config: &Config, process: &ProcessStats) {
        let limits = descriptors::limit_clients(config, self.open_files);
        process.set_limit(&limits);
        self.logins.set_limits(limits.logging_in);
    }

    pub(super) fn tell_all(&self, message: impl Fn() -> Message) {
        tell_all(&self.senders, message);
    }

    /// Renews the connections of a database, or of all; each worker answers `reply`.
    pub(super) fn renew(
        &self,
        database: Option<&Arc<str>>,
        how: Renewal,
        reply: &mpsc::UnboundedSender<Renewed>,
    ) {
        self.tell_all(|| Message::Renew { database: database.cloned(), how, reply: reply.clone() });
    }

    /// Asks where a text would go now; each worker answers `reply`.
    pub(super) fn explain_route(
        &self,
        text: &Arc<[u8]>,
        reply: &mpsc::UnboundedSender<Vec<ExplainedRoute>>,
    ) {
        self.tell_all(|| Message::ExplainRoute { text: Arc::clone(text), reply: reply.clone() });
    }

    /// Ends all workers with whatever is connected.
    pub(super) async fn end(self) {
        // What workers have counted is asked of them for the last time.
        self.telemetry.finish().await;
        tell_all(&self.senders, || Message::Stop);
        for thread in self.threads {
            // A worker that panicked has said so.
            let _ = thread.join();
        }
        tracing::info!("bye");
    }
}

/// Starts the tasks that follow passwords and clusters, and tell the workers what has changed.
fn follow(
    prepared: &Prepared,
    facts: &Facts,
    senders: &Arc<[mpsc::UnboundedSender<Message>]>,
    traces: &Traces,
) -> Result<(CredentialManager, Clusters), ServeError> {
    let (to_workers, traces) = (Arc::clone(senders), traces.clone());
    let credentials = CredentialManager::start(&prepared.config, facts, move |role, event| {
        if matches!(event, CredentialEvent::Rotated) {
            traces.send(Event::Rotated { user: Arc::clone(role), at: SystemTime::now() });
        }
        tell_all(&to_workers, || Message::Credential {
            role: Arc::clone(role),
            event: event.clone(),
        });
    })?;
    let counts = prepared.directory.cluster_counts();
    let to_workers = Arc::clone(senders);
    let clusters =
        Clusters::start(&prepared.config, counts, &credentials, facts, move |cluster, view| {
            tell_all(&to_workers, || Message::Topology {
                cluster: Arc::clone(cluster),
                view: Arc::clone(view),
            });
        })?;
    Ok((credentials, clusters))
}

/// Starts a thread for each of `channels`.
fn spawn(common: &Common, channels: Vec<Channels>) -> io::Result<Vec<JoinHandle<()>>> {
    let numbered = (0..).map(WorkerId).zip(channels);
    numbered.map(|(id, channels)| worker::spawn(id, common.clone(), channels)).collect()
}

/// The channels of so many workers: for messages, for snapshots, and their receiving ends.
#[expect(clippy::type_complexity, reason = "three lists, taken apart at once")]
fn channels(
    count: u16,
) -> (
    Arc<[mpsc::UnboundedSender<Message>]>,
    Vec<mpsc::UnboundedSender<SnapshotRequest>>,
    Vec<Channels>,
) {
    let (mut senders, mut askers, mut channels) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..count {
        let (tell, messages) = mpsc::unbounded_channel();
        let (ask, snapshots) = mpsc::unbounded_channel();
        senders.push(tell);
        askers.push(ask);
        channels.push(Channels { messages, snapshots });
    }
    (senders.into(), askers, channels)
}

/// Sends every worker a message.
fn tell_all(workers: &[mpsc::UnboundedSender<Message>], message: impl Fn() -> Message) {
    for worker in workers {
        // One that has ended needs to know nothing.
        let _ = worker.send(message());
    }
}
