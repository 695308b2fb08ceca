//! One address of a Vault: sends a request, and reads an answer of bounded size.

use std::error::Error;
use std::io;
use std::time::Duration;

use pgimbal_config::Secret;
use reqwest::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use rustify::clients::reqwest::Client as HttpClient;
use rustify::endpoint::{Endpoint, MiddleWare};
use serde::de::DeserializeOwned;
use vaultrs::api::EndpointMiddleware;
use vaultrs::client::{VaultClient, VaultClientSettingsBuilder};
use zeroize::{Zeroize, Zeroizing};

use super::endpoint::Call;
use super::reply::{Reply, malformed};
use super::verdict;
use crate::SourceError;

/// The largest answer that is read: a document of 1 MiB as base64, and what Vault says of it.
const MAX_ANSWER: usize = 3 << 19;
/// Room for a role's credentials; a larger answer moves to a larger buffer.
const USUAL_ANSWER: usize = 4 << 10;

/// One address of a Vault, with the HTTP client that all addresses of that Vault share.
pub(super) struct Address {
    vault: VaultClient,
    location: Box<str>,
    timeout: Duration,
}

impl Address {
    /// Makes the address of `url`, which is `http://...` or `https://...`, perhaps with a path that
    /// a gateway wants.
    pub(super) fn new(
        name: &str,
        url: &str,
        namespace: Option<&str>,
        timeout: Duration,
        http: reqwest::Client,
    ) -> Result<Self, SourceError> {
        let location = format!("vault {name}");
        let refused = |cause: &str| malformed(&location, cause);
        let mut parsed =
            reqwest::Url::parse(url).map_err(|_| refused("its address is not a URL"))?;
        if !matches!(parsed.scheme(), "http" | "https") || !parsed.has_host() {
            return Err(refused("its address is not an http:// or https:// URL"));
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(refused("its address must not hold credentials"));
        }
        if namespace.is_some_and(|namespace| !is_header_text(namespace)) {
            return Err(refused("its namespace cannot be an HTTP header"));
        }
        let prefix = parsed.path().trim_matches('/').to_owned();
        parsed.set_path("");
        parsed.set_query(None);
        parsed.set_fragment(None);
        let settings = VaultClientSettingsBuilder::default()
            .address(&parsed)
            // Everything that vaultrs would otherwise take from the environment.
            .token("")
            .verify(true)
            .ca_certs(Vec::new())
            .identity(None)
            .build()
            .map_err(|_| refused("its address is not an http:// or https:// URL"))?;
        let middle = EndpointMiddleware {
            token: String::new(),
            version: if prefix.is_empty() { "v1".to_owned() } else { format!("{prefix}/v1") },
            wrap: None,
            namespace: namespace.map(str::to_owned),
        };
        let location = format!("vault {name} at {}", url.trim_end_matches('/')).into();
        let vault = VaultClient { http: HttpClient::new(parsed.as_str(), http), middle, settings };
        Ok(Self { vault, location, timeout })
    }

    /// The Vault's name and this address as text, for errors.
    pub(super) fn location(&self) -> &str {
        &self.location
    }

    /// Makes the call at this address. An answer that is about the address and not about the call
    /// (such as sealed or standby) is an error.
    pub(super) async fn ask<T: DeserializeOwned + Send + Sync>(
        &self,
        call: &Call<T>,
        token: Option<&Secret>,
    ) -> Result<Reply, SourceError> {
        let request = self.request(call, token, true)?;
        let reply = self.exchange(request).await?;
        if !verdict::is_about_the_address(reply.status) {
            return Ok(reply);
        }
        let health = self.health().await.ok().map(|health| health.status);
        let secrets: Vec<&Secret> = token.into_iter().collect();
        let complaint = reply.complaint(&secrets);
        Err(verdict::explain(self.location.clone(), &reply, health, complaint))
    }

    /// Asks for the address's health, `GET sys/health`, without token and namespace.
    pub(super) async fn health(&self) -> Result<Reply, SourceError> {
        self.exchange(self.request(&Call::health(), None, false)?).await
    }

    fn request<T: DeserializeOwned + Send + Sync>(
        &self,
        call: &Call<T>,
        token: Option<&Secret>,
        namespaced: bool,
    ) -> Result<reqwest::Request, SourceError> {
        let refused = || malformed(&self.location, "a request to it cannot be made");
        let mut middle = self.vault.middle.clone();
        middle.namespace = middle.namespace.filter(|_| namespaced);
        if let Some(token) = token {
            token.expose().clone_into(&mut middle.token);
        }
        let mut request = call.request(&self.vault.http.base).map_err(|_| refused())?;
        let made = middle.request(call, &mut request);
        middle.token.zeroize();
        made.map_err(|_| refused())?;
        if let Some(token) = request.headers_mut().get_mut("X-Vault-Token") {
            token.set_sensitive(true);
        }
        if !request.body().is_empty() {
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(CONTENT_TYPE, json);
        }
        request.try_into().map_err(|_| refused())
    }

    async fn exchange(&self, request: reqwest::Request) -> Result<Reply, SourceError> {
        let exchange = async {
            let response = self.vault.http.http.execute(request).await;
            self.read(response.map_err(|error| self.fault(&error))?).await
        };
        let timed_out =
            SourceError::TimedOut { location: self.location.clone(), timeout: self.timeout };
        tokio::time::timeout(self.timeout, exchange).await.unwrap_or(Err(timed_out))
    }

    async fn read(&self, mut response: reqwest::Response) -> Result<Reply, SourceError> {
        let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = header.and_then(verdict::retry_after);
        let mut body = Zeroizing::new(Vec::with_capacity(USUAL_ANSWER));
        while let Some(chunk) = response.chunk().await.map_err(|error| self.fault(&error))? {
            let length = body.len() + chunk.len();
            if length > MAX_ANSWER {
                return Err(SourceError::TooLarge {
                    location: self.location.clone(),
                    limit: MAX_ANSWER,
                });
            }
            if length > body.capacity() {
                // Growing in place would leave what was read behind.
                let mut larger = Zeroizing::new(Vec::with_capacity(length * 2));
                larger.extend_from_slice(&body);
                body = larger;
            }
            body.extend_from_slice(&chunk);
        }
        let status = response.status().as_u16();
        if status == 400 && body.windows(12).any(|text| text == b"HTTPS server") {
            let cause = "it speaks TLS; write https:// in its address".into();
            return Err(SourceError::Tls { location: self.location.clone(), cause });
        }
        Ok(Reply { status, body, retry_after })
    }

    fn fault(&self, error: &reqwest::Error) -> SourceError {
        let location = self.location.clone();
        let (mut cause, mut tls): (&dyn Error, Option<&rustls::Error>) = (error, None);
        loop {
            tls = cause.downcast_ref().or(tls);
            // An io::Error's source is its content's source: the content itself is passed over.
            let content = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            match content.map(|content| content as &dyn Error).or_else(|| cause.source()) {
                Some(next) => cause = next,
                None => break,
            }
        }
        match tls {
            Some(error) => SourceError::Tls { location, cause: why_no_tls(error).into() },
            None => SourceError::Unreachable { location, cause: cause.to_string().into() },
        }
    }
}

/// What rustls found, with what to do about it.
fn why_no_tls(error: &rustls::Error) -> String {
    use rustls::{CertificateError, Error, InvalidMessage};
    let next = match error {
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            return "it answers without TLS, as a plain HTTP server does; write http:// in its \
                    address, or the port where it speaks TLS"
                .to_owned();
        }
        // The latter where a CA of the same name is known.
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => "no CA that is known here has signed it; set `ca_file` to the file with Vault's CA",
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "write the address with a name that is in its certificate",
        _ => return error.to_string(),
    };
    format!("{error}; {next}")
}

/// Whether `text` can be the value of an HTTP header; vaultrs panics where it cannot.
pub(super) fn is_header_text(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, 0x20..=0x7e))
}
