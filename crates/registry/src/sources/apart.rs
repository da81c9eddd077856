//! Reading what strangers wrote, apart from the threads that others wait for.

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::{SourceError, SourceReason};

/// A document may take a processor for a second and a hundred times its bytes of memory: one is read at a time.
static TURN: Semaphore = Semaphore::const_new(1);

/// Does it on a thread of its own, when it is its turn; at once where there is no runtime of tokio. Whoever no longer
/// waits is not waited for, but what was begun ends: it must be bounded.
pub async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    let Ok(runtime) = Handle::try_current() else {
        return work();
    };
    // It is never closed.
    let turn = TURN.acquire().await;
    let done = runtime.spawn_blocking(move || {
        let _turn = turn;
        work()
    });
    done.await.unwrap_or_else(|_| {
        let message = "reading it came to no end";
        Err(SourceError::new(SourceReason::Malformed, message))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn nobody_waits_for_what_is_read_and_one_is_read_at_a_time() {
        static READING: AtomicUsize = AtomicUsize::new(0);
        let here = std::thread::current().id();
        let read = |_| {
            apart(move || {
                let others = READING.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(1));
                READING.fetch_sub(1, Ordering::SeqCst);
                Ok((others, std::thread::current().id() == here))
            })
        };
        for read in join_all((0..20).map(read)).await {
            assert_eq!(read, Ok((0, false)));
        }
    }

    #[tokio::test]
    async fn what_panics_is_an_error_and_holds_nobody_up() {
        let broken: Result<(), _> = apart(|| std::panic::resume_unwind(Box::new("no"))).await;
        assert_eq!(broken.unwrap_err().to_string(), "reading it came to no end");
        assert_eq!(apart(|| Ok(1)).await, Ok(1));
    }
}
