//! The option table: `settings!` declares a struct and, from the same lines, the entries that
//! parse it, give its defaults, document it and say what a reload may change.
//!
//! A field cannot exist without an entry, nor an entry without a field.

use figment::value::Value;

/// The effect of a reload on a changed option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnReload {
    /// The new value takes effect without a restart.
    Applied,
    /// The new value waits for a restart.
    Restart,
}

/// An option of the struct `T`.
pub(crate) struct Entry<T: 'static> {
    /// The option's key in the file.
    pub(crate) key: &'static str,
    /// The name of the value's type, for the reference.
    pub(crate) kind: &'static str,
    /// The default in the form of the file; empty when the option is unset by default.
    pub(crate) default: &'static str,
    /// A value that is not the default: the tests prove with it that the option has an effect.
    #[cfg(test)]
    pub(crate) example: &'static str,
    pub(crate) on_reload: OnReload,
    /// The option's effect and the reason for its default, one line of the source each.
    pub(crate) doc: &'static [&'static str],
    /// Whether the value must never be shown.
    pub(crate) secret: bool,
    pub(crate) set: fn(&mut T, &Value) -> Result<(), String>,
    pub(crate) differs: fn(&T, &T) -> bool,
    /// Copies the value of the second one.
    pub(crate) take: fn(&mut T, &T),
}

/// A struct that is read through its table.
pub(crate) trait Settings: Default + 'static {
    /// Every option, in the order of the reference.
    const TABLE: &'static [Entry<Self>];

    /// The names of its options.
    fn keys() -> impl Iterator<Item = &'static str> {
        Self::TABLE.iter().map(|entry| entry.key)
    }
}

/// Declares a struct and its table. A line reads
/// `"key" field: Type as Reader = "default", applied | restart, try "another value";`
/// where the doc comment is both rustdoc and reference. `with` lists parts that have tables of
/// their own.
macro_rules! settings {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $(
                $(#[doc = $doc:literal])+
                $key:literal $field:ident: $type:ty as $reader:ty = $default:literal,
                    $on_reload:ident, try $example:literal;
            )*
        }
        $(with { $( $(#[doc = $part_doc:literal])+ $part:ident: $part_type:ty = $part_default:expr; )* })?
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $field: $type, )*
            $( $( $(#[doc = $part_doc])+ pub $part: $part_type, )* )?
        }

        impl Default for $name {
            /// Every option at the default of the reference.
            fn default() -> Self {
                Self {
                    $( $field: $crate::reader::default::<$reader>($default), )*
                    $( $( $part: $part_default, )* )?
                }
            }
        }

        impl $crate::table::Settings for $name {
            const TABLE: &'static [$crate::table::Entry<Self>] = &[$(
                $crate::table::Entry {
                    key: $key,
                    kind: <$reader as $crate::reader::Reader>::KIND,
                    default: $default,
                    #[cfg(test)]
                    example: $example,
                    on_reload: settings!(@ $on_reload),
                    doc: &[$($doc),+],
                    secret: <$reader as $crate::reader::Reader>::SECRET,
                    set: |target, value| {
                        target.$field = <$reader as $crate::reader::Reader>::read(value)?;
                        Ok(())
                    },
                    differs: |a, b| a.$field != b.$field,
                    take: |a, b| a.$field.clone_from(&b.$field),
                },
            )*];
        }
    };
    (@ applied) => { $crate::table::OnReload::Applied };
    (@ restart) => { $crate::table::OnReload::Restart };
}
pub(crate) use settings;
