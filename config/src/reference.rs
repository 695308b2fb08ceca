//! The option reference, printed from the tables that parse: as Markdown and as a manual page.

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
    let mut page = Page { text: String::new(), form: Form::Markdown, table: None };
    page.line(&format!("# Options\n\n{INTRODUCTION}"));
    page.options();
    page.text
}

/// Prints the same as the manual page pgimbal.toml(5), in the language of man(7).
#[must_use]
pub fn manual_page() -> String {
    let mut page = Page { text: String::new(), form: Form::Manual, table: None };
    page.line(concat!(".TH pgimbal.toml 5 \"\" \"pgimbal ", env!("CARGO_PKG_VERSION"), "\" \"\""));
    page.line(".SH NAME\npgimbal.toml \\- the configuration of pgimbal\n.SH DESCRIPTION");
    page.line(&roff(INTRODUCTION));
    page.options();
    page.line(".SH SEE ALSO\n\\fBpgimbal\\fR(1), \\fBpgimbal\\-check\\fR(1)");
    page.text
}

const INTRODUCTION: &str = "\
`pgimbal` reads `--config FILE`, else `PGIMBAL_CONFIG`, else `pgimbal.toml` in the working \
directory or in `/etc/pgimbal`. Environment variables win over the file, `--upstream` \
(or `PGIMBAL_UPSTREAM`) over both, and flags over all. Nested keys are joined with two \
underscores in a variable's name, and names are lower case there: `PGIMBAL_DATABASES__APP__HOST`. \
An empty variable counts as not set.

Durations are a number and a unit: `us`, `ms`, `s`, `min`, `h`, `d`. Sizes too: `B`, `KiB`, \
`MiB`, `GiB`, `kB`, `MB`, `GB`. A list may be written as one text with commas. \
Reload: \"yes\" takes effect on SIGHUP, \"restart\" needs one.";

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
const HTTP: &str = "Who may see and use the page at `/` of `http_listen`.";
const STORE: &str = "Where the replicas of a deployment keep what they share: the history of \
verifiers, revocations, decisions of operators, and the like. It never holds passwords.";
const TELEMETRY: &str = "Metrics and traces for an OpenTelemetry collector, beside `/metrics`.";
const PEERS: &str = "The other replicas of the deployment, which have the same `deployment_key`.";

#[derive(Clone, Copy)]
enum Form {
    Markdown,
    Manual,
}

struct Page {
    text: String,
    form: Form,
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
                "http" => self.head("[http]", HTTP),
                "store" => self.head("[store]", STORE),
                "peers" => self.head("[peers]", PEERS),
                "telemetry" => self.head("[telemetry]", TELEMETRY),
                _ => self.head("[server_tls]", SERVER_TLS),
            }
            self.table = Some(table);
        }
        let path = [table];
        self.rows::<T>(if table.is_empty() { &[] } else { &path });
    }
}

impl Page {
    fn options(&mut self) {
        top_level(self);
        self.head("[databases.NAME]", DATABASES);
        self.rows::<DatabaseConfig>(&["databases", "name"]);
        self.head("[users.NAME]", USERS);
        self.rows::<UserConfig>(&["users", "name"]);
        self.head("[vaults.NAME]", VAULTS);
        self.rows::<VaultConfig>(&["vaults", "name"]);
        self.head("[clusters.NAME]", CLUSTERS);
        self.rows::<ClusterConfig>(&["clusters", "name"]);
        self.head("[clusters.NAME.nodes.NODE]", NODES);
        self.rows::<NodeConfig>(&["clusters", "name", "nodes", "node"]);
    }

    fn head(&mut self, title: &str, about: &str) {
        match self.form {
            Form::Markdown => {
                self.line(&format!("\n## {title}\n\n{about}\n"));
                self.line("| key | type | default | reload | variable | meaning |");
                self.line("|---|---|---|---|---|---|");
            }
            Form::Manual => self.line(&format!(".SH {}\n{}", roff(title), roff(about))),
        }
    }

    fn rows<T: Settings>(&mut self, path: &[&str]) {
        for entry in T::TABLE {
            let row = Row::new(entry, path);
            self.line(&match self.form {
                Form::Markdown => row.markdown(),
                Form::Manual => row.manual(),
            });
        }
    }

    fn line(&mut self, text: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{text}");
    }
}

/// What is printed of an option.
struct Row {
    key: &'static str,
    kind: &'static str,
    default: String,
    reload: &'static str,
    variable: String,
    doc: String,
}

impl Row {
    fn new<T>(entry: &Entry<T>, path: &[&str]) -> Self {
        let default = match entry.default {
            "" => "not set".to_owned(),
            default => format!("`{default}`"),
        };
        let reload = match entry.on_reload {
            OnReload::Applied => "yes",
            OnReload::Restart => "restart",
        };
        let variable = env_name(&[path, &[entry.key]].concat());
        let doc = entry.doc.concat().trim().to_owned();
        Self { key: entry.key, kind: entry.kind, default, reload, variable, doc }
    }

    fn markdown(&self) -> String {
        let Self { key, kind, default, reload, variable, doc } = self;
        let doc = doc.replace('|', "\\|");
        format!("| `{key}` | {kind} | {default} | {reload} | `{variable}` | {doc} |")
    }

    fn manual(&self) -> String {
        let Self { key, kind, default, reload, variable, doc } = self;
        let head = roff(&format!("`{key}` ({kind}; default: {default}; reload: {reload})"));
        format!(".TP\n{head}\n{}\n.br\n{}", roff(doc), roff(variable))
    }
}

/// Text as man(7) has it: nothing in it is taken for a request, and what stands in backticks is
/// bold.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let mut words = text.split('`');
    let mut out = words.next().unwrap_or_default().to_owned();
    for (index, word) in words.enumerate() {
        out.push_str(if index % 2 == 0 { "\\fB" } else { "\\fR" });
        out.push_str(word);
    }
    let lines = out.lines().map(|line| match line.as_bytes() {
        [] => ".PP".to_owned(),
        [b'.' | b'\'', ..] => format!("\\&{line}"),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_no_request_of_the_manual() {
        assert_eq!(roff(".x\\n\n\n'y-`z` w"), "\\&.x\\en\n.PP\n\\&'y\\-\\fBz\\fR w");
    }

    #[test]
    fn the_manual_has_every_option_of_the_reference() {
        let manual = manual_page();
        let reference = reference();
        let rows = || reference.lines().filter_map(|line| line.strip_prefix("| `"));
        assert!(rows().count() > 100);
        for key in rows().filter_map(|row| row.split('`').next()) {
            let head = roff(&format!("`{key}` ("));
            assert!(manual.lines().any(|line| line.starts_with(&head)), "{key}");
        }
    }
}
