//! YAML as `PyYAML` reads it, on which the registries are tried: version 1.1, and lenient.
//!
//! - A key that comes twice in a map is no error: the last value wins, at the place of the first.
//! - Plain scalars are typed by the rules of YAML 1.1 (`yes` is true, `010` is 8, but `7e10` is a text).
//! - Anchors, aliases and merge keys work; in a list of merged maps the earlier wins.
//! - A tag of an application, a map as a key and a second document are errors.
//!
//! Bounded: depth, and nodes and bytes after aliases have been put in.

mod scalar;

use std::collections::BTreeMap;

use granit_parser::{Event, Parser, ScalarStyle, Tag};
use indexmap::IndexMap;

use super::{SourceError, SourceReason};

/// Maps and lists in one another.
const MAX_DEPTH: usize = 64;
/// Nodes of a document, those that aliases repeat included.
const MAX_NODES: usize = 200_000;
/// Bytes of its scalars, likewise.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// A document.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Yaml {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Yaml>),
    /// Keys that are no texts are written as Python prints them.
    Map(IndexMap<String, Yaml>),
}

impl Yaml {
    /// The value of a key; None where this is no map.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.as_map()?.get(key)
    }

    pub(super) fn as_map(&self) -> Option<&IndexMap<String, Self>> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A scalar as Python prints it.
    pub(super) fn scalar_text(&self) -> Option<String> {
        Some(match self {
            Self::Null => "None".to_owned(),
            Self::Bool(true) => "True".to_owned(),
            Self::Bool(false) => "False".to_owned(),
            Self::Int(number) => number.to_string(),
            Self::Float(number) if number.is_nan() => "nan".to_owned(),
            Self::Float(number) => format!("{number:?}"),
            Self::Text(text) => text.clone(),
            Self::List(_) | Self::Map(_) => return None,
        })
    }
}

/// Reads the one document of a text; nothing at all is null.
pub(super) fn parse(text: &str) -> Result<Yaml, SourceError> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            // Its own words may quote the text.
            let place = error.marker();
            let message = format!("not YAML: line {}, column {}", place.line(), place.col() + 1);
            SourceError::new(SourceReason::Malformed, message)
        })?;
        builder.take(event).map_err(|(reason, problem)| {
            SourceError::new(reason, format!("line {}: {problem}", span.start.line()))
        })?;
    }
    Ok(builder.document.map_or(Yaml::Null, |node| node.value))
}

type Problem = (SourceReason, &'static str);

const fn malformed<T>(problem: &'static str) -> Result<T, Problem> {
    Err((SourceReason::Malformed, problem))
}

const fn too_large<T>(problem: &'static str) -> Result<T, Problem> {
    Err((SourceReason::TooLarge, problem))
}

/// A value, and what it weighs.
#[derive(Clone)]
struct Node {
    value: Yaml,
    depth: usize,
    nodes: usize,
    bytes: usize,
}

/// A list or map that is not complete.
struct Open {
    anchor: usize,
    inside: Inside,
    /// Of what is inside.
    depth: usize,
    nodes: usize,
    bytes: usize,
}

enum Inside {
    List(Vec<Yaml>),
    Map {
        entries: IndexMap<String, Yaml>,
        /// Maps to merge: the later wins.
        merged: Vec<IndexMap<String, Yaml>>,
        key: Option<Key>,
    },
}

enum Key {
    Plain(String),
    Merge,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    document: Option<Node>,
    documents: usize,
    nodes: usize,
    bytes: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>) -> Result<(), Problem> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return malformed("a second document begins, one is expected");
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                if plain && text == "<<" && tag.is_none() && self.take_merge_key() {
                    return Ok(());
                }
                self.count(1, text.len())?;
                let node = Node {
                    value: typed(&text, plain, tag.as_deref())?,
                    depth: 0,
                    nodes: 1,
                    bytes: text.len(),
                };
                self.place(node, anchor)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.begin(anchor, tag.as_deref(), Inside::List(Vec::new()))?;
            }
            Event::MappingStart(_, anchor, tag) => {
                let inside = Inside::Map {
                    entries: IndexMap::new(),
                    merged: Vec::new(),
                    key: None,
                };
                self.begin(anchor, tag.as_deref(), inside)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end()?,
            Event::Alias(anchor) => {
                // Also the alias of a list or map that it is in: Python makes a loop of it, which nothing could print.
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return malformed("an alias stands for what it is in");
                };
                self.count(node.nodes, node.bytes)?;
                self.place(node, 0)?;
            }
            Event::UnresolvedAlias(_) => return malformed("an alias has no anchor"),
            _ => {}
        }
        Ok(())
    }

    /// Whether a plain `<<` stands where a key is expected.
    fn take_merge_key(&mut self) -> bool {
        if let Some(Open {
            inside: Inside::Map { key: key @ None, .. },
            ..
        }) = self.open.last_mut()
        {
            *key = Some(Key::Merge);
            return true;
        }
        false
    }

    fn count(&mut self, nodes: usize, bytes: usize) -> Result<(), Problem> {
        self.nodes = self.nodes.saturating_add(nodes);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.nodes > MAX_NODES || self.bytes > MAX_BYTES {
            return too_large("too much, with what aliases repeat");
        }
        Ok(())
    }

    fn begin(&mut self, anchor: usize, tag: Option<&Tag>, inside: Inside) -> Result<(), Problem> {
        if tag.is_some_and(|tag| !is_standard(tag)) {
            return malformed("a tag of an application is not allowed");
        }
        if self.open.len() >= MAX_DEPTH {
            return too_large("maps and lists are in one another too deeply");
        }
        self.count(1, 0)?;
        self.open.push(Open {
            anchor,
            inside,
            depth: 0,
            nodes: 1,
            bytes: 0,
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Problem> {
        let Some(open) = self.open.pop() else {
            return malformed("something ends that did not begin");
        };
        let value = match open.inside {
            Inside::List(items) => Yaml::List(items),
            Inside::Map { entries, merged, .. } if merged.is_empty() => Yaml::Map(entries),
            Inside::Map { entries, merged, .. } => {
                Yaml::Map(merged.into_iter().flatten().chain(entries).collect())
            }
        };
        let node = Node {
            value,
            depth: open.depth + 1,
            nodes: open.nodes,
            bytes: open.bytes,
        };
        self.place(node, open.anchor)
    }

    /// Puts a complete node where it belongs.
    fn place(&mut self, node: Node, anchor: usize) -> Result<(), Problem> {
        if self.open.len() + node.depth > MAX_DEPTH {
            return too_large("maps and lists are in one another too deeply");
        }
        if anchor != 0 {
            // The copy counts: anchors in anchors would be many copies.
            self.count(node.nodes, node.bytes)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            self.document = Some(node);
            return Ok(());
        };
        parent.depth = parent.depth.max(node.depth);
        parent.nodes += node.nodes;
        parent.bytes += node.bytes;
        match &mut parent.inside {
            Inside::List(items) => items.push(node.value),
            Inside::Map { entries, merged, key } => match key.take() {
                Some(Key::Plain(name)) => {
                    entries.insert(name, node.value);
                }
                Some(Key::Merge) => merge(merged, node.value)?,
                None => match node.value.scalar_text() {
                    Some(name) => *key = Some(Key::Plain(name)),
                    None => {
                        return malformed("a map or list is no key; a text that begins with {{ needs quotes");
                    }
                },
            },
        }
        Ok(())
    }
}

fn merge(merged: &mut Vec<IndexMap<String, Yaml>>, value: Yaml) -> Result<(), Problem> {
    match value {
        Yaml::Map(map) => merged.push(map),
        Yaml::List(items) => {
            for item in items.into_iter().rev() {
                match item {
                    Yaml::Map(map) => merged.push(map),
                    _ => return malformed("only maps can be merged by <<"),
                }
            }
        }
        _ => return malformed("only maps can be merged by <<"),
    }
    Ok(())
}

fn typed(text: &str, plain: bool, tag: Option<&Tag>) -> Result<Yaml, Problem> {
    match tag {
        None if plain => Ok(scalar::resolve(text)),
        Some(tag) if !is_standard(tag) => malformed("a tag of an application is not allowed"),
        Some(tag) if matches!(tag.suffix(), "int" | "float" | "bool" | "null") => Ok(scalar::resolve(text)),
        _ => Ok(Yaml::Text(text.to_owned())),
    }
}

/// `!`, and what `PyYAML` makes plain data of.
fn is_standard(tag: &Tag) -> bool {
    let core = [
        "binary",
        "bool",
        "float",
        "int",
        "map",
        "merge",
        "null",
        "omap",
        "pairs",
        "seq",
        "set",
        "str",
        "timestamp",
        "value",
    ];
    match (tag.handle(), tag.suffix()) {
        ("tag:yaml.org,2002:", suffix) => core.contains(&suffix),
        ("", "!") | ("!", "") => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
