//! A TCP relay for one direction of a link: whoever dials it reaches another address, as long as
//! the test lets it.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::port::free_port;
use crate::until::SOON;

/// A relay from one address to another. It is open at first. Dropping it closes its connections
/// and its port.
pub struct Relay {
    /// The address to dial.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

/// What a relay does with the bytes that arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// It passes them on after the delay.
    Open,
    /// It keeps them, and passes them on once it is open again.
    Frozen,
    /// It passes on those of the side that dialled, and loses the answers.
    OneWay,
    /// It loses them.
    Lossy,
    /// It closes connections at once.
    Cut,
    /// It is being dropped.
    Over,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    mode: Mode,
    delay: Duration,
    /// Both sockets of each connection, for closing them.
    open: Vec<TcpStream>,
    /// Connections that were accepted so far.
    accepted: u64,
}

impl Relay {
    /// Starts a relay to a port of 127.0.0.1, at which nothing need listen yet.
    ///
    /// # Panics
    /// When there is no free port.
    #[must_use]
    pub fn to(port: u16) -> Self {
        let host = IpAddr::from(Ipv4Addr::LOCALHOST);
        Self::between((host, free_port()).into(), host, (host, port).into())
    }

    /// Starts a relay that listens at `address` and passes connections on to `target`, at which
    /// they seem to come from the host `source`.
    ///
    /// # Panics
    /// When the address is taken.
    #[must_use]
    pub fn between(address: SocketAddr, source: IpAddr, target: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).expect("a free address");
        let state =
            State { mode: Mode::Open, delay: Duration::ZERO, open: Vec::new(), accepted: 0 };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accepting.accept(&listener, source, target));
        Self { address, shared }
    }

    /// Closes all connections, and every further one as soon as it is accepted.
    pub fn cut(&self) {
        self.set(Mode::Cut);
    }

    /// Keeps whatever arrives: both sides see silence. [`Relay::heal`] delivers it late.
    pub fn freeze(&self) {
        self.set(Mode::Frozen);
    }

    /// Loses whatever arrives, what is on its way among it: both sides see silence.
    /// [`Relay::heal`] closes the connections, since their streams have holes.
    pub fn lose(&self) {
        self.set(Mode::Lossy);
    }

    /// Loses the answers only: what was asked is done, and the asker never hears of it.
    /// [`Relay::heal`] closes the connections.
    pub fn lose_answers(&self) {
        self.set(Mode::OneWay);
    }

    /// Delivers bytes this much later than they arrive, in each direction.
    pub fn delay(&self, delay: Duration) {
        self.shared.lock().delay = delay;
    }

    /// Opens it again, without a delay.
    pub fn heal(&self) {
        self.delay(Duration::ZERO);
        self.set(Mode::Open);
    }

    /// Number of connections that were accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.lock().accepted
    }

    fn set(&self, mode: Mode) {
        let mut state = self.shared.lock();
        let holes = matches!(state.mode, Mode::Lossy | Mode::OneWay) && state.mode != mode;
        state.mode = mode;
        if holes || matches!(mode, Mode::Cut | Mode::Over) {
            for socket in state.open.drain(..) {
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.set(Mode::Over);
        // Its thread waits in `accept`, and ends at the next connection.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener, source: IpAddr, target: SocketAddr) {
        for near in listener.incoming() {
            let mode = self.lock().mode;
            match (mode, near) {
                (Mode::Over, _) => return,
                (Mode::Cut, _) | (_, Err(_)) => {}
                (_, Ok(near)) => {
                    if let Ok(far) = connect_from(source, target) {
                        self.connect(near, far);
                    }
                }
            }
        }
    }

    /// Passes the bytes of a new connection on in threads of their own.
    fn connect(self: &Arc<Self>, near: TcpStream, far: TcpStream) {
        let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) else { return };
        for socket in [&near, &far] {
            let _ = socket.set_nodelay(true);
        }
        let mut state = self.lock();
        state.accepted += 1;
        state.open.extend([&near, &far].into_iter().filter_map(|socket| socket.try_clone().ok()));
        // It may have been cut meanwhile.
        if matches!(state.mode, Mode::Cut | Mode::Over) {
            for socket in state.open.drain(..) {
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
        drop(state);
        let (there, back) = (Arc::clone(self), Arc::clone(self));
        thread::spawn(move || there.pass(near, far, true));
        thread::spawn(move || back.pass(far_too, near_too, false));
    }

    /// Passes bytes on from one socket to the other until one of them is closed.
    fn pass(&self, mut from: TcpStream, mut to: TcpStream, there: bool) {
        let mut bytes = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            let (mode, delay) = self.wait_while_frozen();
            let passes = mode == Mode::Open || mode == Mode::OneWay && there;
            thread::sleep(delay);
            if passes && to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        for socket in [from, to] {
            let _ = socket.shutdown(Shutdown::Both);
        }
        self.forget_closed();
    }

    fn wait_while_frozen(&self) -> (Mode, Duration) {
        let state = self.lock();
        let frozen = |state: &mut State| state.mode == Mode::Frozen;
        let state = self.changed.wait_while(state, frozen).unwrap_or_else(PoisonError::into_inner);
        (state.mode, state.delay)
    }

    /// Lets go of the sockets that have no other side any more.
    fn forget_closed(&self) {
        self.lock().open.retain(|socket| socket.peer_addr().is_ok());
    }
}

fn connect_from(source: IpAddr, target: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect_timeout(&target.into(), SOON)?;
    Ok(socket.into())
}
