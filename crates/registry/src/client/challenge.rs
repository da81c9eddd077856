//! How a registry wants to be asked: the WWW-Authenticate header (RFC 9110, section 11.6.1, and the token
//! authentication of the distribution project).

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// What a registry asks for with a 401.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password.
    Basic,
    /// A token from a service.
    Bearer {
        /// The token service's URL.
        realm: String,
        /// What the token service calls the registry.
        service: Option<String>,
        /// What the token is to allow.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The challenge to answer: a token rather than a password where there is a choice.
    pub(super) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let all: Vec<Self> = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(parse)
            .collect();
        let bearer = all.iter().find(|c| matches!(c, Self::Bearer { .. }));
        bearer.or(all.first()).cloned()
    }
}

/// All challenges of one header that are understood.
fn parse(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut rest = header;
    while let Some((scheme, after)) = word(rest) {
        let (parameters, after) = parameters(after);
        rest = after;
        let get = |name: &str| {
            let found = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone()).filter(|v| !v.is_empty())
        };
        if scheme.eq_ignore_ascii_case("basic") {
            found.push(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer")
            && let Some(realm) = get("realm")
        {
            found.push(Challenge::Bearer {
                realm,
                service: get("service"),
                scope: get("scope"),
            });
        }
    }
    found
}

/// Skips what separates, then takes a token of RFC 9110.
fn word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start_matches(|c: char| !is_token(c));
    let end = text.find(|c: char| !is_token(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

/// `key=value` and `key="value"` until the next scheme, and the text from there.
fn parameters(text: &str) -> (Vec<(String, String)>, &str) {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((key, after)) = word(rest) {
        let Some(value) = after.trim_start().strip_prefix('=') else {
            break;
        };
        let value = value.trim_start();
        let (value, after) = if let Some(quoted) = value.strip_prefix('"') {
            unquote(quoted)
        } else {
            let end = value
                .find(|c: char| c == ',' || c.is_whitespace())
                .unwrap_or(value.len());
            (value[..end].to_owned(), &value[end..])
        };
        found.push((key.to_owned(), value));
        rest = after;
    }
    (found, rest)
}

/// The text up to the closing quote, backslashes resolved, and what follows.
fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => return (value, &text[at + 1..]),
            c => {
                value.push(c);
                escaped = false;
            }
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: own(service),
            scope: own(scope),
        }
    }

    #[test]
    fn reads_what_registries_send() {
        let table = [
            ("Basic realm=\"Registry Realm\"", vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope=\"repository:a/b:pull,push\"",
                vec![bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:a/b:pull,push"),
                )],
            ),
            (
                "Bearer realm=https://a.io/t , service = s, error=\"invalid_token\"",
                vec![bearer("https://a.io/t", Some("s"), None)],
            ),
            (
                "Basic realm=\"x\", Bearer realm=\"https://a.io/t\",scope=\"\"",
                vec![Challenge::Basic, bearer("https://a.io/t", None, None)],
            ),
            ("Bearer realm=\"a\\\"b\"", vec![bearer("a\"b", None, None)]),
            ("Bearer service=\"s\"", vec![]),
            ("Negotiate", vec![]),
            ("", vec![]),
        ];
        for (header, expected) in table {
            assert_eq!(parse(header), expected, "{header}");
        }
    }

    #[test]
    fn a_token_is_preferred() {
        let mut headers = HeaderMap::new();
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"x\""));
        assert_eq!(Challenge::from_headers(&headers), Some(Challenge::Basic));
        headers.append(
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"https://a.io/t\""),
        );
        assert_eq!(
            Challenge::from_headers(&headers),
            Some(bearer("https://a.io/t", None, None))
        );
        assert_eq!(Challenge::from_headers(&HeaderMap::new()), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn arbitrary_headers_never_panic(header in "(Bearer|Basic|realm|[a-z]{0,3}|[=,\" \\\\]){0,20}|.{0,60}") {
            parse(&header);
        }
    }
}
