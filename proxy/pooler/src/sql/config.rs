//! The calls of `set_config` in a statement whose exact form is not followed: what their first and
//! last arguments say.

use super::kinds::Kinds;

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
