//! What is laid over the apps of a brand: defaults, mixins, the brand's own blocks.

use super::contexts::{self, Apps, MAX_VISITS};
use super::yaml::Yaml;
use super::{SourceError, SourceReason};

/// Lays `app-defaults.yaml` over each app: the defaults win.
pub(super) fn defaults(defaults: &Yaml, apps: &mut Apps) {
    for app in apps.values_mut() {
        app.overlay(defaults);
    }
}

/// Lays over each app what the mixins say of it, those of the contexts that the brand extends first.
///
/// A mixin is a context. It adds no apps, its own `extends` and `mixin` do not count, and one that does not exist says
/// nothing.
pub(super) fn mixins(registry: &Yaml, brand: &str, apps: &mut Apps) -> Result<(), SourceError> {
    let mut laid = 0;
    contexts::walk(registry, brand, &mut |context| {
        for mixin in contexts::names(context.get("mixin")) {
            laid += 1;
            if laid > MAX_VISITS {
                let problem = "contexts have too many mixins";
                return Err(SourceError::new(SourceReason::BrokenContext, problem));
            }
            let entries = registry
                .get("contexts")
                .and_then(|all| all.get(&mixin))
                .and_then(|context| context.get("apps"));
            for (id, app) in apps.iter_mut() {
                if let Some(entry) = entries.and_then(|entries| entries.get(id)) {
                    app.overlay(entry);
                }
            }
        }
        Ok(())
    })
}

/// Lays over an app the block of the brand's context that is named after it: its keys replace the app's.
pub(super) fn overrides(registry: &Yaml, brand: &str, apps: &mut Apps) {
    let Ok(context) = contexts::context(registry, brand) else {
        return;
    };
    for (id, app) in apps.iter_mut() {
        // The context's own words, even when an app is called like one of them.
        if !matches!(id.as_str(), "name" | "extends" | "mixin" | "apps")
            && let Some(block) = context.get(id)
        {
            app.overlay(block);
        }
    }
}
