//! Options whose values are one of a closed set of words.

use crate::reader::Words;

/// Declares an enum whose variants are words of the configuration.
macro_rules! words {
    (
        $(#[$meta:meta])*
        pub enum $name:ident = $kind:literal { $( $(#[$doc:meta])+ $word:literal $variant:ident, )+ }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $( $(#[$doc])+ $variant, )+ }

        impl $name {
            /// Every word that the option may have, in the order of the reference; each variant
            /// has one, and words are compared with regard to case.
            pub const NAMES: &'static [&'static str] = &[ $( $word, )+ ];

            /// The word of this value in the file, the console and metrics.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )+ }
            }
        }

        impl Words for $name {
            const KIND: &'static str = $kind;
            const WORDS: &'static [(&'static str, Self)] = &[$( ($word, Self::$variant), )+];
        }
    };
}

words! {
    /// When a client gives its server connection back to the pool, `pool_mode`.
    pub enum PoolMode = "session, transaction or statement" {
        /// At the end of the client's session.
        "session" Session,
        /// At the end of each transaction, unless the client is pinned: holds session state that
        /// cannot follow it, such as a temporary table, LISTEN or a session lock.
        "transaction" Transaction,
        /// After each statement; a transaction block is refused.
        "statement" Statement,
    }
}

words! {
    /// The authentication of clients, `auth_type`.
    pub enum AuthType = "trust, password, md5 or scram-sha-256" {
        /// Clients are believed without a password.
        "trust" Trust,
        /// Clients send their password in clear text.
        "password" Password,
        /// Clients answer PostgreSQL's challenge with MD5, or with SCRAM where only a SCRAM
        /// verifier is stored.
        "md5" Md5,
        /// Clients prove their password with SASL: SCRAM-SHA-256, or SCRAM-SHA-256-PLUS over TLS.
        "scram-sha-256" ScramSha256,
    }
}

words! {
    /// libpq's `sslmode`, for connections to servers and from clients (`[server_tls]`,
    /// `[client_tls]`).
    pub enum SslMode = "disable, allow, prefer, require, verify-ca or verify-full" {
        /// TLS is never used.
        "disable" Disable,
        /// To a server: TLS only when it refuses a plain connection. To a client: as `prefer`.
        "allow" Allow,
        /// To a server: plain only when it has no TLS. To a client: TLS when it asks.
        "prefer" Prefer,
        /// TLS is always used, or the connection fails. To a server with a `ca_file`: as
        /// `verify-ca`.
        "require" Require,
        /// As `require`, and the peer's certificate must be signed by a CA of `ca_file`, which must
        /// be set.
        "verify-ca" VerifyCa,
        /// As `verify-ca`, and a server's certificate must bear the host's name. To a client: as
        /// `verify-ca`.
        "verify-full" VerifyFull,
    }
}

words! {
    /// libpq's `channel_binding`: whether a server must prove in SCRAM that it is the end of the
    /// TLS connection (RFC 5929).
    pub enum ChannelBinding = "disable, prefer or require" {
        /// SCRAM is used without channel binding.
        "disable" Disable,
        /// Channel binding is used over TLS where the server offers SCRAM-SHA-256-PLUS; elsewhere
        /// the login goes on without it.
        "prefer" Prefer,
        /// A login fails unless the server proves itself with channel binding, so it needs an
        /// `sslmode` of `require` or more.
        "require" Require,
    }
}

words! {
    /// The method by which pgimbal logs in to a Vault, `login`.
    pub enum VaultLogin = "token, token_file, approle or kubernetes" {
        /// A token that stands in the configuration, the option `token`.
        "token" Token,
        /// A token that is read from a file at every login.
        "token_file" TokenFile,
        /// The AppRole method, `POST /v1/auth/:mount/login` with a role id and a secret id.
        "approle" AppRole,
        /// The Kubernetes method, `POST /v1/auth/:mount/login` with the pod's service account
        /// token.
        "kubernetes" Kubernetes,
    }
}

words! {
    /// The place in which the history of verifiers is kept, `credential_history`.
    pub enum HistoryPlace = "memory or file" {
        /// The process's memory; the history is lost when the process ends.
        "memory" Memory,
        /// A file in `state_dir`, which outlives a restart, so that an old password is accepted
        /// after it too. It needs `state_dir` and never holds passwords.
        "file" File,
    }
}

words! {
    /// The kind of place in which the replicas keep what they share, `kind` in `[store]`.
    pub enum StoreKind = "memory, file, kubernetes or vault" {
        /// The process's memory: nothing is shared, and it is lost when the process ends.
        "memory" Memory,
        /// A file, which the processes of one host share.
        "file" File,
        /// A Secret of Kubernetes, written with its resourceVersion.
        "kubernetes" Kubernetes,
        /// A secret of Vault's KV version 2 engine, written with check-and-set.
        "vault" Vault,
    }
}

words! {
    /// The kind of node that serves a transaction, `route`.
    pub enum Route = "primary, replica or auto" {
        /// The primary of the cluster, or the only server.
        "primary" Primary,
        /// A replica of the cluster; the transaction is read-only. When no replica can serve it,
        /// `replica_fallback` decides.
        "replica" Replica,
        /// A replica for statements that only read and for READ ONLY transactions, as far as it is
        /// fresh enough for the session; the primary for all else.
        "auto" Auto,
    }
}

words! {
    /// What a read on a replica shows of the writes before it, `read_consistency`.
    pub enum ReadConsistency = "eventual, bounded, session, pool or strong" {
        /// Whatever the replica has replayed.
        "eventual" Eventual,
        /// Every write that is older than `read_max_staleness`, and all but
        /// `read_max_staleness_bytes` of the write-ahead log.
        "bounded" Bounded,
        /// Every write of the client's own session; the default.
        "session" Session,
        /// Every write to the database that was acknowledged through this pgimbal before the read
        /// came.
        "pool" Pool,
        /// Every write that was acknowledged to anybody before the read came.
        "strong" Strong,
    }
}

words! {
    /// What becomes of a statement that takes long to parse, the first time, `read_unparsed`.
    pub enum ReadUnparsed = "primary or wait" {
        /// The primary serves it.
        "primary" Primary,
        /// It waits until it is known whether it only reads.
        "wait" Wait,
    }
}

words! {
    /// The node that serves reads when no replica can, `replica_fallback`.
    pub enum ReplicaFallback = "primary or none" {
        /// The primary.
        "primary" Primary,
        /// No node: such reads fail with 57P03, "no replica can be read from".
        "none" None,
    }
}

words! {
    /// The SQLSTATE that a client is sent for a transaction that was lost with its server,
    /// `lost_transaction_error`.
    pub enum LostTransactionError = "57P01 or 40001" {
        /// `admin_shutdown`, the server's own SQLSTATE; the default.
        "57P01" AdminShutdown,
        /// `serialization_failure`, on which many frameworks run a transaction again.
        "40001" SerializationFailure,
    }
}

words! {
    /// The form of a log line, `log_format`.
    pub enum LogFormat = "text or json" {
        /// Text for people.
        "text" Text,
        /// One JSON object on each line, for log collectors.
        "json" Json,
    }
}

words! {
    /// The treatment of a query whose client has disconnected, `on_client_gone`.
    pub enum OnClientGone = "cancel or finish" {
        /// The query is cancelled on the server with a CancelRequest, unless it may be a COMMIT,
        /// whose outcome would then be unknown.
        "cancel" Cancel,
        /// The query runs to its end, and its replies are dropped.
        "finish" Finish,
    }
}

words! {
    /// When the server is asked which session state a transaction has left behind, `verify`.
    pub enum Verify = "text, calls or always" {
        /// After statements whose text may leave session state.
        "text" Text,
        /// As `text`, and after calls of functions outside `pg_catalog`.
        "calls" Calls,
        /// After every transaction.
        "always" Always,
    }
}

words! {
    /// How clients listen (LISTEN) without keeping a server connection each, `listen_mode`.
    pub enum ListenMode = "share, close or pin" {
        /// All clients of a pool listen over one server connection for each worker. When that is
        /// lost, the next one listens to the same channels.
        "share" Share,
        /// As `share`, but the clients whose connection was lost are closed, so that they look at
        /// what they have missed.
        "close" Close,
        /// Each client that listens keeps a server connection of its own.
        "pin" Pin,
    }
}

words! {
    /// The treatment of session state that no query of the server shows, `hidden_state`.
    pub enum HiddenState = "reset or pin" {
        /// The state is reset before the connection serves another transaction, so that its own
        /// client loses it too.
        "reset" Reset,
        /// The client is pinned to its server connection, and counts towards `max_pinned`.
        "pin" Pin,
    }
}
