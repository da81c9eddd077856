//! A large image over a thin link.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use larder_api::names::Reason;
use larder_api::node_image_cache::ImageState;
use larder_e2e::cluster::registry::RegistryKind::Open;
use larder_e2e::images::ImageSpec;
use serde_json::json;

use super::{agent_is_there, told_of};
use crate::support::{Env, condition, eventually, failure};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn a_slow_pull_tells_how_far_it_is_and_one_that_stands_still_times_out() {
    let env = Env::exclusive().await;
    let ns = env.namespace("slow").await;
    let name = env.nodes().pop().unwrap();
    agent_is_there(&env, &name).await;
    let node = env.cluster.node(&name).unwrap();
    let image = |tag: &str| format!("quay.io/{}/{tag}:1", ns.name);
    env.push(
        Open,
        &ImageSpec::new(rand::random()).layers(3, 100 * MIB),
        &format!("{}/large", ns.name),
        "1",
    )
    .await;
    let spec = |image: &str| {
        json!({
            "images": [{"image": image}], "puller": "Agent",
            "nodes": {"selector": {"matchLabels": {"kubernetes.io/hostname": name}}},
            "protect": {"minFreeDisk": "0%"},
            "timeouts": {"noProgress": "15s"},
            "retry": {"initialDelay": "1s", "maxDelay": "5s"},
        })
    };
    node.limit_bandwidth(Some(5 * 1000 * 1000)).unwrap();
    let audit = env.cluster.audit().mark().unwrap();
    let began = Instant::now();
    let large = image("large");
    let cache = ns.cache("slow", spec(&large)).await;
    let counts = RefCell::new(Vec::new());
    eventually("the image is there", 180, || async {
        if let Some(said) = told_of(&env, &name, &large).await
            && said.state == ImageState::Pulling
            && counts.borrow().last() != Some(&said.bytes_done)
        {
            assert_eq!(said.attempts, 0, "an attempt was cut: {said:?}");
            assert!(said.bytes_total >= 300 * MIB as i64, "{said:?}");
            counts.borrow_mut().push(said.bytes_done);
        }
        let status = cache.status().await;
        if condition(&status, "Ready") == Some("True") {
            Ok(())
        } else {
            Err(format!("{status:?}"))
        }
    })
    .await;
    let (took, counts) = (began.elapsed(), counts.into_inner());
    node.limit_bandwidth(None).unwrap();
    assert!(took > Duration::from_secs(45), "the link was not thin: {took:?}");
    let rising = counts.iter().filter(|c| **c > 0).count();
    assert!(rising >= 4 && counts.is_sorted(), "{counts:?}");
    let writes = env.cluster.audit().writes_since(audit).unwrap();
    let agents = "system:serviceaccount:larder-agents:larder-agent";
    let written = writes
        .iter()
        .filter(|w| w.user == agents && w.name == name)
        .count();
    // The first after ten seconds of pulling, then every five; one at the end.
    let allowed = usize::try_from(took.as_secs() / 5).unwrap() + 2;
    assert!(written <= allowed, "{written} writes in {took:?}");

    // The registry stops to answer in the middle.
    let stalled = image("stalled");
    env.push(
        Open,
        &ImageSpec::new(rand::random()).layers(3, 40 * MIB),
        &format!("{}/stalled", ns.name),
        "1",
    )
    .await;
    node.limit_bandwidth(Some(3 * 1000 * 1000)).unwrap();
    let cache = ns.cache("stalled", spec(&stalled)).await;
    eventually("some of it has come", 60, || async {
        match told_of(&env, &name, &stalled).await {
            Some(said) if said.bytes_done > 0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let registry = env.registry(Open).kind.address().to_string();
    let blocked = format!("{registry}/32");
    node.exec("ip", &["route", "add", "blackhole", &blocked]).unwrap();
    let status = cache
        .until("it timed out", 90, |s| {
            failure(s, &stalled).is_some_and(|f| f.reason == Reason::Timeout)
        })
        .await;
    assert_eq!(condition(&status, "Ready"), Some("False"));
    node.exec("ip", &["route", "delete", "blackhole", &blocked])
        .unwrap();
    node.limit_bandwidth(None).unwrap();
    cache.ready(120).await;
    ns.delete().await;
}
