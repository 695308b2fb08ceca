//! The process: prepares, binds, starts the workers, serves, reloads and drains.

mod drain;
mod take_over;

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use pgimbal_auth::SourceError;
use pgimbal_auth::verifier::SaltKey;
use pgimbal_config::{Config, Overrides, ReloadChanges};
use pgimbal_pooler::ids::WorkerId;
use pgimbal_pooler::server::prepared::StatementKey;
use pgimbal_pooler::server::renewal::{Renewal, Renewed};
use rustix::process::Signal;
use thiserror::Error;
use tokio::sync::{mpsc, watch};

use crate::accept::{self, AcceptContext, BindError, Bound};
use crate::admin::collect::{Collector, Phase, ProcessStats, SnapshotRequest};
use crate::admin::console::{Console, Control, ControlRequest, Pace, ReloadRefused};
use crate::admin::http;
use crate::cancel_keys::WrongKeyLimiter;
use crate::credentials::CredentialManager;
use crate::descriptors;
use crate::directory::PoolDirectory;
use crate::facts::Facts;
use crate::inherited::{Inherited, SocketFile};
use crate::login::{ContextError, CurrentLoginContext, LoginContext};
use crate::names;
use crate::peers::{Asked, Handlers, Kind, Peers, PeersError};
use crate::pending_logins::PendingLogins;
use crate::service_manager;
use crate::signals::{SignalRequest, Signals};
use crate::state_dir::{self, StateDirError};
use crate::store::StoreError;
use crate::tls::{OwnCertificate, TlsError};
use crate::topology::{Clusters, PreparedClusters};
use crate::worker::{self, Channels, Common, Message};
use drain::{DrainTimes, Ending, Requests};
use take_over::{Outcome, TakeOver};

/// Interval at which the expiry of pgimbal's certificates is checked.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(24 * 60 * 60);

/// Interval at which certificates are looked for that were renewed in their files: a handful of small
/// files, which Kubernetes itself is up to a minute late with.
const RENEWAL_LOOK: Duration = Duration::from_secs(10);

/// Limit of console requests that wait for the main task.
const CONTROL_QUEUE: usize = 16;

/// The reason for which the process cannot serve.
#[derive(Debug, Error)]
pub enum ServeError {
    /// A user's password or TLS towards clients cannot be used.
    #[error(transparent)]
    Login(#[from] ContextError),
    /// TLS towards servers cannot be set up.
    #[error("server_tls: {0}")]
    Tls(#[from] TlsError),
    /// A source of passwords cannot be set up.
    #[error("{0}")]
    Source(#[from] SourceError),
    /// The directory `state_dir` cannot be used.
    #[error(transparent)]
    State(#[from] StateDirError),
    /// The store of the replicas' facts cannot be used as it is configured.
    #[error("store: {0}")]
    Store(#[from] StoreError),
    /// An address of `listen`, `unix_socket_dir` or `http_listen` cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The other replicas cannot be served.
    #[error("peers: {0}")]
    Peers(#[from] PeersError),
    /// A thread or a runtime cannot be started.
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
}

impl ServeError {
    /// Whether the configuration is at fault, so that a restart will not help and the exit code is
    /// 78. `false` for an address that cannot be bound and a thread that cannot be started; the
    /// exit code is 1 then.
    #[must_use]
    pub const fn is_configuration(&self) -> bool {
        !matches!(self, Self::Bind(_) | Self::Start(_))
    }
}

/// A process that is ready to bind its addresses: its configuration with everything that was made
/// from it.
#[derive(Debug)]
pub struct Prepared {
    config: Arc<Config>,
    overrides: Overrides,
    salts: SaltKey,
    directory: Arc<PoolDirectory>,
    login: CurrentLoginContext,
    key: StatementKey,
    /// The certificates as they were read: a file that is replaced counts after a reload.
    certificates: Vec<OwnCertificate>,
    /// The path of the program, while it still is where it was.
    program: Option<PathBuf>,
}

impl Prepared {
    /// Prepares `state_dir` (makes it when it is missing), reads
    /// the files that the configuration names and derives what logins need. `overrides` is kept for
    /// reloads. Nothing is bound and no server is asked yet.
    ///
    /// # Errors
    /// [`ServeError`] when the configuration, `state_dir` or a file cannot be used.
    pub fn new(config: Arc<Config>, overrides: Overrides) -> Result<Self, ServeError> {
        if let Some(directory) = &config.credentials.state_dir {
            state_dir::prepare(directory)?;
        }
        // Until the facts say which salts the deployment has.
        let salts = SaltKey::new(rand::random());
        let workers = u16::try_from(config.workers).unwrap_or(u16::MAX).clamp(1, MAX_WORKERS);
        Ok(Self {
            directory: Arc::new(PoolDirectory::new(Arc::clone(&config), workers)?),
            login: CurrentLoginContext::new(LoginContext::new(Arc::clone(&config), salts.clone())?),
            certificates: OwnCertificate::all(&config),
            config,
            overrides,
            salts,
            program: std::env::current_exe().ok(),
            key: StatementKey(rand::random()),
        })
    }

    /// Checks that [`Self::new`] would succeed, without writing anything.
    ///
    /// # Errors
    /// [`ServeError`] that [`Self::new`] would return.
    pub fn examine(config: &Arc<Config>) -> Result<(), ServeError> {
        if let Some(directory) = &config.credentials.state_dir {
            state_dir::examine(directory)?;
        }
        PoolDirectory::new(Arc::clone(config), 1)?;
        LoginContext::new(Arc::clone(config), SaltKey::new(rand::random()))?;
        Ok(())
    }

    /// Binds, or uses what was `inherited`, serves clients until the process is told to end, and
    /// then drains: within `drain_delay` and `shutdown_grace` after SIGTERM or SHUTDOWN on the
    /// console, and without waiting for transactions after SIGINT. SIGHUP and RELOAD read the
    /// configuration again meanwhile; after SIGUSR2 another process accepts the clients. Returns
    /// when all workers have ended.
    ///
    /// # Errors
    /// [`ServeError`] when serving could not begin.
    pub async fn run(
        mut self,
        mut signals: Signals,
        mut inherited: Inherited,
    ) -> Result<(), ServeError> {
        let Bound { clients: listeners, http, peers } = accept::bind(&self.config, &mut inherited)?;
        inherited.close_the_rest();
        let mut passed_on = listeners.to_pass_on()?;
        if let Some(http) = &http {
            passed_on.push((http.try_clone()?.into(), SocketFile::Foreign));
        }
        if let Some(peers) = &peers {
            passed_on.push((peers.try_clone()?.into(), SocketFile::Foreign));
        }
        let (peers, peer_requests) = start_peers(&self.config, peers)?;
        let facts = Facts::start(&self.config)?;
        if signals.until_shutdown(facts.ready()).await.is_none() {
            listeners.abandon();
            return Ok(());
        }
        self.follow_salts(&facts)?;
        let process =
            Arc::new(ProcessStats::new(SystemTime::now(), self.config.clients.max_client_conn));
        let (control, requests) = mpsc::channel(CONTROL_QUEUE);
        let (configs, _) = watch::channel(Arc::clone(&self.config));
        let control = Control::new(control);
        let workers = Workers::start(&self, &process, control, &configs, &facts, peers.clone())?;
        workers.serve_peers(peer_requests);
        workers.limit_clients(&self.config, &process);
        let mut http = Http::new(http, workers.collector.clone());
        if !inherited.is_take_over() {
            http.serve()?;
        }
        let console = Arc::clone(&workers.console);
        tokio::spawn(async move { console.keep_averages().await });
        tokio::spawn(names::follow(configs.subscribe(), Arc::clone(&workers.senders)));
        let places = listeners.places().join(", ");
        // The first clients need the passwords.
        if signals.until_shutdown(workers.credentials.ready()).await.is_none() {
            listeners.abandon();
            workers.end();
            return Ok(());
        }
        let mut accepting = listeners.serve(&AcceptContext {
            workers: Arc::clone(&workers.senders),
            process: Arc::clone(&process),
            pending_logins: Arc::clone(&workers.logins),
        })?;
        process.enter(Phase::Serving);
        http.serve()?;
        peers.set_ready(true);
        self.say_ready(&places, workers.senders.len());
        tell_ready(inherited);
        let mut requests = Requests { signals, control: requests };
        let ending = tokio::select! {
            ending = self.supervise(&workers, &mut requests, &process, &configs, passed_on) => ending,
            never = service_manager::keep_watchdog() => match never {},
        };
        process.enter(Phase::Draining);
        peers.set_ready(false);
        if ending == Ending::TakenOver {
            http.end().await;
            accepting.leave();
        } else {
            service_manager::stopping();
        }
        let (delay, grace) = (self.config.drain_delay, self.config.shutdown_grace);
        let times = DrainTimes { delay, grace };
        drain::drain(workers, ending, accepting, times, requests, &process).await;
        http.end().await;
        facts.finish().await;
        Ok(())
    }

    /// Checks clients with the salts of the deployment; no effect when it does already. The
    /// verifiers of the passwords in the configuration are made anew.
    fn follow_salts(&mut self, facts: &Facts) -> Result<(), ContextError> {
        let salts = facts.salt_key();
        if salts.salt(b"") != self.salts.salt(b"") {
            self.login.replace(LoginContext::new(Arc::clone(&self.config), salts.clone())?);
            self.salts = salts;
        }
        Ok(())
    }

    /// Logs the line `ready on …` with the main options.
    fn say_ready(&self, places: &str, workers: usize) {
        let config = &self.config;
        let file = config.file.as_ref().map(|file| file.display().to_string());
        let http = config.http.listen.map(|address| address.to_string());
        let clusters: Vec<&str> = config.clusters.keys().map(String::as_str).collect();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            config = file.as_deref().unwrap_or("none"),
            workers,
            http = http.as_deref().unwrap_or("off"),
            client_tls = config.clients.tls.mode.as_str(),
            server_tls = config.server_tls.mode.as_str(),
            databases = config.databases.len(),
            ?clusters,
            "ready on {places}"
        );
    }

    /// Serves signals and requests of the console, until the process is to end. `listeners` are
    /// what a process that takes over is given.
    async fn supervise(
        &mut self,
        workers: &Workers,
        requests: &mut Requests,
        process: &ProcessStats,
        configs: &watch::Sender<Arc<Config>>,
        listeners: Vec<(OwnedFd, SocketFile)>,
    ) -> Ending {
        let mut certificates = tokio::time::interval(CERTIFICATE_LOOK);
        let mut renewals = tokio::time::interval(RENEWAL_LOOK);
        let mut take_over = None;
        let mut published = workers.facts.document();
        let ending = loop {
            tokio::select! {
                _ = certificates.tick() => self.warn_of_certificates(),
                _ = renewals.tick() => self.follow_certificates(workers).await,
                Ok(()) = published.changed() => {
                    published.mark_unchanged();
                    if let Err(cause) = self.follow_salts(&workers.facts) {
                        tracing::error!("clients are checked with the salts of before: {cause}");
                    }
                }
                outcome = outcome_of(&mut take_over) => match outcome {
                    Outcome::Serves(pid) => {
                        tracing::info!(pid, "another process has taken over");
                        service_manager::taken_over_by(pid);
                        return Ending::TakenOver;
                    }
                    Outcome::Failed(reason) => {
                        tracing::error!("no other process takes over, this one serves on: {reason}");
                        take_over = None;
                        service_manager::ready();
                    }
                },
                request = requests.signals.next() => match request {
                    SignalRequest::Drain => break Ending::Drain(Pace::Unnoticed),
                    SignalRequest::Stop => break Ending::Stop,
                    SignalRequest::Reload => {
                        service_manager::reloading();
                        // What became of it stands in the log.
                        let _ = self.reload(workers, process, configs).await;
                        service_manager::ready();
                    }
                    SignalRequest::TakeOver => self.begin_take_over(&mut take_over, &listeners),
                },
                Some(request) = requests.control.recv() => match request {
                    ControlRequest::Reload(reply) => {
                        let _ = reply.send(self.reload(workers, process, configs).await);
                    }
                    ControlRequest::Renew(database, how, reply) => {
                        workers.renew(database.as_ref(), how, &reply);
                    }
                    ControlRequest::Shutdown(pace, reply) => {
                        let _ = reply.send(());
                        break Ending::Drain(pace);
                    }
                },
            }
        };
        if let Some(take_over) = take_over {
            // Who ends the service ends both.
            let stops = ending == Ending::Stop;
            take_over.end(if stops { Signal::INT } else { Signal::TERM });
        }
        ending
    }

    /// Starts a process that takes over, unless one is starting.
    fn begin_take_over(
        &self,
        take_over: &mut Option<TakeOver>,
        listeners: &[(OwnedFd, SocketFile)],
    ) {
        if take_over.is_some() {
            tracing::warn!("SIGUSR2: another process is starting already");
            return;
        }
        service_manager::reloading();
        match TakeOver::begin(listeners, self.program.as_ref()) {
            Ok(begun) => {
                tracing::info!(pid = begun.pid(), "another process is started to take over");
                *take_over = Some(begun);
            }
            Err(error) => {
                tracing::error!("no other process can be started, this one serves on: {error}");
                service_manager::ready();
            }
        }
    }

    /// Reads the configuration again. A configuration with an error is refused as a whole.
    async fn reload(
        &mut self,
        workers: &Workers,
        process: &ProcessStats,
        configs: &watch::Sender<Arc<Config>>,
    ) -> Result<ReloadChanges, ReloadRefused> {
        match self.try_reload(workers).await {
            Ok(changes) => {
                process.reloaded(true);
                workers.limit_clients(&self.config, process);
                configs.send_replace(Arc::clone(&self.config));
                workers.tell_all(|| Message::Reload(Arc::clone(&self.directory)));
                tracing::info!(applied = ?changes.applied, needs_restart = ?changes.needs_restart, "configuration reloaded");
                self.warn_of_certificates();
                Ok(changes)
            }
            Err(refused) => {
                process.reloaded(false);
                tracing::error!("the new configuration is refused, the old one stays: {refused}");
                Err(refused)
            }
        }
    }

    fn warn_of_certificates(&self) {
        for warning in
            self.certificates.iter().filter_map(|own| own.expiry_warning(SystemTime::now()))
        {
            tracing::warn!("{warning}");
        }
    }

    /// Uses certificates that were renewed in their files, by cert-manager say, which tells nobody.
    /// The configuration stays as it is.
    async fn follow_certificates(&mut self, workers: &Workers) {
        if OwnCertificate::all(&self.config) == self.certificates {
            return;
        }
        match self.put_in_force(Arc::clone(&self.config), workers).await {
            Ok(()) => {
                workers.tell_all(|| Message::Reload(Arc::clone(&self.directory)));
                tracing::info!("a certificate was renewed in its file, and is used from now on");
                self.warn_of_certificates();
            }
            Err(refused) => tracing::error!(
                "a certificate was changed in its file and cannot be used, the old one stays: \
                 {refused}"
            ),
        }
    }

    async fn try_reload(&mut self, workers: &Workers) -> Result<ReloadChanges, ReloadRefused> {
        let config = pgimbal_config::load(&self.overrides, environment())
            .map_err(|e| ReloadRefused(e.to_string()))?;
        let changes = pgimbal_config::reload_changes(&self.config, &config);
        let config = pgimbal_config::config_after_reload(&self.config, config)
            .map_err(|e| ReloadRefused(e.to_string()))?;
        self.put_in_force(Arc::new(config), workers).await?;
        Ok(changes)
    }

    /// Reads the files that the configuration names and puts both in force; a file that cannot be
    /// used leaves everything as it was.
    async fn put_in_force(
        &mut self,
        config: Arc<Config>,
        workers: &Workers,
    ) -> Result<(), ReloadRefused> {
        fn refused(cause: &impl ToString) -> ReloadRefused {
            ReloadRefused(cause.to_string())
        }
        let login =
            LoginContext::new(Arc::clone(&config), self.salts.clone()).map_err(|e| refused(&e))?;
        let directory = self.directory.reloaded(Arc::clone(&config)).map_err(|e| refused(&e))?;
        let clusters = PreparedClusters::new(&config).map_err(|e| refused(&e))?;
        workers.credentials.reload(&config).await.map_err(|e| refused(&e))?;
        // Nothing can refuse the reload any more.
        workers.clusters.reload(clusters);
        self.login.replace(login);
        self.directory = Arc::new(directory);
        self.certificates = OwnCertificate::all(&config);
        self.config = config;
        Ok(())
    }
}

/// Limit of workers, whose numbers are seven bits of a cancel key.
const MAX_WORKERS: u16 = 126;

/// The process's environment variables as `(name, value)`, without those that are not UTF-8, which
/// no option can have.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// The requests of other replicas, by what they are about.
struct PeerRequests {
    cancels: mpsc::Receiver<Asked>,
    commands: mpsc::Receiver<Asked>,
    rows: mpsc::Receiver<Asked>,
}

/// Begins to look for the other replicas, unless `listener`, that of `peers.listen`, is `None`.
fn start_peers(
    config: &Config,
    listener: Option<std::net::TcpListener>,
) -> Result<(Peers, PeerRequests), PeersError> {
    let mut handlers = Handlers::default();
    let requests = PeerRequests {
        cancels: handlers.on(Kind::Cancel),
        commands: handlers.on(Kind::Command),
        rows: handlers.on(Kind::Rows),
    };
    let peers = match listener {
        Some(listener) => Peers::start(config, listener, handlers)?,
        None => Peers::default(),
    };
    Ok((peers, requests))
}

/// The workers, and the handles through which they are reached.
struct Workers {
    senders: Arc<[mpsc::UnboundedSender<Message>]>,
    threads: Vec<JoinHandle<()>>,
    collector: Collector,
    clusters: Clusters,
    credentials: CredentialManager,
    facts: Facts,
    console: Arc<Console>,
    logins: Arc<PendingLogins>,
    cancel_keys: Arc<WrongKeyLimiter>,
    /// Limit of open files of the process.
    open_files: u64,
}

impl Workers {
    fn start(
        prepared: &Prepared,
        process: &Arc<ProcessStats>,
        control: Control,
        configs: &watch::Sender<Arc<Config>>,
        facts: &Facts,
        peers: Peers,
    ) -> Result<Self, ServeError> {
        let count =
            u16::try_from(prepared.config.workers).unwrap_or(u16::MAX).clamp(1, MAX_WORKERS);
        let (senders, askers, channels) = channels(count);
        let to_workers = Arc::clone(&senders);
        let credentials = CredentialManager::start(&prepared.config, facts, move |role, event| {
            tell_all(&to_workers, || Message::Credential {
                role: Arc::clone(role),
                event: event.clone(),
            });
        })?;
        let counts = prepared.directory.cluster_counts();
        let to_workers = Arc::clone(&senders);
        let clusters = Clusters::start(
            &prepared.config,
            counts,
            &credentials,
            facts,
            move |cluster, view| {
                tell_all(&to_workers, || Message::Topology {
                    cluster: Arc::clone(cluster),
                    view: Arc::clone(view),
                });
            },
        )?;
        let collector = Collector::new(askers, Arc::clone(process))
            .with_clusters(clusters.clone())
            .with_credentials(credentials.clone())
            .with_peers(peers.clone());
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
            peers,
            credentials: credentials.clone(),
            inherited_tcp: prepared.config.clients.tcp.clone(),
            key: prepared.key,
        };
        let mut threads = Vec::new();
        for (id, channels) in (0..count).zip(channels) {
            threads.push(worker::spawn(WorkerId(id), common.clone(), channels)?);
        }
        let logins = PendingLogins::new((&prepared.config.clients).into());
        let open_files = descriptors::raise_limit();
        let facts = facts.clone();
        Ok(Self {
            senders,
            threads,
            collector,
            clusters,
            credentials,
            facts,
            console,
            logins,
            cancel_keys,
            open_files,
        })
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
    fn limit_clients(&self, config: &Config, process: &ProcessStats) {
        let limits = descriptors::limit_clients(config, self.open_files);
        process.set_limit(&limits);
        self.logins.set_limits(limits.logging_in);
    }

    fn tell_all(&self, message: impl Fn() -> Message) {
        tell_all(&self.senders, message);
    }

    /// Renews the connections of a database, or of all; each worker answers `reply`.
    fn renew(
        &self,
        database: Option<&Arc<str>>,
        how: Renewal,
        reply: &mpsc::UnboundedSender<Renewed>,
    ) {
        self.tell_all(|| Message::Renew { database: database.cloned(), how, reply: reply.clone() });
    }

    /// Ends all workers with whatever is connected.
    fn end(self) {
        self.tell_all(|| Message::Stop);
        for thread in self.threads {
            // A worker that panicked has said so.
            let _ = thread.join();
        }
        tracing::info!("bye");
    }
}

/// The task that serves HTTP: probes and metrics are answered to the end.
struct Http {
    listener: Option<TcpListener>,
    collector: Collector,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Http {
    const fn new(listener: Option<TcpListener>, collector: Collector) -> Self {
        Self { listener, collector, task: None }
    }

    /// Begins to serve, unless it does so already or HTTP is off.
    fn serve(&mut self) -> io::Result<()> {
        if let Some(listener) = self.listener.take() {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            self.task = Some(tokio::spawn(http::serve(listener, self.collector.clone())));
        }
        Ok(())
    }

    /// Closes the listener; connections that were accepted go on.
    async fn end(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            // It ends by being aborted, and its listener with it.
            let _ = task.await;
        }
    }
}

/// Tells the process before this one, and the service manager, that this one serves.
fn tell_ready(mut inherited: Inherited) {
    service_manager::ready();
    if let Some(line) = inherited.take_line()
        && let Err(error) = line.tell_ready()
    {
        tracing::warn!("the process that this one takes over from is gone: {error}");
    }
}

/// Waits for the outcome of a take-over; pends for ever while there is none.
async fn outcome_of(take_over: &mut Option<TakeOver>) -> Outcome {
    match take_over {
        Some(take_over) => take_over.outcome().await,
        None => std::future::pending().await,
    }
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
