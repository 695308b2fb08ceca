//! A small HTTP server that answers as a test says and remembers what it was asked.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What was asked.
#[derive(Clone)]
pub(super) struct Received {
    pub(super) method: String,
    uri: String,
    pub(super) headers: HeaderMap,
    pub(super) body: serde_json::Value,
}

impl Received {
    pub(super) fn path(&self) -> &str {
        &self.uri
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a text"))
    }
}

/// What is answered.
#[derive(Clone)]
pub(super) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    delay: Duration,
}

impl Reply {
    pub(super) fn json(status: u16, body: &str) -> Self {
        let body = Bytes::copy_from_slice(body.as_bytes());
        Self { status, headers: Vec::new(), body, delay: Duration::ZERO }
    }

    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(super) fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

type Script = Box<dyn Fn(&Received) -> Reply + Send + Sync>;

struct State {
    script: Script,
    asked: Mutex<Vec<Received>>,
    connections: AtomicUsize,
}

/// A server that ends with its test's runtime.
pub(super) struct Server {
    pub(super) url: String,
    state: Arc<State>,
}

impl Server {
    pub(super) async fn start(script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(Box::new(script), None).await
    }

    pub(super) async fn start_tls(
        config: rustls::ServerConfig,
        script: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Box::new(script), Some(Arc::new(config).into())).await
    }

    async fn listen(script: Script, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let state = Arc::new(State {
            script,
            asked: Mutex::default(),
            connections: AtomicUsize::default(),
        });
        let server = Self { url: format!("{scheme}://127.0.0.1:{port}"), state };
        let state = Arc::clone(&server.state);
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.expect("a connection");
                let (state, tls) = (Arc::clone(&state), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(socket, state).await,
                        Some(tls) => {
                            if let Ok(socket) = tls.accept(socket).await {
                                serve(socket, state).await;
                            }
                        }
                    }
                });
            }
        });
        server
    }

    /// Connections over which at least a handshake came.
    pub(super) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// What was asked so far.
    pub(super) fn asked(&self) -> Vec<Received> {
        self.state.asked.lock().expect("the log").clone()
    }

    /// How often a path that ends so was asked.
    pub(super) fn count(&self, end: &str) -> usize {
        self.asked().iter().filter(|asked| asked.path().ends_with(end)).count()
    }

    /// The last request to a path that ends so.
    pub(super) fn last(&self, end: &str) -> Received {
        let asked = self.asked();
        asked.into_iter().rfind(|asked| asked.path().ends_with(end)).expect("it was asked")
    }
}

async fn serve<S>(socket: S, state: Arc<State>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    state.connections.fetch_add(1, Ordering::Relaxed);
    let service = service_fn(|request| answer(request, &state));
    let http = hyper::server::conn::http1::Builder::new();
    // A client that goes away is no failure of the test.
    let _ = http.serve_connection(TokioIo::new(socket), service).await;
}

async fn answer(
    request: Request<Incoming>,
    state: &State,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    let asked = Received {
        method: head.method.to_string(),
        uri: head.uri.to_string(),
        headers: head.headers,
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    let said = (state.script)(&asked);
    state.asked.lock().expect("the log").push(asked);
    tokio::time::sleep(said.delay).await;
    let mut response = Response::builder().status(said.status);
    for (name, value) in said.headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::new(said.body)).expect("a response"))
}
