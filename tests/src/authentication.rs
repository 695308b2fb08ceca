//! The client's side of authentication, for raw clients: cleartext, MD5 and SCRAM.

use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};

use crate::message::Message;
use crate::startup::Login;
use crate::wire_client::WireClient;

impl WireClient {
    /// Sends a startup packet and answers authentication requests up to the first ReadyForQuery.
    ///
    /// # Errors
    /// The messages that arrived, ending with the ErrorResponse, or with the last message before
    /// the server closed the connection.
    pub fn log_in(&mut self, login: &Login) -> Result<(), Vec<Message>> {
        self.send(&login.packet());
        loop {
            let Ok(message) = self.try_read() else {
                return Err(std::mem::take(&mut self.greeting));
            };
            self.greeting.push(message.clone());
            match message.tag {
                b'R' => self.answer(&message, login),
                b'K' => self.key = message.body,
                b'E' => return Err(std::mem::take(&mut self.greeting)),
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    fn answer(&mut self, request: &Message, login: &Login) {
        let user = login.parameters[0].1.as_bytes();
        match u32::from_be_bytes(request.body[..4].try_into().expect("four bytes")) {
            0 => {}
            3 => self.send_password(login.password.as_bytes()),
            5 => {
                let salt = request.body[4..8].try_into().expect("a salt");
                self.send_password(md5_hash(user, login.password.as_bytes(), salt).as_bytes());
            }
            10 => self.scram(&login.password),
            other => panic!("unknown authentication request {other}"),
        }
    }

    /// Runs a login up to the message that proves the password, and returns that message without
    /// sending it.
    ///
    /// # Panics
    /// When the server sends anything but an authentication request.
    pub fn up_to_the_proof(&mut self, login: &Login) -> Vec<u8> {
        self.send(&login.packet());
        let request = self.expect(b'R');
        let password = login.password.as_bytes();
        match u32::from_be_bytes(request.body[..4].try_into().expect("four bytes")) {
            3 => Message::new(b'p', &[password, b"\0"].concat()).encode(),
            5 => {
                let salt = request.body[4..8].try_into().expect("a salt");
                let user = login.parameters[0].1.as_bytes();
                let answer = md5_hash(user, password, salt);
                Message::new(b'p', &[answer.as_bytes(), b"\0"].concat()).encode()
            }
            10 => {
                let mut scram = ScramSha256::new(password, ChannelBinding::unsupported());
                self.send_scram_first(&scram);
                let challenge = self.expect(b'R');
                scram.update(&challenge.body[4..]).expect("a server-first message");
                Message::new(b'p', scram.message()).encode()
            }
            other => panic!("unknown authentication request {other}"),
        }
    }

    fn send_scram_first(&mut self, scram: &ScramSha256) {
        let length = u32::try_from(scram.message().len()).expect("a length");
        let first =
            [SCRAM_SHA_256.as_bytes(), b"\0", &length.to_be_bytes(), scram.message()].concat();
        self.send(&Message::new(b'p', &first).encode());
    }

    /// Sends a PasswordMessage with `text` and its terminator.
    pub fn send_password(&mut self, text: &[u8]) {
        self.send(&Message::new(b'p', &[text, b"\0"].concat()).encode());
    }

    fn scram(&mut self, password: &str) {
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        self.send_scram_first(&scram);
        let Ok(server_first) = self.try_read() else { return };
        if server_first.tag != b'R' {
            self.greeting.push(server_first);
            return;
        }
        scram.update(&server_first.body[4..]).expect("a server-first message");
        self.send(&Message::new(b'p', scram.message()).encode());
        let Ok(last) = self.try_read() else { return };
        if last.tag == b'R' {
            scram.finish(&last.body[4..]).expect("the server's signature");
        }
        self.greeting.push(last);
    }
}
