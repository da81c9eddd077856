//! The newest tags of a repository.

use larder_api::image_source::RegistryTagsSource;
use larder_api::names::Reason;
use larder_core::image_ref::ImageRef;
use larder_core::message::redact;
use larder_registry::sources::tags::TagFilter;
use larder_registry::sources::{Found, SourceError, SourceImage, SourceReason};
use larder_registry::{Keyring, RegistryError, Tags};

use super::Failure;

pub(super) async fn fetch(
    registry: &dyn Tags,
    source: &RegistryTagsSource,
    keyring: &Keyring,
) -> Result<Found, Failure> {
    let newest = usize::try_from(source.newest).unwrap_or_default();
    let filter = match (&source.semver, &source.regex) {
        (Some(requirement), _) => TagFilter::semver(requirement, newest)?,
        (None, Some(expression)) => TagFilter::regex(expression, newest)?,
        (None, None) => {
            let words = "one of semver and regex is needed";
            return Err(SourceError::new(SourceReason::InvalidFilter, words).into());
        }
    };
    let written = source.repository.as_str();
    let repository = ImageRef::parse(written)
        .map_err(|e| SourceError::new(SourceReason::InvalidReference, format!("{written}: {e}")))?;
    let named_whole =
        written.contains('@') || written.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if named_whole {
        let words = format!("{written}: a repository is without tag and digest");
        return Err(SourceError::new(SourceReason::InvalidReference, words).into());
    }
    let tags = registry
        .tags(&repository, &keyring.credentials(&repository))
        .await
        .map_err(|error| failure(&error))?;
    let images = filter
        .choose(tags.iter().map(String::as_str))
        .into_iter()
        .map(|tag| SourceImage {
            image: format!("{written}:{tag}"),
            app: None,
            service: None,
        })
        .collect();
    Ok(Found {
        images,
        ..Found::default()
    })
}

/// A registry's words may be shown: it is asked as any registry of an image is.
fn failure(error: &RegistryError) -> Failure {
    let reason = match error.reason() {
        Reason::NotFound => SourceReason::NotFound,
        Reason::Unauthorized | Reason::CredentialsMissing => SourceReason::Unauthorized,
        Reason::RateLimited => SourceReason::RateLimited,
        Reason::InvalidReference => SourceReason::InvalidReference,
        _ => SourceReason::Unreachable,
    };
    Failure {
        error: SourceError::new(reason, redact(&error.to_string())),
        retry_after: error.retry_after(),
    }
}
