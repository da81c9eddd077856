//! What an answer other than success means.

use std::time::SystemTime;

use larder_core::message::{redact, shorten};
use reqwest::StatusCode;
use serde_json::Value;

use super::{challenge::Challenge, endpoint::Endpoint};
use crate::{
    RegistryError,
    http::{Failed, Reply, retry_after},
};

/// Characters of a registry's words that are kept.
const MAX_WORDS: usize = 256;
/// Bytes of an error's body that is looked at. Once read it may take a hundred times as much memory.
const MAX_BODY: usize = 64 * 1024;

/// The error that a registry's answer stands for. `secrets` are blotted out should the registry repeat them.
pub(super) fn of_registry(endpoint: &Endpoint<'_>, reply: &Reply, secrets: &[&str]) -> RegistryError {
    let words = Words::of(told(reply), secrets);
    let message = words.after(reply.status);
    let retry_after = retry_after(&reply.headers, SystemTime::now());
    match reply.status.as_u16() {
        429 => RegistryError::RateLimited { message, retry_after },
        _ if words.has_code("TOOMANYREQUESTS") => RegistryError::RateLimited { message, retry_after },
        401 if secrets.is_empty() && Challenge::from_headers(&reply.headers) == Some(Challenge::Basic) => {
            RegistryError::CredentialsMissing {
                host: endpoint.host.to_owned(),
                message,
            }
        }
        401 | 403 => RegistryError::Unauthorized { message },
        404 => RegistryError::NotFound { message },
        400 if words.has_code("NAME_INVALID") || words.has_code("TAG_INVALID") => {
            RegistryError::InvalidReference { message }
        }
        408 | 500..=599 => RegistryError::Unreachable { message, retry_after },
        _ => endpoint.malformed(&message),
    }
}

/// The same for a token service, whose every refusal means that the credential is not accepted.
pub(super) fn of_token_service(endpoint: &Endpoint<'_>, reply: &Reply, secrets: &[&str]) -> RegistryError {
    let said = |message: String| format!("token service: {message}");
    match of_registry(endpoint, reply, secrets) {
        RegistryError::RateLimited { message, retry_after } => RegistryError::RateLimited {
            message: said(message),
            retry_after,
        },
        RegistryError::Unreachable { message, retry_after } => RegistryError::Unreachable {
            message: said(message),
            retry_after,
        },
        _ => RegistryError::Unauthorized {
            message: said(Words::of(told(reply), secrets).after(reply.status)),
        },
    }
}

/// No answer. Names the host alone: a URL may carry a signature.
pub(super) fn of_silence(failed: &Failed) -> RegistryError {
    let host = &failed.url[url::Position::BeforeHost..url::Position::AfterPort];
    let words = failed
        .error
        .cause()
        .map_or_else(|| failed.error.to_string(), str::to_owned);
    RegistryError::Unreachable {
        message: format!("{host}: {words}"),
        retry_after: None,
    }
}

/// What may be repeated of an answer. Nothing of a host that a redirect led to: it need not be one that tenants may read.
fn told(reply: &Reply) -> &[u8] {
    if reply.at_home { &reply.body } else { &[] }
}

/// What a registry says in an error's body.
struct Words {
    codes: Vec<String>,
    text: String,
}

impl Words {
    /// Of a body that is too long, none.
    fn of(body: &[u8], secrets: &[&str]) -> Self {
        let body = if body.len() <= MAX_BODY { body } else { &[] };
        let json: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().trim().to_owned();
        let errors = json["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        let codes: Vec<String> = errors.iter().map(|e| text(e, "code")).collect();
        let mut messages: Vec<String> = errors
            .iter()
            .map(|e| {
                [text(e, "message"), text(e, "code")]
                    .into_iter()
                    .find(|t| !t.is_empty())
                    .unwrap_or_default()
            })
            .collect();
        if messages.is_empty() {
            // Token services and some registries use forms of their own.
            messages = ["details", "error_description", "message", "error"]
                .map(|key| text(&json, key))
                .into();
        }
        messages.retain(|m| !m.is_empty());
        messages.dedup();
        let mut text = messages.join("; ");
        for secret in secrets.iter().filter(|s| !s.is_empty()) {
            text = text.replace(secret, "***");
        }
        Self {
            codes,
            text: shorten(&redact(&text), MAX_WORDS),
        }
    }

    fn has_code(&self, code: &str) -> bool {
        self.codes.iter().any(|c| c == code)
    }

    /// `404 Not Found: manifest unknown`.
    fn after(&self, status: StatusCode) -> String {
        let status = status.to_string();
        if self.text.is_empty() {
            status
        } else {
            format!("{status}: {}", self.text)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_registrys_own_words_are_kept() {
        let table = [
            (
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
                "404 Not Found: manifest unknown",
            ),
            (
                r#"{"errors":[{"code":"DENIED"},{"code":"DENIED"}]}"#,
                "404 Not Found: DENIED",
            ),
            (
                r#"{"errors":[{"message":"a"},{"message":"b"}]}"#,
                "404 Not Found: a; b",
            ),
            (
                r#"{"details":"incorrect username or password"}"#,
                "404 Not Found: incorrect username or password",
            ),
            (r#"{"errors":[]}"#, "404 Not Found"),
            ("<html>", "404 Not Found"),
            ("", "404 Not Found"),
        ];
        for (body, expected) in table {
            assert_eq!(
                Words::of(body.as_bytes(), &[]).after(StatusCode::NOT_FOUND),
                expected
            );
        }
    }

    #[test]
    fn repeated_secrets_are_blotted_out() {
        let body = br#"{"errors":[{"message":"bad password hunter2 for https://u:p@a.io"}]}"#;
        let shown = Words::of(body, &["hunter2"]).text;
        assert!(!shown.contains("hunter2") && !shown.contains("u:p@"), "{shown}");
    }

    #[test]
    fn long_words_are_cut() {
        let body = format!(r#"{{"message":"{}"}}"#, "x y ".repeat(1000));
        assert!(Words::of(body.as_bytes(), &[]).text.chars().count() <= MAX_WORDS);
    }

    #[test]
    fn a_body_that_is_long_is_not_read() {
        let body = |size: usize| format!(r#"{{"message":"no","padding":"{}"}}"#, "x".repeat(size));
        let said = |body: String| Words::of(body.as_bytes(), &[]).after(StatusCode::NOT_FOUND);
        assert_eq!(said(body(1_000)), "404 Not Found: no");
        assert_eq!(said(body(MAX_BODY)), "404 Not Found");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn arbitrary_bodies_never_panic(body in prop::collection::vec(any::<u8>(), 0..100), text in any::<String>()) {
            let _ = Words::of(&body, &["", "x"]);
            let _ = Words::of(serde_json::json!({ "errors": [{ "message": text }] }).to_string().as_bytes(), &["x"]);
        }
    }
}
