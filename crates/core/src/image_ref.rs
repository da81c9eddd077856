//! An image reference: parsed once, normalised, with the user's spelling kept.
//!
//! The grammar is that of <https://github.com/distribution/reference>, as containerd and the kubelet apply it, so what is
//! accepted here can be pulled there. Only sha256 digests are accepted, as in the schema of `ImageCache`.

use std::{cmp::Ordering, fmt, hash, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest reference accepted, in bytes.
pub const MAX_REFERENCE_LEN: usize = 500;
/// Longest repository, in bytes, registry host not counted (`RepositoryNameTotalLengthMax` of distribution/reference).
const MAX_REPOSITORY_LEN: usize = 255;
const MAX_TAG_LEN: usize = 128;
const DOCKER_HUB: &str = "docker.io";

/// A valid image reference. Two spellings of one image are equal, and sort and hash as one.
#[derive(Clone)]
pub struct ImageRef {
    written: String,
    /// `host/repository[:tag][@digest]`, where at least one of tag and digest is present.
    normalized: String,
    host_len: usize,
    name_len: usize,
    tag_len: usize,
}

/// Why a text is not an image reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageRefError {
    /// Nothing there.
    #[error("the image reference is empty")]
    Empty,
    /// Longer than [`MAX_REFERENCE_LEN`].
    #[error("the image reference has {len} characters, {MAX_REFERENCE_LEN} are allowed")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A space, a control character or one outside of ASCII.
    #[error("character {character:?} at position {position} is not allowed in an image reference")]
    Character {
        /// The character.
        character: char,
        /// Counted in characters from 1.
        position: usize,
    },
    /// Starts like a URL.
    #[error("an image reference has no scheme: leave out {scheme:?}")]
    Scheme {
        /// As in `https://`.
        scheme: String,
    },
    /// The registry's host or port.
    #[error("{host:?} is not a registry host")]
    Host {
        /// What was found in its place.
        host: String,
    },
    /// Repositories are lower case.
    #[error("repository {repository:?} has upper-case letters, only lower case is allowed")]
    UpperCase {
        /// The repository.
        repository: String,
    },
    /// Longer than 255 characters.
    #[error("the repository has {len} characters, {MAX_REPOSITORY_LEN} are allowed")]
    RepositoryTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// One part of the path is malformed.
    #[error(
        "repository {repository:?} is malformed at {component:?}: parts are letters and digits, joined by one of . _ __ or dashes"
    )]
    Repository {
        /// The repository.
        repository: String,
        /// Its first bad part, between slashes.
        component: String,
    },
    /// 64 hexadecimal digits alone are an image's id.
    #[error("64 hexadecimal digits are an image id, not a repository")]
    ImageId,
    /// The part after the colon.
    #[error(
        "tag {tag:?} is malformed: 1 to {MAX_TAG_LEN} letters, digits, _ . or -, not starting with . or -"
    )]
    Tag {
        /// The tag.
        tag: String,
    },
    /// The part after the at sign.
    #[error("digest {digest:?} is malformed: sha256: and 64 lower-case hexadecimal digits are expected")]
    Digest {
        /// The digest.
        digest: String,
    },
}

impl ImageRef {
    /// Parses and normalises `text`: Docker Hub and its `library/` are filled in, and the tag `latest` where there is
    /// neither tag nor digest.
    pub fn parse(text: &str) -> Result<Self, ImageRefError> {
        check_characters(text)?;
        if text.len() == 64 && text.bytes().all(is_lower_hex) {
            return Err(ImageRefError::ImageId);
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let last_part = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[last_part..].find(':') {
            Some(colon) => (&rest[..last_part + colon], Some(&rest[last_part + colon + 1..])),
            None => (rest, None),
        };
        if let Some(end) = rest.find("://") {
            return Err(ImageRefError::Scheme {
                scheme: rest[..end + 3].to_owned(),
            });
        }
        let (host, repository) = split_host(name);
        if !is_host(host) {
            return Err(ImageRefError::Host {
                host: host.to_owned(),
            });
        }
        let library = host == DOCKER_HUB && !repository.contains('/');
        let repository = if library {
            format!("library/{repository}")
        } else {
            repository.to_owned()
        };
        check_repository(&repository, library)?;
        if let Some(digest) = digest
            && !is_digest(digest)
        {
            return Err(ImageRefError::Digest {
                digest: digest.to_owned(),
            });
        }
        let tag = match (tag, digest) {
            (Some(tag), _) if is_tag(tag) => tag,
            (Some(tag), _) => return Err(ImageRefError::Tag { tag: tag.to_owned() }),
            (None, None) => "latest",
            (None, Some(_)) => "",
        };

        let mut normalized = format!("{host}/{repository}");
        let name_len = normalized.len();
        if !tag.is_empty() {
            normalized.push(':');
            normalized.push_str(tag);
        }
        if let Some(digest) = digest {
            normalized.push('@');
            normalized.push_str(digest);
        }
        Ok(Self {
            written: text.to_owned(),
            host_len: host.len(),
            name_len,
            tag_len: tag.len(),
            normalized,
        })
    }

    /// As the user spelt it.
    pub fn as_written(&self) -> &str {
        &self.written
    }

    /// The identity: `docker.io/library/nginx:1.27`. It parses to itself.
    pub fn normalized(&self) -> &str {
        &self.normalized
    }

    /// The registry as references name it, with its port: `docker.io`, `10.77.0.3:5000`.
    pub fn registry_host(&self) -> &str {
        &self.normalized[..self.host_len]
    }

    /// Where the registry's API is served: Docker Hub's is not at `docker.io`.
    pub fn api_host(&self) -> &str {
        match self.registry_host() {
            DOCKER_HUB => "registry-1.docker.io",
            host => host,
        }
    }

    /// The path within the registry: `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.normalized[self.host_len + 1..self.name_len]
    }

    /// Host and repository, without tag and digest: `docker.io/library/nginx`.
    pub fn name(&self) -> &str {
        &self.normalized[..self.name_len]
    }

    /// The tag; absent where only a digest was given.
    pub fn tag(&self) -> Option<&str> {
        let start = self.name_len + 1;
        (self.tag_len > 0).then(|| &self.normalized[start..start + self.tag_len])
    }

    /// The digest, if one was given: `sha256:…`.
    pub fn digest(&self) -> Option<&str> {
        // No other part holds an at sign.
        self.normalized.split_once('@').map(|(_, digest)| digest)
    }
}

fn check_characters(text: &str) -> Result<(), ImageRefError> {
    if text.is_empty() {
        return Err(ImageRefError::Empty);
    }
    if text.len() > MAX_REFERENCE_LEN {
        return Err(ImageRefError::TooLong { len: text.len() });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:@[]".contains(c);
    match text.chars().enumerate().find(|(_, c)| !allowed(*c)) {
        Some((at, character)) => Err(ImageRefError::Character {
            character,
            position: at + 1,
        }),
        None => Ok(()),
    }
}

/// Splits off the registry's host: the part before the first slash, if it looks like one.
fn split_host(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some(("index.docker.io", repository)) => (DOCKER_HUB, repository),
        Some((host, repository))
            if host == "localhost"
                || host.contains(['.', ':'])
                || host.contains(|c: char| c.is_ascii_uppercase()) =>
        {
            (host, repository)
        }
        _ => (DOCKER_HUB, name),
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        if address.is_empty() || !address.bytes().all(|b| b == b':' || b.is_ascii_hexdigit()) {
            return false;
        }
        (
            "",
            port.strip_prefix(':')
                .or(if port.is_empty() { None } else { Some("") }),
        )
    } else {
        match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        }
    };
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|b| b == b'-' || b.is_ascii_alphanumeric())
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok())
        && (host.starts_with('[') || name.split('.').all(label))
}

/// `filled_in` says that `library/` was put before what the user wrote, which the message then leaves out.
fn check_repository(repository: &str, filled_in: bool) -> Result<(), ImageRefError> {
    let shown = if filled_in {
        repository.trim_start_matches("library/")
    } else {
        repository
    };
    if repository.len() > MAX_REPOSITORY_LEN {
        return Err(ImageRefError::RepositoryTooLong {
            len: repository.len(),
        });
    }
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(ImageRefError::UpperCase {
            repository: shown.to_owned(),
        });
    }
    match repository.split('/').find(|component| !is_component(component)) {
        Some(component) => Err(ImageRefError::Repository {
            repository: shown.to_owned(),
            component: component.to_owned(),
        }),
        None => Ok(()),
    }
}

/// Lower-case letters and digits, joined by `.`, `_`, `__` or any number of `-`.
fn is_component(component: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    if !bytes.first().is_some_and(|b| plain(*b)) || !bytes.last().is_some_and(|b| plain(*b)) {
        return false;
    }
    component
        .split(|c: char| plain(u8::try_from(c).unwrap_or_default()))
        .all(|joint| matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b == b'_' || b.is_ascii_alphanumeric();
    tag.len() <= MAX_TAG_LEN
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// Whether `text` is `sha256:` and 64 lower-case hexadecimal digits.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(is_lower_hex))
}

fn is_lower_hex(b: u8) -> bool {
    b.is_ascii_digit() || (b'a'..=b'f').contains(&b)
}

impl FromStr for ImageRef {
    type Err = ImageRefError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl fmt::Debug for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImageRef({})", self.normalized)
    }
}

impl PartialEq for ImageRef {
    fn eq(&self, other: &Self) -> bool {
        self.normalized == other.normalized
    }
}

impl Eq for ImageRef {}

impl PartialOrd for ImageRef {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ImageRef {
    fn cmp(&self, other: &Self) -> Ordering {
        self.normalized.cmp(&other.normalized)
    }
}

impl hash::Hash for ImageRef {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.normalized.hash(state);
    }
}

impl Serialize for ImageRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.written)
    }
}

impl<'de> Deserialize<'de> for ImageRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod schema_tests;
#[cfg(test)]
mod tests;
