//! Requests to the collector: one POST of protobuf each (OpenTelemetry Protocol, "OTLP/HTTP").

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use rustls::{ClientConfig, RootCertStore};

use crate::telemetry::error::TelemetryError;

/// Time for a request: less than the interval, so that requests do not pile up.
const TIME: Duration = Duration::from_secs(5);

/// The client of one collector.
#[derive(Debug)]
pub(super) struct Exporter {
    http: reqwest::Client,
    metrics: String,
    traces: String,
    /// Whether the last request has failed: the log has told so.
    is_failing: bool,
}

impl Exporter {
    pub(super) fn new(endpoint: &str) -> Result<Self, TelemetryError> {
        let endpoint = endpoint.trim_end_matches('/');
        let refused = |cause: &str| TelemetryError::Endpoint(cause.to_owned());
        reqwest::Url::parse(endpoint).map_err(|_| refused("is no URL"))?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(endpoint)?)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("pgimbal/", env!("CARGO_PKG_VERSION")))
            .timeout(TIME)
            .pool_max_idle_per_host(1)
            .build()
            .map_err(|_| refused("the HTTP client cannot be made"))?;
        let (metrics, traces) = (format!("{endpoint}/v1/metrics"), format!("{endpoint}/v1/traces"));
        Ok(Self { http, metrics, traces, is_failing: false })
    }

    pub(super) async fn send_metrics(&mut self, metrics: Vec<Metric>) {
        let scope = Some(scope());
        let of_scope = ScopeMetrics { scope, metrics, ..ScopeMetrics::default() };
        let of_process = ResourceMetrics {
            resource: Some(resource()),
            scope_metrics: vec![of_scope],
            ..ResourceMetrics::default()
        };
        let request = ExportMetricsServiceRequest { resource_metrics: vec![of_process] };
        self.post(self.metrics.clone(), &request).await;
    }

    pub(super) async fn send_spans(&mut self, spans: Vec<Span>) {
        let of_scope = ScopeSpans { scope: Some(scope()), spans, ..ScopeSpans::default() };
        let of_process = ResourceSpans {
            resource: Some(resource()),
            scope_spans: vec![of_scope],
            ..ResourceSpans::default()
        };
        let request = ExportTraceServiceRequest { resource_spans: vec![of_process] };
        self.post(self.traces.clone(), &request).await;
    }

    async fn post(&mut self, url: String, request: &impl Message) {
        let request = self
            .http
            .post(url)
            .header("content-type", "application/x-protobuf")
            .body(request.encode_to_vec());
        let failure = match request.send().await {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it answers {}", answer.status())),
            Err(error) => Some(innermost(&error)),
        };
        match &failure {
            Some(cause) if !self.is_failing => {
                tracing::warn!("metrics and traces do not reach the collector: {cause}");
            }
            None if self.is_failing => {
                tracing::info!("metrics and traces reach the collector again");
            }
            _ => {}
        }
        self.is_failing = failure.is_some();
    }
}

/// The cause of an error that says most; the outer ones have the URL.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// TLS that trusts the system's authorities; none are read for a URL without TLS.
fn tls(endpoint: &str) -> Result<ClientConfig, TelemetryError> {
    let mut roots = RootCertStore::empty();
    if endpoint.starts_with("https:") {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            let cause = "the system has no certificate authorities (the package ca-certificates)";
            return Err(TelemetryError::Endpoint(cause.to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TelemetryError::Endpoint(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Which process it is, in OpenTelemetry's names for what is known of a service.
fn resource() -> Resource {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy();
    let instance = format!("{host}/{}", std::process::id());
    let attributes = [
        ("service.name", "pgimbal"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", &instance),
        ("host.name", &host),
    ];
    let attributes = attributes.map(|(key, value)| text(key, value));
    Resource { attributes: attributes.into(), ..Resource::default() }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope { name: "pgimbal".to_owned(), ..InstrumentationScope::default() }
}

/// An attribute of this name whose value is text.
pub(super) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

/// An attribute of this name whose value is a number.
pub(super) fn number(key: &str, value: u64) -> KeyValue {
    attribute(key, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}
