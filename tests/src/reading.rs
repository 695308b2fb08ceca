//! Reads of a raw client up to a condition: the end of a reply, of the connection, or of a very
//! long result.

use std::io;

use crate::message::Message;
use crate::reply::Reply;
use crate::wire_client::WireClient;

impl WireClient {
    /// Reads all messages up to the end of the connection.
    ///
    /// # Panics
    /// When the connection does not end within the time limit.
    pub fn read_to_end(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            match self.try_read() {
                Ok(message) => messages.push(message),
                Err(error) if is_timeout(&error) => {
                    panic!("the connection stays open after {messages:?}")
                }
                Err(_) => return messages,
            }
        }
    }

    /// Reads the messages up to the first ReadyForQuery or the end of the connection.
    ///
    /// # Panics
    /// When neither arrives within the time limit.
    pub fn read_to_end_or_ready(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            match self.try_read() {
                Ok(message) => messages.push(message),
                Err(error) if is_timeout(&error) => panic!("nothing more after {messages:?}"),
                Err(_) => return messages,
            }
            if messages.last().is_some_and(|message| message.tag == b'Z') {
                return messages;
            }
        }
    }

    /// Reads bytes up to those of a ReadyForQuery with status `I`, or the end of the connection.
    ///
    /// # Panics
    /// When neither arrives within the time limit.
    pub fn read_raw_to_end_or_ready(&mut self) -> Vec<u8> {
        self.read_raw_until(|bytes| bytes.ends_with(b"Z\0\0\0\x05I"))
    }

    /// Reads all bytes up to the end of the connection.
    ///
    /// # Panics
    /// When the connection does not end within the time limit.
    pub fn read_raw_to_end(&mut self) -> Vec<u8> {
        self.read_raw_until(|_| false)
    }

    fn read_raw_until(&mut self, is_enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut byte = [0];
        while !is_enough(&bytes) {
            match self.read_bytes(&mut byte) {
                Ok(()) => bytes.extend(byte),
                Err(error) if is_timeout(&error) => {
                    panic!("the connection stays open after {}", bytes.escape_ascii())
                }
                Err(_) => break,
            }
        }
        bytes
    }

    /// Reads up to ReadyForQuery without keeping rows. Returns the number of bytes in the bodies of
    /// DataRow and CopyData messages, and the other messages.
    ///
    /// # Panics
    /// When the connection ends or stalls.
    pub fn count_reply(&mut self) -> (u64, Reply) {
        let mut count = 0;
        let mut messages = Vec::new();
        let mut chunk = vec![0; 1 << 16];
        loop {
            let mut header = [0; 5];
            self.read_bytes(&mut header).expect("a header");
            let mut left =
                u32::from_be_bytes(header[1..].try_into().expect("four bytes")) as usize - 4;
            let row = matches!(header[0], b'D' | b'd');
            let mut body = Vec::new();
            while left > 0 {
                let part = left.min(chunk.len());
                self.read_bytes(&mut chunk[..part]).expect("a body");
                if row {
                    count += part as u64;
                } else {
                    body.extend(&chunk[..part]);
                }
                left -= part;
            }
            if !row {
                messages.push(Message { tag: header[0], body });
            }
            if header[0] == b'Z' {
                return (count, Reply { messages });
            }
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
