//! Options of the store: the place of the facts that several pgimbals of one deployment share.

use std::path::PathBuf;

use crate::reader::{Choice, Maybe, NonEmpty, Path};
use crate::table::settings;
use crate::words::StoreKind;

settings! {
    /// The options of the store, `[store]`: where the document lies that holds what the replicas
    /// of a deployment share and what outlives them. The checks refuse a kind without the options
    /// that it needs, and options of another kind.
    pub struct StoreConfig {
        /// Where it lies: `memory` of this process, `file` for the processes of one host,
        /// `kubernetes` for a Secret, or `vault` for a KV v2 secret.
        "kind" kind: StoreKind as Choice<StoreKind> = "memory", restart, try "file";
        /// The file of `file`. When it is not set, `store` in `state_dir`.
        "file" file: Option<PathBuf> as Maybe<Path> = "", restart, try "/var/lib/pgimbal/facts";
        /// The Secret of `kubernetes`. It must be there, empty at first: pgimbal makes none.
        "secret" secret: String as NonEmpty = "pgimbal-store", restart, try "facts";
        /// The Secret's namespace. When it is not set, the one of the service account or of the
        /// context of `kubeconfig`.
        "namespace" namespace: Option<String> as Maybe<NonEmpty> = "", restart, try "dbaas";
        /// How the API server is reached from outside of a cluster. When it is not set, as a pod
        /// does: `KUBERNETES_SERVICE_HOST` and the service account's token, read again as it
        /// changes.
        "kubeconfig" kubeconfig: Option<PathBuf> as Maybe<Path> = "", restart, try "/etc/kube";
        /// The Vault of `vault`, an entry of `[vaults]`. It may be left out where there is one.
        "vault" vault: Option<String> as Maybe<NonEmpty> = "", restart, try "main";
        /// Where its KV secrets engine, version 2, is mounted.
        "vault_mount" vault_mount: String as NonEmpty = "secret", restart, try "kv";
        /// The path of the secret there. Vault makes it at the first write.
        "vault_path" vault_path: String as NonEmpty = "pgimbal", restart, try "team/pgimbal";
    }
}
