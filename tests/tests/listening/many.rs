//! 2,000 clients that listen over one server connection, and clients that begin and end to listen
//! while somebody notifies.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;

use pgimbal_tests::http::metric;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Message, Pgimbal, Postgres, WireClient};

use super::crowd::{CHANNELS, CLIENTS, Crowd, channel};
use super::{column, lines, told};

/// How many server connections the pool has beside the one that listens.
const POOL: usize = 2;
/// How many channels are notified while a client of each listens and unlistens, and how often it
/// does.
const NOTIFIED: usize = 10;
const TURNS: usize = 40;
/// The last number that they are notified of: one in each turn, and one behind all turns, which all
/// hear who listen.
const LAST: u32 = (NOTIFIED * TURNS) as u32 + 1;

/// The process id of the server connection that listens.
fn listening_process(proxy: &Pgimbal) -> String {
    let states = column(proxy, "show servers", "state");
    let ids = column(proxy, "show servers", "remote_pid");
    let mut found = states.iter().zip(ids).filter(|(state, _)| *state == "listening");
    found.next().expect("a connection that listens").1
}

#[test]
fn behaviour_33_thousands_of_clients_listen_over_one_server_connection() {
    let pg = Postgres::start();
    let config = Config::before(&pg).set("workers", 1).set("pool_size", POOL);
    let proxy = config.set("max_client_conn", CLIENTS + 10).start();
    let run = |sql: &str| pg.run(sql);
    let mut crowd = Crowd::join(|| proxy.client());
    let count = "select count(*) from pg_stat_activity where usename = 'app'";
    let connections = || pg.superuser().value(count).parse::<usize>().expect("a number");
    crowd.hears("first", run);
    assert_eq!(lines(&proxy), 1);
    assert!(connections() <= 1 + POOL, "{} connections", connections());

    let process = listening_process(&proxy);
    run(&format!("select pg_terminate_backend({process})"));
    crowd.wait_until_it_hears(&proxy, run);
    assert_ne!(listening_process(&proxy), process);
    crowd.hears("second", run);
    assert!(connections() <= 1 + POOL, "{} connections", connections());

    races(&pg, &mut crowd);
    crowd.hears("third", run);
    drop(crowd);
    let channels = || metric(&proxy.metrics(), "pgimbal_listen_channels", &[]);
    eventually("nobody listens", SOON, || channels() == Some(0.0));
}

/// While channels are notified of numbers, one client of each begins and ends to listen; it hears
/// all numbers of the time between, and the others hear all.
fn races(pg: &Postgres, crowd: &mut Crowd) {
    let sent = AtomicU32::new(0);
    let (racing, steady) = crowd.clients.split_at_mut(CHANNELS);
    let mut racers: Vec<Racer<'_>> = racing[..NOTIFIED].iter_mut().map(Racer::new).collect();
    std::thread::scope(|scope| {
        let (begin, begun) = mpsc::channel();
        let sent = &sent;
        scope.spawn(move || {
            let mut notifier = pg.superuser();
            for number in begun {
                sent.store(number, Ordering::SeqCst);
                notifier.ok(&notify(number));
            }
        });
        let mut numbers = 1..LAST;
        for turn in 0..TURNS {
            for (number, racer) in racers.iter_mut().enumerate() {
                begin.send(numbers.next().expect("one for each")).expect("the notifier");
                racer.turn(&channel(number), turn / 2 + number, sent);
            }
        }
    });
    pg.run(&notify(LAST));
    for (number, racer) in racers.iter_mut().enumerate() {
        racer.finish(&channel(number));
    }
    for (number, client) in steady.iter_mut().enumerate() {
        for n in 1..=LAST {
            if number % CHANNELS < NOTIFIED {
                assert_eq!(super::heard(client), (channel(number), n.to_string()));
            }
        }
    }
}

/// What notifies the channels of a number.
fn notify(number: u32) -> String {
    format!("select pg_notify('c' || c, '{number}') from generate_series(0, {NOTIFIED} - 1) c")
}

/// A client that listens now and then.
struct Racer<'a> {
    client: &'a mut WireClient,
    listens: bool,
    /// The last number that may have been notified before it listened.
    before: u32,
    last: Option<u32>,
}

impl<'a> Racer<'a> {
    /// One that listens and has heard no number yet.
    fn new(client: &'a mut WireClient) -> Self {
        Self { client, listens: true, before: 0, last: None }
    }

    /// Begins or ends to listen to `channel`, in one of several ways.
    fn turn(&mut self, channel: &str, way: usize, sent: &AtomicU32) {
        if self.listens {
            // A rollback changes nothing.
            self.says(&format!("begin; unlisten {channel}; rollback"));
            match way % 3 {
                0 => self.says(&format!("unlisten {channel}")),
                1 => self.says("unlisten *"),
                _ => self.says(&format!("begin; listen other; unlisten {channel}; commit")),
            }
            self.listens = false;
            // It hears nothing more, however often it looks.
            self.says("select 1");
            self.says("select 1");
            return;
        }
        self.client.start_query(&match way % 2 {
            0 => format!("listen {channel}"),
            _ => format!("begin; listen {channel}; commit"),
        });
        let reply = self.client.read_reply();
        reply.no_error();
        (self.listens, self.last) = (true, None);
        self.before = sent.load(Ordering::SeqCst);
        self.hears(&reply.messages);
    }

    fn says(&mut self, sql: &str) {
        let reply = self.client.ok(sql);
        self.hears(&reply.messages);
    }

    fn hears(&mut self, messages: &[Message]) {
        for message in messages.iter().filter(|message| message.tag == b'A') {
            let (channel, text) = told(message);
            assert!(self.listens, "{channel} {text} is heard behind UNLISTEN");
            let number: u32 = text.parse().expect("a number");
            match self.last {
                Some(last) => assert_eq!(number, last + 1, "of {channel}"),
                None => assert!(number <= self.before + 1, "{number} behind {}", self.before),
            }
            self.last = Some(number);
        }
    }

    /// Hears the rest if it listens, and listens to its channel as before otherwise.
    fn finish(&mut self, channel: &str) {
        while self.listens && self.last != Some(LAST) {
            let message = self.client.expect(b'A');
            self.hears(&[message]);
        }
        self.client.ok(&format!("unlisten *; listen {channel}"));
    }
}
