//! Globs that keep images of sources out of a cache.
//!
//! A glob is held against the whole normalised reference (`docker.io/library/nginx:1.27`): `*` stands for any run of
//! characters, slashes and the empty run included, so that `docker.io/library/*` means everything below a path and
//! `*:debug` a tag of whatever repository. Nothing else is special. Of a reference with tag and digest, the part before
//! the digest is tried too: `*:debug` fits `x:debug@sha256:…`.

use crate::image_ref::{ImageRef, MAX_REFERENCE_LEN};

/// Several globs; an image that one of them fits is excluded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exclude {
    globs: Vec<Glob>,
}

/// One glob, cut at its stars.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Glob {
    /// Where the text must begin; all of it if there is no star.
    first: String,
    /// What must follow somewhere, in this order.
    between: Vec<String>,
    /// Where it must end; None without a star.
    last: Option<String>,
}

/// Why a text is not a glob over references.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// Nothing there.
    #[error("a pattern of exclude is empty")]
    Empty,
    /// Longer than a reference can be.
    #[error("a pattern of exclude has {len} characters, {MAX_REFERENCE_LEN} are allowed")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A character that no reference has: the pattern could never fit.
    #[error(
        "pattern {pattern:?} of exclude: no image reference has the character {character:?}; * stands for any run of characters"
    )]
    Character {
        /// The pattern.
        pattern: String,
        /// The first such character.
        character: char,
    },
}

impl Exclude {
    /// Parses the globs; the first bad one is the error.
    pub fn parse<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, GlobError> {
        let globs = patterns.into_iter().map(Glob::parse).collect::<Result<_, _>>()?;
        Ok(Self { globs })
    }

    /// Whether one of the globs fits. Takes time in proportion to the length of globs and reference.
    pub fn fits(&self, image: &ImageRef) -> bool {
        let whole = image.normalized();
        let tagged = match (image.tag(), whole.split_once('@')) {
            (Some(_), Some((tagged, _))) => tagged,
            _ => whole,
        };
        self.globs
            .iter()
            .any(|glob| glob.fits(whole) || (tagged.len() < whole.len() && glob.fits(tagged)))
    }
}

impl Glob {
    fn parse(pattern: &str) -> Result<Self, GlobError> {
        if pattern.is_empty() {
            return Err(GlobError::Empty);
        }
        if pattern.len() > MAX_REFERENCE_LEN {
            return Err(GlobError::TooLong { len: pattern.len() });
        }
        let known = |c: char| c.is_ascii_alphanumeric() || "._-/:@[]*".contains(c);
        if let Some(character) = pattern.chars().find(|c| !known(*c)) {
            return Err(GlobError::Character {
                pattern: pattern.to_owned(),
                character,
            });
        }
        let mut parts = pattern.split('*').map(str::to_owned);
        let first = parts.next().unwrap_or_default();
        let mut between: Vec<String> = parts.collect();
        let last = between.pop();
        between.retain(|part| !part.is_empty());
        Ok(Self { first, between, last })
    }

    fn fits(&self, text: &str) -> bool {
        let Some(last) = &self.last else {
            return text == self.first;
        };
        let Some(mut rest) = text.strip_prefix(self.first.as_str()) else {
            return false;
        };
        // The leftmost place leaves the most to what follows, so nothing is ever tried twice.
        for part in &self.between {
            match rest.find(part.as_str()) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

    fn excluded(pattern: &str, image: &str) -> bool {
        let image = ImageRef::parse(&image.replace("@D", &format!("@{DIGEST}"))).unwrap();
        Exclude::parse([pattern]).unwrap().fits(&image)
    }

    #[test]
    fn a_star_is_any_run_of_characters() {
        for (pattern, image) in [
            ("docker.io/library/*", "nginx"),
            ("docker.io/*", "acme/tool:1"),
            ("*:debug", "quay.io/a/b:debug"),
            ("*:debug", "quay.io/a/b:debug@D"),
            ("*@sha256:*", "quay.io/a/b:debug@D"),
            ("*", "nginx"),
            ("docker.io/library/nginx:latest", "nginx"),
            ("*/nginx:*-*", "nginx:1.27-alpine"),
            ("ghcr.io/*/model:*", "ghcr.io/a/b/model:1"),
            ("**:debug", "x:debug"),
        ] {
            assert!(excluded(pattern, image), "{pattern} {image}");
        }
        for (pattern, image) in [
            ("docker.io/library/*", "acme/tool"),
            ("*:debug", "quay.io/a/b:debug2"),
            ("*:debug", "quay.io/a/debug"),
            ("nginx", "nginx"),
            ("nginx*", "nginx"),
            ("docker.io/library/nginx", "nginx"),
            ("docker.io/library/nginx:latest*latest", "nginx"),
            ("*x*x*x:*", "quay.io/b/xx:1"),
        ] {
            assert!(!excluded(pattern, image), "{pattern} {image}");
        }
        assert!(!Exclude::default().fits(&ImageRef::parse("nginx").unwrap()));
    }

    #[test]
    fn what_could_never_fit_is_refused() {
        let refusal = |pattern: &str| Exclude::parse(["*", pattern]).map_err(|e| e.to_string());
        assert_eq!(refusal(""), Err("a pattern of exclude is empty".into()));
        assert_eq!(
            refusal("nginx:1.?"),
            Err(
                "pattern \"nginx:1.?\" of exclude: no image reference has the character '?'; * stands for any run of characters"
                    .into()
            )
        );
        assert!(refusal(&"*".repeat(501)).is_err());
    }

    /// The same by trying everything.
    fn slow(glob: &[u8], text: &[u8]) -> bool {
        match (glob.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', glob_rest)), _) => {
                slow(glob_rest, text) || text.split_first().is_some_and(|(_, rest)| slow(glob, rest))
            }
            (Some((g, glob)), Some((t, text))) => g == t && slow(glob, text),
            _ => false,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn fits_as_by_trying_everything(pattern in "[ab*]{1,8}", text in "[ab]{0,12}") {
            let glob = Glob::parse(&pattern).unwrap();
            prop_assert_eq!(glob.fits(&text), slow(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn arbitrary_patterns_never_panic(pattern in any::<String>()) {
            if let Ok(exclude) = Exclude::parse([pattern.as_str()]) {
                exclude.fits(&ImageRef::parse("nginx").unwrap());
            }
        }
    }
}
