//! Images that no node has and that share no layer with others.

use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use larder_e2e::images::{ImageSpec, Registry};

/// What the names of all images of the benchmark begin with, after the registry.
pub const FOLDER: &str = "bench";

/// The largest layer, in MB (millions of bytes).
const LAYER: usize = 20;

/// How many images are made and pushed at the same time.
const AT_ONCE: usize = 4;

/// Images of one run, each in a repository of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSet {
    /// Their references.
    pub references: Vec<String>,
    /// What all their repositories begin with.
    pub prefix: String,
}

impl ImageSet {
    /// Makes one image for each of these sizes in MB, of random data, and pushes it.
    pub async fn push(registry: &Registry, host: &str, megabytes: &[usize]) -> anyhow::Result<Self> {
        let first = seeds(megabytes.len());
        let prefix = format!("{FOLDER}/s{first}/");
        let pushes = megabytes.iter().zip(first..).map(|(megabytes, seed)| {
            let repository = format!("{prefix}i{:02}", seed - first);
            async move {
                spec(seed, *megabytes).push(registry, &repository, "1").await?;
                anyhow::Ok(format!("{host}/{repository}:1"))
            }
        });
        let references = stream::iter(pushes).buffered(AT_ONCE).try_collect().await?;
        Ok(Self { references, prefix })
    }
}

/// As many seeds as are asked for that no run before had: they begin with the time in microseconds.
fn seeds(count: usize) -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = u64::try_from(Timestamp::now().as_microsecond()).unwrap_or_default();
    let count = count as u64;
    NEXT.fetch_max(now, Ordering::SeqCst);
    NEXT.fetch_add(count, Ordering::SeqCst)
}

/// Layers of at most [`LAYER`] MB, all of one size.
fn spec(seed: u64, megabytes: usize) -> ImageSpec {
    let layers = megabytes.div_ceil(LAYER).max(1);
    ImageSpec::new(seed).layers(layers, megabytes * 1_000_000 / layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_seed_comes_twice() {
        let (first, second) = (seeds(30), seeds(4));
        assert!(second >= first + 30, "{first} {second}");
    }

    #[test]
    fn images_have_the_size_asked_for() {
        for megabytes in [1, 20, 60] {
            let image = spec(1, megabytes).build().unwrap();
            let (wanted, size) = (megabytes * 1_000_000, image.size() as usize);
            assert!(
                (wanted..wanted + wanted / 50).contains(&size),
                "{megabytes} MB: {size}"
            );
        }
    }
}
