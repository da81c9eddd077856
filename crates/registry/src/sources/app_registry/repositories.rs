//! Where the compose file of an app is.
//!
//! An app without a `spec` has it at `<first repository>/<app id>/docker-compose.yaml`. In a `spec`, `$name` and `${name}`
//! stand for the address of a repository, as in Python's `string.Template.safe_substitute`: a name that is none stays as
//! it is, and `$$` is a dollar. The address of a repository that does not begin with http is relative to the registry.

use indexmap::IndexMap;
use url::Url;

use super::contexts::{self, Apps, MAX_ADDRESS};
use super::yaml::Yaml;

/// Gives each app the address of its compose file.
pub(super) fn locate(registry: &Yaml, base: &Url, apps: &mut Apps) {
    let repositories: IndexMap<&str, String> = registry
        .get("repositories")
        .and_then(Yaml::as_map)
        .into_iter()
        .flatten()
        .filter_map(|(name, entry)| {
            let url = entry.get("url").and_then(Yaml::as_text)?;
            let url = Some(url).filter(|url| url.len() <= MAX_ADDRESS)?;
            Some((name.as_str(), absolute(base, url)))
        })
        .collect();
    for (id, app) in apps.iter_mut() {
        match &app.spec {
            None => {
                if let Some((_, repository)) = repositories.first() {
                    let spec = format!("{}/{id}/docker-compose.yaml", repository.trim_end_matches('/'));
                    app.spec = Some(Yaml::Text(spec));
                }
            }
            Some(Yaml::Text(spec)) => {
                let spec = Yaml::Text(substitute(spec, &repositories));
                app.spec = Some(contexts::address(&spec));
            }
            Some(_) => {}
        }
    }
}

fn absolute(base: &Url, url: &str) -> String {
    if url.starts_with("http") {
        return url.to_owned();
    }
    base.join(url).map_or_else(|_| url.to_owned(), String::from)
}

/// One pass: what is put in is not looked at again. It ends early where it is too long anyway.
fn substitute(text: &str, names: &IndexMap<&str, String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$').filter(|_| result.len() <= MAX_ADDRESS) {
        result.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
            continue;
        }
        let (name, after) = if let Some(braced) = rest.strip_prefix('{') {
            let (name, after) = identifier(braced);
            (name, after.strip_prefix('}'))
        } else {
            let (name, after) = identifier(rest);
            (name, Some(after))
        };
        match (names.get(name), after) {
            (Some(value), Some(after)) => {
                result.push_str(value);
                rest = after;
            }
            _ => result.push('$'),
        }
    }
    result.push_str(rest);
    result
}

/// The identifier at the beginning, and what follows it.
fn identifier(text: &str) -> (&str, &str) {
    let starts = text.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic());
    let end = text
        .find(|c: char| c != '_' && !c.is_ascii_alphanumeric())
        .unwrap_or(text.len());
    text.split_at(if starts { end } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_repositories_are_put_in_once() {
        let names: IndexMap<&str, String> = [
            ("apps", "https://a.example".to_owned()),
            ("sneaky", "$apps".to_owned()),
        ]
        .into_iter()
        .collect();
        for (text, expected) in [
            ("$apps/x", "https://a.example/x"),
            ("${apps}x/$apps", "https://a.examplex/https://a.example"),
            ("$appsx/${none}/$none", "$appsx/${none}/$none"),
            ("$$apps/$", "$apps/$"),
            ("${apps/x", "${apps/x"),
            ("$1/${}/$-", "$1/${}/$-"),
            ("$sneaky", "$apps"),
            ("plain", "plain"),
        ] {
            assert_eq!(substitute(text, &names), expected);
        }
    }
}
