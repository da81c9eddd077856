//! Where lists of images come from, read: each file is one kind of source.
//!
//! Everything here is pure but for [`app_registry`], which asks for its documents through a trait. Who fetches bytes, and
//! when, is the operator's. A source is written by others, so all of it is bounded: bytes, lines, images, messages.

mod apart;
pub mod app_registry;
pub mod json;
pub mod lines;
pub mod tags;
pub mod workloads;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use larder_core::image_ref::{ImageRef, ImageRefError};

pub use apart::apart;

/// Images that one source may have, as a whole cache.
pub const MAX_IMAGES: usize = 500;
/// Bytes of a document: what the operator's HTTP client accepts at most.
pub const MAX_DOCUMENT_BYTES: usize = 4 * 1024 * 1024;
/// Errors beside the images; the last one says how many more there were.
pub const MAX_ERRORS: usize = 50;
/// Characters of a message.
const MAX_MESSAGE_CHARS: usize = 300;

/// An image that a source names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceImage {
    /// The reference as the source spells it; it is known to parse.
    pub image: String,
    /// The app of an app registry that it is for.
    pub app: Option<String>,
    /// The service of that app.
    pub service: Option<String>,
}

/// Something that a source should have given and did not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", app.as_ref().map(|app| format!("{app}: ")).unwrap_or_default())]
pub struct SourceError {
    /// The app that it is about; None when it is about the source.
    pub app: Option<String>,
    /// One of a closed set.
    pub reason: SourceReason,
    /// In words, on one line, at most 300 characters. Nothing of a list's text; of an app registry names, and what should
    /// have been a reference.
    pub message: String,
}

/// Why. The words are stable: scripts may read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceReason {
    /// A document does not exist (404, 410).
    NotFound,
    /// Credentials are refused or missing (401, 403).
    Unauthorized,
    /// No connection, or an answer that is none (5xx).
    Unreachable,
    /// Asked to come back later (429).
    RateLimited,
    /// No answer in time.
    Timeout,
    /// The address must not be contacted.
    AddressRefused,
    /// More bytes, lines, images or work than is allowed.
    TooLarge,
    /// Not in the format that it should have.
    Malformed,
    /// The path of a JSON source leads nowhere, or is none.
    InvalidPath,
    /// A reference that cannot be parsed.
    InvalidReference,
    /// The app registry has no such brand.
    UnknownBrand,
    /// A context of the app registry extends one that does not exist, or itself.
    BrokenContext,
    /// A template that cannot be rendered.
    BrokenTemplate,
    /// A rule for choosing tags that is none.
    InvalidFilter,
}

impl SourceReason {
    /// Whether what it hides may be back without anybody's doing.
    pub fn may_pass(self) -> bool {
        matches!(self, Self::Unreachable | Self::RateLimited | Self::Timeout)
    }
}

impl fmt::Display for SourceReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The variant's name is the stable word.
        fmt::Debug::fmt(self, f)
    }
}

/// What a source gives: whatever can be had, and what could not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// In the source's order, each image once whatever its spelling, at most [`MAX_IMAGES`].
    pub images: Vec<SourceImage>,
    /// At most [`MAX_ERRORS`].
    pub errors: Vec<SourceError>,
    /// Of an app registry, the images of each app, normalised; None for one that could not be read and may be the next
    /// time.
    pub apps: BTreeMap<String, Option<BTreeSet<String>>>,
}

impl SourceError {
    /// About the source as a whole.
    pub fn new(reason: SourceReason, message: impl AsRef<str>) -> Self {
        Self {
            app: None,
            reason,
            message: one_line(message.as_ref()),
        }
    }

    /// About one app.
    pub fn of_app(app: &str, reason: SourceReason, message: impl AsRef<str>) -> Self {
        Self {
            app: Some(app.chars().take(100).collect()),
            ..Self::new(reason, message)
        }
    }
}

/// Without control characters, cut.
fn one_line(message: &str) -> String {
    let mut line: String = message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_MESSAGE_CHARS + 1)
        .collect();
    if let Some((at, _)) = line.char_indices().nth(MAX_MESSAGE_CHARS) {
        line.truncate(at);
        line.pop();
        line.push('…');
    }
    line
}

/// Gathers what a source gives within the bounds.
#[derive(Default)]
struct Collector {
    found: Found,
    known: BTreeSet<String>,
    /// Different images, also those that are too many.
    images: usize,
    /// Errors that were too many.
    omitted: usize,
}

impl Collector {
    /// Takes an image, unless it is known already.
    fn add(&mut self, image: &str, app: Option<&str>, service: Option<&str>) -> Result<(), ImageRefError> {
        let parsed = ImageRef::parse(image)?;
        if let Some(app) = app {
            let images = self.found.apps.entry(app.to_owned()).or_default();
            images
                .get_or_insert_default()
                .insert(parsed.normalized().to_owned());
        }
        if self.known.insert(parsed.normalized().to_owned()) {
            self.images += 1;
            if self.images <= MAX_IMAGES {
                self.found.images.push(SourceImage {
                    image: image.to_owned(),
                    app: app.map(str::to_owned),
                    service: service.map(str::to_owned),
                });
            }
        }
        Ok(())
    }

    /// Takes an item of a list, which is named by its `place` alone if it is no reference: a list may come from an address
    /// of which whoever reads the message is not to see a word.
    fn add_listed(&mut self, image: &str, place: &str) {
        if let Err(error) = self.add(image, None, None) {
            let message = format!("{place} is no image reference: {}", class(&error));
            self.error(SourceError::new(SourceReason::InvalidReference, message));
        }
    }

    fn error(&mut self, error: SourceError) {
        if self.found.errors.len() < MAX_ERRORS {
            self.found.errors.push(error);
        } else {
            self.omitted += 1;
        }
    }

    /// What was gathered; an error when it is more than a cache may have, since nobody could say which to leave out.
    fn finish(mut self) -> Result<Found, SourceError> {
        if self.images > MAX_IMAGES {
            return Err(SourceError::new(
                SourceReason::TooLarge,
                format!("{} images, at most {MAX_IMAGES} are allowed", self.images),
            ));
        }
        if self.omitted > 0 {
            let more = self.omitted + 1;
            if let Some(last) = self.found.errors.last_mut() {
                *last = SourceError::new(last.reason, format!("and {more} further errors"));
            }
        }
        Ok(self.found)
    }
}

/// What is wrong with a reference, without a word of it.
fn class(error: &ImageRefError) -> &'static str {
    match error {
        ImageRefError::Empty => "it is empty",
        ImageRefError::TooLong { .. } => "it is too long",
        ImageRefError::Character { .. } => "it has a character that is not allowed",
        ImageRefError::Scheme { .. } => "it has a scheme, as a URL",
        ImageRefError::Host { .. } => "its registry is no host",
        ImageRefError::UpperCase { .. } => "its repository has upper-case letters",
        ImageRefError::RepositoryTooLong { .. } => "its repository is too long",
        ImageRefError::Repository { .. } => "its repository is malformed",
        ImageRefError::ImageId => "it is the id of an image",
        ImageRefError::Tag { .. } => "its tag is malformed",
        ImageRefError::Digest { .. } => "its digest is malformed",
    }
}

/// Refuses what is longer than any document may be.
fn check_size(bytes: usize) -> Result<(), SourceError> {
    if bytes > MAX_DOCUMENT_BYTES {
        return Err(SourceError::new(
            SourceReason::TooLarge,
            format!("{bytes} bytes, at most {MAX_DOCUMENT_BYTES} are allowed"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
