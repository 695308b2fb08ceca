//! Key derivations (PBKDF2) on threads of their own, a few at a time: each costs milliseconds, and
//! one with as many rounds as a server may ask for a second, which a worker must not spend.

use tokio::sync::Semaphore;

/// Rounds above which a derivation waits for those of its kind only: 16 times PostgreSQL's default.
const USUAL: u32 = 65_536;

/// For what clients say. Strangers can ask for as many as they like; the workers need the cores too.
static FOR_CLIENTS: Semaphore = Semaphore::const_new(2);

/// For logins at servers.
static FOR_SERVERS: Semaphore = Semaphore::const_new(2);

/// For unusually many rounds: whoever asks for them waits for others who do.
static UNUSUAL: Semaphore = Semaphore::const_new(1);

/// Runs a derivation of so many rounds with something that a client has said.
pub async fn for_client<T: Send + 'static>(
    rounds: u32,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    run(if rounds > USUAL { &UNUSUAL } else { &FOR_CLIENTS }, work).await
}

/// Runs a derivation of so many rounds that a server has asked for.
pub async fn for_server<T: Send + 'static>(
    rounds: u32,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    run(if rounds > USUAL { &UNUSUAL } else { &FOR_SERVERS }, work).await
}

async fn run<T: Send + 'static>(
    lane: &'static Semaphore,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    // The semaphore is never closed. The place is kept until the work is done, also when nobody
    // waits for it any more.
    let place = lane.acquire().await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn unusual_work_stands_in_nobody_elses_way() {
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let long = tokio::spawn(for_server(1_000_000, move || wait.recv()));
        let behind = tokio::spawn(for_server(1_000_000, || ()));
        let here = std::thread::current().id();
        assert_ne!(for_server(4096, || std::thread::current().id()).await, here);
        assert_ne!(for_client(4096, || std::thread::current().id()).await, here);
        assert!(!behind.is_finished());
        drop(end);
        assert!(long.await.unwrap().is_err());
        behind.await.unwrap();
    }
}
