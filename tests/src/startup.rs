//! Packets without a tag: startup, SSLRequest, GSSENCRequest, CancelRequest.

/// The code of an SSLRequest.
pub const SSL_REQUEST: u32 = 80_877_103;
/// The code of a GSSENCRequest.
pub const GSSENC_REQUEST: u32 = 80_877_104;
/// The code of a CancelRequest.
pub const CANCEL_REQUEST: u32 = 80_877_102;
/// Protocol 3.0.
pub const PROTOCOL_3_0: u32 = 0x0003_0000;
/// Protocol 3.2.
pub const PROTOCOL_3_2: u32 = 0x0003_0002;

/// Who logs in, and how.
#[derive(Debug, Clone)]
pub struct Login {
    /// The protocol version asked for.
    pub version: u32,
    /// The startup parameters, `user` and `database` first.
    pub parameters: Vec<(String, String)>,
    /// What is answered to any request for a password.
    pub password: String,
}

impl Login {
    /// `user` on `database` with protocol 3.0.
    #[must_use]
    pub fn new(user: &str, database: &str, password: &str) -> Self {
        let parameters = vec![("user".into(), user.into()), ("database".into(), database.into())];
        Self { version: PROTOCOL_3_0, parameters, password: password.into() }
    }

    /// The same with one more startup parameter.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.parameters.push((name.into(), value.into()));
        self
    }

    /// The startup packet.
    #[must_use]
    pub fn packet(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, value) in &self.parameters {
            body.extend(name.as_bytes());
            body.push(0);
            body.extend(value.as_bytes());
            body.push(0);
        }
        body.push(0);
        startup_packet(self.version, &body)
    }
}

/// A packet without tag: length, `code`, `body`.
///
/// # Panics
/// When the body is longer than a length word can say.
#[must_use]
pub fn startup_packet(code: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(body.len() + 8).expect("a length").to_be_bytes().to_vec();
    bytes.extend(code.to_be_bytes());
    bytes.extend(body);
    bytes
}
