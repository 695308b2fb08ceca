//! The client's startup packet, copied out of the read buffer.

use pgimbal_wire::encode;
use pgimbal_wire::extended::NAME_BYTES;
use pgimbal_wire::options;
use pgimbal_wire::startup::{
    self, Parameters, ProtocolVersion, StartupError, StartupPacket, negotiate,
};

use super::error::LoginError;
use crate::transport::{Conversation, Setting};

/// The first packet after the negotiation of encryption.
pub(super) enum Opening {
    Startup(Request),
    Cancel { process_id: u32, key: Box<[u8]> },
}

/// The content of a StartupMessage.
pub(super) struct Request {
    pub(super) user: Box<str>,
    pub(super) database: Box<str>,
    pub(super) version: ProtocolVersion,
    pub(super) replication: bool,
    /// The last `options` parameter.
    options: Option<Box<[u8]>>,
    /// All others, in order.
    others: Vec<Setting>,
}

/// Reads the first packet after the negotiation of encryption and consumes it.
/// NegotiateProtocolVersion, if it is needed, goes to the outbox. The caller limits the time.
pub(super) async fn read(conversation: &mut Conversation) -> Result<Opening, LoginError> {
    let used = loop {
        if let Some((_, used)) = startup::parse(&conversation.inbox)? {
            break used;
        }
        conversation.fill().await?;
    };
    let Conversation { inbox, outbox, .. } = conversation;
    let opening = match startup::parse(inbox)? {
        Some((StartupPacket::Startup { version, parameters }, _)) => {
            let agreed = negotiate(version, &parameters);
            if agreed.must_notify {
                encode::negotiate_protocol_version(outbox, agreed.version, &parameters);
            }
            Opening::Startup(Request::new(agreed.version, &parameters)?)
        }
        Some((StartupPacket::Cancel { process_id, key }, _)) => {
            Opening::Cancel { process_id, key: key.into() }
        }
        // A request for encryption that was answered already, or inside TLS. PostgreSQL takes its
        // number for a version.
        Some((StartupPacket::Ssl, _)) => return Err(second_request(5679)),
        Some((StartupPacket::GssEnc, _)) => return Err(second_request(5680)),
        None => return Err(StartupError::Length.into()),
    };
    conversation.consume(used);
    Ok(opening)
}

fn second_request(minor: u16) -> LoginError {
    StartupError::Version(ProtocolVersion { major: 1234, minor }).into()
}

impl Request {
    fn new(version: ProtocolVersion, parameters: &Parameters<'_>) -> Result<Self, LoginError> {
        let (mut user, mut database, mut options) = (None, None, None);
        let mut replication = false;
        let mut others = Vec::new();
        for (name, value) in parameters.iter() {
            match name {
                b"user" => user = Some(value),
                b"database" => database = Some(value),
                b"options" => options = Some(value),
                b"replication" => replication = asks_for_replication(value),
                _ if name.starts_with(b"_pq_.") => {}
                _ => others.push((name.into(), value.into())),
            }
        }
        let user = user.filter(|user| !user.is_empty()).ok_or(LoginError::NoUser)?;
        let database = database.filter(|database| !database.is_empty()).unwrap_or(user);
        for (what, name) in [("user", user), ("database", database)] {
            if name.len() > NAME_BYTES {
                return Err(LoginError::NameTooLong(what));
            }
        }
        Ok(Self {
            user: name(user),
            database: name(database),
            version,
            replication,
            options: options.map(Into::into),
            others,
        })
    }

    /// The settings of the packet, those of `options` first, so that the last one of a name counts.
    ///
    /// # Errors
    /// [`LoginError::Options`] when `options` is malformed; checked only after authentication.
    pub(super) fn settings(&self) -> Result<Vec<Setting>, LoginError> {
        let mut settings = Vec::new();
        for setting in options::parse(self.options.as_deref().unwrap_or_default())? {
            settings.push((setting.name.into(), setting.value.into()));
        }
        settings.extend_from_slice(&self.others);
        Ok(settings)
    }
}

/// The name as UTF-8, as in the configuration. A name in another encoding is escaped, so that it
/// matches no configured name.
fn name(bytes: &[u8]) -> Box<str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => bytes.escape_ascii().to_string().into(),
    }
}

/// Whether the value asks for a replication connection: PostgreSQL's `replication` is a boolean or
/// `database`, and whatever is not plainly false counts.
fn asks_for_replication(value: &[u8]) -> bool {
    let no: [&[u8]; 5] = [b"false", b"off", b"no", b"0", b"f"];
    !no.iter().any(|word| value.eq_ignore_ascii_case(word))
}
