//! Tags of a repository: which of them are chosen.
//!
//! By a semver requirement (`>=1.2, <2`, `^1.27`, `~1.27.0`, `*`), or by a regular expression; of those that fit, the
//! newest. Tags that are no versions do not fit a requirement: a version has two or three numbers (`1.27`, `v1.27.3`),
//! the third counts as 0 where it is missing. Pre-releases (`1.28.0-rc.1`, but also `1.27.3-alpine`) fit only a
//! requirement that names one of the same version, as in Cargo; a regular expression is for variants.

use std::cmp::Ordering;

use regex::{Regex, RegexBuilder};
use semver::{Version, VersionReq};
use serde::Deserialize;

use super::{MAX_IMAGES, SourceError, SourceReason, check_size};

/// Tags of one repository that are looked at, over all pages.
pub const MAX_TAGS: usize = 20_000;
/// Pages of a list of tags.
pub const MAX_PAGES: usize = 40;
/// Longest expression or requirement, in bytes; the schema of `ImageCache` has the same.
pub const MAX_FILTER_LEN: usize = 200;

/// Which tags, and how many of them.
#[derive(Clone, Debug)]
pub struct TagFilter {
    rule: Rule,
    newest: usize,
}

#[derive(Clone, Debug)]
enum Rule {
    Semver(VersionReq),
    Regex(Regex),
}

impl TagFilter {
    /// The `newest` versions that fit a requirement, 1 to 500.
    pub fn semver(requirement: &str, newest: usize) -> Result<Self, SourceError> {
        check_length(requirement)?;
        let requirement = VersionReq::parse(requirement)
            .map_err(|error| invalid(format!("semver {requirement:?}: {error}")))?;
        Self::new(Rule::Semver(requirement), newest)
    }

    /// The `newest` tags in which a regular expression finds a match, 1 to 500.
    ///
    /// It is not anchored: `^1\.` and `-alpine$` are. Tags are compared by its first group where it has one, else whole:
    /// numbers in them by value, the rest as text.
    pub fn regex(expression: &str, newest: usize) -> Result<Self, SourceError> {
        check_length(expression)?;
        let regex = RegexBuilder::new(expression)
            .size_limit(1 << 20)
            .dfa_size_limit(1 << 20)
            .nest_limit(20)
            .build()
            .map_err(|error| {
                let text = error.to_string();
                // The last line says what; those before draw where.
                invalid(format!(
                    "regex {expression:?}: {}",
                    text.lines().last().unwrap_or_default()
                ))
            })?;
        Self::new(Rule::Regex(regex), newest)
    }

    fn new(rule: Rule, newest: usize) -> Result<Self, SourceError> {
        if (1..=MAX_IMAGES).contains(&newest) {
            Ok(Self { rule, newest })
        } else {
            Err(invalid(format!("newest must be between 1 and {MAX_IMAGES}")))
        }
    }

    /// The tags that are chosen, the newest first. The order of the list does not matter.
    pub fn choose<'a>(&self, tags: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        match &self.rule {
            Rule::Semver(requirement) => {
                let mut versions: Vec<(Version, usize, &str)> = tags
                    .into_iter()
                    .filter_map(|tag| version(tag).map(|(version, parts)| (version, parts, tag)))
                    .filter(|(version, ..)| requirement.matches(version))
                    .collect();
                // Of several spellings of a version the fullest, then the shortest: 1.27.0 before v1.27.0 before 1.27.
                versions.sort_by(|(a, a_parts, a_tag), (b, b_parts, b_tag)| {
                    b.cmp_precedence(a)
                        .then(b_parts.cmp(a_parts))
                        .then(a_tag.len().cmp(&b_tag.len()))
                        .then(a_tag.cmp(b_tag))
                });
                versions.dedup_by(|(a, ..), (b, ..)| a.cmp_precedence(b) == Ordering::Equal);
                versions
                    .into_iter()
                    .map(|(.., tag)| tag)
                    .take(self.newest)
                    .collect()
            }
            Rule::Regex(regex) => {
                let mut fitting: Vec<(&str, &str)> = tags
                    .into_iter()
                    .filter_map(|tag| {
                        let found = regex.captures(tag)?;
                        Some((found.get(1).map_or(tag, |group| group.as_str()), tag))
                    })
                    .collect();
                fitting.sort_by(|(a_key, a), (b_key, b)| natural(b_key, a_key).then_with(|| natural(b, a)));
                fitting.dedup();
                fitting
                    .into_iter()
                    .map(|(_, tag)| tag)
                    .take(self.newest)
                    .collect()
            }
        }
    }
}

fn invalid(message: String) -> SourceError {
    SourceError::new(SourceReason::InvalidFilter, message)
}

fn check_length(text: &str) -> Result<(), SourceError> {
    if text.is_empty() || text.len() > MAX_FILTER_LEN {
        return Err(invalid(format!(
            "semver or regex must have 1 to {MAX_FILTER_LEN} characters"
        )));
    }
    Ok(())
}

/// A tag as a version, and how many numbers it has.
fn version(tag: &str) -> Option<(Version, usize)> {
    let bare = tag.strip_prefix('v').unwrap_or(tag);
    if let Ok(version) = Version::parse(bare) {
        return Some((version, 3));
    }
    let (numbers, rest) = bare.split_at(bare.find('-').unwrap_or(bare.len()));
    if numbers.split('.').count() != 2 {
        return None;
    }
    Version::parse(&format!("{numbers}.0{rest}"))
        .ok()
        .map(|version| (version, 2))
}

/// Runs of digits by their value, all else as text: `1.9` before `1.10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (a_run, a_rest) = run(a);
        let (b_run, b_rest) = run(b);
        let digits = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        let order = if digits(a_run) && digits(b_run) {
            let (a_number, b_number) = (a_run.trim_start_matches('0'), b_run.trim_start_matches('0'));
            a_number
                .len()
                .cmp(&b_number.len())
                .then_with(|| a_number.cmp(b_number))
                .then_with(|| b_run.len().cmp(&a_run.len()))
        } else {
            a_run.cmp(b_run)
        };
        if order != Ordering::Equal || a.is_empty() {
            return order;
        }
        (a, b) = (a_rest, b_rest);
    }
}

/// The digits, or the other characters, at the beginning, and what follows.
fn run(text: &str) -> (&str, &str) {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text.find(|c: char| c.is_ascii_digit() != digits);
    text.split_at(end.unwrap_or(text.len()))
}

/// Gathers the pages of `GET /v2/<repository>/tags/list`.
#[derive(Clone, Debug, Default)]
pub struct TagList {
    tags: Vec<String>,
    pages: usize,
}

#[derive(Deserialize)]
struct Page {
    /// Null for a repository without tags.
    tags: Option<Vec<String>>,
}

impl TagList {
    /// Takes a page: its body, and the `Link` header if there is one. Gives the address of the next page, as the registry
    /// wrote it (absolute or relative; whoever asks must stay on the registry's host), or None at the end.
    pub fn take(&mut self, body: &[u8], link: Option<&str>) -> Result<Option<String>, SourceError> {
        check_size(body.len())?;
        let page: Page = serde_json::from_slice(body).map_err(|error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            SourceError::new(SourceReason::Malformed, format!("not a list of tags: {place}"))
        })?;
        self.pages += 1;
        // What could not be in a reference is no tag.
        let is_tag = |tag: &String| {
            let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
            (1..=128).contains(&tag.len())
                && tag.bytes().next().is_some_and(word)
                && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
        };
        self.tags
            .extend(page.tags.unwrap_or_default().into_iter().filter(is_tag));
        let next = link.and_then(next_page);
        if self.tags.len() > MAX_TAGS || (next.is_some() && self.pages >= MAX_PAGES) {
            return Err(SourceError::new(
                SourceReason::TooLarge,
                format!("the repository has more than {MAX_TAGS} tags or {MAX_PAGES} pages of them"),
            ));
        }
        Ok(next)
    }

    /// The tags so far.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.tags.iter().map(String::as_str)
    }
}

/// The target of `rel="next"` in a `Link` header (RFC 8288), of at most 2,000 bytes.
fn next_page(link: &str) -> Option<String> {
    let mut rest = link;
    while let Some((_, after)) = rest.split_once('<') {
        let (target, after) = after.split_once('>')?;
        let parameters = &after[..after.find('<').unwrap_or(after.len())];
        let is_next = parameters.split([';', ',']).any(|parameter| {
            let parameter: String = parameter
                .chars()
                .filter(|c| !c.is_whitespace() && *c != '"')
                .collect();
            parameter.eq_ignore_ascii_case("rel=next")
        });
        if is_next && !target.is_empty() && target.len() <= 2000 {
            return Some(target.to_owned());
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests;
