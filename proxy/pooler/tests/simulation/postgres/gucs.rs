//! Settings of the model server, as transactions see them.

use std::collections::{BTreeMap, BTreeSet};

use super::super::message;

type Values = BTreeMap<String, String>;

/// The settings that are reported, as the wire spells them.
const REPORTED: [&str; 6] = [
    "application_name",
    "client_encoding",
    "DateStyle",
    "server_encoding",
    "standard_conforming_strings",
    "TimeZone",
];

/// Where settings stand; a savepoint is a copy of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    session: Values,
    local: Values,
}

pub(crate) struct Gucs {
    /// What RESET returns to.
    reset: Values,
    pub(crate) standing: Standing,
    told: Values,
    /// Custom settings that were ever set: they are empty when they are reset, and never unset.
    placeholders: BTreeSet<String>,
}

impl Gucs {
    /// Those of a fresh connection that asked for `startup`.
    pub(crate) fn new(startup: &[(String, String)]) -> Self {
        let defaults = [
            ("application_name", ""),
            ("client_encoding", "UTF8"),
            ("datestyle", "ISO, MDY"),
            ("server_encoding", "UTF8"),
            ("standard_conforming_strings", "on"),
            ("timezone", "UTC"),
            ("work_mem", "4MB"),
            ("search_path", "public"),
            ("role", "none"),
        ];
        let mut reset: Values =
            defaults.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        reset.extend(startup.iter().cloned());
        let (standing, told, placeholders) = Default::default();
        let mut gucs = Self { reset, standing, told, placeholders };
        gucs.told = gucs.reported();
        gucs
    }

    pub(crate) fn get(&self, name: &str) -> String {
        let standing = &self.standing;
        let value =
            standing.local.get(name).or(standing.session.get(name)).or(self.reset.get(name));
        value.cloned().unwrap_or_default()
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.standing.local.remove(name);
        self.note_custom(name);
        // A list of identifiers; whether they are quoted makes no difference.
        let value = if name == "search_path" { value.replace('"', "") } else { value.to_owned() };
        self.standing.session.insert(name.to_owned(), value);
    }

    fn note_custom(&mut self, name: &str) {
        if name.contains('.') {
            self.placeholders.insert(name.to_owned());
        }
    }

    pub(crate) fn set_local(&mut self, name: &str, value: &str) {
        self.note_custom(name);
        self.standing.local.insert(name.to_owned(), value.to_owned());
    }

    pub(crate) fn reset(&mut self, name: &str) {
        self.standing.local.remove(name);
        self.standing.session.remove(name);
    }

    pub(crate) fn reset_all(&mut self) {
        let is_role = |name: &String, _: &mut String| name == "role";
        self.standing.session.retain(is_role);
        self.standing.local.retain(is_role);
    }

    /// Names and values of what was set in the session, as `pg_settings` has them: neither custom
    /// settings nor the role are listed there.
    pub(crate) fn set_in_session(&self) -> Vec<(String, String)> {
        let mut names: Vec<&String> =
            self.standing.session.keys().chain(self.standing.local.keys()).collect();
        names.sort();
        names.dedup();
        let is_listed = |name: &&String| !name.contains('.') && *name != "role";
        let shown = |name: &String| match &name[..] {
            "search_path" => format!("\"{}\"", self.get(name)),
            name => self.get(name),
        };
        names.into_iter().filter(is_listed).map(|name| (name.clone(), shown(name))).collect()
    }

    /// The value of a custom setting; `None` if it was never set.
    pub(crate) fn custom(&self, name: &str) -> Option<String> {
        self.placeholders.contains(name).then(|| self.get(name))
    }

    pub(crate) fn committed(&mut self) {
        self.standing.local.clear();
    }

    /// Everything that differs from the defaults of the server.
    pub(crate) fn shown(&self) -> String {
        let mut names: Vec<&String> = self.reset.keys().collect();
        names.extend(self.standing.session.keys().chain(self.standing.local.keys()));
        names.sort();
        names.dedup();
        let shown = names.into_iter().filter(|name| !self.get(name).is_empty());
        shown.map(|name| format!("{name}={}", self.get(name))).collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn reported(&self) -> Values {
        let value = |name: &str| self.get(&name.to_lowercase());
        REPORTED.iter().map(|name| ((*name).to_owned(), value(name))).collect()
    }

    /// ParameterStatus for what has changed since they were last told.
    pub(crate) fn changes_since(&mut self, out: &mut Vec<u8>) {
        let now = self.reported();
        for (name, value) in &now {
            if self.told.get(name) != Some(value) {
                out.extend(message::parameter_status(name, value));
            }
        }
        self.told = now;
    }
}
