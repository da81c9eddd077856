//! Beside every test: no status claims what a node's containerd lacks.
//!
//! A claim is false if it stands before and after the look at the node, the content (not only the name) is missing, and
//! that stays so for a minute: repairs are given as long as the agent promises to take.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use kube::{Api, Client, api::ListParams};
use larder_api::node_image_cache::{CacheOnNode, Desired};
use larder_api::{ImageCacheRevision, NodeImageCache};
use larder_e2e::cluster::Cluster;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(10);
/// How long a claim may be false.
const PATIENCE: Duration = Duration::from_mins(1);

static FALSE_CLAIMS: Mutex<Vec<String>> = Mutex::new(Vec::new());
static CHECKER: OnceLock<()> = OnceLock::new();

/// One image that a status calls ready: node, cache, reference, digest.
type Claim = (String, String, String, String);

/// Begins to look, once for the whole program.
pub fn watch(cluster: &Cluster) {
    CHECKER.get_or_init(|| {
        let cluster = cluster.clone();
        // A thread of its own: each test has a runtime that ends with it.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(look_on(cluster));
        });
    });
}

/// The false claims found so far, taken away.
pub fn false_claims() -> Vec<String> {
    std::mem::take(&mut FALSE_CLAIMS.lock().unwrap_or_else(PoisonError::into_inner))
}

async fn look_on(cluster: Cluster) {
    let mut suspects: BTreeMap<Claim, Instant> = BTreeMap::new();
    loop {
        tokio::time::sleep(EVERY).await;
        // Tests cut nodes off and kill what answers here: a look that fails proves nothing.
        let Ok(client) = cluster.client().await else {
            continue;
        };
        let Some(before) = claims(&client).await else {
            continue;
        };
        let lacking = lacking(&cluster, &before);
        let Some(after) = claims(&client).await else {
            continue;
        };
        let wrong: BTreeSet<Claim> = lacking.intersection(&after).cloned().collect();
        suspects.retain(|claim, _| wrong.contains(claim));
        for claim in wrong {
            let since = *suspects.entry(claim.clone()).or_insert_with(Instant::now);
            if since.elapsed() > PATIENCE {
                let mut found = FALSE_CLAIMS.lock().unwrap_or_else(PoisonError::into_inner);
                found.push(format!("{claim:?} for {:?}", since.elapsed()));
                suspects.remove(&claim);
            }
        }
    }
}

/// What the agents' statuses call ready.
async fn claims(client: &Client) -> Option<BTreeSet<Claim>> {
    let objects = Api::<NodeImageCache>::all(client.clone())
        .list(&ListParams::default())
        .await
        .ok()?;
    let revisions = Api::<ImageCacheRevision>::all(client.clone())
        .list(&ListParams::default())
        .await
        .ok()?;
    let mut claims = BTreeSet::new();
    for object in objects {
        let Some(agent) = object.status.as_ref().and_then(|s| s.agent.as_ref()) else {
            continue;
        };
        if agent.puller.node_uid != object.spec.node_uid {
            continue;
        }
        let node = object.metadata.name.clone().unwrap_or_default();
        for told in &agent.puller.caches {
            let claimed =
                object.spec.caches.iter().any(|c| {
                    c.uid == told.uid && c.desired == Desired::Present && c.revision == told.revision
                });
            let revision = revisions.iter().find(|r| {
                r.metadata.name.as_deref() == Some(&told.revision)
                    && r.metadata.namespace.as_deref() == Some(&told.namespace)
            });
            let (true, Some(revision)) = (claimed, revision) else {
                continue;
            };
            for (i, image) in revision.spec.spec.images.iter().enumerate() {
                let here = |p: &&larder_api::revision::PlatformManifest| p.architecture == "amd64";
                let manifest = image.platforms.iter().find(here);
                if let Some(manifest) = manifest.filter(|_| is_ready(told, i)) {
                    let cache = format!("{}/{}", told.namespace, told.name);
                    claims.insert((node.clone(), cache, image.image.clone(), manifest.digest.clone()));
                }
            }
        }
    }
    Some(claims)
}

/// Whether the image at this place of the revision is not marked as missing.
fn is_ready(told: &CacheOnNode, place: usize) -> bool {
    if told.total == 0 {
        return false;
    }
    let digit = told.missing.chars().nth(place / 4).and_then(|c| c.to_digit(16));
    digit.is_none_or(|digit| digit & (8 >> (place % 4)) == 0)
}

/// Claims whose manifest the node's content store lacks.
fn lacking(cluster: &Cluster, claims: &BTreeSet<Claim>) -> BTreeSet<Claim> {
    let nodes: BTreeSet<&str> = claims.iter().map(|c| c.0.as_str()).collect();
    let mut lacking = BTreeSet::new();
    for name in nodes {
        let Ok(blobs) = cluster
            .node(name)
            .and_then(|n| n.ctr(&["content", "list", "--quiet"]))
        else {
            continue;
        };
        let blobs: BTreeSet<&str> = blobs.lines().map(str::trim).collect();
        let of_node = claims.iter().filter(|c| c.0 == name);
        lacking.extend(of_node.filter(|c| !blobs.contains(c.3.as_str())).cloned());
    }
    lacking
}
