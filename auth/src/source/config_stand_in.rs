//! Temporary.
#![allow(missing_docs, reason = "temporary")]
use pgimbal_config::Secret;
use std::path::PathBuf;
use std::time::Duration;
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VaultLogin {
    Token,
    TokenFile,
    AppRole,
    Kubernetes,
}
#[derive(Clone, Debug)]
pub struct VaultConfig {
    pub address: Vec<String>,
    pub namespace: Option<String>,
    pub mount: String,
    pub login: VaultLogin,
    pub login_mount: Option<String>,
    pub token: Option<Secret>,
    pub token_file: Option<PathBuf>,
    pub role_id: Option<String>,
    pub secret_id: Option<Secret>,
    pub secret_id_file: Option<PathBuf>,
    pub kubernetes_role: Option<String>,
    pub kubernetes_jwt_file: PathBuf,
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub timeout: Duration,
    pub poll_interval: Duration,
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceConfig {
    Inline,
    Vault { vault: String, role: String },
    File(PathBuf),
    Env(String),
}
