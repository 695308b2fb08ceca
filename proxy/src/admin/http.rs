//! The HTTP endpoint: `/metrics`, `/livez`, `/readyz`, and the page.
//!
//! This module owns the answers to probes. No answer asks a database, and none waits for a stuck
//! worker longer than the collector does. Everything that an unknown client could make large or
//! long has a limit.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::admin::collect::{Collector, Detail};
use crate::admin::metrics;
use crate::admin::page::Page;
use crate::pending_logins::{PendingLoginLimits, PendingLogins, Subnet};

/// Limits of connections, in all and from one address. A connection beyond a limit closes the
/// oldest of its kind. Probes and scrapers need a handful, for milliseconds each.
const MAX_CONNECTIONS: PendingLoginLimits = PendingLoginLimits { all: 64, one_address: 32 };
/// Time limit of a request's head.
const READ_TIME: Duration = Duration::from_secs(5);
/// Time limit of a connection as a whole, for a large page over a slow line.
const WHOLE_TIME: Duration = Duration::from_secs(30);
/// Largest head of a request in bytes: hyper's least limit. A scraper sends about 300.
const MAX_HEAD: usize = 8 * 1024;
/// Pause after a failed accept, as when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

const TEXT: &str = "text/plain; charset=utf-8";
const PATHS: &str = "pgimbal serves\n/metrics  for Prometheus\n/livez    whether the process \
                     answers\n/readyz   whether it accepts clients\n/         \
                     the page; at an address of a network only with a token (http.token)\n";

/// Serves HTTP/1.1 on `listener` (`http_listen`), one request on each connection: `/metrics`,
/// `/livez` and `/readyz`, the paths of `page`, and 404 for others. It runs until the future is
/// dropped, at the end of a drain or when another process takes over; connections that were
/// accepted go on. At most 64 connections stay open: one more closes the oldest.
pub async fn serve(listener: TcpListener, collector: Collector, page: Page) {
    let page = Arc::new(page);
    tokio::select! {
        () = accept(listener, collector, &page) => {}
        () = page.keep_history() => {}
    }
}

async fn accept(listener: TcpListener, collector: Collector, page: &Arc<Page>) {
    let connections = PendingLogins::new(MAX_CONNECTIONS);
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let mut place = connections.add(Subnet::of(Some(peer.ip())));
                let (collector, page) = (collector.clone(), Arc::clone(page));
                tokio::spawn(async move {
                    tokio::select! {
                        () = connection((stream, peer), collector, page) => {}
                        () = place.evicted() => debug!("an HTTP connection made room for others"),
                    }
                });
            }
            Err(err) => {
                warn!(%err, "cannot accept an HTTP connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection, one request: a scraper comes back in seconds, and a connection that does not
/// stay cannot be held.
async fn connection(
    (stream, peer): (TcpStream, SocketAddr),
    collector: Collector,
    page: Arc<Page>,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let (collector, page) = (collector.clone(), Arc::clone(&page));
        async move {
            let path = request.uri().path();
            Ok::<_, Infallible>(match page.serves(path) {
                true => page.answer(request, peer).await,
                false => answer(&request, &collector).await,
            })
        }
    });
    let served = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(READ_TIME)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(WHOLE_TIME, served).await {
        Ok(Ok(())) => {}
        Ok(Err(err)) => debug!(%err, "an HTTP connection failed"),
        Err(_) => debug!("an HTTP connection took too long"),
    }
}

async fn answer(request: &Request<Incoming>, collector: &Collector) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => {
            let snapshot = collector.snapshot(Detail::Totals).await;
            text(StatusCode::OK, metrics::CONTENT_TYPE, metrics::render(&snapshot))
        }
        "/livez" => text(StatusCode::OK, TEXT, "ok\n"),
        "/readyz" => match collector.process().snapshot().now.reason_not_ready() {
            None => text(StatusCode::OK, TEXT, "ready\n"),
            Some(reason) => {
                text(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("not ready: {reason}\n"))
            }
        },
        _ => text(StatusCode::NOT_FOUND, TEXT, PATHS),
    }
}

fn text(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
