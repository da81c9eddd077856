#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use larder_api::names::Reason;
use larder_registry::{Credential, Head};

use super::*;

/// Answers after a while, and counts.
#[derive(Default)]
struct Fake {
    takes: BTreeMap<&'static str, Duration>,
    heads: AtomicUsize,
    manifests: AtomicUsize,
    now: AtomicUsize,
    most: AtomicUsize,
}

#[async_trait]
impl Registry for Fake {
    async fn digest(&self, image: &ImageRef, credentials: &Credentials) -> Result<Head, RegistryError> {
        self.heads.fetch_add(1, Ordering::SeqCst);
        self.most
            .fetch_max(self.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let takes = self
            .takes
            .get(image.registry_host())
            .copied()
            .unwrap_or(Duration::from_millis(10));
        tokio::time::sleep(takes).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        let private = image.registry_host() == "private.io";
        if private && credentials.is_empty() {
            return Err(RegistryError::Unauthorized {
                message: "401".into(),
            });
        }
        if image.repository() == "missing" {
            return Err(RegistryError::NotFound {
                message: "manifest unknown".into(),
            });
        }
        Ok(Head {
            digest: format!("sha256:{}", image.repository()),
            private,
        })
    }

    async fn platforms(
        &self,
        _: &ImageRef,
        digest: &str,
        _: &Credentials,
        wanted: &[Platform],
    ) -> Result<Vec<PlatformManifest>, RegistryError> {
        self.manifests.fetch_add(1, Ordering::SeqCst);
        let manifest = |p: &Platform| PlatformManifest {
            os: p.os.clone(),
            architecture: p.architecture.clone(),
            variant: None,
            digest: digest.to_owned(),
            size_bytes: 1,
        };
        Ok(wanted.iter().map(manifest).collect())
    }
}

struct Fixture {
    fake: Arc<Fake>,
    resolver: Resolver,
    queue: Queue<Key>,
    keyring: Keyring,
    platforms: Vec<Platform>,
}

fn fixture(takes: &[(&'static str, Duration)]) -> Fixture {
    let fake = Arc::new(Fake {
        takes: takes.iter().copied().collect(),
        ..Fake::default()
    });
    let queue = Queue::new("caches", Duration::ZERO);
    let metrics = Arc::new(Metrics::new().unwrap());
    let resolver = Resolver::new(Arc::clone(&fake) as Arc<dyn Registry>, metrics, queue.clone());
    Fixture {
        fake,
        resolver,
        queue,
        keyring: Keyring::default(),
        platforms: vec![Platform::new("linux", "amd64")],
    }
}

impl Fixture {
    fn request(&self, images: &[&str], not_before: Option<Timestamp>) -> Request<'_> {
        Request {
            cache: ("ns".into(), "web".into()),
            images: images.iter().map(|i| ImageRef::parse(i).unwrap()).collect(),
            keyring: &self.keyring,
            not_before,
            platforms: &self.platforms,
        }
    }

    async fn resolve(&self, images: &[&str], not_before: Option<Timestamp>) -> Vec<Outcome> {
        let request = self.request(images, not_before);
        let outcomes = self
            .resolver
            .resolve_within(&request, Duration::from_millis(1500))
            .await;
        request
            .images
            .iter()
            .map(|i| outcomes[i.normalized()].clone())
            .collect()
    }

    fn heads(&self) -> usize {
        self.fake.heads.load(Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn a_reference_is_asked_for_once_however_many_want_it() {
    let f = fixture(&[]);
    let all = futures::future::join_all((0..50).map(|_| f.resolve(&["a.io/x:1", "a.io/y:1"], None))).await;
    assert!(
        all.iter()
            .flatten()
            .all(|o| matches!(o, Outcome::Known(k) if !k.private && k.platforms.len() == 1))
    );
    assert_eq!(f.heads(), 2);
    f.resolve(&["a.io/x:1"], None).await;
    assert_eq!(f.heads(), 2, "known");
    f.resolve(&["a.io/x:1"], Some(Timestamp::now())).await;
    assert_eq!(
        (f.heads(), f.fake.manifests.load(Ordering::SeqCst)),
        (3, 2),
        "a refresh costs one HEAD"
    );
}

#[tokio::test(start_paused = true)]
async fn a_hanging_registry_delays_nobody_and_reports_later() {
    let f = fixture(&[
        ("slow.io", Duration::from_secs(8)),
        ("hangs.io", Duration::from_hours(1)),
    ]);
    let started = Instant::now();
    let outcomes = f
        .resolve(&["hangs.io/x:1", "slow.io/x:1", "a.io/x:1"], None)
        .await;
    assert_eq!(started.elapsed().as_millis(), 1500);
    assert_eq!(outcomes[..2], [Outcome::Pending, Outcome::Pending]);
    assert!(matches!(&outcomes[2], Outcome::Known(_)));
    // The queue is worked on here so that the mark is seen.
    let marked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&marked);
    let stop = watch::Sender::new(false);
    let metrics = Arc::new(Metrics::new().unwrap());
    let run = tokio::spawn(f.queue.clone().run(1, metrics, stop.subscribe(), move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        async { Ok::<_, std::convert::Infallible>(None) }
    }));
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(marked.load(Ordering::SeqCst), 1, "slow.io has answered");
    assert!(matches!(
        &f.resolve(&["slow.io/x:1"], None).await[0],
        Outcome::Known(_)
    ));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(marked.load(Ordering::SeqCst), 2, "hangs.io was given up");
    stop.send_replace(true);
    run.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_registry_gets_no_more_than_its_share() {
    let f = fixture(&[]);
    let many: Vec<String> = (0..40).map(|i| format!("a.io/r{i}:1")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(
        f.resolve(&many, None)
            .await
            .iter()
            .all(|o| matches!(o, Outcome::Known(_)))
    );
    assert_eq!(f.fake.most.load(Ordering::SeqCst), PER_HOST);
    let hosts: Vec<String> = (0..60).map(|i| format!("h{i}.io/r:1")).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    f.resolve(&hosts, None).await;
    assert_eq!(f.fake.most.load(Ordering::SeqCst), AT_A_TIME);
}

#[tokio::test(start_paused = true)]
async fn failures_are_not_asked_again_at_once_and_other_credentials_are_tried() {
    let mut f = fixture(&[]);
    let outcomes = f
        .resolve(&["a.io/missing:1", "private.io/x:1", "a.io/x:1"], None)
        .await;
    assert!(matches!(&outcomes[0], Outcome::Failed(e) if e.reason == Reason::NotFound && e.public));
    assert!(matches!(&outcomes[1], Outcome::Failed(e) if e.reason == Reason::Unauthorized && !e.public));
    assert!(matches!(&outcomes[2], Outcome::Known(_)));
    f.resolve(&["a.io/missing:1", "private.io/x:1"], None).await;
    assert_eq!(f.heads(), 3);
    f.keyring.add(
        "private.io",
        Credential::Basic {
            username: "u".into(),
            password: "p".into(),
        },
    );
    let outcomes = f.resolve(&["private.io/x:1"], None).await;
    assert!(matches!(&outcomes[0], Outcome::Known(k) if k.private));
}

#[tokio::test(start_paused = true)]
async fn what_a_revision_tells_is_not_asked_for() {
    let f = fixture(&[]);
    let manifest = PlatformManifest {
        os: "linux".into(),
        architecture: "amd64".into(),
        digest: "sha256:m".into(),
        ..PlatformManifest::default()
    };
    f.resolver.seed("sha256:x", &[manifest]);
    assert!(matches!(
        &f.resolve(&["a.io/x:1"], None).await[0],
        Outcome::Known(_)
    ));
    assert_eq!(f.fake.manifests.load(Ordering::SeqCst), 0);
}
