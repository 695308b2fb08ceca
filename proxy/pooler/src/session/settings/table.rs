//! Sets of settings under small numbers: equal sets have equal numbers.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::FixedState;
use hashbrown::HashTable;

use super::neutral;

/// A set of settings in a [`SettingsTable`]. Whoever keeps one owns a reference to it, which goes
/// back with [`SettingsTable::release`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SettingsId(u32);

impl SettingsId {
    /// No setting: where a fresh server connection stands. Needs no reference.
    pub const EMPTY: SettingsId = SettingsId(0);
}

/// A setting and its value, as `set_config` would take them; the name in lower case.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Setting {
    /// Its name.
    pub name: Arc<[u8]>,
    /// Its value.
    pub value: Arc<[u8]>,
    /// The encoding of the value.
    pub encoding: ValueEncoding,
}

/// In which encoding a value's bytes beyond ASCII are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueEncoding {
    /// The client's, as it was when the value was set; also that of a value in ASCII.
    Client,
    /// The database's: the server has shown it.
    Database,
}

impl Setting {
    /// A setting of this name (in any case) and value, as the client said it.
    pub fn new(name: &[u8], value: &[u8]) -> Setting {
        let name = name.to_ascii_lowercase().into();
        Setting { name, value: value.into(), encoding: ValueEncoding::Client }
    }

    /// Whether every server takes it and reports it as it is: no server needs to check it.
    pub fn is_certain(&self) -> bool {
        // PostgreSQL cuts a longer name and replaces other characters.
        *self.name == *b"application_name"
            && self.value.len() < 64
            && self.value.iter().all(|byte| (b' '..=b'~').contains(byte))
    }

    /// A setting as the server has shown it, the value in the database's encoding.
    pub fn shown(name: &[u8], value: &[u8]) -> Setting {
        let encoding = match value.is_ascii() {
            true => ValueEncoding::Client,
            false => ValueEncoding::Database,
        };
        Setting { encoding, ..Setting::new(name, value) }
    }

    /// Whether the value means what it does only under the client's encoding of now.
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

/// More settings, or larger ones, than are tracked for one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_SETTINGS} settings or {MAX_BYTES} bytes of them")]
pub struct TooManySettings;

/// A driver sets about ten, an application with settings of its own a few dozen.
const MAX_SETTINGS: usize = 64;
/// A startup packet has at most 10,000 bytes; a SET that is followed, 4,096.
const MAX_BYTES: usize = 16_384;

/// The sets of settings that a worker's clients and server connections stand at.
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
    /// An empty table. A seed that clients cannot guess keeps them from making sets collide.
    pub fn new(seed: u64) -> SettingsTable {
        let hasher = FixedState::with_seed(seed);
        let empty =
            Interned { settings: Arc::new([]), hash: 0, references: 1, parse: SettingsId::EMPTY };
        SettingsTable { slots: vec![empty], free: Vec::new(), index: HashTable::new(), hasher }
    }

    /// The set of these settings; of several with one name the last counts.
    ///
    /// # Errors
    /// They are too many to be tracked.
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

    /// The set `id` with `name` at `value`.
    ///
    /// # Errors
    /// They are too many to be tracked.
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

    /// The set `id` without those that `leaves` says yes to.
    pub fn without(&mut self, id: SettingsId, leaves: impl Fn(&[u8]) -> bool) -> SettingsId {
        if !self.settings(id).iter().any(|setting| leaves(&setting.name)) {
            self.retain(id);
            return id;
        }
        let stay = self.settings(id).iter().filter(|s| !leaves(&s.name)).cloned().collect();
        self.own(stay)
    }

    /// One more reference to `id`.
    pub fn retain(&mut self, id: SettingsId) {
        if id != SettingsId::EMPTY {
            self.slots[id.0 as usize].references += 1;
        }
    }

    /// One reference to `id` less; without any it is forgotten.
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

    /// Makes `place` hold a reference to `to` instead of the one it holds.
    #[inline]
    pub fn assign(&mut self, place: &mut SettingsId, to: SettingsId) {
        if *place != to {
            self.retain(to);
            self.release(std::mem::replace(place, to));
        }
    }

    /// The settings of `id`, sorted by name.
    pub fn settings(&self, id: SettingsId) -> &[Setting] {
        &self.slots[id.0 as usize].settings
    }

    /// The same, for who may need them when `id` is gone.
    pub fn shared(&self, id: SettingsId) -> Arc<[Setting]> {
        Arc::clone(&self.slots[id.0 as usize].settings)
    }

    /// The value of `name` (in lower case) in `id`.
    pub fn get(&self, id: SettingsId, name: &[u8]) -> Option<&[u8]> {
        let settings = self.settings(id);
        let at = settings.binary_search_by(|setting| (*setting.name).cmp(name)).ok()?;
        Some(&settings[at].value)
    }

    /// The part of `id` that decides what a statement parsed under it means: two clients may share
    /// a prepared statement only if theirs are equal. It lives as long as `id`; who keeps it longer
    /// retains it.
    #[inline]
    pub fn parse_affecting(&self, id: SettingsId) -> SettingsId {
        self.slots[id.0 as usize].parse
    }

    /// How many sets there are besides the empty one.
    pub fn len(&self) -> usize {
        self.slots.len() - 1 - self.free.len()
    }

    /// Whether there is no set but the empty one.
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
