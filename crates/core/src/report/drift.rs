//! References that nodes resolved by themselves, and not alike: each pulled the tag at a moment of its own.

use std::collections::BTreeMap;
use std::fmt;

use super::nodes::Overview;

/// Reason of the conditions and of the Event.
pub const DIGESTS_DIFFER: &str = "DigestsDiffer";
/// `sha256:` and twelve digits are enough to tell two digests apart.
const DIGEST_CHARS: usize = 19;
/// Digests of one reference that are named.
const NAMED: usize = 3;

/// A reference behind which nodes found different digests.
pub(super) struct Drift<'a> {
    image: &'a str,
    /// Digests with the nodes that hold them, most nodes first.
    digests: Vec<(&'a str, Vec<&'a str>)>,
}

/// What nodes report that hold the newest revision whole and are done with it: those still at work may yet agree.
pub(super) fn find<'a>(overview: &'a Overview<'_>) -> Vec<Drift<'a>> {
    let mut found: BTreeMap<&str, BTreeMap<&str, Vec<&str>>> = BTreeMap::new();
    for node in overview.nodes.iter().filter(|n| n.is_ready() && n.settled) {
        for reported in node.current.iter().flat_map(|o| &o.reported) {
            let digests = found.entry(&reported.image).or_default();
            let nodes = digests.entry(&reported.digest).or_default();
            nodes.push(&node.view.facts.name);
        }
    }
    let differ = found.into_iter().filter(|(_, digests)| digests.len() > 1);
    differ
        .map(|(image, digests)| {
            let mut digests: Vec<_> = digests.into_iter().collect();
            digests.sort_by_key(|(_, nodes)| std::cmp::Reverse(nodes.len()));
            Drift { image, digests }
        })
        .collect()
}

impl fmt::Display for Drift<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.image)?;
        for (i, (digest, nodes)) in self.digests.iter().take(NAMED).enumerate() {
            let join = if i > 0 { ", " } else { "" };
            let digest = digest.get(..DIGEST_CHARS).unwrap_or(digest);
            match nodes[..] {
                [only] => write!(f, "{join}{digest} on {only}")?,
                _ => write!(f, "{join}{digest} on {} nodes", nodes.len())?,
            }
        }
        match self.digests.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}
