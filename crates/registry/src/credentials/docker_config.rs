//! The two formats of pull secrets: `kubernetes.io/dockerconfigjson` and `kubernetes.io/dockercfg`.

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::{Map, Value};

use super::Credential;

/// Why a secret's data cannot be read. The texts hold nothing of the data but registry hosts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DockerConfigError {
    /// Not JSON.
    #[error("{key} is not JSON (line {line}, column {column})")]
    NotJson {
        /// Key of the secret's data.
        key: &'static str,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// JSON, but not of this form.
    #[error("{field} of {key} is not {expected}")]
    Form {
        /// Key of the secret's data.
        key: &'static str,
        /// Path of the field.
        field: String,
        /// What is expected there.
        expected: &'static str,
    },
    /// A secret of the type must have this key.
    #[error("the secret has no {key}")]
    NoData {
        /// Key of the secret's data.
        key: &'static str,
    },
    /// A type of secret that holds no registry credentials.
    #[error("a secret of type {secret_type:?} holds no registry credentials")]
    Type {
        /// The type.
        secret_type: String,
    },
}

/// Key of a `kubernetes.io/dockerconfigjson` secret.
pub(super) const CONFIG_JSON: &str = ".dockerconfigjson";
/// Key of a `kubernetes.io/dockercfg` secret.
pub(super) const CFG: &str = ".dockercfg";

/// Reads `{"auths": {host: entry}}`. Entries without any credential are left out.
pub(super) fn parse_config_json(data: &[u8]) -> Result<Vec<(String, Credential)>, DockerConfigError> {
    let mut root = object(CONFIG_JSON, "the whole", json(CONFIG_JSON, data)?)?;
    match root.remove("auths") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(auths) => entries(CONFIG_JSON, object(CONFIG_JSON, "auths", auths)?),
    }
}

/// Reads `{host: entry}`.
pub(super) fn parse_cfg(data: &[u8]) -> Result<Vec<(String, Credential)>, DockerConfigError> {
    entries(CFG, object(CFG, "the whole", json(CFG, data)?)?)
}

fn json(key: &'static str, data: &[u8]) -> Result<Value, DockerConfigError> {
    serde_json::from_slice(data).map_err(|e| DockerConfigError::NotJson {
        key,
        line: e.line(),
        column: e.column(),
    })
}

fn object(key: &'static str, field: &str, value: Value) -> Result<Map<String, Value>, DockerConfigError> {
    match value {
        Value::Object(map) => Ok(map),
        _ => Err(DockerConfigError::Form {
            key,
            field: field.to_owned(),
            expected: "an object",
        }),
    }
}

fn entries(
    key: &'static str,
    map: Map<String, Value>,
) -> Result<Vec<(String, Credential)>, DockerConfigError> {
    let mut found = Vec::new();
    for (host, entry) in map {
        let entry = object(key, &format!("entry {host:?}"), entry)?;
        if let Some(credential) = credential(key, &host, &entry)? {
            found.push((host, credential));
        }
    }
    Ok(found)
}

fn credential(
    key: &'static str,
    host: &str,
    entry: &Map<String, Value>,
) -> Result<Option<Credential>, DockerConfigError> {
    let text = |field: &str| match entry.get(field) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(_) => {
            let field = format!("{field} of entry {host:?}");
            Err(DockerConfigError::Form {
                key,
                field,
                expected: "a string",
            })
        }
    };
    let (username, password, auth) = (text("username")?, text("password")?, text("auth")?);
    let token = text("identitytoken")?;
    if !token.is_empty() {
        return Ok(Some(Credential::IdentityToken {
            token: token.to_owned(),
        }));
    }
    if !auth.is_empty() {
        // As in the kubelet, auth wins over username and password.
        let decoded = decode_auth(auth).ok_or_else(|| DockerConfigError::Form {
            key,
            field: format!("auth of entry {host:?}"),
            expected: "the base64 form of user:password",
        })?;
        return Ok(Some(decoded));
    }
    let empty = username.is_empty() && password.is_empty();
    Ok((!empty).then(|| Credential::Basic {
        username: username.to_owned(),
        password: password.to_owned(),
    }))
}

/// Padded or not.
fn decode_auth(auth: &str) -> Option<Credential> {
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let decoded = GeneralPurpose::new(&STANDARD, lenient).decode(auth.trim()).ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let (username, password) = decoded.split_once(':')?;
    Some(Credential::Basic {
        username: username.to_owned(),
        password: password.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn basic(username: &str, password: &str) -> Credential {
        Credential::Basic {
            username: username.into(),
            password: password.into(),
        }
    }

    #[test]
    fn reads_every_form_of_an_entry() {
        let table = [
            (r#"{"username": "u", "password": "p"}"#, Some(basic("u", "p"))),
            (r#"{"username": "u"}"#, Some(basic("u", ""))),
            (r#"{"auth": "dXNlcjpwYTpzcw=="}"#, Some(basic("user", "pa:ss"))),
            (r#"{"auth": "dXNlcjpwYTpzcw"}"#, Some(basic("user", "pa:ss"))),
            (r#"{"auth": "dXNlcjpwYTpzcw==\n"}"#, Some(basic("user", "pa:ss"))),
            (
                r#"{"auth": "dXNlcjpwYTpzcw==", "username": "x", "password": "y"}"#,
                Some(basic("user", "pa:ss")),
            ),
            (
                r#"{"identitytoken": "t", "auth": "dXNlcjpwYTpzcw=="}"#,
                Some(Credential::IdentityToken { token: "t".into() }),
            ),
            (r#"{"email": "me@example.com"}"#, None),
            (r#"{"auth": null}"#, None),
        ];
        for (entry, expected) in table {
            let expected: Vec<_> = expected.map(|c| ("quay.io".to_owned(), c)).into_iter().collect();
            let cfg = format!(r#"{{"quay.io": {entry}}}"#);
            assert_eq!(parse_cfg(cfg.as_bytes()), Ok(expected.clone()), "{entry}");
            let json = format!(r#"{{"auths": {cfg}, "credsStore": "desktop"}}"#);
            assert_eq!(parse_config_json(json.as_bytes()), Ok(expected), "{entry}");
        }
        assert_eq!(parse_config_json(b"{}"), Ok(vec![]));
    }

    #[test]
    fn refusals_name_the_field_and_show_no_secret() {
        let table: [(&[u8], &str); 6] = [
            (b"hunter2", ".dockerconfigjson is not JSON (line 1, column 1)"),
            (b"\"hunter2\"", "the whole of .dockerconfigjson is not an object"),
            (
                br#"{"auths": "hunter2"}"#,
                "auths of .dockerconfigjson is not an object",
            ),
            (
                br#"{"auths": {"quay.io": "hunter2"}}"#,
                "entry \"quay.io\" of .dockerconfigjson is not an object",
            ),
            (
                br#"{"auths": {"quay.io": {"password": ["hunter2"]}}}"#,
                "password of entry \"quay.io\" of .dockerconfigjson is not a string",
            ),
            (
                br#"{"auths": {"quay.io": {"auth": "hunter2"}}}"#,
                "auth of entry \"quay.io\" of .dockerconfigjson is not the base64 form of user:password",
            ),
        ];
        for (data, message) in table {
            let error = parse_config_json(data).map_err(|e| e.to_string());
            assert_eq!(error, Err(message.to_owned()));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn arbitrary_data_never_panics(data in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_config_json(&data);
            let _ = parse_cfg(&data);
        }

        #[test]
        fn arbitrary_entries_never_panic(
            host in any::<String>(),
            field in "(username|password|auth|identitytoken|email)",
            value in any::<String>(),
        ) {
            let entry = serde_json::json!({ host: { field: value } });
            let _ = parse_cfg(entry.to_string().as_bytes());
        }
    }
}
