//! What replicas ask each other: the kinds of requests, who handles them, and the ids by which a
//! request that is sent twice acts once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use pgimbal_replicas::InstanceId;

/// Requests of a kind that wait for its handler; beyond it a peer is told to come later.
const WAITING: usize = 64;
/// How long an answer is kept for the same id. A request is sent again within seconds.
const KEPT: Duration = Duration::from_secs(60);
/// Limit of kept answers, with the requests that still run; with so many of those a peer is told to
/// come later.
const ANSWERS: usize = 1024;
/// Limit of kept answers together, in bytes.
const ANSWER_BYTES: usize = 8 << 20;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Who one is, and what one says each second (heartbeats).
    Hello,
    /// A cancel request of a client, whose session may be one of the peer's.
    Cancel,
    /// A console command that acts on all replicas.
    Command,
    /// The rows of a SHOW.
    Rows,
    /// A document of facts to merge.
    Facts,
    /// A message of the budget.
    Budget,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 6] =
        [Self::Hello, Self::Cancel, Self::Command, Self::Rows, Self::Facts, Self::Budget];

    /// The word in the path of a request, and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Cancel => "cancel",
            Self::Command => "command",
            Self::Rows => "rows",
            Self::Facts => "facts",
            Self::Budget => "budget",
        }
    }

    /// Whether a request changes something, so that it bears an id and acts once.
    pub(super) const fn changes_something(self) -> bool {
        !matches!(self, Self::Hello | Self::Rows)
    }
}

/// A request of a peer for its handler, as bytes that the transport does not read.
#[derive(Debug)]
pub struct Asked {
    /// The peer's instance id.
    pub from: InstanceId,
    /// The request, at most 1 MiB.
    pub body: Bytes,
    /// The channel for the answer, of at most 1 MiB, or for the reason why there is none. A
    /// handler that drops it has no answer.
    pub reply: oneshot::Sender<Result<Vec<u8>, String>>,
}

/// Where the requests of each kind are handled. A kind without a handler is answered with an error.
#[derive(Debug, Default)]
pub struct Handlers(HashMap<Kind, mpsc::Sender<Asked>>);

impl Handlers {
    /// Registers the handler of `kind`, which receives its requests, at most 64 waiting.
    pub fn on(&mut self, kind: Kind) -> mpsc::Receiver<Asked> {
        let (ask, asked) = mpsc::channel(WAITING);
        self.0.insert(kind, ask);
        asked
    }

    fn of(&self, kind: Kind) -> Option<&mpsc::Sender<Asked>> {
        self.0.get(&kind)
    }
}

/// What became of a request.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// The handler's answer.
    Done(Bytes),
    /// The handler's reason why there is none.
    Failed(String),
    /// This replica has no handler for it, or one that has ended.
    NotHandled,
    /// Too many wait already.
    Busy,
}

impl Answer {
    fn size(&self) -> usize {
        match self {
            Self::Done(bytes) => bytes.len(),
            Self::Failed(why) => why.len(),
            Self::NotHandled | Self::Busy => 0,
        }
    }
}

/// The handlers with the requests that they were given lately.
#[derive(Debug)]
pub(super) struct Dispatcher {
    handlers: Handlers,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_id: HashMap<(Kind, u128), watch::Receiver<Option<Answer>>>,
    oldest: VecDeque<(Instant, (Kind, u128))>,
}

impl Dispatcher {
    pub(super) fn new(handlers: Handlers) -> Self {
        Self { handlers, known: Mutex::default() }
    }

    /// Gives a request to its handler, unless one with this id was given to it before: then the
    /// answer is that one's. The handler goes on when the caller does not wait for the end.
    pub(super) async fn handle(
        &self,
        kind: Kind,
        id: Option<u128>,
        asked: (InstanceId, Bytes),
    ) -> Answer {
        let Some(id) = id else { return run(self.handlers.of(kind).cloned(), asked).await };
        let mut answer = self.begin((kind, id), asked);
        let answer = answer.wait_for(Option::is_some).await;
        answer.ok().and_then(|answer| answer.clone()).unwrap_or(Answer::NotHandled)
    }

    fn begin(
        &self,
        id: (Kind, u128),
        asked: (InstanceId, Bytes),
    ) -> watch::Receiver<Option<Answer>> {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.forget(now);
        if let Some(running) = known.by_id.get(&id) {
            return running.clone();
        }
        if known.by_id.len() >= ANSWERS {
            return watch::channel(Some(Answer::Busy)).1;
        }
        let (tell, answer) = watch::channel(None);
        let handler = self.handlers.of(id.0).cloned();
        tokio::spawn(async move {
            let answer = run(handler, asked).await;
            tell.send_replace(Some(answer));
        });
        known.by_id.insert(id, answer.clone());
        known.oldest.push_back((now, id));
        answer
    }
}

impl Known {
    /// Forgets answers that nobody asks for again, and those beyond the limits. A request that
    /// still runs is never forgotten: sent again, it would act twice.
    fn forget(&mut self, now: Instant) {
        let size = |answer: &watch::Receiver<Option<Answer>>| {
            answer.borrow().as_ref().map_or(0, Answer::size)
        };
        let mut bytes: usize = self.by_id.values().map(size).sum();
        let mut count = self.by_id.len();
        let by_id = &mut self.by_id;
        self.oldest.retain(|(since, id)| {
            let is_old = now.duration_since(*since) >= KEPT;
            let Some(answer) = by_id.get(id) else { return false };
            let runs = answer.borrow().is_none() && answer.has_changed().is_ok();
            if runs || (!is_old && count < ANSWERS && bytes <= ANSWER_BYTES) {
                return true;
            }
            bytes -= size(answer);
            count -= 1;
            by_id.remove(id);
            false
        });
    }
}

async fn run(handler: Option<mpsc::Sender<Asked>>, asked: (InstanceId, Bytes)) -> Answer {
    let Some(handler) = handler else { return Answer::NotHandled };
    let (reply, answer) = oneshot::channel();
    let (from, body) = asked;
    match handler.try_send(Asked { from, body, reply }) {
        Ok(()) => {}
        Err(mpsc::error::TrySendError::Full(_)) => return Answer::Busy,
        Err(mpsc::error::TrySendError::Closed(_)) => return Answer::NotHandled,
    }
    match answer.await {
        Ok(Ok(bytes)) => Answer::Done(bytes.into()),
        Ok(Err(why)) => Answer::Failed(why),
        Err(_) => Answer::NotHandled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(body: &'static [u8]) -> (InstanceId, Bytes) {
        (InstanceId(1), Bytes::from_static(body))
    }

    #[tokio::test]
    async fn a_request_that_is_sent_twice_acts_once() {
        let mut handlers = Handlers::default();
        let mut requests = handlers.on(Kind::Facts);
        let dispatcher = Dispatcher::new(handlers);
        let serve = async {
            let mut served = 0;
            while let Some(asked) = requests.recv().await {
                served += 1;
                asked.reply.send(Ok(vec![served])).unwrap();
            }
        };
        let ask = async {
            let (a, b) = tokio::join!(
                dispatcher.handle(Kind::Facts, Some(7), asked(b"x")),
                dispatcher.handle(Kind::Facts, Some(7), asked(b"x")),
            );
            let later = dispatcher.handle(Kind::Facts, Some(7), asked(b"x")).await;
            for answer in [a, b, later] {
                assert!(matches!(answer, Answer::Done(ref bytes) if **bytes == [1]), "{answer:?}");
            }
            let other = dispatcher.handle(Kind::Facts, Some(8), asked(b"x")).await;
            assert!(matches!(other, Answer::Done(ref bytes) if **bytes == [2]), "{other:?}");
            let none = dispatcher.handle(Kind::Budget, Some(8), asked(b"x")).await;
            assert!(matches!(none, Answer::NotHandled), "{none:?}");
        };
        tokio::select! { () = serve => panic!("the handler has ended"), () = ask => {} }
    }

    #[tokio::test]
    async fn what_is_remembered_has_a_bound() {
        let mut handlers = Handlers::default();
        let mut requests = handlers.on(Kind::Facts);
        let dispatcher = Dispatcher::new(handlers);
        let serve = async {
            while let Some(asked) = requests.recv().await {
                asked.reply.send(Ok(vec![0; 1 << 20])).unwrap();
            }
        };
        let ask = async {
            for id in 0..2 * ANSWERS as u128 {
                dispatcher.handle(Kind::Facts, Some(id), asked(b"")).await;
            }
            let known = dispatcher.known.lock().unwrap();
            assert!(known.by_id.len() <= 1 + (ANSWER_BYTES >> 20) + 1, "{}", known.by_id.len());
            assert_eq!(known.by_id.len(), known.oldest.len());
        };
        tokio::select! { () = serve => panic!("the handler has ended"), () = ask => {} }
    }
}
