//! Packets without a tag: StartupMessage, SSLRequest, GSSENCRequest and CancelRequest.

/// The request code of an SSLRequest ("Message Formats"): 1234 in the upper 16 bits, 5679 in the
/// lower.
pub const SSL_REQUEST: u32 = 80_877_103;
/// The request code of a GSSENCRequest: 1234 in the upper 16 bits, 5680 in the lower.
pub const GSSENC_REQUEST: u32 = 80_877_104;
/// The request code of a CancelRequest: 1234 in the upper 16 bits, 5678 in the lower.
pub const CANCEL_REQUEST: u32 = 80_877_102;
/// Protocol version 3.0 as a StartupMessage has it.
pub const PROTOCOL_3_0: u32 = 0x0003_0000;
/// Protocol version 3.2 as a StartupMessage has it.
pub const PROTOCOL_3_2: u32 = 0x0003_0002;

/// The startup parameters and the password of a login.
#[derive(Debug, Clone)]
pub struct Login {
    /// The protocol version to ask for.
    pub version: u32,
    /// Names and values of the startup parameters, `user` and `database` first.
    pub parameters: Vec<(String, String)>,
    /// The password with which every authentication request is answered.
    pub password: String,
}

impl Login {
    /// Makes a login of `user` to `database`, with protocol 3.0.
    #[must_use]
    pub fn new(user: &str, database: &str, password: &str) -> Self {
        let parameters = vec![("user".into(), user.into()), ("database".into(), database.into())];
        Self { version: PROTOCOL_3_0, parameters, password: password.into() }
    }

    /// Adds a startup parameter.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.parameters.push((name.into(), value.into()));
        self
    }

    /// The bytes of the StartupMessage.
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

/// The bytes of a packet without a tag: its length, `code` and `body`.
///
/// # Panics
/// When the body is longer than 4 GiB.
#[must_use]
pub fn startup_packet(code: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(body.len() + 8).expect("a length").to_be_bytes().to_vec();
    bytes.extend(code.to_be_bytes());
    bytes.extend(body);
    bytes
}
