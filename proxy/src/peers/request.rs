//! What replicas ask each other: the kinds of requests, who handles them, and the ids by which a
//! request that is sent twice acts once.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use pgimbal_replicas::InstanceId;

/// How long an answer is kept for the same id. A request is sent again within seconds.
const KEPT: Duration = Duration::from_secs(60);
/// Limit of kept answers of a kind, with the requests that still run.
const ANSWERS: usize = 1024;
/// Limit of kept answers of a kind together, in bytes.
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

    /// How many requests may wait for the handler or be with it; beyond it a peer is told to come
    /// later.
    const fn at_once(self) -> usize {
        match self {
            // A frozen server keeps each for `server_connect_timeout`, and all clients of a pool
            // may cancel at once.
            Self::Cancel => 512,
            // A table of 100,000 clients takes some 50 MB while it is made.
            Self::Rows => 8,
            Self::Hello | Self::Command | Self::Facts | Self::Budget => 64,
        }
    }
}

/// A request of a peer for its handler, as bytes that the transport does not read. `Debug` shows
/// their number: there are secrets among them.
pub struct Asked {
    /// The peer's instance id.
    pub from: InstanceId,
    /// The request, at most 1 MiB.
    pub body: Bytes,
    /// The way back.
    pub reply: Reply,
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Asked({} bytes from {})", self.body.len(), self.from)
    }
}

/// The way of an answer to the peer. A handler that drops it has no answer. The request counts
/// among those of its kind that run until then.
#[derive(Debug)]
pub struct Reply {
    answer: oneshot::Sender<Result<Vec<u8>, String>>,
    _place: OwnedSemaphorePermit,
}

impl Reply {
    /// Answers, with at most 1 MiB or the reason why there is no answer. The peer may have gone.
    pub fn send(self, answer: Result<Vec<u8>, String>) {
        let _ = self.answer.send(answer);
    }
}

/// Where the requests of each kind are handled. A kind without a handler is answered with an error.
#[derive(Debug, Default)]
pub struct Handlers(HashMap<Kind, Handler>);

#[derive(Debug)]
struct Handler {
    requests: mpsc::UnboundedSender<Asked>,
    /// The places of requests that wait or run, by which the channel is bounded.
    places: Arc<Semaphore>,
}

impl Handlers {
    /// Registers the handler of `kind`, which receives its requests. Those that wait or have no
    /// reply yet are at most 64, 512 of clients' cancels and 8 for rows.
    pub fn on(&mut self, kind: Kind) -> mpsc::UnboundedReceiver<Asked> {
        let (requests, asked) = mpsc::unbounded_channel();
        let places = Arc::new(Semaphore::new(kind.at_once()));
        self.0.insert(kind, Handler { requests, places });
        asked
    }

    /// Gives a request to its handler, and returns where the answer comes, or why it was not given.
    fn give(
        &self,
        kind: Kind,
        (from, body): (InstanceId, Bytes),
    ) -> Result<oneshot::Receiver<Result<Vec<u8>, String>>, Answer> {
        let handler = self.0.get(&kind).ok_or(Answer::NotHandled)?;
        let place = Arc::clone(&handler.places).try_acquire_owned().map_err(|_| Answer::Busy)?;
        let (answer, answered) = oneshot::channel();
        let reply = Reply { answer, _place: place };
        let given = handler.requests.send(Asked { from, body, reply });
        given.map(|()| answered).map_err(|_| Answer::NotHandled)
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
    fn of(answered: Result<Result<Vec<u8>, String>, oneshot::error::RecvError>) -> Self {
        match answered {
            Ok(Ok(bytes)) => Self::Done(bytes.into()),
            Ok(Err(why)) => Self::Failed(why),
            Err(_) => Self::NotHandled,
        }
    }

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
    known: Mutex<HashMap<Kind, Known>>,
}

/// The requests of a kind, by their ids.
#[derive(Debug, Default)]
struct Known {
    by_id: HashMap<u128, Given>,
    oldest: VecDeque<(Instant, u128)>,
}

/// A request that was given to its handler.
#[derive(Debug)]
struct Given {
    /// A hash of its sender and its body.
    hash: u64,
    answer: watch::Receiver<Option<Answer>>,
}

impl Given {
    fn runs(&self) -> bool {
        self.answer.borrow().is_none() && self.answer.has_changed().is_ok()
    }

    fn size(&self) -> usize {
        self.answer.borrow().as_ref().map_or(0, Answer::size)
    }
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
        let begun = match id {
            Some(id) => self.begin((kind, id), asked),
            None => match self.handlers.give(kind, asked) {
                Ok(answer) => return Answer::of(answer.await),
                Err(why) => Err(why),
            },
        };
        match begun {
            Ok(mut answer) => {
                let answer = answer.wait_for(Option::is_some).await;
                answer.ok().and_then(|answer| answer.clone()).unwrap_or(Answer::NotHandled)
            }
            Err(why) => why,
        }
    }

    /// The answer to come, also of a request that has begun before; or why it has not begun, which
    /// is not remembered.
    fn begin(
        &self,
        (kind, id): (Kind, u128),
        asked: (InstanceId, Bytes),
    ) -> Result<watch::Receiver<Option<Answer>>, Answer> {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.entry(kind).or_default();
        known.forget(now);
        let mut hasher = DefaultHasher::new();
        asked.hash(&mut hasher);
        let hash = hasher.finish();
        match known.by_id.get(&id) {
            Some(given) if given.hash == hash => return Ok(given.answer.clone()),
            Some(_) => return Err(Answer::Failed("the id is another request's".to_owned())),
            None => {}
        }
        let answered = self.handlers.give(kind, asked)?;
        let (tell, answer) = watch::channel(None);
        tokio::spawn(async move { tell.send_replace(Some(Answer::of(answered.await))) });
        known.by_id.insert(id, Given { hash, answer: answer.clone() });
        known.oldest.push_back((now, id));
        Ok(answer)
    }
}

impl Known {
    /// Forgets answers that nobody asks for again, and those beyond the limits. A request that
    /// still runs is never forgotten: sent again, it would act twice.
    fn forget(&mut self, now: Instant) {
        let mut bytes: usize = self.by_id.values().map(Given::size).sum();
        let mut count = self.by_id.len();
        let by_id = &mut self.by_id;
        self.oldest.retain(|(since, id)| {
            let is_old = now.duration_since(*since) >= KEPT;
            let Some(given) = by_id.get(id) else { return false };
            if given.runs() || (!is_old && count < ANSWERS && bytes <= ANSWER_BYTES) {
                return true;
            }
            bytes -= given.size();
            count -= 1;
            by_id.remove(id);
            false
        });
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
                asked.reply.send(Ok(vec![served]));
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
                asked.reply.send(Ok(vec![0; 1 << 20]));
            }
        };
        let ask = async {
            for id in 0..2 * ANSWERS as u128 {
                dispatcher.handle(Kind::Facts, Some(id), asked(b"")).await;
            }
            let known = dispatcher.known.lock().unwrap();
            let known = &known[&Kind::Facts];
            assert!(known.by_id.len() <= 1 + (ANSWER_BYTES >> 20) + 1, "{}", known.by_id.len());
            assert_eq!(known.by_id.len(), known.oldest.len());
        };
        tokio::select! { () = serve => panic!("the handler has ended"), () = ask => {} }
    }

    #[tokio::test]
    async fn a_request_that_runs_is_never_forgotten() {
        let mut handlers = Handlers::default();
        let mut requests = handlers.on(Kind::Facts);
        let dispatcher = Dispatcher::new(handlers);
        let first = dispatcher.begin((Kind::Facts, 0), asked(b"slow")).unwrap();
        let slow = requests.recv().await.unwrap();
        // Too many answers and too many bytes come after it, and the time of answers passes.
        let size = 2 * ANSWER_BYTES / ANSWERS;
        for id in 1..2 * ANSWERS as u128 {
            let mut answer = dispatcher.begin((Kind::Facts, id), asked(b"")).unwrap();
            requests.recv().await.unwrap().reply.send(Ok(vec![0; size]));
            answer.wait_for(Option::is_some).await.unwrap();
        }
        let later = Instant::now() + 2 * KEPT;
        dispatcher.known.lock().unwrap().get_mut(&Kind::Facts).unwrap().forget(later);
        assert_eq!(dispatcher.known.lock().unwrap()[&Kind::Facts].by_id.len(), 1);
        let mut again = dispatcher.begin((Kind::Facts, 0), asked(b"slow")).unwrap();
        assert!(requests.try_recv().is_err(), "it was given to the handler twice");
        slow.reply.send(Ok(vec![7]));
        for answer in [&mut again, &mut first.clone()] {
            let answer = answer.wait_for(Option::is_some).await.unwrap().clone();
            assert!(
                matches!(answer, Some(Answer::Done(ref bytes)) if **bytes == [7]),
                "{answer:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_request_that_met_a_busy_replica_may_come_again() {
        let mut handlers = Handlers::default();
        let mut requests = handlers.on(Kind::Command);
        let _rows = handlers.on(Kind::Rows);
        let dispatcher = Dispatcher::new(handlers);
        let most = Kind::Command.at_once() as u128;
        for id in 0..most {
            dispatcher.begin((Kind::Command, id), asked(b"")).unwrap();
        }
        // Those that the handler has taken count too.
        let taken = requests.recv().await.unwrap();
        let busy = dispatcher.handle(Kind::Command, Some(most), asked(b"late")).await;
        assert!(matches!(busy, Answer::Busy), "{busy:?}");
        // Other kinds have places of their own, and an id is not needed for one.
        let rows = |_| dispatcher.handlers.give(Kind::Rows, asked(b""));
        assert_eq!((0..20).map(rows).filter(Result::is_ok).count(), Kind::Rows.at_once());
        taken.reply.send(Ok(vec![]));
        let late = async {
            loop {
                let asked = requests.recv().await.unwrap();
                if &*asked.body == b"late" {
                    return asked.reply.send(Ok(vec![1]));
                }
            }
        };
        let again = dispatcher.handle(Kind::Command, Some(most), asked(b"late"));
        let (again, ()) = tokio::join!(again, late);
        assert!(matches!(again, Answer::Done(ref bytes) if **bytes == [1]), "{again:?}");
    }
}
