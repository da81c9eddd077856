//! The last attempts at pulls of all agents, collected when somebody asks.

use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::world::World;

/// Port of an agent's HTTP side.
const PORT: u16 = 8081;
/// Agents asked at a time.
const AT_A_TIME: usize = 32;
/// The time that one agent has to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest answer of one agent, in bytes.
const MAX_BYTES: usize = 2 * 1024 * 1024;
/// Attempts in an answer where nobody asks for another number.
const LIMIT: usize = 1000;
/// Most attempts in an answer.
const MAX_LIMIT: usize = 10_000;

/// One attempt at a pull, in the form of image-prefetcher's records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Unique.
    pub attempt_id: String,
    /// When it began.
    pub started_at: Timestamp,
    /// Reference.
    pub image: String,
    /// Why it failed; empty if it did not.
    #[serde(default)]
    pub error: String,
    /// How long it took.
    pub duration_ms: i64,
    /// Name of the node.
    pub node: String,
    /// Bytes of the image; zero where unknown.
    #[serde(default)]
    pub size_bytes: i64,
}

/// What is asked for.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Query {
    /// Of this node alone.
    node: Option<String>,
    /// Whose reference contains this.
    image: Option<String>,
    /// At most so many, the latest.
    limit: Option<usize>,
}

/// What the agents answered.
#[derive(Debug, Default)]
pub struct Collected {
    /// The latest first.
    pub attempts: Vec<Attempt>,
    /// Agents that gave no answer in time, or none that can be used.
    pub unanswered: usize,
}

/// An agent's node and where it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    node: String,
    url: String,
}

/// Asks the agents. Clones share connections.
#[derive(Clone, Debug)]
pub struct Collector {
    client: reqwest::Client,
}

impl Collector {
    /// Fails only where no client can be made at all.
    pub fn new() -> Result<Self, reqwest::Error> {
        // The client wants to know the cryptography of TLS although it uses none. An error says that one is chosen.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Agents are pods of the cluster: no proxy is between, and they send nobody elsewhere.
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE);
        Ok(Self {
            client: client.build()?,
        })
    }

    /// Asks every agent that has an address.
    pub async fn collect(&self, world: &World, query: &Query) -> Collected {
        self.collect_from(sources(world), query).await
    }

    async fn collect_from(&self, sources: Vec<Source>, query: &Query) -> Collected {
        let limit = query.limit.unwrap_or(LIMIT).min(MAX_LIMIT);
        let wanted = sources
            .into_iter()
            .filter(|s| query.node.as_ref().is_none_or(|n| *n == s.node));
        let mut answers = futures::stream::iter(wanted)
            .map(|source| self.ask(source))
            .buffer_unordered(AT_A_TIME);
        let mut collected = Collected::default();
        while let Some(answer) = answers.next().await {
            let Some(attempts) = answer else {
                collected.unanswered += 1;
                continue;
            };
            let fits = |a: &Attempt| query.image.as_ref().is_none_or(|i| a.image.contains(i.as_str()));
            collected.attempts.extend(attempts.into_iter().filter(fits));
            // At each step, so that memory is bounded by the limit and not by the cluster.
            collected.attempts.sort_by(|a, b| {
                (b.started_at, &a.node, &a.attempt_id).cmp(&(a.started_at, &b.node, &b.attempt_id))
            });
            collected.attempts.truncate(limit);
        }
        collected
    }

    /// None if there is no answer that can be used.
    async fn ask(&self, source: Source) -> Option<Vec<Attempt>> {
        let mut response = self.client.get(&source.url).send().await.ok()?;
        if !response.status().is_success() {
            return None;
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.ok()? {
            if body.len() + chunk.len() > MAX_BYTES {
                return None;
            }
            body.extend_from_slice(&chunk);
        }
        let mut attempts: Vec<Attempt> = serde_json::from_slice(&body).ok()?;
        // Where a pod runs is for the API server to say.
        for attempt in &mut attempts {
            attempt.node.clone_from(&source.node);
        }
        Some(attempts)
    }
}

fn sources(world: &World) -> Vec<Source> {
    let pods = world.agent_pods();
    let addressed = pods.iter().filter_map(|pod| {
        let ip: std::net::IpAddr = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
        let address = std::net::SocketAddr::new(ip, PORT);
        Some(Source {
            node: pod.spec.as_ref()?.node_name.clone()?,
            url: format!("http://{address}/attempts"),
        })
    });
    addressed.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use axum::Router;
    use axum::routing::get;
    use serde_json::{Value, json};
    use tokio::net::TcpListener;

    use super::*;

    /// An agent that answers with this.
    async fn agent(node: &str, answer: String) -> Source {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/attempts", listener.local_addr().unwrap());
        let app = Router::new().route("/attempts", get(move || async move { answer }));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Source {
            node: node.into(),
            url,
        }
    }

    fn attempt(node: &str, second: u32, image: &str) -> Value {
        json!({
            "attempt_id": format!("{node}-{second}"), "started_at": format!("2026-01-01T00:00:{second:02}Z"),
            "image": image, "error": "", "duration_ms": 5, "node": node, "size_bytes": 7,
        })
    }

    async fn ids(sources: &[Source], query: Query) -> (Vec<String>, usize) {
        let collector = Collector::new().unwrap();
        let collected = collector.collect_from(sources.to_vec(), &query).await;
        let ids = collected.attempts.into_iter().map(|a| a.attempt_id);
        (ids.collect(), collected.unanswered)
    }

    #[tokio::test]
    async fn all_agents_are_asked_and_the_latest_comes_first() {
        let one = json!([attempt("one", 1, "a.io/x:1"), attempt("one", 5, "a.io/y:1")]);
        let two = json!([attempt("two", 3, "a.io/x:1")]);
        let sources = [
            agent("one", one.to_string()).await,
            agent("two", two.to_string()).await,
        ];
        let all = ids(&sources, Query::default()).await;
        assert_eq!(all, (vec!["one-5".into(), "two-3".into(), "one-1".into()], 0));
        let query = Query {
            node: Some("one".into()),
            image: Some("x".into()),
            limit: None,
        };
        assert_eq!(ids(&sources, query).await.0, ["one-1"]);
        let query = Query {
            limit: Some(2),
            ..Query::default()
        };
        assert_eq!(ids(&sources, query).await.0, ["one-5", "two-3"]);
    }

    #[tokio::test]
    async fn an_agent_that_fails_or_floods_is_counted_and_holds_up_nobody() {
        let good = json!([attempt("good", 1, "a.io/x:1")]);
        let sources = [
            agent("good", good.to_string()).await,
            agent("garbage", "<html>".into()).await,
            agent("flood", "x".repeat(MAX_BYTES + 1)).await,
            Source {
                node: "gone".into(),
                url: "http://127.0.0.1:1/attempts".into(),
            },
        ];
        assert_eq!(ids(&sources, Query::default()).await, (vec!["good-1".into()], 3));
    }

    #[tokio::test]
    async fn an_agent_speaks_of_its_own_node_alone() {
        let liar = agent("liar", json!([attempt("other", 1, "a.io/x:1")]).to_string()).await;
        let collector = Collector::new().unwrap();
        let collected = collector.collect_from(vec![liar], &Query::default()).await;
        assert_eq!(collected.attempts[0].node, "liar");
    }
}
