//! Key derivations (PBKDF2) on threads of their own. A usual one takes milliseconds, and one with
//! as many iterations as a server may ask for takes a second, which a worker must not spend.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Iterations above which a derivation waits for others of its kind only: 16 times PostgreSQL's
/// default.
const USUAL: u32 = 65_536;

/// Limit of concurrent derivations with at most [`USUAL`] iterations; the workers need the cores
/// too.
const AT_ONCE: usize = 2;

/// A queue of key derivations. The process has one for logins of clients and one for logins at
/// servers, so that clients that are not logged in delay no server connection.
#[derive(Debug)]
pub struct Derivations {
    usual: Arc<Semaphore>,
    /// For unusually many rounds: whoever asks for them waits for others who do.
    unusual: Arc<Semaphore>,
}

impl Default for Derivations {
    fn default() -> Self {
        Self { usual: Arc::new(Semaphore::new(AT_ONCE)), unusual: Arc::new(Semaphore::new(1)) }
    }
}

impl Derivations {
    /// Runs a derivation of `rounds` iterations on a blocking thread, when its turn comes, and
    /// returns its result. Two run at a time up to 65,536 iterations, and one of those with more.
    /// Dropping the future does not stop work that has begun. A panic of `work` continues in the
    /// caller.
    pub async fn run<T: Send + 'static>(
        &self,
        rounds: u32,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let lane = if rounds > USUAL { &self.unusual } else { &self.usual };
        // The semaphore is never closed. The place is kept until the work is done, also when
        // nobody waits for it any more.
        let place = Arc::clone(lane).acquire_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(place);
            done
        });
        match done.await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends, and this task with it.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn unusual_work_stands_in_nobody_elses_way() {
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let derivations = Arc::new(Derivations::default());
        let run = |rounds, wait: std::sync::mpsc::Receiver<()>| {
            let derivations = Arc::clone(&derivations);
            tokio::spawn(async move { derivations.run(rounds, move || wait.recv().is_err()).await })
        };
        let (_, nothing) = std::sync::mpsc::channel();
        let (long, behind) = (run(1_000_000, wait), run(1_000_000, nothing));
        let here = std::thread::current().id();
        assert_ne!(derivations.run(4096, || std::thread::current().id()).await, here);
        assert!(!long.is_finished() || !behind.is_finished());
        drop(end);
        assert!(long.await.unwrap() && behind.await.unwrap());
    }
}
