//! The apps of a brand: those of the contexts that it extends, and its own.
//!
//! Depth first, in the order of the list, then the context's own. An app met again replaces the earlier entry whole, but
//! keeps its place.

use indexmap::IndexMap;

use super::yaml::Yaml;
use super::{MAX_APPS, SourceError, SourceReason, shorten};

/// Contexts looked at for one brand, and mixins: several may extend the same, and each counts every time.
pub(super) const MAX_VISITS: usize = 1000;
/// Bytes of the address of a compose file, or of a repository.
pub(super) const MAX_ADDRESS: usize = 4096;

/// What of an app bears on its images.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct App {
    /// As written; null for what is no address.
    pub(super) spec: Option<Yaml>,
    /// Why the entry is none.
    pub(super) problem: Option<String>,
}

/// Apps by id, in the registry's order.
pub(super) type Apps = IndexMap<String, App>;

impl App {
    /// An entry of `apps`; nothing at all is an app without keys.
    pub(super) fn of(entry: &Yaml) -> Self {
        match entry {
            Yaml::Null => Self::default(),
            Yaml::Map(map) => Self {
                spec: map.get("spec").map(address),
                problem: None,
            },
            _ => Self {
                spec: None,
                problem: Some("its entry in app-registry.yaml is not a map".into()),
            },
        }
    }

    /// Lays another map over it.
    pub(super) fn overlay(&mut self, above: &Yaml) {
        if self.problem.is_none()
            && let Some(spec) = above.get("spec")
        {
            self.spec = Some(address(spec));
        }
    }

    /// Where its compose file is.
    pub(super) fn address(self, id: &str) -> Result<String, SourceError> {
        let broken = |message| Err(SourceError::of_app(id, SourceReason::Malformed, message));
        match (self.problem, self.spec) {
            (Some(problem), _) => broken(problem),
            (None, Some(Yaml::Text(spec))) if !spec.trim().is_empty() => Ok(spec),
            (None, Some(_)) => broken("its spec is not the address of a compose file".to_owned()),
            (None, None) => broken("it has no spec, and the registry names no repository".to_owned()),
        }
    }
}

/// A text that may be an address; else null. What is laid over all apps must not be kept many times.
pub(super) fn address(spec: &Yaml) -> Yaml {
    match spec {
        Yaml::Text(text) if text.len() <= MAX_ADDRESS => Yaml::Text(text.clone()),
        _ => Yaml::Null,
    }
}

/// The apps of the brand.
pub(super) fn select(registry: &Yaml, brand: &str) -> Result<Apps, SourceError> {
    let mut apps = Apps::new();
    walk(registry, brand, &mut |context| {
        for (id, entry) in context.get("apps").and_then(Yaml::as_map).into_iter().flatten() {
            apps.insert(id.clone(), App::of(entry));
        }
        if apps.len() > MAX_APPS {
            let message = format!("the brand has more than {MAX_APPS} apps");
            return Err(SourceError::new(SourceReason::TooLarge, message));
        }
        Ok(())
    })?;
    Ok(apps)
}

/// The context of a brand.
pub(super) fn context<'a>(registry: &'a Yaml, brand: &str) -> Result<&'a Yaml, SourceError> {
    let contexts = registry.get("contexts");
    contexts.and_then(|contexts| contexts.get(brand)).ok_or_else(|| {
        let brands: Vec<&str> = contexts
            .and_then(Yaml::as_map)
            .into_iter()
            .flat_map(|map| map.keys())
            .map(|name| shorten(name))
            .take(10)
            .collect();
        let message = format!(
            "the registry has no brand {:?}; it has {}",
            shorten(brand),
            if brands.is_empty() {
                "none".to_owned()
            } else {
                brands.join(", ")
            }
        );
        SourceError::new(SourceReason::UnknownBrand, message)
    })
}

/// Calls `visit` with the contexts that the brand extends, and then with its own.
pub(super) fn walk<'a>(
    registry: &'a Yaml,
    brand: &str,
    visit: &mut dyn FnMut(&'a Yaml) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    let mut walk = Walk {
        registry,
        visit,
        visits: 0,
        path: Vec::new(),
    };
    walk.enter(brand, context(registry, brand)?)
}

struct Walk<'a, 'v> {
    registry: &'a Yaml,
    visit: &'v mut dyn FnMut(&'a Yaml) -> Result<(), SourceError>,
    visits: usize,
    /// Contexts that are being looked at, the brand first.
    path: Vec<String>,
}

impl<'a> Walk<'a, '_> {
    fn enter(&mut self, name: &str, context: &'a Yaml) -> Result<(), SourceError> {
        let broken = |problem: String| Err(SourceError::new(SourceReason::BrokenContext, problem));
        self.visits += 1;
        // The path is a recursion too, and a short one in any registry that people can read.
        if self.visits > MAX_VISITS || self.path.len() >= 50 {
            return broken("contexts extend each other too often or too deeply".into());
        }
        if self.path.iter().any(|above| above == name) {
            return broken(format!("context {:?} extends itself", shorten(name)));
        }
        self.path.push(name.to_owned());
        for base in names(context.get("extends")) {
            let Some(found) = self.registry.get("contexts").and_then(|all| all.get(&base)) else {
                let problem = format!(
                    "context {:?} extends {:?}, which does not exist",
                    shorten(name),
                    shorten(&base)
                );
                return broken(problem);
            };
            self.enter(&base, found)?;
        }
        self.path.pop();
        (self.visit)(context)
    }
}

/// A list of names; one name alone is a list of one. None is copied before it is its turn.
pub(super) fn names(list: Option<&Yaml>) -> impl Iterator<Item = String> {
    let (items, one) = match list {
        Some(Yaml::List(items)) => (items.as_slice(), None),
        Some(one) => (&[][..], one.as_text()),
        None => (&[][..], None),
    };
    let items = items.iter().filter_map(Yaml::scalar_text);
    items.chain(one.map(str::to_owned))
}
