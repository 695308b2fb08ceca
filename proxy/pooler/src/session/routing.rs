//! What a session remembers whose statements are sent to the primary or to a replica one by one:
//! where its next segment goes and why.

use std::rc::Rc;

use pgimbal_config::Route;

use crate::server::reported::Reported;

/// Where a session's segment (its messages up to a Sync, or a simple query) goes, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// [`Route::Primary`] or [`Route::Replica`].
    pub route: Route,
    /// Who has chosen.
    pub by: ChosenBy,
    /// Why.
    pub why: Why,
}

/// Who has chosen where a segment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChosenBy {
    /// pgimbal, by what the texts do: a replica has to show what the session has written.
    Auto,
    /// The text, by a comment in front of it: any replica will do.
    Text,
}

/// Why a segment goes where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Every text only reads.
    Read,
    /// It begins a READ ONLY transaction.
    ReadOnly,
    /// A comment in front of the text says so.
    Comment,
    /// It begins a transaction that may write.
    Transaction,
    /// It would run under SERIALIZABLE, which no standby allows.
    Serializable,
    /// Its messages do not fit into 16 KiB.
    Long,
    /// It names a prepared statement whose text is not known.
    UnknownStatement,
    /// It has a message that is no part of a query, such as a function call.
    OtherMessage,
    /// A replica has just refused it.
    Refused,
    /// It sets something: within a READ ONLY transaction that may let it write.
    Setting,
    /// A text takes long to parse, and another thread does that now.
    BeingParsed,
    /// A text takes long to parse, and the other thread has enough to do.
    NotParsed,
    /// A text is no read, for the reason of this word.
    NotRead(&'static str),
}

impl Why {
    /// The word for metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::ReadOnly => "read_only_transaction",
            Self::Comment => "comment",
            Self::Transaction => "transaction",
            Self::Serializable => "serializable",
            Self::Long => "too_long",
            Self::UnknownStatement => "unknown_statement",
            Self::OtherMessage => "other_message",
            Self::Refused => "refused",
            Self::Setting => "setting",
            Self::BeingParsed => "being_parsed",
            Self::NotParsed => "parser_is_busy",
            Self::NotRead(word) => word,
        }
    }
}

/// Whether the messages up to the next Sync, Flush or end of a simple query were looked at, and may
/// all go to the replica that the session has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Approval {
    #[default]
    No,
    Yes,
}

/// Whether the session's next segment is one that a replica has refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Refusal {
    #[default]
    No,
    /// It goes to the primary.
    Yes,
}

/// What a session remembers whose statements are sent to the primary or to a replica one by one.
/// Others have none.
#[derive(Debug, Default)]
pub struct Routing {
    chosen: Option<Chosen>,
    approval: Approval,
    /// The segment that a replica is refusing, as the client has sent it.
    refused: Option<Vec<u8>>,
    refusal: Refusal,
    /// The reported settings of the primary that the client knows, while it is at a replica.
    told: Option<Rc<Reported>>,
}

impl Routing {
    /// Where the segment goes that is next or under way; `None` if the session's own route decides.
    #[must_use]
    pub const fn chosen(&self) -> Option<Chosen> {
        self.chosen
    }

    /// The role of the node that serves the segment, `is_home` the primary, and why it does: for
    /// the metrics. `None` if nothing was chosen.
    pub(crate) fn served(&self, is_home: bool) -> Option<(&'static str, &'static str)> {
        let chosen = self.chosen?;
        Some(match (chosen.route, is_home) {
            (_, false) => ("replica", chosen.why.as_str()),
            (Route::Replica, true) => ("primary", "no_fresh_replica"),
            _ => ("primary", chosen.why.as_str()),
        })
    }

    /// Notes where the next segment goes.
    pub(crate) const fn choose(&mut self, chosen: Option<Chosen>) {
        self.chosen = chosen;
        self.approval = Approval::Yes;
    }

    /// Whether the messages at the front may go to the replica that the session has.
    pub(crate) const fn approval(&self) -> Approval {
        self.approval
    }

    /// They may, or were sent.
    pub(crate) const fn set_approval(&mut self, approval: Approval) {
        self.approval = approval;
    }

    /// A transaction on the primary has ended.
    pub(crate) const fn note_end(&mut self) {
        self.refusal = Refusal::No;
    }

    /// A replica refuses this segment.
    pub(crate) fn refuse(&mut self, segment: Vec<u8>) {
        self.refused = Some(segment);
    }

    /// Whether a replica refuses the segment that is under way.
    pub(crate) const fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// Takes the segment that a replica has refused: it goes to the primary.
    pub(crate) fn take_refused(&mut self) -> Option<Vec<u8>> {
        let refused = self.refused.take()?;
        self.refusal = Refusal::Yes;
        Some(refused)
    }

    /// The segment that a replica refuses is lost with its server connection.
    pub(crate) fn forget_refused(&mut self) -> Option<Vec<u8>> {
        self.refused.take()
    }

    /// The reported settings of the primary, as the client knows them; `None` while the session
    /// is at the primary.
    pub(crate) fn told(&self) -> Option<&Reported> {
        self.told.as_deref()
    }

    /// The session goes from the primary to a replica, or from one replica to another.
    pub(crate) fn keep_told(&mut self, told: Rc<Reported>) {
        self.told.get_or_insert(told);
    }

    /// The session comes back to the primary.
    pub(crate) fn take_told(&mut self) -> Option<Rc<Reported>> {
        self.told.take()
    }

    /// Whether the segment at the front is one that a replica has refused.
    pub(crate) fn was_refused(&self) -> bool {
        self.refusal == Refusal::Yes
    }
}
