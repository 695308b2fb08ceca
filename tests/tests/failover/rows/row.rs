//! What a row of the client-state table is, and what most of them say.

use pgimbal_tests::{Pipeline, Reply, WireClient};

use super::super::setup::Setup;

/// What the failing server says to statements in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Words {
    /// FATAL 57P01, which proves rollback where no CommandComplete came before.
    Fatal,
    /// Nothing that proves anything.
    Nothing,
    /// Nothing, but it was a standby, on which nothing can be written.
    ReadOnly,
}

/// Whether what the client wrote is there in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Written {
    /// It wrote nothing.
    Never,
    Once,
    /// The outcome is unknown.
    OnceAtMost,
    /// It was told so.
    RolledBack,
    /// Rolled back if the server's words prove it.
    ByWords,
}

pub(in super::super) struct Row {
    /// Also the id of what it writes.
    pub(in super::super) name: &'static str,
    pub(in super::super) database: &'static str,
    /// Brings the client into its state.
    pub(in super::super) enter: fn(&mut WireClient),
    /// Whether a statement then runs that names the row.
    pub(in super::super) runs: bool,
    /// What it does while there is no primary.
    pub(in super::super) during: Option<fn(&mut WireClient)>,
    /// What it sees.
    pub(in super::super) sees: fn(&mut WireClient, Words),
    pub(in super::super) survives: bool,
    pub(in super::super) written: Written,
    /// What it sees when its server connection goes on.
    pub(in super::super) goes_on: fn(&mut WireClient),
    /// Whether a replica can bring it into its state.
    pub(in super::super) on_replica: bool,
    /// What must have happened before it looks.
    pub(in super::super) await_first: fn(&Setup, &WireClient),
}

/// What most rows are.
pub(super) const ROW: Row = Row {
    name: "",
    database: "app",
    enter: |_| {},
    runs: false,
    during: None,
    sees: |_, _| {},
    survives: true,
    written: Written::Never,
    goes_on: WireClient::expect_nothing_before_the_next_reply,
    on_replica: false,
    await_first: |_, _| {},
};

/// What most rows are whose statement runs.
pub(super) const RUNNING: Row = Row {
    runs: true,
    goes_on: |client| {
        client.read_reply().no_error();
    },
    ..ROW
};

/// A reply that is one error, which leaves the connection open, and nothing that a notice of
/// the old server's told.
pub(in super::super) fn refusal(reply: &Reply, code: &str, status: char) {
    let errors = reply.errors();
    let told: Vec<_> =
        errors.iter().map(|error| (error.severity.as_str(), error.code.as_str())).collect();
    assert_eq!(told, [("ERROR", code)], "{reply:?}");
    assert_eq!(reply.status(), status, "{reply:?}");
    assert!(reply.messages.iter().all(|message| message.tag != b'N'), "{reply:?}");
    assert!(reply.commands().is_empty(), "{reply:?}");
}

/// The next reply is [`refusal`].
pub(super) fn refused(client: &mut WireClient, code: &str, status: char) {
    refusal(&client.read_reply(), code, status);
}

/// As [`refused`], with 57P01 where the server's words prove rollback, else 08007.
pub(super) fn told_by(client: &mut WireClient, words: Words) {
    let code = if words == Words::Fatal { "57P01" } else { "08007" };
    refused(client, code, 'I');
}

pub(super) fn unknown(client: &mut WireClient, _: Words) {
    refused(client, "08007", 'I');
}

/// Begins a transaction that has written a row of this name to `table` unless a replica serves it.
pub(super) fn begin(client: &mut WireClient, table: &str, name: &str) {
    client.ok("begin");
    client.ok(&format!("select note('{table}', '{name}')"));
}

pub(super) fn send(client: &mut WireClient, pipeline: &Pipeline) {
    client.send(pipeline.bytes());
}

pub(super) fn extended(sql: &str) -> Pipeline {
    Pipeline::new().run(sql).sync()
}
