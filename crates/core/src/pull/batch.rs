//! Which images go into which pod.

use std::collections::BTreeMap;

use larder_api::revision::RevisionImage;

/// Containers of one pull pod.
pub const MAX_IMAGES_PER_POD: usize = 32;
/// A group larger than this is spread over several pods, where the limit allows: a pod pulls one image after another.
/// Below it a second pod costs more (some 18 API writes, a sandbox) than it wins.
const BYTES_PER_POD: i64 = 512 * 1024 * 1024;

/// An image whose pull may begin now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) image: &'a RevisionImage,
    /// Compressed bytes on this node's platform; zero where unknown.
    pub(super) bytes: i64,
    /// It failed before, or the operator could not resolve it: it must not hold up those that will work.
    pub(super) suspect: bool,
}

/// Sorts candidates into at most `free` pods of at most [`MAX_IMAGES_PER_POD`] images each. A pod's images come from one
/// registry and are either all fresh or all suspect. Within a pod: priority, then size, then name. What finds no place
/// waits for the next time.
pub(super) fn batches<'a>(mut candidates: Vec<Candidate<'a>>, free: usize) -> Vec<Vec<&'a RevisionImage>> {
    candidates.sort_by(|a, b| {
        (b.image.priority, a.bytes, &a.image.image).cmp(&(a.image.priority, b.bytes, &b.image.image))
    });
    let mut groups: BTreeMap<(bool, &str), Vec<Candidate<'a>>> = BTreeMap::new();
    for candidate in candidates {
        groups
            .entry((candidate.suspect, host(&candidate.image.image)))
            .or_default()
            .push(candidate);
    }
    let mut groups: Vec<((bool, &str), Vec<Candidate<'a>>)> = groups.into_iter().collect();
    // Candidates are sorted, so the first of each group has its highest priority.
    groups.sort_by_key(|((suspect, host), all)| (*suspect, std::cmp::Reverse(all[0].image.priority), *host));
    groups.truncate(free);

    let mut pods: Vec<usize> = vec![1; groups.len()];
    let mut spare = free - groups.len();
    for (i, (_, group)) in groups.iter().enumerate() {
        let more = needs(group).saturating_sub(1).min(spare);
        pods[i] += more;
        spare -= more;
    }
    groups
        .into_iter()
        .zip(pods)
        .flat_map(|((_, group), pods)| spread(&group, pods))
        .collect()
}

fn host(normalised: &str) -> &str {
    normalised.split('/').next().unwrap_or_default()
}

/// How many pods a group would like.
fn needs(group: &[Candidate<'_>]) -> usize {
    let bytes: i64 = group.iter().map(|c| c.bytes).sum();
    let by_bytes = usize::try_from(bytes.max(0) / BYTES_PER_POD)
        .unwrap_or(usize::MAX)
        .saturating_add(1);
    by_bytes
        .max(group.len().div_ceil(MAX_IMAGES_PER_POD))
        .min(group.len())
}

/// Deals the group out in order, so that every pod begins with what matters most.
fn spread<'a>(group: &[Candidate<'a>], pods: usize) -> Vec<Vec<&'a RevisionImage>> {
    let mut result = vec![Vec::new(); pods];
    for (i, candidate) in group.iter().take(pods * MAX_IMAGES_PER_POD).enumerate() {
        result[i % pods].push(candidate.image);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn image(name: &str, priority: i32) -> RevisionImage {
        RevisionImage {
            image: name.into(),
            priority,
            ..RevisionImage::default()
        }
    }

    fn names(batches: &[Vec<&RevisionImage>]) -> Vec<Vec<String>> {
        batches
            .iter()
            .map(|b| b.iter().map(|i| i.image.clone()).collect())
            .collect()
    }

    #[test]
    fn hosts_and_suspects_never_mix_and_priority_goes_first() {
        let all = [
            image("a.io/x:1", 0),
            image("b.io/x:1", 5),
            image("a.io/y:1", 9),
            image("a.io/z:1", 0),
        ];
        let candidates = vec![
            Candidate {
                image: &all[0],
                bytes: 1,
                suspect: false,
            },
            Candidate {
                image: &all[1],
                bytes: 1,
                suspect: false,
            },
            Candidate {
                image: &all[2],
                bytes: 1,
                suspect: false,
            },
            Candidate {
                image: &all[3],
                bytes: 1,
                suspect: true,
            },
        ];
        assert_eq!(
            names(&batches(candidates.clone(), 5)),
            [vec!["a.io/y:1", "a.io/x:1"], vec!["b.io/x:1"], vec!["a.io/z:1"]]
        );
        assert_eq!(names(&batches(candidates, 1)), [vec!["a.io/y:1", "a.io/x:1"]]);
    }

    #[test]
    fn large_images_go_into_pods_of_their_own_and_small_ones_share() {
        let all: Vec<_> = (0..4).map(|i| image(&format!("a.io/x:{i}"), 0)).collect();
        let sized = |bytes| {
            all.iter()
                .map(|image| Candidate {
                    image,
                    bytes,
                    suspect: false,
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(batches(sized(500 << 20), 3).len(), 3);
        assert_eq!(batches(sized(50 << 20), 3).len(), 1);
    }

    proptest! {
        #[test]
        fn batches_keep_their_promises(
            raw in proptest::collection::vec((0usize..4, 0usize..200, -3i32..3, 0i64..1_000_000_000, any::<bool>()), 0..120),
            free in 0usize..8,
        ) {
            let images: Vec<_> = raw.iter().enumerate()
                .map(|(i, (h, n, p, _, _))| image(&format!("h{h}.io/r{n}:{i}"), *p)).collect();
            let candidates: Vec<_> = images.iter().zip(&raw)
                .map(|(image, (_, _, _, bytes, suspect))| Candidate { image, bytes: *bytes, suspect: *suspect }).collect();
            let suspect = |name: &str| candidates.iter().any(|c| c.image.image == name && c.suspect);
            let result = batches(candidates.clone(), free);
            prop_assert!(result.len() <= free);
            let mut seen = std::collections::BTreeSet::new();
            for batch in &result {
                prop_assert!(!batch.is_empty() && batch.len() <= MAX_IMAGES_PER_POD);
                for i in batch {
                    prop_assert_eq!(host(&i.image), host(&batch[0].image));
                    prop_assert_eq!(suspect(&i.image), suspect(&batch[0].image));
                    prop_assert!(seen.insert(i.image.clone()));
                }
            }
            // Progress: with a free pod, something always begins.
            prop_assert!(free == 0 || candidates.is_empty() || !result.is_empty());
            let mut reversed = candidates.clone();
            reversed.reverse();
            prop_assert_eq!(names(&batches(reversed, free)), names(&result));
        }
    }
}
