//! Takes credentials out of texts before they are stored where others read them.

use std::borrow::Cow;

const MASK: &str = "***";
const CLOSING: [char; 8] = ['"', '\'', ')', ']', '}', ',', ';', ':'];
/// Random text of at least this many letters and digits in a row counts as a secret; hexadecimal digests do not.
const SECRET_CHARS: usize = 24;
/// Parameters of URLs, and keys of other `key=value` texts, whose value is nobody's business.
const SECRET_KEYS: [&str; 9] = [
    "token",
    "password",
    "passwd",
    "secret",
    "signature",
    "credential",
    "apikey",
    "api_key",
    "authorization",
];

/// The text without credentials: user and password of URLs, values of Authorization, of parameters that name a secret,
/// and long random words (tokens, base64) become `***`. Digests stay.
pub fn redact(message: &str) -> String {
    let words: Vec<&str> = message.split_inclusive(char::is_whitespace).collect();
    let mut result = String::with_capacity(message.len());
    let (mut hide, mut header) = (false, false);
    for (i, word) in words.iter().enumerate() {
        let text = word.trim_end();
        let bare = text.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        if hide && !bare.is_empty() {
            result.push_str(MASK);
            // What closes around the value stays.
            result.push_str(&text[text.trim_end_matches(CLOSING).len()..]);
            (hide, header) = (false, false);
        } else if !text.is_empty() {
            result.push_str(&hide_words(&hide_parameters(&hide_user(text))));
            let is = |names: &[&str]| names.iter().any(|name| bare.eq_ignore_ascii_case(name));
            let next = words[i + 1..]
                .iter()
                .map(|w| w.trim_end())
                .find(|w| !w.is_empty());
            let labels = text.trim_end_matches('"').ends_with([':', '=']);
            let scheme = is(&["basic", "bearer"]);
            // `Basic dXNlcg==` is a value; `no basic auth credentials` is not.
            hide = labels && is(&["password", "passwd"])
                || scheme && header
                || (scheme || labels && is(&["authorization"])) && next.is_some_and(is_value);
            header = labels && is(&["authorization"]);
        }
        result.push_str(&word[text.len()..]);
    }
    result
}

/// Whether the word after an authentication scheme is its value: it is longer than the words of the sentences in which
/// registries speak of schemes, or has a digit, a capital inside or padding. A challenge's `realm="…"` is none.
fn is_value(word: &str) -> bool {
    let word = word.trim_matches(CLOSING);
    !word.contains("=\"")
        && (word.len() > 16
            || word.ends_with('=')
            || word.chars().any(|c| c.is_ascii_digit())
            || word.chars().skip(1).any(|c| c.is_ascii_uppercase()))
}

/// `https://user:password@host/` → `https://***@host/`.
fn hide_user(text: &str) -> Cow<'_, str> {
    let Some(start) = text.find("://").map(|i| i + 3) else {
        return Cow::Borrowed(text);
    };
    let authority = text[start..]
        .split(['/', '?', '#', '"', '\''])
        .next()
        .unwrap_or_default();
    match authority.rfind('@') {
        Some(at) => Cow::Owned(format!("{}{MASK}{}", &text[..start], &text[start + at..])),
        None => Cow::Borrowed(text),
    }
}

/// `?X-Amz-Signature=ab12&ns=docker.io` → `?X-Amz-Signature=***&ns=docker.io`.
fn hide_parameters(text: &str) -> String {
    const ENDS: [char; 9] = ['&', '?', ',', ';', '"', '\'', '{', '}', '\\'];
    text.split_inclusive(ENDS)
        .map(|piece| {
            let body = piece.trim_end_matches(ENDS);
            match body.split_once('=') {
                Some((key, value)) if !value.is_empty() && is_secret_key(key) => {
                    format!("{key}={MASK}{}", &piece[body.len()..])
                }
                _ => piece.to_owned(),
            }
        })
        .collect()
}

fn is_secret_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    key == "sig" || key == "auth" || SECRET_KEYS.iter().any(|s| key.ends_with(s))
}

/// Masks runs of base64 that contain a stretch of random letters and digits.
fn hide_words(text: &str) -> String {
    let in_run = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '=' | '_' | '-');
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(in_run) {
        result.push_str(&rest[..start]);
        let end = rest[start..]
            .find(|c| !in_run(c))
            .map_or(rest.len(), |i| start + i);
        let run = &rest[start..end];
        result.push_str(if is_random(run) { MASK } else { run });
        rest = &rest[end..];
    }
    result.push_str(rest);
    result
}

fn is_random(run: &str) -> bool {
    run.split(|c: char| !c.is_ascii_alphanumeric()).any(|stretch| {
        stretch.len() >= SECRET_CHARS
            && stretch.bytes().any(|b| b.is_ascii_digit())
            && stretch.bytes().any(|b| b.is_ascii_lowercase())
            && stretch.bytes().any(|b| b.is_ascii_uppercase())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::redact;

    #[test]
    fn credentials_go() {
        for (text, expected) in [
            (
                "Get \"https://bob:hunter2@r.example/v2/\": EOF",
                "Get \"https://***@r.example/v2/\": EOF",
            ),
            ("Get https://token@r.example/v2/", "Get https://***@r.example/v2/"),
            ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic ***"),
            (
                "header \"Authorization: Bearer abc123\" refused",
                "header \"Authorization: Bearer ***\" refused",
            ),
            ("sent Basic dXNlcjpwYXNz, got 401", "sent Basic ***, got 401"),
            ("password: hunter2 is wrong", "password: *** is wrong"),
            (
                "https://s3.example/b?X-Amz-Signature=ab12&ns=docker.io",
                "https://s3.example/b?X-Amz-Signature=***&ns=docker.io",
            ),
            (
                "https://auth.example/t?access_token=abc&scope=x: 401",
                "https://auth.example/t?access_token=***&scope=x: 401",
            ),
            (
                "https://b.example/x?sv=1&sig=a%2Fb\": 403",
                "https://b.example/x?sv=1&sig=***\": 403",
            ),
            (
                "got eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJhdXRoLmRvY2tlci5pbyJ9A1 back",
                "got ***.*** back",
            ),
        ] {
            assert_eq!(redact(text), expected);
        }
    }

    #[test]
    fn everything_else_stays() {
        for text in [
            "",
            "docker.io/library/busybox:wrongtag: not found",
            "no basic auth credentials",
            "server asked for Basic authentication",
            "Bearer realm=\"https://auth.example/token\",service=\"r.example\"",
            "expected sha256:0ee2018667de173d071d53fff6ee4e2783443d72035a406d0d257c109f14c97d",
            "failed to pull and unpack image \"r.example:5000/team/a-rather-long-repository-name/with-parts:V1.2.3-Build4567890\"",
            "unexpected status from HEAD request to https://r.example/v2/Team/app/manifests/Release-2024-10-Candidate-12?ns=docker.io: 401 Unauthorized",
            "pods \"larder-web-6f5d9c7b4x2\" is forbidden: exceeded quota: pods, requested: pods=1, used: pods=0, limited: pods=0",
            "may require authorization: server message: insufficient_scope: authorization failed",
            "unable to retrieve auth token: invalid username/password: unauthorized: incorrect username or password",
            "failed to fetch oauth token: Post \"https://auth.example/token\": EOF",
            "two\nlines\tand  spaces ",
        ] {
            assert_eq!(redact(text), text);
        }
    }

    proptest! {
        #[test]
        fn user_and_password_never_survive(user in "[a-z0-9]{6,12}", password in "[A-Za-z0-9%._~!$&*+=-]{6,20}", before in "[a-z \"]{0,10}") {
            let text = format!("{before}https://{user}:{password}@r.example/v2/x");
            prop_assert!(!redact(&text).contains(&format!("{user}:")), "{}", redact(&text));
            prop_assert!(redact(&text).ends_with("***@r.example/v2/x"));
        }

        #[test]
        fn values_of_authorization_never_survive(scheme in "(Basic|Bearer|basic|bearer)", value in "[A-Za-z0-9+/_.-]{8,60}={0,2}") {
            let text = redact(&format!("Authorization: {scheme} {value}"));
            prop_assert!(!text.contains(&value), "{}", text);
        }

        #[test]
        fn any_text_can_be_redacted_twice(text in any::<String>()) {
            let once = redact(&text);
            prop_assert_eq!(redact(&once), once);
        }
    }
}
