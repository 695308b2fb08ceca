//! The unnamed statement: as its client knows it, and whose it is on a server connection.

use super::statement::Shape;
use crate::ids::SessionId;
use crate::sql::StatementClass;

/// A client's unnamed statement: the body of its Parse behind the name.
#[derive(Debug)]
pub struct Unnamed {
    /// Text, NUL, parameter types.
    pub body: Vec<u8>,
    /// What executing it means to the session.
    pub class: StatementClass,
    /// What the client was told when it described it.
    pub shape: Option<Box<Shape>>,
}

impl Unnamed {
    /// Appends what stands behind the name in a Parse of it: with the parameter types that the
    /// client was told, if it was.
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

/// Whose the unnamed statement of a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnnamedStatement {
    /// There is none.
    Absent,
    /// That of this session, after so many changes of it.
    Of(SessionId, u32),
    /// That of a session of another worker.
    Foreign,
}
