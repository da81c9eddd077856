//! One question to a plugin.

use std::collections::BTreeMap;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use larder_core::image_ref::ImageRef;
use larder_core::message::redact;
use larder_registry::{Credential, Keyring};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::config::Provider;
use crate::duration;

/// What the kubelet gives a plugin.
pub(super) const TIMEOUT: Duration = Duration::from_mins(1);
/// Far more than any answer.
const MAX_ANSWER_BYTES: u64 = 1024 * 1024;
/// Of what a plugin complains on standard error.
const MAX_WORDS: usize = 300;

/// What a plugin answered.
pub(super) struct Answer {
    pub(super) key_type: CacheKeyType,
    /// None where the configuration's default holds.
    pub(super) good_for: Option<Duration>,
    pub(super) keyring: Keyring,
}

/// For what else an answer is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum CacheKeyType {
    Image,
    Registry,
    Global,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    kind: &'static str,
    api_version: &'a str,
    image: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    kind: String,
    api_version: String,
    cache_key_type: CacheKeyType,
    #[serde(default)]
    cache_duration: Option<String>,
    #[serde(default)]
    auth: Option<BTreeMap<String, Login>>,
}

#[derive(Deserialize)]
struct Login {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

/// Runs the plugin. What it prints may hold secrets and is never shown; what it complains about is, redacted.
pub(super) async fn ask(provider: &Provider, image: &ImageRef) -> Result<Answer> {
    let request = serde_json::to_vec(&Request {
        kind: "CredentialProviderRequest",
        api_version: &provider.api_version,
        image: image.normalized(),
    })?;
    let output = tokio::time::timeout(TIMEOUT, execute(provider, &request))
        .await
        .with_context(|| format!("no answer within {}s", TIMEOUT.as_secs()))??;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let words: String = redact(words.trim()).chars().take(MAX_WORDS).collect();
        bail!("{}: {words}", output.status);
    }
    parse(&output.stdout, &provider.api_version)
}

async fn execute(provider: &Provider, request: &[u8]) -> Result<Output> {
    let mut child = Command::new(&provider.program)
        .args(&provider.args)
        .envs(provider.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| not_executed(provider))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async move {
        if let Some(mut stdin) = stdin {
            // A plugin that does not read its question may still answer it.
            let _ = stdin.write_all(request).await;
        }
    };
    let read = async {
        let mut bytes = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(MAX_ANSWER_BYTES).read_to_end(&mut bytes).await?;
        }
        std::io::Result::Ok(bytes)
    };
    let complaints = async {
        let mut bytes = Vec::new();
        if let Some(stderr) = stderr {
            stderr.take(MAX_ANSWER_BYTES).read_to_end(&mut bytes).await?;
        }
        std::io::Result::Ok(bytes)
    };
    let ((), stdout, stderr) = tokio::join!(write, read, complaints);
    let status = child.wait().await?;
    Ok(Output {
        status,
        stdout: stdout?,
        stderr: stderr?,
    })
}

/// A program that is there and yet not found is a script or wants a loader: in the agent's image there is nothing.
fn not_executed(provider: &Provider) -> &'static str {
    if provider.program.is_file() {
        "cannot be executed (where there are no shell and no libraries, only static programs can)"
    } else {
        "cannot be executed"
    }
}

fn parse(answer: &[u8], api_version: &str) -> Result<Answer> {
    // The parser's own words could quote the answer.
    let response: Response = serde_json::from_slice(answer).map_err(|e| {
        anyhow::anyhow!(
            "the answer is no CredentialProviderResponse (line {}, column {})",
            e.line(),
            e.column()
        )
    })?;
    ensure!(
        response.kind == "CredentialProviderResponse" && response.api_version == api_version,
        "the answer is not of the kind CredentialProviderResponse in {api_version}"
    );
    // Credentials that come with a duration that cannot be read, such as one in nanoseconds, are good for this once.
    let good_for = response
        .cache_duration
        .map(|text| duration::parse(&text).unwrap_or_default());
    let mut keyring = Keyring::default();
    for (location, Login { username, password }) in response.auth.unwrap_or_default() {
        keyring.add(&location, Credential::Basic { username, password });
    }
    Ok(Answer {
        key_type: response.cache_key_type,
        good_for,
        keyring,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: &str = "credentialprovider.kubelet.k8s.io/v1";

    #[test]
    fn answers_are_read_and_never_quoted() {
        let answer = |rest: &str| {
            format!(r#"{{"kind": "CredentialProviderResponse", "apiVersion": "{VERSION}"{rest}}}"#)
        };
        let text = answer(
            r#", "cacheKeyType": "Registry", "cacheDuration": "5m0s", "auth": {"quay.io": {"username": "u", "password": "p"}}"#,
        );
        let read = parse(text.as_bytes(), VERSION).unwrap();
        assert_eq!(read.key_type, CacheKeyType::Registry);
        assert_eq!(read.good_for, Some(Duration::from_mins(5)));
        let image = ImageRef::parse("quay.io/a/b").unwrap();
        assert_eq!(read.keyring.credentials(&image).fitting().len(), 1);
        let read = parse(
            answer(r#", "cacheKeyType": "Image", "auth": null"#).as_bytes(),
            VERSION,
        )
        .unwrap();
        assert_eq!(read.good_for, None);
        let read = parse(text.replace("5m0s", "59m59.123456789s").as_bytes(), VERSION).unwrap();
        assert_eq!(read.good_for, Some(Duration::ZERO));
        assert_eq!(read.keyring.credentials(&image).fitting().len(), 1);
        for bad in [
            answer(""),
            answer(r#", "cacheKeyType": "hunter2""#),
            "hunter2".into(),
            text.replace("/v1", "/v2"),
        ] {
            let error = parse(bad.as_bytes(), VERSION).err().map(|e| format!("{e:#}"));
            assert!(error.is_some_and(|e| !e.contains("hunter2")), "{bad}");
        }
    }
}
