//! What a purge is asked for and what it says of it: the two ends of the one-shot Job.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Outcomes listed one by one at most; the rest is counted in `omitted`.
pub const MAX_OUTCOMES: usize = 20;
/// The kubelet cuts termination messages beyond this many bytes.
pub const MAX_MESSAGE_BYTES: usize = 4096;
/// Characters of one outcome's message.
const MAX_WORDS: usize = 160;

/// One image to remove from a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PurgeEntry {
    /// The reference, as written or normalised.
    pub reference: String,
    /// The digest that the reference had for the cache; unknown where it was never resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// When the node was first claimed for the cache: what it held before is foreign.
    pub claimed_at: Timestamp,
    /// Removes foreign images as well.
    #[serde(default)]
    pub all: bool,
}

/// What became of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The runtime refused.
    Failed,
    /// A created or running container uses the image, or the runtime itself holds it.
    InUse,
    /// It was there before Larder.
    Foreign,
    /// Its content stays, because another name has it too.
    Shared,
    /// It was not there.
    Absent,
    /// It is gone.
    Removed,
}

/// What became of one entry, in words where that helps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EntryOutcome {
    /// The reference, as the entry gave it.
    pub reference: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// The result of a purge: `larder-agent purge` writes it as the container's termination message, the operator reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PurgeReport {
    /// Entries whose image is gone.
    pub removed: i32,
    /// Entries whose image was not there.
    pub absent: i32,
    /// Entries kept because they are used.
    pub in_use: i32,
    /// Entries kept because they were there before Larder.
    pub foreign: i32,
    /// Entries whose content stays under another name.
    pub shared: i32,
    /// Entries that the runtime refused to remove.
    pub failed: i32,
    /// At most [`MAX_OUTCOMES`] that are not Removed, the gravest first.
    #[serde(default)]
    pub outcomes: Vec<EntryOutcome>,
    /// Outcomes that are not Removed and not listed.
    #[serde(default)]
    pub omitted: i32,
    /// Why the purge ended before everything was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl PurgeReport {
    /// Counts outcomes and keeps the gravest.
    pub fn of(outcomes: impl IntoIterator<Item = EntryOutcome>) -> Self {
        let mut report = Self::default();
        for outcome in outcomes {
            *report.count(outcome.outcome) += 1;
            if outcome.outcome != Outcome::Removed {
                report.outcomes.push(outcome);
            }
        }
        report.shorten_list();
        report
    }

    /// Adds the result of another part of the same removal.
    pub fn add(&mut self, other: &Self) {
        self.removed += other.removed;
        self.absent += other.absent;
        self.in_use += other.in_use;
        self.foreign += other.foreign;
        self.shared += other.shared;
        self.failed += other.failed;
        self.omitted += other.omitted;
        self.outcomes.extend(other.outcomes.iter().cloned());
        self.error = self.error.take().or_else(|| other.error.clone());
        self.shorten_list();
    }

    /// The counts that are not zero, for people: `3 removed, 1 in use`.
    pub fn summary(&self) -> String {
        let counts = [
            (self.removed, "removed"),
            (self.absent, "absent"),
            (self.in_use, "in use"),
            (self.foreign, "foreign"),
            (self.shared, "shared"),
            (self.failed, "failed"),
        ];
        let words: Vec<String> = counts
            .iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, what)| format!("{n} {what}"))
            .collect();
        if words.is_empty() {
            "nothing to remove".to_owned()
        } else {
            words.join(", ")
        }
    }

    /// As JSON of at most [`MAX_MESSAGE_BYTES`] bytes: long words are cut, then outcomes move to `omitted`.
    pub fn to_message(&self) -> String {
        let mut short = self.clone();
        short.shorten_list();
        for outcome in &mut short.outcomes {
            outcome.message = cut(&outcome.message, MAX_WORDS);
        }
        short.error = short.error.map(|words| cut(&words, MAX_WORDS));
        loop {
            // Plain data of strings and numbers always serializes.
            let text = serde_json::to_string(&short).unwrap_or_default();
            if text.len() <= MAX_MESSAGE_BYTES || short.outcomes.pop().is_none() {
                return text;
            }
            short.omitted += 1;
        }
    }

    fn count(&mut self, outcome: Outcome) -> &mut i32 {
        match outcome {
            Outcome::Failed => &mut self.failed,
            Outcome::InUse => &mut self.in_use,
            Outcome::Foreign => &mut self.foreign,
            Outcome::Shared => &mut self.shared,
            Outcome::Absent => &mut self.absent,
            Outcome::Removed => &mut self.removed,
        }
    }

    fn shorten_list(&mut self) {
        self.outcomes
            .sort_by(|a, b| (a.outcome, &a.reference).cmp(&(b.outcome, &b.reference)));
        let surplus = self.outcomes.len().saturating_sub(MAX_OUTCOMES);
        self.outcomes.truncate(MAX_OUTCOMES);
        self.omitted += surplus as i32;
    }
}

impl fmt::Display for PurgeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())
    }
}

fn cut(words: &str, at_most: usize) -> String {
    if words.chars().count() <= at_most {
        return words.to_owned();
    }
    words.chars().take(at_most - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn outcome(reference: &str, outcome: Outcome, message: &str) -> EntryOutcome {
        EntryOutcome {
            reference: reference.into(),
            outcome,
            message: message.into(),
        }
    }

    #[test]
    fn reads_and_writes_the_documented_shape() {
        let entry: PurgeEntry = serde_json::from_str(
            r#"{"reference":"nginx:1.27","digest":"sha256:aa","claimedAt":"2026-01-02T03:04:05Z","all":true}"#,
        )
        .unwrap();
        assert_eq!(entry.digest.as_deref(), Some("sha256:aa"));
        assert_eq!(entry.claimed_at, "2026-01-02T03:04:05Z".parse().unwrap());
        let bare: PurgeEntry =
            serde_json::from_str(r#"{"reference":"a:1","claimedAt":"2026-01-02T03:04:05.5Z"}"#).unwrap();
        assert_eq!((bare.digest, bare.all), (None, false));

        let report = PurgeReport::of([
            outcome("a:1", Outcome::Removed, ""),
            outcome("b:1", Outcome::Absent, ""),
            outcome("c:1", Outcome::InUse, "container 12ab runs it"),
        ]);
        assert_eq!(
            report.to_message(),
            r#"{"removed":1,"absent":1,"inUse":1,"foreign":0,"shared":0,"failed":0,"outcomes":[{"reference":"c:1","outcome":"inUse","message":"container 12ab runs it"},{"reference":"b:1","outcome":"absent"}],"omitted":0}"#
        );
        assert_eq!(
            serde_json::from_str::<PurgeReport>(&report.to_message()).unwrap(),
            report
        );
        assert_eq!(report.summary(), "1 removed, 1 absent, 1 in use");
    }

    #[test]
    fn an_error_alone_is_not_a_report() {
        assert!(serde_json::from_str::<PurgeReport>(r#"{"error":"no runtime"}"#).is_err());
    }

    #[test]
    fn the_message_fits_whatever_it_says() {
        let long = format!("registry.example/{}:1", "\"é".repeat(300));
        let all: Vec<_> = (0..100)
            .map(|i| outcome(&format!("{long}{i}"), Outcome::Failed, &"\n\u{1}".repeat(500)))
            .collect();
        let report = PurgeReport::of(all);
        assert_eq!(
            (report.failed, report.outcomes.len(), report.omitted),
            (100, 20, 80)
        );
        let text = report.to_message();
        assert!(text.len() <= MAX_MESSAGE_BYTES, "{}", text.len());
        let read: PurgeReport = serde_json::from_str(&text).unwrap();
        assert_eq!(read.failed, 100);
        assert_eq!(read.outcomes.len() as i32 + read.omitted, 100);
        assert!(!read.outcomes.is_empty());
    }

    #[test]
    fn parts_add_up_and_the_gravest_outcomes_stay() {
        let mut sum = PurgeReport::of((0..20).map(|i| outcome(&format!("a:{i:02}"), Outcome::Absent, "")));
        sum.add(&PurgeReport::of([
            outcome("z:1", Outcome::Failed, "boom"),
            outcome("y:1", Outcome::Removed, ""),
        ]));
        assert_eq!((sum.absent, sum.failed, sum.removed, sum.omitted), (20, 1, 1, 1));
        assert_eq!(sum.outcomes[0].reference, "z:1");
        assert_eq!(sum.outcomes.len(), 20);
    }
}
