//! Which images of an app registry may be of apps that cannot be read now. Pure.

use std::collections::{BTreeMap, BTreeSet};

use larder_core::sources::Hides;

/// Images by app; None for an app that could not be read, and may be the next time.
pub(super) type Told = BTreeMap<String, Option<BTreeSet<String>>>;

/// Images remembered that no app has any more.
const MAX_SEEN: usize = 5000;

/// What the apps of a registry had when they were last read.
#[derive(Debug, Default)]
pub(super) struct Apps {
    last: BTreeMap<String, BTreeSet<String>>,
    /// Images that were some app's since the operator started, as far back as they may matter.
    seen: BTreeSet<String>,
}

impl Apps {
    /// Takes up what was told; which images may be hidden.
    pub(super) fn learn(&mut self, told: Told) -> Hides {
        let mut before = std::mem::take(&mut self.last);
        let earlier: BTreeSet<String> = before.values().flatten().cloned().collect();
        let mut hidden = BTreeSet::new();
        let mut strangers = false;
        for (app, images) in told {
            let known = images.is_some();
            let Some(images) = images.or_else(|| before.remove(&app)) else {
                strangers = true;
                continue;
            };
            if !known {
                hidden.extend(images.iter().cloned());
            }
            self.last.insert(app, images);
        }
        if !strangers || self.seen.len() > MAX_SEEN {
            self.seen.clear();
        }
        self.seen.extend(earlier);
        self.seen.extend(self.last.values().flatten().cloned());
        if strangers {
            // Of an app that was never read nobody knows what it had: what was another's is not its.
            Hides::AnyBut(self.seen.difference(&hidden).cloned().collect())
        } else {
            Hides::Only(hidden)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(apps: &[(&str, Option<&[&str]>)]) -> Told {
        let images = |images: &[&str]| images.iter().map(|i| (*i).to_owned()).collect();
        apps.iter()
            .map(|(app, of)| ((*app).to_owned(), of.map(images)))
            .collect()
    }

    fn these(images: &[&str]) -> BTreeSet<String> {
        images.iter().map(|i| (*i).to_owned()).collect()
    }

    #[test]
    fn an_app_that_cannot_be_read_keeps_its_own_images_alone() {
        let mut apps = Apps::default();
        let all = told(&[
            ("one", Some(&["a:1", "shared"])),
            ("two", Some(&["b:1", "shared"])),
        ]);
        assert_eq!(apps.learn(all), Hides::Only(these(&[])));
        for tag in ["a:2", "a:3"] {
            let part = told(&[("one", Some(&[tag])), ("two", None)]);
            assert_eq!(apps.learn(part), Hides::Only(these(&["b:1", "shared"])));
        }
        let left = told(&[("one", Some(&["a:3"]))]);
        assert_eq!(apps.learn(left), Hides::Only(these(&[])), "an app that is gone");
    }

    #[test]
    fn after_a_restart_what_was_another_apps_is_not_kept() {
        let mut apps = Apps::default();
        for (tag, others) in [
            ("a:1", &["a:1"][..]),
            ("a:2", &["a:1", "a:2"]),
            ("a:3", &["a:1", "a:2", "a:3"]),
        ] {
            let part = told(&[("one", Some(&[tag])), ("two", None)]);
            assert_eq!(apps.learn(part), Hides::AnyBut(these(others)));
        }
        let all = told(&[("one", Some(&["a:4"])), ("two", Some(&["b:1"]))]);
        assert_eq!(apps.learn(all), Hides::Only(these(&[])));
        let new = told(&[("new", None), ("one", Some(&["a:5"])), ("two", None)]);
        assert_eq!(apps.learn(new), Hides::AnyBut(these(&["a:3", "a:4", "a:5"])));
    }
}
