//! The process: binds, starts the workers, serves, reloads, drains.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use pgimbal_auth::SourceError;
use pgimbal_auth::verifier::SaltKey;
use pgimbal_config::{Config, Overrides, Reload};
use pgimbal_pooler::ids::WorkerId;
use pgimbal_pooler::prepared::StatementKey;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::accept::{BindError, Listeners, Reception};
use crate::collect::{Collector, Phase, ProcessStats};
use crate::console::{Console, Control, ControlRequest, ReloadRefused};
use crate::credentials::{self, Keeper};
use crate::descriptors::{self, Needed};
use crate::directory::Directory;
use crate::http;
use crate::lobby::Lobby;
use crate::login::{ContextError, LoginContext};
use crate::tls::TlsError;
use crate::topology::Clusters;
use crate::worker::{self, Channels, Common, Message};

/// How often a drain looks whether everybody has left.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// Console requests that may wait for the main task; an administrator's hands are slow.
const CONTROL_QUEUE: usize = 16;

/// Why the process cannot serve.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Login(#[from] ContextError),
    /// TLS towards servers.
    #[error("server_tls: {0}")]
    Tls(#[from] TlsError),
    /// A source of passwords.
    #[error("{0}")]
    Source(#[from] SourceError),
    /// A listener.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A thread or a runtime could not be made.
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
}

impl ServeError {
    /// Whether it is the configuration's fault, so that a restart will not help.
    #[must_use]
    pub const fn is_configuration(&self) -> bool {
        matches!(self, Self::Login(_) | Self::Tls(_) | Self::Source(_))
    }
}

/// Everything that is made before a port is bound.
#[derive(Debug)]
pub struct Prepared {
    config: Arc<Config>,
    overrides: Overrides,
    salts: SaltKey,
    directory: Arc<Directory>,
    login: Arc<LoginContext>,
    key: StatementKey,
}

impl Prepared {
    /// Reads what the configuration names and computes what logins need.
    ///
    /// # Errors
    /// [`ServeError`] when it cannot be used.
    pub fn new(config: Arc<Config>, overrides: Overrides) -> Result<Self, ServeError> {
        let salts = credentials::salt_key(&config);
        let workers = u16::try_from(config.workers).unwrap_or(u16::MAX).clamp(1, MAX_WORKERS);
        Ok(Self {
            directory: Arc::new(Directory::new(Arc::clone(&config), workers)?),
            login: Arc::new(LoginContext::new(Arc::clone(&config), salts.clone())?),
            config,
            overrides,
            salts,
            key: StatementKey(rand::random()),
        })
    }

    /// Serves clients until a signal or the console ends it.
    ///
    /// # Errors
    /// [`ServeError`] when it could not begin.
    pub fn run(self) -> Result<(), ServeError> {
        // First, so that whoever sees the clients' port open finds everything open.
        let http = self.config.http.listen.map(TcpListener::bind).transpose()?;
        let listeners = Listeners::bind(&self.config.listen, &self.config.clients.tcp)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.serve(listeners, http))
    }

    async fn serve(
        self,
        listeners: Listeners,
        http: Option<TcpListener>,
    ) -> Result<(), ServeError> {
        let process =
            Arc::new(ProcessStats::new(SystemTime::now(), self.config.clients.max_client_conn));
        let (control, requests) = mpsc::channel(CONTROL_QUEUE);
        let (configs, _) = watch::channel(Arc::clone(&self.config));
        let crew = Crew::start(&self, &process, Control::new(control), &configs)?;
        crew.limit_clients(&self.config, &process);
        if let Some(listener) = http {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::spawn(http::serve(listener, crew.collector.clone()));
        }
        let console = Arc::clone(&crew.console);
        tokio::spawn(async move { console.keep_averages().await });
        let places = listeners.places().join(", ");
        let reception = Reception {
            workers: Arc::clone(&crew.workers),
            process: Arc::clone(&process),
            lobby: Arc::clone(&crew.lobby),
        };
        // The first clients need the passwords.
        crew.keeper.ready().await;
        let accepting = listeners.serve(&reception)?;
        process.enter(Phase::Serving);
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            workers = crew.workers.len(),
            "ready on {places}"
        );
        let grace = self.supervise(&crew, requests, &process, &configs).await?;
        drop(accepting);
        process.enter(Phase::Draining);
        crew.drain(grace, &process).await;
        Ok(())
    }

    /// Waits for signals and the console's wishes; returns how long a drain may take.
    async fn supervise(
        mut self,
        crew: &Crew,
        mut requests: mpsc::Receiver<ControlRequest>,
        process: &ProcessStats,
        configs: &watch::Sender<Arc<Config>>,
    ) -> Result<Duration, ServeError> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => return Ok(Duration::ZERO),
                _ = hangup.recv() => {
                    // What became of it stands in the log.
                    let _ = self.reload(crew, process, configs);
                }
                Some(request) = requests.recv() => match request {
                    ControlRequest::Reload(reply) => {
                        let _ = reply.send(self.reload(crew, process, configs));
                    }
                    ControlRequest::Shutdown(reply) => {
                        let _ = reply.send(());
                        break;
                    }
                },
            }
        }
        Ok(self.config.shutdown_grace)
    }

    /// Reads the configuration again. A bad one is refused whole.
    fn reload(
        &mut self,
        crew: &Crew,
        process: &ProcessStats,
        configs: &watch::Sender<Arc<Config>>,
    ) -> Result<Reload, ReloadRefused> {
        match self.try_reload(crew) {
            Ok(changes) => {
                process.reloaded(true);
                crew.limit_clients(&self.config, process);
                configs.send_replace(Arc::clone(&self.config));
                crew.tell_all(|| {
                    Message::Reload(Arc::clone(&self.directory), Arc::clone(&self.login))
                });
                tracing::info!(applied = ?changes.applied, needs_restart = ?changes.needs_restart, "configuration reloaded");
                Ok(changes)
            }
            Err(refused) => {
                process.reloaded(false);
                tracing::error!("the new configuration is refused, the old one stays: {refused}");
                Err(refused)
            }
        }
    }

    fn try_reload(&mut self, crew: &Crew) -> Result<Reload, ReloadRefused> {
        fn refused(cause: &impl ToString) -> ReloadRefused {
            ReloadRefused(cause.to_string())
        }
        let config =
            pgimbal_config::load(&self.overrides, environment()).map_err(|e| refused(&e))?;
        let config = Arc::new(config);
        let changes = pgimbal_config::reload_changes(&self.config, &config);
        let login =
            LoginContext::new(Arc::clone(&config), self.salts.clone()).map_err(|e| refused(&e))?;
        let directory = self.directory.reloaded(Arc::clone(&config)).map_err(|e| refused(&e))?;
        crew.clusters.reload(&config).map_err(|e| refused(&e))?;
        crew.keeper.reload(&config).map_err(|e| refused(&e))?;
        self.login = Arc::new(login);
        self.directory = Arc::new(directory);
        self.config = config;
        Ok(changes)
    }
}

/// Workers are numbered in seven bits of a cancel key.
const MAX_WORKERS: u16 = 126;

/// The environment, without what is not UTF-8: no option can be meant by it.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// The workers and the ways to them.
struct Crew {
    workers: Arc<[mpsc::UnboundedSender<Message>]>,
    threads: Vec<JoinHandle<()>>,
    collector: Collector,
    clusters: Clusters,
    keeper: Keeper,
    console: Arc<Console>,
    lobby: Arc<Lobby>,
    /// How many files the process may open.
    open_files: u64,
}

impl Crew {
    fn start(
        prepared: &Prepared,
        process: &Arc<ProcessStats>,
        control: Control,
        configs: &watch::Sender<Arc<Config>>,
    ) -> Result<Self, ServeError> {
        let count =
            u16::try_from(prepared.config.workers).unwrap_or(u16::MAX).clamp(1, MAX_WORKERS);
        let mut workers = Vec::new();
        let mut askers = Vec::new();
        let mut channels = Vec::new();
        for _ in 0..count {
            let (tell, messages) = mpsc::unbounded_channel();
            let (ask, snapshots) = mpsc::unbounded_channel();
            workers.push(tell);
            askers.push(ask);
            channels.push(Channels { messages, snapshots });
        }
        let workers: Arc<[_]> = workers.into();
        let keeper = Keeper::start(&prepared.config, &prepared.salts, &workers)?;
        let counts = prepared.directory.cluster_counts();
        let clusters = Clusters::start(&prepared.config, &workers, counts, &keeper)?;
        let collector = Collector::new(askers, Arc::clone(process))
            .watching(clusters.clone())
            .keeping(keeper.clone());
        let console = Arc::new(Console::new(collector.clone(), configs.subscribe(), control));
        let common = Common {
            directory: Arc::clone(&prepared.directory),
            login: Arc::clone(&prepared.login),
            workers: Arc::clone(&workers),
            process: Arc::clone(process),
            console: Arc::clone(&console),
            clusters: clusters.clone(),
            cancel_keys: Arc::default(),
            keeper: keeper.clone(),
            inherited_tcp: prepared.config.clients.tcp.clone(),
            key: prepared.key,
        };
        let mut threads = Vec::new();
        for (id, channels) in (0..count).zip(channels) {
            threads.push(worker::spawn(WorkerId(id), common.clone(), channels)?);
        }
        let lobby = Lobby::new((&prepared.config.clients).into());
        let open_files = descriptors::raise();
        Ok(Self { workers, threads, collector, clusters, keeper, console, lobby, open_files })
    }

    /// Takes as many clients as are wanted, or as open files suffice for.
    fn limit_clients(&self, config: &Config, process: &ProcessStats) {
        let needed = Needed::by(config);
        if let Some(warning) = needed.warning(self.open_files) {
            tracing::warn!("{warning}");
        }
        let fitting = needed.fit(config, self.open_files);
        process.set_limit(&fitting);
        self.lobby.set_limits(fitting.logging_in);
    }

    fn tell_all(&self, message: impl Fn() -> Message) {
        for worker in self.workers.iter() {
            // One that has ended needs to know nothing.
            let _ = worker.send(message());
        }
    }

    /// Lets transactions come to their end for `grace`, then ends everything.
    async fn drain(self, grace: Duration, process: &ProcessStats) {
        tracing::info!(
            clients = process.clients(),
            grace_seconds = grace.as_secs(),
            "shutting down"
        );
        self.tell_all(|| Message::Drain);
        let end = Instant::now() + grace;
        while process.clients() > 0 && Instant::now() < end {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
        if process.clients() > 0 {
            tracing::warn!(
                clients = process.clients(),
                "shutdown_grace is over: the last clients are cut off"
            );
        }
        self.tell_all(|| Message::Stop);
        for thread in self.threads {
            // A worker that panicked has said so.
            let _ = thread.join();
        }
        tracing::info!("bye");
    }
}
