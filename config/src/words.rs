//! The closed sets of words that options choose from.

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
            /// Every word, in the order of the reference.
            pub const NAMES: &'static [&'static str] = &[ $( $word, )+ ];

            /// The word that stands for it in the file, the console and metrics.
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
    /// When a client gives its server connection back.
    pub enum PoolMode = "session, transaction or statement" {
        /// When the client leaves.
        "session" Session,
        /// At the end of each transaction.
        "transaction" Transaction,
        /// After each statement; a transaction block is refused.
        "statement" Statement,
    }
}

words! {
    /// How a client proves who it is.
    pub enum AuthType = "trust, password, md5 or scram-sha-256" {
        /// It is believed.
        "trust" Trust,
        /// It sends its password as clear text.
        "password" Password,
        /// PostgreSQL's challenge with MD5.
        "md5" Md5,
        /// SASL with SCRAM-SHA-256, or -PLUS over TLS.
        "scram-sha-256" ScramSha256,
    }
}

words! {
    /// libpq's `sslmode`.
    pub enum SslMode = "disable, allow, prefer, require, verify-ca or verify-full" {
        /// Never TLS.
        "disable" Disable,
        /// To a server: TLS only when it refuses a plain connection. To a client: as `prefer`.
        "allow" Allow,
        /// To a server: plain only when it has no TLS. To a client: TLS when it asks.
        "prefer" Prefer,
        /// TLS or nothing.
        "require" Require,
        /// TLS, and the other side's certificate is signed by a CA of `ca_file`.
        "verify-ca" VerifyCa,
        /// As `verify-ca`, and a server's certificate bears the host's name.
        "verify-full" VerifyFull,
    }
}

words! {
    /// libpq's `channel_binding`: whether a server must prove that nobody is in between.
    pub enum ChannelBinding = "disable, prefer or require" {
        /// SCRAM without it.
        "disable" Disable,
        /// Where the server offers it, over TLS.
        "prefer" Prefer,
        /// A server that does not offer it is not logged in to.
        "require" Require,
    }
}

words! {
    /// How pgimbal logs in to a Vault.
    pub enum VaultLogin = "token, token_file, approle or kubernetes" {
        /// With a token of the configuration.
        "token" Token,
        /// With a token that a file holds.
        "token_file" TokenFile,
        /// With an AppRole.
        "approle" AppRole,
        /// With the pod's service account.
        "kubernetes" Kubernetes,
    }
}

words! {
    /// Where the history of verifiers is kept.
    pub enum HistoryPlace = "memory or file" {
        /// Until the process ends.
        "memory" Memory,
        /// In a file of `state_dir`.
        "file" File,
    }
}

words! {
    /// Where transactions go.
    pub enum Route = "primary or replica" {
        /// To the primary.
        "primary" Primary,
        /// To a replica.
        "replica" Replica,
    }
}

words! {
    /// Where reads go when no replica can serve them.
    pub enum ReplicaFallback = "primary or none" {
        /// To the primary.
        "primary" Primary,
        /// Nowhere: they are refused.
        "none" None,
    }
}

words! {
    /// The code of a transaction that was lost with its server.
    pub enum LostTransactionError = "57P01 or 40001" {
        /// admin_shutdown.
        "57P01" AdminShutdown,
        /// serialization_failure.
        "40001" SerializationFailure,
    }
}

words! {
    /// What a log line looks like.
    pub enum LogFormat = "text or json" {
        /// For people.
        "text" Text,
        /// One JSON object a line, for collectors.
        "json" Json,
    }
}

words! {
    /// What becomes of the running query of a client that vanished.
    pub enum OnClientGone = "cancel or finish" {
        /// It is cancelled on the server, unless it is a COMMIT.
        "cancel" Cancel,
        /// It runs to its end, and its replies are dropped.
        "finish" Finish,
    }
}

words! {
    /// When the server is asked what a transaction has left in its session.
    pub enum Verify = "text, calls or always" {
        /// After statements whose text may leave something.
        "text" Text,
        /// After calls of functions outside pg_catalog too.
        "calls" Calls,
        /// After every transaction.
        "always" Always,
    }
}

words! {
    /// What becomes of session state that no query shows.
    pub enum HiddenState = "reset or pin" {
        /// It is taken off before the connection serves another transaction.
        "reset" Reset,
        /// The client keeps its server connection.
        "pin" Pin,
    }
}
