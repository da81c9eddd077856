#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[derive(Debug, thiserror::Error)]
#[error("no")]
struct No;

struct Fixture {
    queue: Queue<&'static str>,
    stop: watch::Sender<bool>,
    metrics: Arc<Metrics>,
}

fn fixture() -> Fixture {
    Fixture {
        queue: Queue::new("test", Duration::from_millis(50)),
        stop: watch::Sender::new(false),
        metrics: Arc::new(Metrics::new().unwrap()),
    }
}

#[test]
fn errors_are_told_with_their_sources_and_once() {
    #[derive(Debug, thiserror::Error)]
    #[error("cannot write")]
    struct Write(#[source] kube::Error);
    let status = kube::core::Status::failure("no such node", "NotFound").with_code(404);
    let error = Write(kube::Error::Api(status.boxed()));
    assert_eq!(Chain(&error).to_string(), "cannot write: no such node (404)");
}

#[tokio::test(start_paused = true)]
async fn concurrency_is_bounded_and_a_key_is_alone() {
    let f = fixture();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for key in ["a", "b", "c", "d", "e"] {
        f.queue.mark(key);
    }
    let (n, m) = (Arc::clone(&now), Arc::clone(&most));
    let run = tokio::spawn(
        f.queue
            .clone()
            .run(2, Arc::clone(&f.metrics), f.stop.subscribe(), move |_| {
                let (n, m) = (Arc::clone(&n), Arc::clone(&m));
                async move {
                    m.fetch_max(n.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    n.fetch_sub(1, Ordering::SeqCst);
                    Ok::<_, Infallible>(None)
                }
            }),
    );
    tokio::time::sleep(Duration::from_millis(3500)).await;
    assert_eq!(most.load(Ordering::SeqCst), 2);
    assert_eq!(
        now.load(Ordering::SeqCst),
        0,
        "five seconds of work, two at a time, are done"
    );
    f.stop.send_replace(true);
    run.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn errors_are_repeated_and_counted_and_delays_are_kept() {
    let f = fixture();
    let started = Instant::now();
    let runs = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&runs);
    f.queue.mark("a");
    let run = tokio::spawn(
        f.queue
            .clone()
            .run(4, Arc::clone(&f.metrics), f.stop.subscribe(), move |_| {
                let seen = Arc::clone(&seen);
                async move {
                    let n = {
                        let mut seen = seen.lock().unwrap();
                        seen.push(started.elapsed().as_millis());
                        seen.len()
                    };
                    match n {
                        1 | 2 => Err(No),
                        3 => Ok(Some(Duration::from_secs(5))),
                        _ => Ok(None),
                    }
                }
            }),
    );
    tokio::time::sleep(Duration::from_mins(1)).await;
    f.stop.send_replace(true);
    run.await.unwrap();
    assert_eq!(*runs.lock().unwrap(), [0, 200, 600, 5600]);
    assert_eq!(f.metrics.reconcile_errors.with_label_values(&["test"]).get(), 2);
}

#[tokio::test(start_paused = true)]
async fn work_that_hangs_is_given_up_and_repeated() {
    let f = fixture();
    let begun = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&begun);
    f.queue.mark("a");
    let run = tokio::spawn(
        f.queue
            .clone()
            .run(1, Arc::clone(&f.metrics), f.stop.subscribe(), move |_| {
                let first = count.fetch_add(1, Ordering::SeqCst) == 0;
                async move {
                    if first {
                        std::future::pending::<()>().await;
                    }
                    Ok::<_, Infallible>(None)
                }
            }),
    );
    tokio::time::sleep(AT_MOST + Duration::from_secs(1)).await;
    f.stop.send_replace(true);
    run.await.unwrap();
    assert_eq!(begun.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn stopping_waits_for_what_is_under_way_but_not_for_ever() {
    for (takes, ended) in [(Duration::from_secs(3), true), (Duration::from_mins(5), false)] {
        let f = fixture();
        f.queue.mark("a");
        let done = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&done);
        let run = tokio::spawn(f.queue.clone().run(
            1,
            Arc::clone(&f.metrics),
            f.stop.subscribe(),
            move |_| {
                let count = Arc::clone(&count);
                async move {
                    tokio::time::sleep(takes).await;
                    count.fetch_add(1, Ordering::SeqCst);
                    Ok::<_, Infallible>(None)
                }
            },
        ));
        tokio::time::sleep(Duration::from_secs(1)).await;
        f.queue.mark("b");
        let asked = Instant::now();
        f.stop.send_replace(true);
        run.await.unwrap();
        assert!(asked.elapsed() <= GRACE);
        assert_eq!(
            done.load(Ordering::SeqCst),
            usize::from(ended),
            "b was not begun, a ended: {ended}"
        );
    }
}
