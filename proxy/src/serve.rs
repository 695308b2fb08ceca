//! The process: prepares, binds, starts the workers, serves, reloads and drains.

mod drain;
mod http_task;
mod take_over;
mod workers;

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pgimbal_auth::SourceError;
use pgimbal_auth::verifier::SaltKey;
use pgimbal_config::{Config, Overrides, ReloadChanges};
use pgimbal_pooler::server::prepared::StatementKey;
use rustix::process::Signal;
use thiserror::Error;
use tokio::sync::{mpsc, watch};

use crate::accept::{self, Accepting, BindError, Bound, Listeners};
use crate::admin::collect::{CertificateEnd, Phase, ProcessStats};
use crate::admin::console::{Control, ControlRequest, Pace, ReloadRefused};
use crate::budget::ReplicaBudget;
use crate::directory::PoolDirectory;
use crate::facts::{self, Facts};
use crate::inherited::{Inherited, SocketFile};
use crate::login::{ContextError, CurrentLoginContext, LoginContext};
use crate::peers::{Peers, PeersError};
use crate::service_manager;
use crate::signals::{SignalRequest, Signals};
use crate::state_dir::{self, StateDirError};
use crate::store::StoreError;
use crate::telemetry::{Telemetry, TelemetryError, Traces};
use crate::tls::{OwnCertificate, TlsError};
use crate::topology::PreparedClusters;
use crate::worker::Message;
use drain::{DrainTimes, Ending, Requests};
use http_task::Http;
use take_over::{Outcome, TakeOver};
use workers::{MAX_WORKERS, Workers, start_peers};

/// Interval at which the expiry of pgimbal's certificates is checked.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(24 * 60 * 60);

/// Interval at which certificates are looked for that were renewed in their files: a handful of
/// small files, which Kubernetes itself is up to a minute late with.
const RENEWAL_LOOK: Duration = Duration::from_secs(10);

/// How long after its clients a process that drains may take to leave its slot of the budget: it
/// closes its connections, and waits for the store.
const SLOT_LEFT_WITHIN: Duration = Duration::from_secs(5);

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
    /// Metrics and traces cannot be sent as it is configured.
    #[error("telemetry.{0}")]
    Telemetry(#[from] TelemetryError),
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
    telemetry: (Telemetry, Traces),
    key: StatementKey,
    /// The certificates as they were read: a file that is replaced counts after a reload.
    certificates: Vec<OwnCertificate>,
    /// Why certificates that were changed in their files cannot be used, as the log has it; empty
    /// while they can.
    refused_certificates: String,
    /// The path of the program, while it still is where it was.
    program: Option<PathBuf>,
}

impl Prepared {
    /// Prepares `state_dir` (makes it when it is missing), reads the files that the configuration
    /// names and derives what logins need. `overrides` is kept for reloads. Nothing is bound and no
    /// server is asked yet.
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
            telemetry: Telemetry::new(&config)?,
            certificates: OwnCertificate::all(&config),
            refused_certificates: String::new(),
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
        Telemetry::new(config)?;
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
        let passed_on = to_pass_on(&listeners, http.iter().chain(&peers))?;
        let (peers, peer_requests, told) = start_peers(&self.config, peers, &inherited)?;
        let facts = Facts::start(&self.config, peers.instance())?;
        // The peers may know what a store that is away would say.
        tokio::spawn(facts::exchange(facts.clone(), peers.clone(), told));
        if signals.until_shutdown(facts.ready()).await.is_none() {
            listeners.abandon();
            return Ok(());
        }
        self.follow_salts(&facts)?;
        let limit = self.config.clients.max_client_conn;
        let process = Arc::new(ProcessStats::new(SystemTime::now(), limit));
        let (control, requests) = mpsc::channel(CONTROL_QUEUE);
        let (control, configs) = (Control::new(control), watch::Sender::new(self.config.clone()));
        let workers = Workers::start(&mut self, &process, control, &configs, &facts, &peers)?;
        workers.begin_tasks(&configs, peer_requests);
        workers.limit_clients(&self.config, &process);
        let mut http = Http::new(http, workers.shown(&configs));
        if !inherited.is_take_over() {
            http.serve()?;
        }
        let places = listeners.places().join(", ");
        let prepared = self.prepare_for_clients(&workers, &inherited);
        if signals.until_shutdown(prepared).await.is_none() {
            listeners.abandon();
            let replicas = workers.replicas().cloned();
            workers.end().await;
            // A slot of the budget may be held by now.
            give_back(replicas, &facts).await;
            return Ok(());
        }
        let mut accepting = listeners.serve(&workers.accept_context(&process))?;
        process.enter(Phase::Serving);
        http.serve()?;
        peers.set_ready(true);
        self.say_ready(&places, workers.count());
        tell_ready(inherited);
        let mut requests = Requests { signals, control: requests };
        let ending = tokio::select! {
            ending = self.supervise(&workers, &mut requests, &process, &configs, passed_on) => ending,
            never = service_manager::keep_watchdog() => match never {},
        };
        process.enter(Phase::Draining);
        peers.set_ready(false);
        if ending == Ending::TakenOver {
            leave_ports(&peers, &mut http, &mut accepting).await;
        } else {
            service_manager::stopping();
        }
        let replicas = workers.replicas().cloned();
        drain::drain(workers, ending, accepting, self.drain_times(), requests, &process).await;
        http.end().await;
        give_back(replicas, &facts).await;
        Ok(())
    }

    /// Waits for what the first clients need: passwords, and connections to servers. A replica
    /// without a slot of the budget waits until one that drains has left its own: in a rolling
    /// update of Kubernetes the next pod is begun when the last one begins to drain. A process that
    /// takes over waits for none.
    async fn prepare_for_clients(&self, workers: &Workers, inherited: &Inherited) {
        workers.credentials().ready().await;
        if let Some(replicas) = workers.replicas().filter(|_| !inherited.is_take_over()) {
            let drain = self.config.drain_delay + self.config.shutdown_grace;
            replicas.await_slot(drain + SLOT_LEFT_WITHIN).await;
        }
    }

    fn drain_times(&self) -> DrainTimes {
        DrainTimes { delay: self.config.drain_delay, grace: self.config.shutdown_grace }
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

    /// As [`Self::follow_salts`]; if that fails, the log says so.
    fn follow_salts_or_keep(&mut self, facts: &Facts) {
        if let Err(cause) = self.follow_salts(facts) {
            tracing::error!("clients are checked with the salts of before: {cause}");
        }
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
        let mut published = workers.facts().document();
        let ending = loop {
            tokio::select! {
                _ = certificates.tick() => self.look_at_certificates(process),
                _ = renewals.tick() => self.follow_certificates(workers, process).await,
                Ok(()) = published.changed() => {
                    published.mark_unchanged();
                    self.follow_salts_or_keep(workers.facts());
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
                    SignalRequest::TakeOver => {
                        self.begin_take_over(&mut take_over, &listeners, workers);
                    }
                },
                Some(request) = requests.control.recv() => match request {
                    ControlRequest::Reload(reply) => {
                        let _ = reply.send(self.reload(workers, process, configs).await);
                    }
                    ControlRequest::Renew(database, how, reply) => {
                        workers.renew(database.as_ref(), how, &reply);
                    }
                    ControlRequest::ExplainRoute(text, reply) => {
                        workers.explain_route(&text, &reply);
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
        workers: &Workers,
    ) {
        if take_over.is_some() {
            tracing::warn!("SIGUSR2: another process is starting already");
            return;
        }
        service_manager::reloading();
        let instance = workers.collector().peers().instance();
        match TakeOver::begin(listeners, self.program.as_ref(), instance) {
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
                self.look_at_certificates(process);
                Ok(changes)
            }
            Err(refused) => {
                process.reloaded(false);
                tracing::error!("the new configuration is refused, the old one stays: {refused}");
                Err(refused)
            }
        }
    }

    /// Warns of certificates that end soon, and notes for the metrics when each ends.
    fn look_at_certificates(&self, process: &ProcessStats) {
        let now = SystemTime::now();
        for warning in self.certificates.iter().filter_map(|own| own.expiry_warning(now)) {
            tracing::warn!("{warning}");
        }
        let end = |own: &OwnCertificate| CertificateEnd {
            option: own.option().to_owned(),
            not_after: own.not_after(),
        };
        process.set_certificates(self.certificates.iter().map(end).collect());
    }

    /// Uses certificates that were renewed in their files, by cert-manager say, which tells nobody.
    /// The configuration stays as it is.
    async fn follow_certificates(&mut self, workers: &Workers, process: &ProcessStats) {
        if OwnCertificate::all(&self.config) == self.certificates {
            return;
        }
        match self.put_in_force(Arc::clone(&self.config), workers).await {
            Ok(()) => {
                self.refused_certificates.clear();
                workers.tell_all(|| Message::Reload(Arc::clone(&self.directory)));
                tracing::info!("a certificate was renewed in its file, and is used from now on");
                self.look_at_certificates(process);
            }
            // It is tried again: the key may come after the certificate.
            Err(ReloadRefused(why)) if why != self.refused_certificates => {
                tracing::error!(
                    "a certificate was changed in its file and cannot be used, the old one stays: \
                     {why}"
                );
                self.refused_certificates = why;
            }
            Err(_) => {}
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
        workers.credentials().reload(&config).await.map_err(|e| refused(&e))?;
        // Nothing can refuse the reload any more.
        workers.clusters().reload(clusters);
        self.login.replace(login);
        self.directory = Arc::new(directory);
        self.certificates = OwnCertificate::all(&config);
        self.config = config;
        Ok(())
    }
}

/// The process's environment variables as `(name, value)`, without those that are not UTF-8, which
/// no option can have.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// The listeners that a process which takes over is given: those of clients, and `others`.
fn to_pass_on<'a>(
    listeners: &Listeners,
    others: impl Iterator<Item = &'a TcpListener>,
) -> io::Result<Vec<(OwnedFd, SocketFile)>> {
    let mut passed_on = listeners.to_pass_on()?;
    for listener in others {
        passed_on.push((listener.try_clone()?.into(), SocketFile::Foreign));
    }
    Ok(passed_on)
}

/// Gives the slot of the budget back when the workers have ended, and waits until the store has
/// what was changed here.
async fn give_back(replicas: Option<ReplicaBudget>, facts: &Facts) {
    if let Some(replicas) = replicas {
        replicas.leave().await;
    }
    facts.finish().await;
}

/// Leaves all ports to the process that has taken over.
async fn leave_ports(peers: &Peers, http: &mut Http, accepting: &mut Accepting) {
    if let Err(error) = peers.leave_port() {
        tracing::warn!(%error, "peers.listen is not left to the new process");
    }
    http.end().await;
    accepting.leave();
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
