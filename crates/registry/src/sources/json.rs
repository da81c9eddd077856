//! Images in a JSON document, found by a path.
//!
//! The path is what `kubectl get -o jsonpath=` takes for plain lookups, in braces or not, with or without `$`:
//!
//! | step | means |
//! |---|---|
//! | `.name`, `['any name']`, `["any name"]` | the value of a key |
//! | `[3]`, `[-1]` | an item of a list, counted from 0, or from the end |
//! | `[*]`, `.*` | all items of a list, all values of an object |
//!
//! `{.items[*].spec.image}`, `$.a.b[*]`, `[*]`. There are no filters, slices, unions, ranges or recursive descent, so a
//! path takes time in proportion to the document. What lacks a step behind a `[*]` is passed over; a path that leads
//! nowhere although nothing was a choice is an error.
//!
//! Bounded: bytes, and the memory that a document takes once it is read, which may be a hundred times its bytes.

use serde_json::Value;

use super::{Collector, Found, SourceError, SourceReason, check_size};

/// Longest path, in bytes; the schema of `ImageCache` has the same.
pub const MAX_PATH_LEN: usize = 500;
/// Values that a path may lead to.
const MAX_VALUES: usize = 5000;
/// Bytes of memory that a document may take once it is read. A list of images takes two to ten times its own bytes.
const MAX_MEMORY: usize = 64 * 1024 * 1024;

/// A parsed path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(i64),
    All,
}

impl JsonPath {
    /// Parses a path; the error says what is wrong at which character.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let wrong = |problem: String| {
            let shown: String = text.chars().take(100).collect();
            SourceError::new(
                SourceReason::InvalidPath,
                format!("jsonPath {shown:?}: {problem}"),
            )
        };
        if text.len() > MAX_PATH_LEN {
            return Err(wrong(format!(
                "{} characters, at most {MAX_PATH_LEN} are allowed",
                text.len()
            )));
        }
        let mut rest = text.trim();
        if let Some(inner) = rest.strip_prefix('{') {
            rest = inner
                .strip_suffix('}')
                .ok_or_else(|| wrong("the brace is not closed".into()))?
                .trim();
        }
        rest = rest.strip_prefix('$').unwrap_or(rest);
        if rest.is_empty() {
            return Err(wrong("it names nothing".into()));
        }
        // kubectl takes a name at the beginning without its dot.
        let dotted = !rest.starts_with(['.', '[']);
        let mut steps = Vec::new();
        let prefixed;
        if dotted {
            prefixed = format!(".{rest}");
            rest = &prefixed;
        }
        while !rest.is_empty() {
            let (step, after) =
                next_step(rest).map_err(|problem| wrong(format!("at {rest:?}: {problem}")))?;
            steps.push(step);
            rest = after;
        }
        Ok(Self { steps })
    }

    /// What the path leads to, in the document's order.
    fn find<'a>(&self, document: &'a Value) -> Result<Vec<&'a Value>, SourceError> {
        let mut values = vec![document];
        let mut chosen = false;
        for step in &self.steps {
            let mut next = Vec::new();
            for value in &values {
                step.follow(value, &mut next);
                if next.len() > MAX_VALUES {
                    return Err(SourceError::new(
                        SourceReason::TooLarge,
                        format!("jsonPath leads to more than {MAX_VALUES} values"),
                    ));
                }
            }
            let has_items = *step == Step::All && values.iter().any(|v| v.is_array() || v.is_object());
            if next.is_empty() && !chosen && !has_items {
                return Err(SourceError::new(
                    SourceReason::InvalidPath,
                    format!("jsonPath: the document has nothing at {step}"),
                ));
            }
            chosen |= *step == Step::All;
            values = next;
        }
        Ok(values)
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(key) => write!(f, "[{key:?}]"),
            Self::Index(index) => write!(f, "[{index}]"),
            Self::All => f.write_str("[*]"),
        }
    }
}

impl Step {
    fn follow<'a>(&self, value: &'a Value, found: &mut Vec<&'a Value>) {
        match (self, value) {
            (Self::Key(key), Value::Object(map)) => found.extend(map.get(key)),
            (Self::Index(index), Value::Array(items)) => {
                let at = if *index < 0 {
                    items.len().checked_sub(index.unsigned_abs() as usize)
                } else {
                    Some(*index as usize)
                };
                found.extend(at.and_then(|at| items.get(at)));
            }
            // One more than is allowed is enough to see that it is too much.
            (Self::All, Value::Array(items)) => found.extend(items.iter().take(MAX_VALUES + 1)),
            (Self::All, Value::Object(map)) => found.extend(map.values().take(MAX_VALUES + 1)),
            _ => {}
        }
    }
}

/// One step from the beginning of `text`, and what follows it.
fn next_step(text: &str) -> Result<(Step, &str), String> {
    if let Some(rest) = text.strip_prefix('.') {
        if rest.starts_with('.') {
            return Err("recursive descent is not supported".into());
        }
        if rest.starts_with('[') {
            return next_step(rest);
        }
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        return match name {
            "*" => Ok((Step::All, after)),
            "" => Err("a name is expected".into()),
            name if name.contains(|c: char| c.is_whitespace() || "{}()?@,*$'\"]".contains(c)) => Err(
                "only names, indexes and [*] are supported; names with other characters go in ['…']".into(),
            ),
            name => Ok((Step::Key(name.to_owned()), after)),
        };
    }
    let Some(rest) = text.strip_prefix('[') else {
        return Err("a dot or a bracket is expected".into());
    };
    for quote in ['\'', '"'] {
        if let Some(quoted) = rest.strip_prefix(quote) {
            let (name, after) = quoted
                .split_once(quote)
                .ok_or_else(|| "the quote is not closed".to_owned())?;
            let after = after
                .strip_prefix(']')
                .ok_or_else(|| "a bracket is expected after the quote".to_owned())?;
            return Ok((Step::Key(name.to_owned()), after));
        }
    }
    let (inside, after) = rest
        .split_once(']')
        .ok_or_else(|| "the bracket is not closed".to_owned())?;
    match inside.trim() {
        "*" => Ok((Step::All, after)),
        number => {
            let index = number
                .parse()
                .map_err(|_| "only [*], an index or a quoted name is supported in brackets".to_owned())?;
            Ok((Step::Index(index), after))
        }
    }
}

/// Reads a document. Each value that the path leads to is a reference; what is no text is an error by its place among them.
pub fn parse(bytes: &[u8], path: &JsonPath) -> Result<Found, SourceError> {
    check_size(bytes.len())?;
    if memory(bytes) > MAX_MEMORY {
        let message = "too many objects, lists and values";
        return Err(SourceError::new(SourceReason::TooLarge, message));
    }
    let document: Value = serde_json::from_slice(bytes).map_err(|error| {
        // Its own words may quote the document.
        let place = format!("not JSON: line {}, column {}", error.line(), error.column());
        SourceError::new(SourceReason::Malformed, place)
    })?;
    let mut collector = Collector::default();
    for (at, value) in path.find(&document)?.into_iter().enumerate() {
        let place = format!("value {}", at + 1);
        match value {
            Value::String(image) => collector.add_listed(image.trim(), &place),
            other => {
                let kind = match other {
                    Value::Null => "null",
                    Value::Bool(_) => "true or false",
                    Value::Number(_) => "a number",
                    Value::Array(_) => "a list; its items are at [*]",
                    _ => "an object",
                };
                let message = format!("{place}: a text is expected, this is {kind}");
                collector.error(SourceError::new(SourceReason::Malformed, message));
            }
        }
    }
    collector.finish()
}

/// At most how many bytes the document takes as a [`Value`]. The first entry of an object makes room for eleven, that of a
/// list for four; lists double when they are full. What is in texts counts too.
fn memory(bytes: &[u8]) -> usize {
    let of = |byte: &u8| match byte {
        b'{' => 700,
        b'[' => 128,
        b',' => 192,
        _ => 1,
    };
    bytes.iter().map(of).sum()
}

#[cfg(test)]
mod tests;
