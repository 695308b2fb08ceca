//! The calls of `set_config` in a statement whose exact form is not followed: what their first and
//! last arguments say.

use super::Kinds;
use super::inside::Read;
use super::known::Known;
use super::statement::{ANY_SETTING, Flags, Seen, Statement};

/// The first argument of the `set_config` that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum ConfigName {
    #[default]
    Expected,
    /// A literal, which is all of the argument if a comma follows.
    Literal(Kinds),
    /// What setting it raises.
    Known(Kinds),
}

impl Statement {
    /// The parenthesis behind `set_config` has opened.
    pub(super) fn open_config(&mut self) {
        if self.flags.has(Flags::CONFIG) {
            // One inside the arguments of another.
            self.raises.insert(ANY_SETTING);
            self.local = true;
            return;
        }
        self.flags.note(Flags::SET_CONFIG);
        self.flags.note(Flags::CONFIG);
        self.config_depth = self.depth;
        self.config_name = ConfigName::Expected;
    }

    /// A literal inside the arguments, before it is pushed.
    pub(super) fn name_of_config(&mut self, literal: &Read, is_exact: bool) {
        if self.config_name != ConfigName::Expected {
            return;
        }

        self.config_name = ConfigName::Literal(match () {
            () if !is_exact => ANY_SETTING,
            () if literal.is(b"seed") => Kinds::SEED,
            () if literal.is(b"role") || literal.is(b"session_authorization") => {
                Kinds::SETTINGS.union(Kinds::ROLE)
            }
            () if literal.has_dot => Kinds::SETTINGS.union(Kinds::UNNAMED_SETTINGS),
            () => Kinds::SETTINGS,
        });
    }

    pub(super) fn end_config(&mut self) {
        self.flags.clear(Flags::CONFIG);
        let last = (self.before, self.previous);
        let local = last == (Seen::Comma, Seen::Known(Known::True));
        let session = last == (Seen::Comma, Seen::Known(Known::False));
        self.local |= !session;
        let kinds = match self.config_name {
            ConfigName::Known(kinds) => kinds,
            _ => ANY_SETTING,
        };
        self.raises.insert(if local { kinds.and(Kinds::SEED) } else { kinds });
    }

    /// A token inside `set_config(…)`.
    pub(super) fn argument(&mut self, seen: Seen) {
        self.config_name = match (self.config_name, seen) {
            // end_literal has already said what it is.
            (ConfigName::Literal(_), Seen::Literal) if self.previous != Seen::Literal => return,
            (ConfigName::Literal(kinds), Seen::Comma) => ConfigName::Known(kinds),
            (ConfigName::Known(_), _) => return,
            _ => ConfigName::Known(ANY_SETTING),
        };
    }
}
