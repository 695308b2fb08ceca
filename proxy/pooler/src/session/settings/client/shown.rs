//! What becomes of a client's books when the server has shown where it stands.

use super::{ClientSettings, Untracked};
use crate::session::settings::neutral::{
    ROLE, SESSION_AUTHORIZATION, is_identity, is_never_replayed,
};
use crate::session::settings::table::{Setting, SettingsId, SettingsTable};
use crate::session::state::answer::{Answer, ShownSetting};

impl ClientSettings {
    /// Replaces the client's settings by those that the server has shown in `answer`, outside a
    /// transaction; a setting that the server no longer shows takes its startup value. A value that
    /// means the same as the one known keeps the client's spelling. `login` is the user as which
    /// the server connection logged in. Returns the settings that the server has; the caller owns
    /// the reference.
    ///
    /// # Errors
    /// [`Untracked::TooMany`]: there are too many to keep, and the noted settings stay as they
    /// were.
    pub fn shown(
        &mut self,
        table: &mut SettingsTable,
        answer: &Answer,
        login: &[u8],
    ) -> Result<SettingsId, Untracked> {
        self.commit(table);
        let known = table.settings(self.current).to_vec();
        let mut settings = match &answer.settings {
            None => known.iter().filter(|s| !is_identity(&s.name)).cloned().collect(),
            Some(shown) => listed(&known, shown),
        };
        match &answer.session {
            None => settings.extend(known.into_iter().filter(|s| is_identity(&s.name))),
            Some(session) => {
                let identities = [
                    (SESSION_AUTHORIZATION, &session.session_user, *session.session_user == *login),
                    (ROLE, &session.role, *session.role == *b"none"),
                ];
                let set = identities.into_iter().filter(|(_, _, is_default)| !is_default);
                settings.extend(set.map(|(name, value, _)| Setting::shown(name, value)));
            }
        }
        let server = table.intern(settings.clone())?;
        let reset = table.settings(self.base).iter().filter(|base| {
            let is_shown = settings.iter().any(|setting| setting.name == base.name);
            let is_asked = match is_identity(&base.name) {
                true => answer.session.is_some(),
                false => answer.settings.is_some(),
            };
            is_asked && !is_shown
        });
        let client = settings.iter().chain(reset).cloned().collect();
        match table.intern(client) {
            Ok(next) => table.release(std::mem::replace(&mut self.current, next)),
            Err(error) => {
                table.release(server);
                return Err(error.into());
            }
        }
        Ok(server)
    }
}

/// The settings that a server has listed, in the client's spelling where that means the same.
fn listed(known: &[Setting], shown: &[ShownSetting]) -> Vec<Setting> {
    let shown = shown.iter().filter(|s| !is_never_replayed(&s.name) && !is_identity(&s.name));
    let listed = shown.filter_map(|shown| {
        let before = known.iter().find(|setting| *setting.name == *shown.name);
        match before {
            Some(before) if is_same(before, shown) => Some(before.clone()),
            // A custom setting once set is never unset again on that server connection: empty is
            // what RESET leaves.
            _ if shown.value.is_empty() && shown.name.contains(&b'.') => None,
            // It has come back to the default, or somebody else's has.
            None if shown.is_default => None,
            _ => Some(Setting::shown(&shown.name, &shown.value)),
        }
    });
    listed.collect()
}

/// Whether a server that shows `shown` stands where `known` says.
fn is_same(known: &Setting, shown: &ShownSetting) -> bool {
    if *known.value == *shown.value {
        return true;
    }
    let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.trim().parse::<f64>().ok();
    // `%g` shows six digits.
    shown.is_real
        && number(&known.value)
            .zip(number(&shown.value))
            .is_some_and(|(known, shown)| (known - shown).abs() <= shown.abs() * 1e-5)
}
