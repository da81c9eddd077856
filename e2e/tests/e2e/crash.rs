//! The operator dies at random moments; the end is the same as if it had not.

use std::time::Duration;

use larder_api::names::{PURGE_ANNOTATION, REFRESH_ANNOTATION};
use larder_e2e::cluster::registry::RegistryKind::Open;
use larder_e2e::images::ImageSpec;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::support::{Env, condition, eventually};

#[tokio::test]
async fn killed_at_twenty_moments_during_pull_refresh_and_purge() {
    let env = Env::exclusive().await;
    let ns = env.namespace("crash").await;
    let seed = 20_261_121;
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    for i in 0..8 {
        env.push(
            Open,
            &ImageSpec::new(800 + i).layers(1, 1_000_000),
            &format!("crash/i{i}"),
            "1",
        )
        .await;
    }
    let image = |i: usize| format!("quay.io/crash/i{i}:1");
    let list = (0..8).map(|i| json!({"image": image(i)})).collect::<Vec<_>>();
    let keeper = ns.cache("keeper", json!({"images": [{"image": image(0)}]})).await;
    keeper.ready(60).await;
    let mut kills = 0;
    let mut kill_at_random = async |most: u64| {
        tokio::time::sleep(Duration::from_millis(random.random_range(0..most))).await;
        env.kill_operator().await;
    };
    for round in 0..4 {
        let cache = ns.cache("app", json!({"images": list, "removal": "Purge"})).await;
        kill_at_random(3000).await;
        kill_at_random(3000).await;
        cache.ready(120).await;
        let token = format!("round-{round}");
        env.push(
            Open,
            &ImageSpec::new(900 + round).layers(1, 500_000),
            "crash/i7",
            "1",
        )
        .await;
        cache.annotate(REFRESH_ANNOTATION, &token).await;
        kill_at_random(2000).await;
        cache
            .until("refreshed", 120, |s| {
                s.last_refresh
                    .as_ref()
                    .is_some_and(|r| r.finished_token.as_deref() == Some(&token))
                    && condition(s, "Ready") == Some("True")
            })
            .await;
        cache.annotate(PURGE_ANNOTATION, &token).await;
        kill_at_random(3000).await;
        cache
            .until("purged", 120, |s| {
                s.last_purge
                    .as_ref()
                    .is_some_and(|p| p.finished_token.as_deref() == Some(&token))
            })
            .await;
        cache.delete().await;
        kill_at_random(1000).await;
        cache.gone(120).await;
        kills += 5;
        env.operator_is_back().await;
        for node in env.nodes() {
            assert!(
                env.node_has(&node, &image(0)),
                "round {round}: {node} lost what another cache wants"
            );
            for i in 1..8 {
                assert!(
                    !env.node_has(&node, &image(i)),
                    "round {round}: {node} still has {}",
                    image(i)
                );
            }
        }
        eventually("no Job is left over", 30, || async {
            let jobs = env
                .kubectl(&[
                    "get",
                    "jobs",
                    "-A",
                    "-l",
                    "app.kubernetes.io/managed-by=larder",
                    "-o",
                    "name",
                ])
                .unwrap();
            if jobs.trim().is_empty() { Ok(()) } else { Err(jobs) }
        })
        .await;
    }
    assert_eq!(kills, 20);
    assert_eq!(condition(&keeper.status().await, "Ready"), Some("True"));
    ns.delete().await;
}
