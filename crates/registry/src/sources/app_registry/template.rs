//! Texts of a compose file are Jinja templates over the registry's settings; compose's own `${X}` is left alone.
//!
//! A template is written by others and rendered in the operator, so it is small, has fuel that runs out, and offers what
//! values need: variables, conditions, and the filters below. `for`, `set`, macros, `*` and more than a few
//! concatenations are not offered: with them, a line of text can ask for all memory there is.

use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};

use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior, filters, tests as is};

use super::yaml::Yaml;
use super::{SourceError, SourceReason};

/// Bytes of a template, and of what a filter makes.
const MAX_TEMPLATE_BYTES: usize = 4096;
/// Bytes of the templates of one compose file: a second of rendering, if they are as costly as can be.
const MAX_BYTES_OF_FILE: usize = 256 * 1024;
/// The same of all compose files of a brand.
const MAX_BYTES_OF_ALL: usize = 4 * 1024 * 1024;
/// Bytes of all settings.
const MAX_SETTINGS_BYTES: usize = 64 * 1024;
/// Instructions of one rendering; a condition with three filters takes about 20.
const FUEL: u64 = 400;
/// `~` and `+` in one template.
const MAX_CONCATENATIONS: usize = 8;
/// Filters that Jinja knows and that are not offered here.
const JINJA_FILTERS: [&str; 34] = [
    "attr",
    "batch",
    "center",
    "dictsort",
    "escape",
    "e",
    "filesizeformat",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "items",
    "list",
    "map",
    "max",
    "min",
    "pprint",
    "random",
    "reject",
    "rejectattr",
    "reverse",
    "select",
    "selectattr",
    "slice",
    "sort",
    "striptags",
    "sum",
    "tojson",
    "truncate",
    "unique",
    "urlencode",
    "urlize",
    "wordcount",
    "wordwrap",
];

/// Renders templates over one registry's settings.
pub(super) struct Templates {
    environment: Environment<'static>,
    settings: Value,
    /// Bytes of templates that may still be rendered.
    left: AtomicUsize,
}

/// Why a template gives no text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TemplateError {
    /// Jinja would refuse it too.
    #[error("{0}")]
    Broken(String),
    /// Jinja might render it; Larder does not.
    #[error("{0}")]
    Unsupported(String),
}

impl Templates {
    /// With the registry's `settings`, a map; none is an empty one.
    pub(super) fn new(settings: Option<&Yaml>) -> Result<Self, SourceError> {
        let empty = Yaml::Null;
        let settings = settings.unwrap_or(&empty);
        if !matches!(settings, Yaml::Null | Yaml::Map(_)) {
            let message = "settings of app-registry.yaml is not a map";
            return Err(SourceError::new(SourceReason::Malformed, message));
        }
        if size(settings) > MAX_SETTINGS_BYTES {
            let message = format!("settings of app-registry.yaml have more than {MAX_SETTINGS_BYTES} bytes");
            return Err(SourceError::new(SourceReason::TooLarge, message));
        }
        let settings = match settings {
            Yaml::Map(_) => value(settings),
            _ => Value::from_pairs(std::iter::empty::<(String, Value)>()),
        };
        Ok(Self {
            environment: environment(),
            settings,
            left: AtomicUsize::new(MAX_BYTES_OF_ALL),
        })
    }

    /// Whether one more file may have so many bytes of templates rendered; else what is wrong with it.
    pub(super) fn allow(&self, bytes: usize) -> Result<(), String> {
        if bytes > MAX_BYTES_OF_FILE {
            return Err(format!(
                "its compose file has more than {MAX_BYTES_OF_FILE} bytes of templates"
            ));
        }
        let spend = |left: usize| left.checked_sub(bytes);
        match self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend)
        {
            Ok(_) => Ok(()),
            Err(_) => Err(format!(
                "the compose files of the brand have more than {MAX_BYTES_OF_ALL} bytes of templates"
            )),
        }
    }

    /// What the text says. One that is no template stays what it is.
    pub(super) fn render<'a>(&self, text: &'a str) -> Result<Cow<'a, str>, TemplateError> {
        if !is_template(text) {
            return Ok(Cow::Borrowed(text));
        }
        check(text)?;
        let template = self.environment.template_from_str(text).map_err(explain)?;
        template
            .render(self.settings.clone())
            .map(Cow::Owned)
            .map_err(explain)
    }
}

/// Whether anything of it is to be rendered.
pub(super) fn is_template(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|begin| text.contains(begin))
}

/// Refuses what could take more memory than the template and the settings together.
fn check(text: &str) -> Result<(), TemplateError> {
    let unsupported = |problem: String| Err(TemplateError::Unsupported(problem));
    if text.len() > MAX_TEMPLATE_BYTES {
        return unsupported(format!("a template has more than {MAX_TEMPLATE_BYTES} bytes"));
    }
    if text.contains('*') {
        return unsupported("* is not supported in templates".into());
    }
    if text.matches(['~', '+']).count() > MAX_CONCATENATIONS {
        return unsupported(format!("more than {MAX_CONCATENATIONS} of ~ and + in a template"));
    }
    // Every place where a statement could begin, so that none is missed; in a comment, it is one too many.
    for (at, _) in text.match_indices("{%") {
        let rest = text[at + 2..].trim_start_matches(['-', '+']).trim_start();
        let end = rest
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(rest.len());
        match &rest[..end] {
            "if" | "elif" | "else" | "endif" | "raw" | "endraw" => {}
            known @ ("for" | "endfor" | "set" | "endset" | "macro" | "endmacro" | "call" | "filter"
            | "block" | "include" | "import" | "from" | "extends" | "do" | "with" | "endwith"
            | "autoescape") => {
                return unsupported(format!("the statement {known} is not supported in templates"));
            }
            _ => return Err(TemplateError::Broken("an unknown statement".into())),
        }
    }
    Ok(())
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(20);
    environment.set_formatter(|out, _, value| match value.kind() {
        ValueKind::Undefined => Ok(()),
        ValueKind::None => Ok(out.write_str("None")?),
        ValueKind::Bool => Ok(out.write_str(if value.is_true() { "True" } else { "False" })?),
        _ => Ok(write!(out, "{value}")?),
    });
    environment.add_filter("default", filters::default);
    environment.add_filter("d", filters::default);
    environment.add_filter("lower", filters::lower);
    environment.add_filter("upper", filters::upper);
    environment.add_filter("capitalize", filters::capitalize);
    environment.add_filter("title", filters::title);
    environment.add_filter("trim", filters::trim);
    environment.add_filter("int", filters::int);
    environment.add_filter("float", filters::float);
    environment.add_filter("abs", filters::abs);
    environment.add_filter("round", filters::round);
    environment.add_filter("first", filters::first);
    environment.add_filter("last", filters::last);
    environment.add_filter("length", filters::length);
    environment.add_filter("count", filters::length);
    environment.add_filter("safe", filters::safe);
    environment.add_filter("string", string);
    environment.add_filter("replace", replace);
    environment.add_filter("join", join);
    environment.add_test("defined", is::is_defined);
    environment.add_test("undefined", is::is_undefined);
    environment.add_test("none", is::is_none);
    environment.add_test("string", is::is_string);
    environment.add_test("number", is::is_number);
    environment.add_test("boolean", is::is_boolean);
    environment.add_test("mapping", is::is_mapping);
    environment.add_test("sequence", is::is_sequence);
    environment.add_test("true", is::is_true);
    environment.add_test("false", is::is_false);
    environment.add_test("in", is::is_in);
    for name in ["eq", "equalto", "=="] {
        environment.add_test(name, is::is_eq);
    }
    environment
}

fn string(value: Value) -> Result<String, Error> {
    bounded(value.to_string())
}

fn replace(_: &State, text: Cow<'_, str>, from: Cow<'_, str>, to: Cow<'_, str>) -> Result<String, Error> {
    let places = if from.is_empty() {
        text.chars().count() + 1
    } else {
        text.matches(&*from).count()
    };
    if places.saturating_mul(to.len()).saturating_add(text.len()) > MAX_TEMPLATE_BYTES {
        return Err(too_long());
    }
    Ok(text.replace(&*from, &to))
}

fn join(items: Value, separator: Option<Cow<'_, str>>) -> Result<String, Error> {
    let separator = separator.as_deref().unwrap_or_default();
    let mut joined = String::new();
    for (at, item) in items.try_iter()?.enumerate() {
        if at > 0 {
            joined.push_str(separator);
        }
        joined.push_str(&item.to_string());
        if joined.len() > MAX_TEMPLATE_BYTES {
            return Err(too_long());
        }
    }
    Ok(joined)
}

fn bounded(text: String) -> Result<String, Error> {
    if text.len() > MAX_TEMPLATE_BYTES {
        return Err(too_long());
    }
    Ok(text)
}

fn too_long() -> Error {
    Error::new(
        ErrorKind::OutOfFuel,
        format!("a filter makes more than {MAX_TEMPLATE_BYTES} bytes"),
    )
}

fn explain(error: Error) -> TemplateError {
    let detail = error.detail().unwrap_or_default();
    let message = match detail {
        "" => error.kind().to_string(),
        detail => format!("{}: {detail}", error.kind()),
    };
    match error.kind() {
        ErrorKind::UnknownFilter
            if JINJA_FILTERS
                .iter()
                .any(|name| detail.split_whitespace().any(|word| word == *name)) =>
        {
            TemplateError::Unsupported(message)
        }
        ErrorKind::OutOfFuel => TemplateError::Unsupported(message),
        _ => TemplateError::Broken(message),
    }
}

fn value(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Null => Value::from(()),
        Yaml::Bool(value) => Value::from(*value),
        Yaml::Int(number) => Value::from(*number),
        Yaml::Float(number) => Value::from(*number),
        Yaml::Text(text) => Value::from(text.as_str()),
        Yaml::List(items) => items.iter().map(value).collect(),
        Yaml::Map(map) => Value::from_pairs(map.iter().map(|(key, item)| (key.clone(), value(item)))),
    }
}

/// Bytes that it takes to print it, about.
fn size(yaml: &Yaml) -> usize {
    match yaml {
        Yaml::List(items) => items.iter().map(|item| size(item) + 4).sum(),
        Yaml::Map(map) => map.iter().map(|(key, item)| key.len() + size(item) + 8).sum(),
        scalar => scalar.scalar_text().map_or(0, |text| text.len()),
    }
}

#[cfg(test)]
mod tests;
