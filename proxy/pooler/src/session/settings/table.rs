//! Sets of settings under small numbers: equal sets have equal numbers.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::FixedState;
use hashbrown::HashTable;

use super::neutral;

/// The number of a set of settings in a [`SettingsTable`]; equal sets have equal numbers. Whoever
/// keeps a number owns a reference to the set, and gives it back with [`SettingsTable::release`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SettingsId(u32);

impl SettingsId {
    /// The set without any setting, as a fresh server connection has it. It is never forgotten, so
    /// that retaining and releasing it does nothing.
    pub const EMPTY: SettingsId = SettingsId(0);
}

/// A setting (PostgreSQL's run-time parameter) and its value, in the form that `set_config` takes.
/// `Debug` shows the name only, because a value may be a secret.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Setting {
    /// The setting's name in lower case, without a NUL; a custom one has a dot.
    pub name: Arc<[u8]>,
    /// The setting's value, unquoted and without a NUL, in the encoding that `encoding` names; may
    /// be empty.
    pub value: Arc<[u8]>,
    /// The encoding of the value's bytes beyond ASCII; the client's if there are none.
    pub encoding: ValueEncoding,
}

/// The encoding of a setting's value, which decides how it is written when the value is replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueEncoding {
    /// The client's encoding (`client_encoding`) when the value was set; also for a value in ASCII.
    Client,
    /// The database's encoding, because the server has shown the value. Such bytes are written by
    /// number.
    Database,
}

impl Setting {
    /// A setting of this name, in any case (it is kept in lower case), and this value, as the
    /// client has sent it: in the client's encoding. Neither is checked.
    pub fn new(name: &[u8], value: &[u8]) -> Setting {
        let name = name.to_ascii_lowercase().into();
        Setting { name, value: value.into(), encoding: ValueEncoding::Client }
    }

    /// Whether every server accepts the setting and reports it unchanged, so that no server must
    /// check it at login: an `application_name` of less than 64 printable ASCII characters.
    pub fn is_certain(&self) -> bool {
        // PostgreSQL cuts a longer name and replaces other characters.
        *self.name == *b"application_name"
            && self.value.len() < 64
            && self.value.iter().all(|byte| (b' '..=b'~').contains(byte))
    }

    /// A setting as the server has shown it (`pg_settings`): a name in any case, and a value in the
    /// database's encoding. A value in ASCII counts as [`ValueEncoding::Client`], so that it equals
    /// the same value of a client.
    pub fn shown(name: &[u8], value: &[u8]) -> Setting {
        let encoding = match value.is_ascii() {
            true => ValueEncoding::Client,
            false => ValueEncoding::Database,
        };
        Setting { encoding, ..Setting::new(name, value) }
    }

    /// Whether the value has bytes beyond ASCII in the client's encoding, and so means something
    /// else after a change of `client_encoding`. Such a value is set in a second query, behind the
    /// new encoding ([`Replay::Two`](super::Replay::Two)). False for the database's encoding.
    pub fn depends_on_encoding(&self) -> bool {
        self.encoding == ValueEncoding::Client && !self.value.is_ascii()
    }
}

impl std::fmt::Debug for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A value may be a secret of the application: only the name is shown.
        write!(f, "{}", self.name.escape_ascii())
    }
}

/// The error when a client has more settings, or larger ones, than are kept for one client: 64, and
/// 16,384 bytes of names and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_SETTINGS} settings or {MAX_BYTES} bytes of them")]
pub struct TooManySettings;

/// The most settings of one client. A driver sets about ten, an application a few dozen of its own.
const MAX_SETTINGS: usize = 64;
/// The most bytes of names and values of one client. A startup packet has at most 10,000 bytes; a
/// SET that is followed, 4,096.
const MAX_BYTES: usize = 16_384;

/// A worker's sets of settings, each held once, with a count of the clients and server connections
/// that refer to it.
#[derive(Debug)]
pub struct SettingsTable {
    slots: Vec<Interned>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: FixedState,
}

#[derive(Debug)]
struct Interned {
    /// Sorted by name.
    settings: Arc<[Setting]>,
    hash: u64,
    references: u32,
    /// The part of them that a statement's parsing may depend on: owned, unless it is this slot.
    parse: SettingsId,
}

impl SettingsTable {
    /// An empty table. `seed` is for its hashes: a seed that clients cannot guess keeps them from
    /// making sets collide.
    pub fn new(seed: u64) -> SettingsTable {
        let hasher = FixedState::with_seed(seed);
        let empty =
            Interned { settings: Arc::new([]), hash: 0, references: 1, parse: SettingsId::EMPTY };
        SettingsTable { slots: vec![empty], free: Vec::new(), index: HashTable::new(), hasher }
    }

    /// The number of the set of these settings, in any order; of several with one name the last
    /// counts. [`SettingsId::EMPTY`] if there are none. The caller owns a reference to it, and
    /// gives it back with [`Self::release`].
    ///
    /// # Errors
    /// There are more than 64 settings, or more than 16,384 bytes of names and values; the table is
    /// unchanged then.
    pub fn intern(&mut self, mut settings: Vec<Setting>) -> Result<SettingsId, TooManySettings> {
        settings.reverse();
        settings.sort_by(|a, b| a.name.cmp(&b.name));
        settings.dedup_by(|later, kept| later.name == kept.name);
        let bytes: usize = settings.iter().map(|s| s.name.len() + s.value.len()).sum();
        if settings.len() > MAX_SETTINGS || bytes > MAX_BYTES {
            return Err(TooManySettings);
        }
        Ok(self.own(settings))
    }

    /// The number of the set `id` with `name` (in any case) at `value`, as the client has sent it,
    /// in place of an earlier value; `id` itself if it has that value already. The caller owns a
    /// reference to it, and keeps the one to `id`.
    ///
    /// # Errors
    /// The new set has more than 64 settings, or more than 16,384 bytes of names and values.
    pub fn with(
        &mut self,
        id: SettingsId,
        name: &[u8],
        value: &[u8],
    ) -> Result<SettingsId, TooManySettings> {
        let setting = Setting::new(name, value);
        if self.settings(id).contains(&setting) {
            self.retain(id);
            return Ok(id);
        }
        let mut settings = self.settings(id).to_vec();
        settings.push(setting);
        self.intern(settings)
    }

    /// The number of the set `id` without the settings for whose names (in lower case) `leaves`
    /// returns true; `id` itself if there are none such, [`SettingsId::EMPTY`] if none stays. The
    /// caller owns a reference to it, and keeps the one to `id`.
    pub fn without(&mut self, id: SettingsId, leaves: impl Fn(&[u8]) -> bool) -> SettingsId {
        if !self.settings(id).iter().any(|setting| leaves(&setting.name)) {
            self.retain(id);
            return id;
        }
        let stay = self.settings(id).iter().filter(|s| !leaves(&s.name)).cloned().collect();
        self.own(stay)
    }

    /// Adds a reference to `id`, for one more keeper of the number; nothing for
    /// [`SettingsId::EMPTY`].
    pub fn retain(&mut self, id: SettingsId) {
        if id != SettingsId::EMPTY {
            self.slots[id.0 as usize].references += 1;
        }
    }

    /// Takes a reference from `id`. Without any the set is forgotten, and its number may be used
    /// again; nothing for [`SettingsId::EMPTY`]. It must not be called more often than there are
    /// references.
    pub fn release(&mut self, id: SettingsId) {
        if id == SettingsId::EMPTY {
            return;
        }
        let slot = &mut self.slots[id.0 as usize];
        debug_assert!(slot.references > 0, "released more often than retained");
        slot.references -= 1;
        if slot.references > 0 {
            return;
        }
        let (hash, parse) = (slot.hash, slot.parse);
        slot.settings = Arc::new([]);
        if let Ok(entry) = self.index.find_entry(hash, |&other| other == id.0) {
            entry.remove();
        }
        self.free.push(id.0);
        if parse != id {
            self.release(parse);
        }
    }

    /// Stores `to` in `place`: adds a reference to `to` and releases the one that `place` held;
    /// nothing if `place` is `to` already. The caller keeps its own reference to `to`.
    #[inline]
    pub fn assign(&mut self, place: &mut SettingsId, to: SettingsId) {
        if *place != to {
            self.retain(to);
            self.release(std::mem::replace(place, to));
        }
    }

    /// The settings of the set `id`, sorted by name; empty for [`SettingsId::EMPTY`].
    pub fn settings(&self, id: SettingsId) -> &[Setting] {
        &self.slots[id.0 as usize].settings
    }

    /// The settings of the set `id`, sorted by name, shared so that they outlive the set's last
    /// reference; empty for [`SettingsId::EMPTY`]. No reference to the number is taken.
    pub fn shared(&self, id: SettingsId) -> Arc<[Setting]> {
        Arc::clone(&self.slots[id.0 as usize].settings)
    }

    /// The value of `name`, which is in lower case, in the set `id`; `None` if the set does not
    /// have it, which means the server's default.
    pub fn get(&self, id: SettingsId, name: &[u8]) -> Option<&[u8]> {
        let settings = self.settings(id);
        let at = settings.binary_search_by(|setting| (*setting.name).cmp(name)).ok()?;
        Some(&settings[at].value)
    }

    /// The part of the set `id` on which the meaning of a parsed statement may depend, as a set of
    /// its own: two clients may share a prepared statement only if these are equal. The result
    /// lives as long as `id`; who keeps it longer retains it.
    #[inline]
    pub fn parse_affecting(&self, id: SettingsId) -> SettingsId {
        self.slots[id.0 as usize].parse
    }

    /// How many sets are referred to, besides the empty one. A set's part that affects parsing
    /// ([`Self::parse_affecting`]) counts as one of its own where it differs from the set.
    pub fn len(&self) -> usize {
        self.slots.len() - 1 - self.free.len()
    }

    /// Whether the table holds no set but the empty one, as after its making.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A reference to the set of these settings, sorted and without doubles.
    fn own(&mut self, settings: Vec<Setting>) -> SettingsId {
        if settings.is_empty() {
            return SettingsId::EMPTY;
        }
        let hash = self.hash(&settings);
        let slots = &self.slots;
        let known = self.index.find(hash, |&at| *slots[at as usize].settings == *settings).copied();
        if let Some(at) = known {
            self.slots[at as usize].references += 1;
            return SettingsId(at);
        }
        let affecting: Vec<Setting> = settings
            .iter()
            .filter(|setting| !neutral::is_neutral_to_parse(&setting.name))
            .cloned()
            .collect();
        let is_own = affecting.len() == settings.len();
        let parse = if is_own { SettingsId::EMPTY } else { self.own(affecting) };
        let slot = Interned { settings: settings.into(), hash, references: 1, parse };
        let id = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = slot;
                SettingsId(at)
            }
            None => {
                self.slots.push(slot);
                SettingsId((self.slots.len() - 1) as u32)
            }
        };
        if is_own {
            self.slots[id.0 as usize].parse = id;
        }
        let slots = &self.slots;
        self.index.insert_unique(hash, id.0, |&at| slots[at as usize].hash);
        id
    }

    fn hash(&self, settings: &[Setting]) -> u64 {
        self.hasher.hash_one(settings)
    }
}
