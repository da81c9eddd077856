//! Asking a source: each kind in a file of its own.

mod app_registry;
mod hosts;
mod http;
mod tags;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use larder_api::image_source::Source;
use larder_core::sources::{Problem, reason};
use larder_registry::sources::{Found, SourceError, SourceReason};
use larder_registry::{ConfigError, HttpOptions, Keyring, RegistriesConfig, SafeHttp, Tags};

use super::entry::Answer;

/// Errors that a message names.
const NAMED: usize = 3;

/// Asks sources.
#[async_trait]
pub trait Fetch: Send + Sync {
    /// What a source that is not followed says now.
    async fn fetch(&self, ask: &Ask) -> Result<Fetched, Failure>;
}

/// A source, and what is needed to ask it.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The source.
    pub source: Source,
    /// The value of an Authorization header.
    pub authorization: Option<String>,
    /// Pull secrets.
    pub keyring: Keyring,
    /// The version that is known already.
    pub etag: Option<String>,
}

/// What a source said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The same version as before.
    Unchanged,
    /// This.
    Found {
        /// Images, and what was wrong beside them.
        found: Found,
        /// The version.
        etag: Option<String>,
        /// How long what is missing asks to be left alone.
        retry_after: Option<Duration>,
    },
}

/// Why a source said nothing that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub error: SourceError,
    /// How long it asks to be left alone.
    pub retry_after: Option<Duration>,
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        Self {
            error,
            retry_after: None,
        }
    }
}

/// Asks over the network.
#[allow(missing_debug_implementations, reason = "registries have none")]
pub struct Network {
    options: HttpOptions,
    registries: RegistriesConfig,
    http: SafeHttp,
    tags: Arc<dyn Tags>,
}

impl Network {
    /// HTTP as `options` have it, also to private addresses of the hosts that `registries` lists with `allowPrivate`;
    /// repositories through `tags`.
    pub fn new(
        options: HttpOptions,
        registries: RegistriesConfig,
        tags: Arc<dyn Tags>,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            http: SafeHttp::new(&options)?.listed_in(&registries),
            options,
            registries,
            tags,
        })
    }

    /// The same, trusting these certificates too.
    fn trusting(&self, pem: &str) -> Result<SafeHttp, ConfigError> {
        Ok(SafeHttp::trusting(&self.options, pem.as_bytes())?.listed_in(&self.registries))
    }
}

#[async_trait]
impl Fetch for Network {
    async fn fetch(&self, ask: &Ask) -> Result<Fetched, Failure> {
        let Source {
            name: _,
            config_map: _,
            workloads: _,
            http,
            app_registry,
            registry_tags,
        } = &ask.source;
        if let Some(source) = http {
            http::fetch(self, source, ask).await
        } else if let Some(source) = app_registry {
            app_registry::fetch(&self.http, source).await
        } else if let Some(source) = registry_tags {
            let found = tags::fetch(&*self.tags, source, &ask.keyring).await?;
            Ok(Fetched::Found {
                found,
                etag: None,
                retry_after: None,
            })
        } else {
            let words = "a source of this kind is followed, not asked";
            Err(SourceError::new(SourceReason::Malformed, words).into())
        }
    }
}

/// What is remembered of what a source said.
pub(super) fn answer(fetched: Fetched) -> Answer {
    match fetched {
        Fetched::Unchanged => Answer::Unchanged,
        Fetched::Found {
            found,
            etag,
            retry_after,
        } => Answer::Read {
            images: found.images.iter().map(|i| i.image.clone()).collect(),
            incomplete: found.errors.iter().any(|e| e.reason.may_pass())
                || found.apps.values().any(Option::is_none),
            apps: Some(found.apps).filter(|_| !of_all(&found.errors)),
            flaw: flaw(&found.errors),
            etag,
            retry_after,
        },
    }
}

/// Whether something that may pass is wrong with more than single apps: it is found first. The last may be about no app
/// because it stands for many.
fn of_all(errors: &[SourceError]) -> bool {
    let first = errors.first();
    first.is_some_and(|e| e.app.is_none() && e.reason.may_pass())
}

/// What is wrong beside the images, in one problem.
pub(super) fn flaw(errors: &[SourceError]) -> Option<Problem> {
    let first = errors.first()?;
    let named = errors.iter().take(NAMED).map(ToString::to_string);
    let more = (errors.len() > NAMED).then(|| format!("and {} more", errors.len() - NAMED));
    Some(Problem {
        reason: word(first.reason),
        message: named.chain(more).collect::<Vec<_>>().join("; "),
    })
}

/// Why nothing was learned.
pub(super) fn problem(error: &SourceError) -> Problem {
    Problem {
        reason: word(error.reason),
        message: error.to_string(),
    }
}

fn word(reason: SourceReason) -> String {
    match reason {
        SourceReason::Unreachable => reason::UNREACHABLE.into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use larder_registry::sources::SourceImage;

    use super::*;

    fn found(errors: Vec<SourceError>) -> Fetched {
        let image = SourceImage {
            image: "nginx:1".into(),
            app: None,
            service: None,
        };
        Fetched::Found {
            found: Found {
                images: vec![image],
                errors,
                ..Found::default()
            },
            etag: Some("v".into()),
            retry_after: None,
        }
    }

    #[test]
    fn what_hides_images_is_known_by_app_unless_it_concerns_all() {
        let apps = |errors: Vec<SourceError>| {
            let mut fetched = found(errors);
            if let Fetched::Found { found, .. } = &mut fetched {
                found.apps = [("calc".to_owned(), None)].into();
            }
            match answer(fetched) {
                Answer::Read { incomplete, apps, .. } => (incomplete, apps.is_some()),
                other => panic!("{other:?}"),
            }
        };
        let down = SourceError::of_app("calc", SourceReason::Unreachable, "503");
        let defaults = SourceError::new(SourceReason::Timeout, "app-defaults.yaml");
        let broken = SourceError::of_app("plot", SourceReason::NotFound, "404");
        let further = SourceError::new(SourceReason::Unreachable, "and 60 further errors");
        assert_eq!(apps(vec![broken]), (true, true), "it need not be named");
        assert_eq!(apps(vec![down.clone(), further]), (true, true));
        assert_eq!(
            apps(vec![defaults, down]),
            (true, false),
            "they may change any app"
        );
    }

    #[test]
    fn broken_apps_are_named_and_hide_images_only_while_they_may_come_back() {
        let broken = SourceError::of_app("calc", SourceReason::BrokenTemplate, "line 3");
        let down = SourceError::of_app("plot", SourceReason::Unreachable, "503");
        for (errors, hides, reason) in [
            (vec![], false, None),
            (vec![broken.clone()], false, Some("BrokenTemplate")),
            (vec![broken.clone(), down.clone()], true, Some("BrokenTemplate")),
            (vec![down; 5], true, Some("Unreachable")),
        ] {
            let Answer::Read {
                images,
                flaw,
                incomplete,
                etag,
                ..
            } = answer(found(errors.clone()))
            else {
                panic!("it was read")
            };
            assert_eq!((images, etag), (vec!["nginx:1".to_owned()], Some("v".to_owned())));
            assert_eq!(incomplete, hides, "{errors:?}");
            assert_eq!(flaw.as_ref().map(|f| f.reason.as_str()), reason);
            if errors.len() == 5 {
                assert!(flaw.unwrap().message.ends_with("; and 2 more"));
            }
        }
    }
}
