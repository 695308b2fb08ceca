//! The option reference, printed from the tables that parse.

use std::fmt::Write;

use crate::cluster::{ClusterConfig, NodeConfig};
use crate::config::{Config, PartVisitor, top_level};
use crate::pool::DatabaseConfig;
use crate::sources::env_name;
use crate::table::{Entry, OnReload, Settings};
use crate::user::UserConfig;
use crate::vault::VaultConfig;

/// Prints the option reference as Markdown: one table for each part of the configuration, with the
/// key, type, default, environment variable, reload behaviour and meaning of every option. It is
/// the text of `docs/configuration.md` and of `pgimbal config reference`.
#[must_use]
pub fn reference() -> String {
    let mut page = Page { text: INTRODUCTION.to_owned(), table: None };
    top_level(&mut page);
    page.head("[databases.NAME]", DATABASES);
    page.rows::<DatabaseConfig>(&["databases", "name"]);
    page.head("[users.NAME]", USERS);
    page.rows::<UserConfig>(&["users", "name"]);
    page.head("[vaults.NAME]", VAULTS);
    page.rows::<VaultConfig>(&["vaults", "name"]);
    page.head("[clusters.NAME]", CLUSTERS);
    page.rows::<ClusterConfig>(&["clusters", "name"]);
    page.head("[clusters.NAME.nodes.NODE]", NODES);
    page.rows::<NodeConfig>(&["clusters", "name", "nodes", "node"]);
    page.text
}

const INTRODUCTION: &str = "\
# Options

`pgimbal` reads `--config FILE`, else `PGIMBAL_CONFIG`, else `pgimbal.toml` in the working \
directory or in `/etc/pgimbal`. Environment variables win over the file, `--upstream` \
(or `PGIMBAL_UPSTREAM`) over both, and flags over all. Nested keys are joined with two \
underscores in a variable's name, and names are lower case there: `PGIMBAL_DATABASES__APP__HOST`. \
An empty variable counts as not set.

Durations are a number and a unit: `us`, `ms`, `s`, `min`, `h`, `d`. Sizes too: `B`, `KiB`, \
`MiB`, `GiB`, `kB`, `MB`, `GB`. A list may be written as one text with commas. \
Reload: \"yes\" takes effect on SIGHUP, \"restart\" needs one.
";

const TOP: &str = "Keys that stand before the first table of the file. Pool options given here \
are the defaults of all databases.";
const DATABASES: &str = "A database that clients may name; `[databases.\"*\"]` stands for every \
name that is not listed. Every pool option may stand here too, and `[databases.NAME.server_tls]` \
overrides `[server_tls]` key by key.";
const USERS: &str = "A user that may log in. Its password is one of `password`, `vault_role`, \
`password_file` and `password_env`. `[users.\"*\"]` is a rule for every user that is not listed; \
its source has `{user}` where the name belongs.";
const VAULTS: &str = "A Vault or OpenBao whose database secrets engine has static roles.";
const CLUSTERS: &str = "A cluster of servers with one primary, which a database names with \
`cluster`. `[clusters.NAME.server_tls]` overrides `[server_tls]` key by key.";
const NODES: &str = "A node of a cluster.";
const CLIENT_TLS: &str = "TLS towards clients.";
const SERVER_TLS: &str = "TLS towards servers, in libpq's terms. A server behind a Unix socket \
never uses it.";
const STORE: &str = "Where the replicas of a deployment keep what they share: the history of \
verifiers, revocations, decisions of operators, and the like. It never holds passwords.";
const PEERS: &str = "The other replicas of the deployment, which have the same `deployment_key`.";

struct Page {
    text: String,
    /// The table whose rows are being written; the top level is the empty name.
    table: Option<&'static str>,
}

impl PartVisitor for Page {
    fn part<T: Settings>(
        &mut self,
        table: &'static str,
        _: fn(&Config) -> &T,
        _: fn(&mut Config) -> &mut T,
    ) {
        if self.table != Some(table) {
            match table {
                "" => self.head("Top level", TOP),
                "client_tls" => self.head("[client_tls]", CLIENT_TLS),
                "store" => self.head("[store]", STORE),
                "peers" => self.head("[peers]", PEERS),
                _ => self.head("[server_tls]", SERVER_TLS),
            }
            self.table = Some(table);
        }
        let path = [table];
        self.rows::<T>(if table.is_empty() { &[] } else { &path });
    }
}

impl Page {
    fn head(&mut self, title: &str, about: &str) {
        self.line(&format!("\n## {title}\n\n{about}\n"));
        self.line("| key | type | default | reload | variable | meaning |");
        self.line("|---|---|---|---|---|---|");
    }

    fn rows<T: Settings>(&mut self, path: &[&str]) {
        for entry in T::TABLE {
            self.line(&row(entry, path));
        }
    }

    fn line(&mut self, text: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{text}");
    }
}

fn row<T>(entry: &Entry<T>, path: &[&str]) -> String {
    let default = match entry.default {
        "" => "not set".to_owned(),
        default => format!("`{default}`"),
    };
    let reload = match entry.on_reload {
        OnReload::Applied => "yes",
        OnReload::Restart => "restart",
    };
    let variable = env_name(&[path, &[entry.key]].concat());
    let doc: String = entry.doc.concat().trim().replace('|', "\\|");
    format!("| `{}` | {} | {default} | {reload} | `{variable}` | {doc} |", entry.key, entry.kind)
}
