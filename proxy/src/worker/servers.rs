//! The sockets of a worker's server connections.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pgimbal_pooler::ids::ServerId;
use pgimbal_pooler::plan::Pieces;

use super::inbox::{Inbox, Input, ReadBuffer};
use super::outbox::{FreeList, Outbox, Source};
use crate::credentials::Counted;
use crate::dial::{Address, CancelKey, Target};
use crate::tcp::DeadPeerTimer;
use crate::transport::Transport;

/// The socket of one server connection, and how it was opened. It can move to another worker.
#[derive(Debug)]
pub(super) struct ServerSocket {
    /// The socket, with TLS if it was negotiated.
    pub(super) transport: Transport,
    /// The address that the connection leads to.
    pub(super) address: Address,
    /// How the connection was opened, for cancel requests.
    pub(super) target: Arc<Target>,
    /// The key that a cancel request must show; `None` when the server sent no BackendKeyData.
    pub(super) cancel: Option<CancelKey>,
    /// Counts the connection among those opened with this generation of the role's password; `None`
    /// for a fixed password.
    pub(super) generation: Option<Counted>,
}

/// The socket of one server connection with the bytes on their way in both directions.
#[derive(Debug)]
pub(super) struct ServerIo {
    socket: ServerSocket,
    inbox: Inbox,
    outbox: Outbox,
    serial: u32,
    dead_peer_timer: DeadPeerTimer,
    /// Runs the task of a connection that listens; `None` for others.
    task: Option<Waker>,
}

/// The sockets of all server connections of a worker, by slot of the connection.
#[derive(Debug, Default)]
pub(super) struct Servers(Vec<Option<ServerIo>>);

impl ServerIo {
    /// Makes the entry of a connection that has logged in; `residual` are bytes that the server has
    /// sent since.
    pub(super) fn new(socket: ServerSocket, residual: Vec<u8>) -> Self {
        Self {
            socket,
            inbox: Inbox::with(residual),
            outbox: Outbox::default(),
            serial: 0,
            dead_peer_timer: DeadPeerTimer::default(),
            task: None,
        }
    }

    /// Keeps the waker of the task that reads a connection which listens.
    pub(super) fn set_task(&mut self, waker: &Waker) {
        match &mut self.task {
            Some(task) => task.clone_from(waker),
            None => self.task = Some(waker.clone()),
        }
    }

    /// The bytes that were read before and not processed; what is not processed now must be given
    /// back by [`Servers::keep`].
    pub(super) fn held(&mut self, buffer: &mut ReadBuffer) -> Input {
        self.inbox.again(buffer)
    }

    /// Has that task run. Returns whether there is one.
    pub(super) fn wake_task(&self) -> bool {
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
        self.task.is_some()
    }

    /// The address that the connection leads to.
    pub(super) const fn address(&self) -> &Address {
        &self.socket.address
    }

    /// The generation of the role's password with which it was opened; `None` for a fixed password.
    pub(super) fn generation(&self) -> Option<u32> {
        self.socket.generation.as_ref().map(Counted::generation)
    }

    /// Target, address and key for a cancel request; `None` when the server sent no BackendKeyData.
    pub(super) fn cancel_request(&self) -> Option<(Arc<Target>, Address, CancelKey)> {
        let ServerSocket { address, target, cancel, .. } = &self.socket;
        Some((Arc::clone(target), address.clone(), cancel.clone()?))
    }

    /// The socket alone; bytes that wait in either direction are dropped.
    pub(super) fn into_socket(self) -> ServerSocket {
        self.socket
    }
}

impl Servers {
    /// Adds the socket of server connection `id`, in place of whatever was in its slot.
    pub(super) fn insert(&mut self, id: ServerId, mut io: ServerIo) {
        if self.0.len() <= id.index() {
            self.0.resize_with(id.index() + 1, || None);
        }
        io.serial = id.serial;
        self.0[id.index()] = Some(io);
    }

    /// Checks all server connections: takes the dead-peer timer off those that live and do not
    /// read, such as one whose COPY waits for a lock, and sets it to `limit` for the others.
    pub(super) fn look_whether_they_read(&mut self, limit: Duration) {
        for io in self.0.iter_mut().flatten() {
            // The next round looks at all of them again.
            let _ = io.dead_peer_timer.look(io.socket.transport.socket(), limit);
        }
    }

    /// The socket of server connection `id`; `None` when it was taken or belongs to a later
    /// connection in the same slot.
    #[inline]
    pub(super) fn get(&mut self, id: ServerId) -> Option<&mut ServerIo> {
        self.0.get_mut(id.index())?.as_mut().filter(|io| io.serial == id.serial)
    }

    /// Removes and returns the socket of server connection `id`; `None` as for [`Self::get`]. The
    /// task of one that listens is run, and ends.
    pub(super) fn take(&mut self, id: ServerId) -> Option<ServerIo> {
        self.get(id)?.wake_task();
        self.0[id.index()].take()
    }

    /// Closes the socket of server connection `id` at once, without Terminate.
    pub(super) fn drop_io(&mut self, id: ServerId) {
        drop(self.take(id));
    }

    /// Writes the pieces of a plan to server connection `id`; what the socket does not take is
    /// kept. Without a socket nothing is written, and that is no error.
    ///
    /// # Errors
    /// The error of the socket; the server is gone then.
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

    /// Writes bytes that server connection `id` has not taken yet, as far as it takes them now.
    ///
    /// # Errors
    /// The error of the socket; the server is gone then.
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

    /// Whether the server has taken everything, including what TLS held. True without a socket.
    #[inline]
    pub(super) fn is_flushed(&mut self, id: ServerId) -> bool {
        self.get(id).is_none_or(|io| io.outbox.is_empty() && !io.socket.transport.wants_flush())
    }

    /// Reads from server connection `id` as [`Inbox::poll_read`] does. `Ok(None)` when the server
    /// has closed it or there is no socket.
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

    /// Keeps `rest`, bytes that were read from server connection `id` and not processed.
    #[inline]
    pub(super) fn keep(&mut self, id: ServerId, rest: &[u8], free: &mut FreeList) {
        if let Some(io) = self.get(id) {
            io.inbox.keep(rest, free);
        }
    }

    /// Reads what an idle server connection has sent meanwhile; `None` when the runtime has seen
    /// nothing come, or there is no socket.
    pub(super) fn try_read_cached(
        &mut self,
        id: ServerId,
        buffer: &mut ReadBuffer,
    ) -> Option<io::Result<Option<Input>>> {
        let io = self.get(id)?;
        io.inbox.try_read_cached(&mut io.socket.transport, buffer)
    }
}
