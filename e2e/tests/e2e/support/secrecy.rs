//! Where a password could be read: everything in the cluster but Secrets, and everything that Larder says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::Value;

use super::Env;

/// Places that tell one of the secrets: objects of whatever kind (Events among them, Secrets not), logs of Larder's pods,
/// and what the operator serves. Plain, in base64 wherever it begins, or as part of a URL.
pub fn told(env: &Env, secrets: &[&str]) -> Vec<String> {
    let forms: Vec<String> = secrets.iter().flat_map(|secret| forms(secret)).collect();
    let tells = |text: &str| forms.iter().any(|form| text.contains(form.as_str()));
    let mut told = Vec::new();
    for object in objects(env) {
        if tells(&object.to_string()) {
            let part = |pointer: &str| {
                object
                    .pointer(pointer)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
            };
            let (namespace, name) = (part("/metadata/namespace"), part("/metadata/name"));
            told.push(format!("{} {namespace}/{name}", part("/kind")));
        }
    }
    for (whose, text) in words_of_larder(env) {
        if tells(&text) {
            told.push(whose);
        }
    }
    told
}

/// Fails if [`told`] finds any of the secrets.
pub fn nothing_tells(env: &Env, secrets: &[&str]) {
    let told = told(env, secrets);
    assert!(told.is_empty(), "a password is told by {told:#?}");
}

/// What a secret looks like when written down.
fn forms(secret: &str) -> Vec<String> {
    assert!(secret.len() >= 8, "found everywhere");
    let mut forms = vec![secret.to_owned()];
    let escaped = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    forms.push(secret.bytes().map(escaped).collect());
    // Base64 of something longer shows the secret in one of three ways; the characters at both ends depend on what is
    // around it.
    for before in 0..3 {
        let bytes = [vec![0; before], secret.as_bytes().to_vec()].concat();
        let encoded = STANDARD_NO_PAD.encode(&bytes);
        let (begin, end) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
        let shown = &encoded[begin..end];
        forms.push(shown.to_owned());
        forms.push(shown.replace('+', "-").replace('/', "_"));
    }
    forms.sort();
    forms.dedup();
    forms
}

/// Everything that the API server lists, whole, but for Secrets.
fn objects(env: &Env) -> Vec<Value> {
    let kinds = env
        .kubectl(&["api-resources", "--verbs=list", "--output=name"])
        .unwrap();
    // Component statuses are no objects, and asking for them is answered with a warning.
    let kinds: Vec<&str> = kinds
        .lines()
        .filter(|kind| !["secrets", "componentstatuses"].contains(kind))
        .collect();
    assert!(
        kinds.contains(&"events") && kinds.contains(&"imagecaches.larder.dev"),
        "{kinds:?}"
    );
    let kinds = kinds.join(",");
    let all = env.kubectl(&[
        "get",
        &kinds,
        "--all-namespaces",
        "--show-managed-fields",
        "--output=json",
    ]);
    let mut all: Value = serde_json::from_str(&all.unwrap()).unwrap();
    match all["items"].take() {
        Value::Array(items) => items,
        other => panic!("no list: {other}"),
    }
}

/// Logs of the containers of Larder's pods, of those that ended before too, and the pages of the operator's port.
fn words_of_larder(env: &Env) -> Vec<(String, String)> {
    let pods = env
        .kubectl(&["get", "pods", "--all-namespaces", "--output=json"])
        .unwrap();
    let pods: Value = serde_json::from_str(&pods).unwrap();
    let mut words = Vec::new();
    let mut operators = 0;
    for pod in pods["items"].as_array().unwrap() {
        let part = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (namespace, name) = (part("/metadata/namespace"), part("/metadata/name"));
        let managed = part("/metadata/labels/app.kubernetes.io~1managed-by") == "larder";
        if !managed && !["larder-system", "larder-agents"].contains(&namespace) {
            continue;
        }
        for previous in ["--previous=false", "--previous=true"] {
            let log = [
                "--namespace",
                namespace,
                "logs",
                name,
                "--all-containers",
                "--tail=-1",
                previous,
            ];
            // A container that has not begun has no log, nor an earlier one that never was.
            let log = env.kubectl(&log).unwrap_or_default();
            words.push((format!("the log of {namespace}/{name}"), log));
        }
        if part("/metadata/labels/app.kubernetes.io~1name") == "larder-operator" {
            let log = &words[words.len() - 2].1;
            operators += usize::from(!log.is_empty());
            for page in ["metrics", "attempts"] {
                let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:8080/proxy/{page}");
                let text = env.kubectl(&["get", "--raw", &path]).unwrap_or_default();
                words.push((format!("/{page} of {namespace}/{name}"), text));
            }
        }
    }
    assert!(operators > 0, "the operator's log could not be read");
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_however_it_is_written() {
        let secret = "s3cret+/pass?word";
        let found = |text: &str| forms(secret).iter().any(|form| text.contains(form.as_str()));
        for before in ["", "u", "us", "usr", "larder:"] {
            for after in ["", "x", "xy", "\"}}"] {
                let whole = format!("{before}{secret}{after}");
                assert!(found(&whole));
                assert!(found(&STANDARD_NO_PAD.encode(&whole)), "{whole}");
                let url_safe = base64::engine::general_purpose::URL_SAFE.encode(&whole);
                assert!(found(&url_safe), "{whole}");
            }
        }
        assert!(found("https://a/?p=s3cret%2B%2Fpass%3Fword"));
        assert!(!found("s3cret+/pass?wor"));
        assert!(!found(&STANDARD_NO_PAD.encode("larder:another-password")));
    }
}
