//! The sockets of a worker's server connections.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pgimbal_pooler::ids::ServerId;
use pgimbal_pooler::plan::Pieces;

use super::inbox::{Inbox, Input, ReadBuffer};
use super::outbox::{FreeList, Outbox, Source};
use crate::credentials::Counted;
use crate::dial::{Address, CancelKey, Target};
use crate::tcp::DeadPeerTimer;
use crate::transport::Transport;

/// One server connection's socket, and how it was opened.
#[derive(Debug)]
pub(super) struct ServerSocket {
    pub(super) transport: Transport,
    /// Where it leads.
    pub(super) address: Address,
    /// How it was opened, for cancel requests.
    pub(super) target: Arc<Target>,
    /// What a cancel request must show.
    pub(super) cancel: Option<CancelKey>,
    /// Counts it among those that were opened with this generation of the role's password.
    pub(super) generation: Option<Counted>,
}

/// One server connection's socket and what is on its way.
#[derive(Debug)]
pub(super) struct ServerIo {
    socket: ServerSocket,
    inbox: Inbox,
    outbox: Outbox,
    serial: u32,
    dead_peer_timer: DeadPeerTimer,
}

/// All of them, by slot.
#[derive(Debug, Default)]
pub(super) struct Servers(Vec<Option<ServerIo>>);

impl ServerIo {
    /// One that has sent `residual` already.
    pub(super) fn new(socket: ServerSocket, residual: Vec<u8>) -> Self {
        Self {
            socket,
            inbox: Inbox::with(residual),
            outbox: Outbox::default(),
            serial: 0,
            dead_peer_timer: DeadPeerTimer::default(),
        }
    }

    /// Where it leads.
    pub(super) const fn address(&self) -> &Address {
        &self.socket.address
    }

    /// The generation of the role's password that it was opened with.
    pub(super) fn generation(&self) -> Option<u32> {
        self.socket.generation.as_ref().map(Counted::generation)
    }

    /// What a cancel request for it needs; `None` when the server has given no key.
    pub(super) fn cancel_request(&self) -> Option<(Arc<Target>, Address, CancelKey)> {
        let ServerSocket { address, target, cancel, .. } = &self.socket;
        Some((Arc::clone(target), address.clone(), cancel.clone()?))
    }

    /// The socket alone.
    pub(super) fn into_socket(self) -> ServerSocket {
        self.socket
    }
}

impl Servers {
    /// Keeps the socket of `id`.
    pub(super) fn insert(&mut self, id: ServerId, mut io: ServerIo) {
        if self.0.len() <= id.index() {
            self.0.resize_with(id.index() + 1, || None);
        }
        io.serial = id.serial;
        self.0[id.index()] = Some(io);
    }

    /// Takes the dead-peer timer off those that live and do not read, such as one whose COPY waits
    /// for a lock, and sets it for the others.
    pub(super) fn look_whether_they_read(&mut self, limit: Duration) {
        for io in self.0.iter_mut().flatten() {
            // The next round looks at all of them again.
            let _ = io.dead_peer_timer.look(io.socket.transport.socket(), limit);
        }
    }

    /// The socket of `id`.
    #[inline]
    pub(super) fn get(&mut self, id: ServerId) -> Option<&mut ServerIo> {
        self.0.get_mut(id.index())?.as_mut().filter(|io| io.serial == id.serial)
    }

    /// Takes the socket of `id` out.
    pub(super) fn take(&mut self, id: ServerId) -> Option<ServerIo> {
        self.get(id)?;
        self.0[id.index()].take()
    }

    /// Closes the socket of `id` without a good-bye.
    pub(super) fn drop_io(&mut self, id: ServerId) {
        drop(self.take(id));
    }

    /// Writes pieces of a plan.
    #[inline]
    pub(super) fn send(
        &mut self,
        id: ServerId,
        free: &mut FreeList,
        cx: &mut Context<'_>,
        source: Source<'_>,
        pieces: &Pieces,
    ) -> io::Result<()> {
        if pieces.is_empty() {
            return Ok(());
        }
        match self.get(id) {
            Some(io) => io.outbox.send(&mut io.socket.transport, free, cx, source, pieces),
            None => Ok(()),
        }
    }

    /// Writes what the server has not taken yet, as far as it takes it now.
    #[inline]
    pub(super) fn flush(
        &mut self,
        id: ServerId,
        free: &mut FreeList,
        cx: &mut Context<'_>,
    ) -> io::Result<()> {
        match self.get(id) {
            Some(io) if !io.outbox.is_empty() || io.socket.transport.wants_flush() => {
                match io.outbox.poll_flush(&mut io.socket.transport, free, cx) {
                    Poll::Ready(result) => result,
                    Poll::Pending => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Whether the server has taken everything.
    #[inline]
    pub(super) fn is_flushed(&mut self, id: ServerId) -> bool {
        self.get(id).is_none_or(|io| io.outbox.is_empty() && !io.socket.transport.wants_flush())
    }

    /// Reads the server; `Ok(None)` is its end.
    #[inline]
    pub(super) fn poll_read(
        &mut self,
        id: ServerId,
        buffer: &mut ReadBuffer,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Input>>> {
        match self.get(id) {
            Some(io) => io.inbox.poll_read(&mut io.socket.transport, buffer, cx),
            None => Poll::Ready(Ok(None)),
        }
    }

    /// Keeps what was read and not processed.
    #[inline]
    pub(super) fn keep(&mut self, id: ServerId, rest: &[u8], free: &mut FreeList) {
        if let Some(io) = self.get(id) {
            io.inbox.keep(rest, free);
        }
    }

    /// What an idle server connection has said meanwhile, if the runtime has seen anything come.
    pub(super) fn try_read_cached(
        &mut self,
        id: ServerId,
        buffer: &mut ReadBuffer,
    ) -> Option<io::Result<Option<Input>>> {
        let io = self.get(id)?;
        io.inbox.try_read_cached(&mut io.socket.transport, buffer)
    }
}
