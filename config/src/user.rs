//! Options of users, and where their passwords come from.

use std::path::PathBuf;
use std::time::Duration;

use crate::reader::{Choice, Hidden, Maybe, Names, NonEmpty, OrOff, Path, Positive, Span};
use crate::secret::Secret;
use crate::table::settings;
use crate::words::{PoolMode, ReadConsistency, Route};

/// The placeholder for the user's name in a source of passwords.
const PLACEHOLDER: &str = "{user}";

settings! {
    /// The options of a user who may log in, `[users.NAME]`. `[users."*"]` is a rule for all users
    /// that are not listed; its source has `{user}` in place of the user's name. [`Self::source`]
    /// tells where the password comes from.
    pub struct UserConfig {
        /// What the client must prove to know: the password itself, a `SCRAM-SHA-256$` verifier
        /// or an `md5` hash as in pg_authid.
        "password" password: Option<Secret> as Maybe<Hidden> = "", applied, try "x";
        /// The password for the server, when `password` is a verifier or another one.
        "server_password" server_password: Option<Secret> as Maybe<Hidden> = "", applied, try "x";
        /// The Vault of `vault_role`; need not be said where there is one.
        "vault" vault: Option<String> as Maybe<NonEmpty> = "", applied, try "main";
        /// A static role of Vault's database engine, whose password this is; `{user}` stands for
        /// the user's name.
        "vault_role" vault_role: Option<String> as Maybe<NonEmpty> = "", applied, try "{user}";
        /// A file or directory with the password: a mounted Secret, a `.pgpass`, a URI. It is
        /// followed as it changes.
        "password_file" password_file: Option<PathBuf> as Maybe<Path> = "", applied,
            try "/run/secrets/app";
        /// Of the rule `[users."*"]`: whom it is for, as names in which `*` stands for anything:
        /// `app_*`. Without it, it is for every name that its source knows, so for every file in
        /// the directory of `password_file`.
        "names" names: Vec<String> as Names = "", applied, try "app_*";
        /// An environment variable with the password.
        "password_env" password_env: Option<String> as Maybe<NonEmpty> = "", applied,
            try "APP_PASSWORD";
        /// One more old password or SCRAM verifier that clients may show, for applications that
        /// come from another pooler with a stale one.
        "accept_also" accept_also: Option<Secret> as Maybe<Hidden> = "", applied, try "x";
        /// This user's `grace_generations` instead of the top level's.
        "grace_generations" grace_generations: Option<u32> as Maybe<Positive> = "", applied,
            try "5";
        /// This user's `grace_age` instead of the top level's.
        "grace_age" grace_age: Option<Option<Duration>> as Maybe<OrOff<Span>> = "", applied,
            try "1h";
        /// This user's route instead of the database's.
        "route" route: Option<Route> as Maybe<Choice<Route>> = "", applied, try "replica";
        /// This user's `read_consistency` instead of the database's.
        "read_consistency" read_consistency: Option<ReadConsistency>
            as Maybe<Choice<ReadConsistency>> = "", applied, try "strong";
        /// This user's pool mode instead of the database's.
        "pool_mode" pool_mode: Option<PoolMode> as Maybe<Choice<PoolMode>> = "", applied,
            try "session";
        /// This user's pool size instead of the database's.
        "pool_size" pool_size: Option<u32> as Maybe<Positive> = "", applied, try "5";
        /// Server connections of this user, over all databases together.
        "max_user_connections" max_user_connections: Option<u32> as OrOff<Positive> = "off",
            applied, try "50";
    }
}

/// The source of a user's password, chosen by the option that the entry has: `password` (or none of
/// them), `vault_role`, `password_file` or `password_env`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceConfig {
    /// The option `password` of the configuration, which may be missing.
    Inline,
    /// A static role of Vault's database secrets engine.
    Vault {
        /// The Vault's name in `[vaults]`; empty for the only one.
        vault: String,
        /// The name of the static role.
        role: String,
    },
    /// A file, or a directory of files in the layout of a Kubernetes Secret.
    File(PathBuf),
    /// An environment variable, by name.
    Env(String),
}

/// The password with which a pool logs in to its server; [`crate::Config::pool`] chooses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerPassword {
    /// The password of the configuration; `None` when there is no password, so that only a server
    /// that asks for none (`trust`, a certificate) lets the pool in.
    Fixed(Option<Secret>),
    /// The password that the source of this user provides, by the user's name, which is the role on
    /// the server. It may change at any time, so that a pool keeps the name and not the password.
    Role(String),
}

impl ServerPassword {
    /// The password of the configuration; `None` when there is none or a source provides it.
    #[must_use]
    pub const fn fixed(&self) -> Option<&Secret> {
        match self {
            Self::Fixed(Some(password)) => Some(password),
            Self::Fixed(None) | Self::Role(_) => None,
        }
    }
}

impl UserConfig {
    /// The password to log in to a server with: `server_password`, or else `password` unless that
    /// is a hash. `None` when there is neither, as for a user whose password another source than
    /// [`SourceConfig::Inline`] provides.
    #[must_use]
    pub fn server_password(&self) -> Option<&Secret> {
        let plain = |secret: &&Secret| PasswordForm::of(secret) == PasswordForm::Plain;
        self.server_password.as_ref().or_else(|| self.password.as_ref().filter(plain))
    }

    /// The source of the user's password: Vault with `vault_role`, a file with `password_file`, a
    /// variable with `password_env`, in this order if there are several, which the checks refuse;
    /// else [`SourceConfig::Inline`]. `{user}` stands in a rule's source as it was written.
    #[must_use]
    pub fn source(&self) -> SourceConfig {
        if let Some(role) = &self.vault_role {
            let vault = self.vault.clone().unwrap_or_default();
            return SourceConfig::Vault { vault, role: role.clone() };
        }
        match (&self.password_file, &self.password_env) {
            (Some(path), _) => SourceConfig::File(path.clone()),
            (None, Some(name)) => SourceConfig::Env(name.clone()),
            (None, None) => SourceConfig::Inline,
        }
    }

    /// Whether the source has the placeholder `{user}`, so that it depends on the user's name.
    /// `false` for [`SourceConfig::Inline`], for a path that is not UTF-8, and for an entry of
    /// [`crate::Config::user`], where the name has taken its place.
    #[must_use]
    pub fn has_placeholder(&self) -> bool {
        match self.source() {
            SourceConfig::Inline => false,
            SourceConfig::Vault { role, .. } => role.contains(PLACEHOLDER),
            SourceConfig::File(path) => {
                path.to_str().is_some_and(|path| path.contains(PLACEHOLDER))
            }
            SourceConfig::Env(name) => name.contains(PLACEHOLDER),
        }
    }

    /// Whether the rule makes a user of every file of a directory: the last part of `password_file`
    /// is `{user}` alone, and `names` is empty. Files that are known to be no passwords, such as
    /// `tls.key` or `.bashrc`, are still left out by [`crate::Config::user`].
    #[must_use]
    pub fn accepts_any_file(&self) -> bool {
        let name = self.password_file.as_ref().and_then(|path| path.file_name());
        self.names.is_empty() && name.is_some_and(|name| name == PLACEHOLDER)
    }

    /// Whether `names` allows `user`; an empty list allows everyone.
    fn is_for(&self, user: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|pattern| fits(pattern, user))
    }

    /// The entry with the user's name in place of `{user}`. `None` for a name that the rule is not
    /// for, and for one that could lead outside of the place that the rule means.
    #[must_use]
    pub(crate) fn named(&self, user: &str) -> Option<Self> {
        if !self.has_placeholder() {
            return Some(self.clone());
        }
        let odd = |c: char| c.is_control() || matches!(c, '/' | '\\' | '?' | '#' | '%');
        // `..data` is where Kubernetes keeps the whole of a mount.
        let above = user == "." || user.starts_with("..");
        if user.is_empty() || above || user.contains(odd) || !self.is_for(user) {
            return None;
        }
        if self.accepts_any_file() && is_no_users_file(user) {
            return None;
        }
        let fill = |text: &String| text.replace(PLACEHOLDER, user);
        let path = self.password_file.as_ref().and_then(|path| path.to_str());
        Some(Self {
            vault_role: self.vault_role.as_ref().map(fill),
            password_file: match path {
                Some(path) => Some(PathBuf::from(path.replace(PLACEHOLDER, user))),
                None => self.password_file.clone(),
            },
            password_env: self.password_env.as_ref().map(fill),
            ..self.clone()
        })
    }
}

/// Whether `name` is what `pattern` says, in which `*` stands for anything.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(begin) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        match left.split_once(part) {
            Some((_, behind)) => left = behind,
            None => return false,
        }
    }
    left.ends_with(end)
}

/// Whether a file of this name is known to be something else than a user's password: a secret that
/// is no password would let in whoever knows it, and asking for it tells whether it is there.
fn is_no_users_file(name: &str) -> bool {
    const ENDS: [&str; 16] = [
        ".crt", ".key", ".pem", ".p12", ".pub", ".csr", ".conf", ".cnf", ".toml", ".json", ".yaml",
        ".yml", ".ini", ".txt", ".sh", ".env",
    ];
    const NAMES: [&str; 26] = [
        "passwd",
        "shadow",
        "group",
        "gshadow",
        "hosts",
        "hostname",
        "fstab",
        "sudoers",
        "machine-id",
        "token",
        "namespace",
        "ca",
        "id_rsa",
        "id_ecdsa",
        "id_ed25519",
        "authorized_keys",
        "known_hosts",
        "password",
        "username",
        "pgpass",
        "uri",
        "secret-id",
        "role-id",
        "salt-key",
        "lost+found",
        "README",
    ];
    let lower = name.to_ascii_lowercase();
    name.starts_with('.')
        || ENDS.iter().any(|end| lower.ends_with(end))
        || NAMES.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// The form in which a password is stored. It decides what the password can be used for: see the
/// variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordForm {
    /// The password in clear text, which serves every `auth_type` and every login to a server.
    Plain,
    /// A SCRAM-SHA-256 verifier as in `pg_authid.rolpassword`. It checks a client's password and
    /// cannot be shown to a server.
    Scram,
    /// The MD5 hash of password and user name as in `pg_authid.rolpassword`. It cannot be used with
    /// SCRAM.
    Md5,
}

impl PasswordForm {
    /// Tells the form as PostgreSQL does: a SCRAM verifier begins with `SCRAM-SHA-256$`, an MD5
    /// hash is `md5` and 32 hexadecimal digits, and everything else is a password, an empty text
    /// too. What follows `SCRAM-SHA-256$` is not checked here.
    #[must_use]
    pub fn of(secret: &Secret) -> Self {
        let text = secret.expose();
        let hash = text.strip_prefix("md5").unwrap_or_default();
        if text.starts_with("SCRAM-SHA-256$") {
            Self::Scram
        } else if hash.len() == 32 && hash.bytes().all(|b| b.is_ascii_hexdigit()) {
            Self::Md5
        } else {
            Self::Plain
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_password_is_told_by_its_form() {
        for (text, expected) in [
            ("SCRAM-SHA-256$4096:c2FsdA==$a:b", PasswordForm::Scram),
            ("md5d41d8cd98f00b204e9800998ecf8427e", PasswordForm::Md5),
            ("md5sum", PasswordForm::Plain),
            ("hunter2", PasswordForm::Plain),
        ] {
            assert_eq!(PasswordForm::of(&Secret::from(text)), expected, "{text}");
        }
    }

    #[test]
    fn a_rule_is_filled_in_with_names_that_stay_inside_it() {
        let rule = UserConfig { vault_role: Some("app-{user}".into()), ..Default::default() };
        let named = rule.named("ann").expect("a plain name");
        let role = SourceConfig::Vault { vault: String::new(), role: "app-ann".into() };
        assert_eq!(named.source(), role);
        for name in
            ["", ".", "..", "..data", "../x", "a/b", "a\\b", "a\0", "a?b", "a#b", "a%2fb", "a\nb"]
        {
            assert_eq!(rule.named(name), None, "{name:?}");
        }
        let any = UserConfig { password_file: Some("/s/{user}".into()), ..Default::default() };
        for name in ["shadow", "tls.key", "ca.crt", ".pgpass", "Token", "userlist.txt", "id_rsa"] {
            assert_eq!(any.named(name), None, "{name:?}");
        }
        assert!(any.named("ann").is_some() && any.named("passwd_reader").is_some());
        let file = UserConfig { password_file: Some("/s/{user}/p".into()), ..Default::default() };
        let named = file.named("ann").expect("a plain name");
        assert_eq!(named.source(), SourceConfig::File("/s/ann/p".into()));
    }

    #[test]
    fn a_rule_is_for_the_names_that_it_lists() {
        let names = ["app_*", "ann", "*_r*o"].map(str::to_owned).into();
        let rule = UserConfig { vault_role: Some("{user}".into()), names, ..Default::default() };
        for name in ["app_", "app_1", "ann", "x_ro", "_r*o", "x_rzo"] {
            assert!(rule.named(name).is_some(), "{name}");
        }
        for name in ["app", "xapp_1", "anna", "x_r", "o"] {
            assert_eq!(rule.named(name), None, "{name}");
        }
    }
}
