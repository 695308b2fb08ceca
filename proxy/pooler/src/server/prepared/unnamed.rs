//! The unnamed statement: as its client knows it, and whose it is on a server connection.

use super::statement::Shape;
use crate::ids::SessionId;
use crate::sql::StatementClass;

/// A client's unnamed prepared statement, as the proxy keeps it to parse it again on another
/// server.
#[derive(Debug)]
pub struct Unnamed {
    /// The body of its Parse behind the (empty) name: text, NUL, parameter types.
    pub body: Vec<u8>,
    /// The classification of the statement's text: what executing it may do to the session.
    pub class: StatementClass,
    /// The parameters and rows that the client was told of; `None` if it has not described the
    /// statement.
    pub shape: Option<Box<Shape>>,
}

impl Unnamed {
    /// Appends the part of a Parse of this statement behind the name: text, NUL and parameter
    /// types, which are those that the client was told, if it was.
    pub fn write_body(&self, out: &mut Vec<u8>) {
        match &self.shape {
            None => out.extend_from_slice(&self.body),
            Some(shape) => {
                let end = self.body.iter().position(|&byte| byte == 0).unwrap_or(self.body.len());
                out.extend_from_slice(&self.body[..end]);
                out.push(0);
                out.extend_from_slice(&shape.parameters);
            }
        }
    }
}

/// To which session the unnamed prepared statement on a server connection belongs. A session whose
/// statement is not there parses it again before Bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnnamedStatement {
    /// The server has no unnamed statement, as after a login or its Close.
    Absent,
    /// The statement of this session, after this many changes of its client's unnamed statement. An
    /// earlier number is an outdated one.
    Of(SessionId, u32),
    /// The statement of a session of another worker, or not known whose: no session may use it.
    Foreign,
}
