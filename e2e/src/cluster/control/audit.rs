//! The API server's audit log: who asked for what, since when.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::cluster::control::registry::read_lines_from;
use crate::cluster::error::{IoContext, Result};

/// The audit log of a cluster (level Metadata, one event an answered request).
#[derive(Debug, Clone)]
pub struct Audit {
    path: PathBuf,
}

/// A moment in the log, in bytes from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditMark(u64);

impl Audit {
    /// The log in this file.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The file: one JSON object of `audit.k8s.io/v1` a line.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The end of the log now. The API server writes an event before it answers the request.
    pub fn mark(&self) -> Result<AuditMark> {
        Ok(AuditMark(
            fs::metadata(&self.path).context("read", &self.path)?.len(),
        ))
    }

    /// The requests answered since `mark`.
    pub fn since(&self, mark: AuditMark) -> Result<Vec<AuditEvent>> {
        let (text, _) = read_lines_from(&self.path, mark.0)?;
        Ok(text
            .lines()
            .filter_map(|line| serde_json::from_str::<Line>(line).ok())
            .map(AuditEvent::from)
            .collect())
    }

    /// The writes answered since `mark`: creates, updates, patches and deletes of objects, refused ones too, but not
    /// dry runs and not the reviews that are made by creating them.
    pub fn writes_since(&self, mark: AuditMark) -> Result<Vec<AuditEvent>> {
        Ok(self
            .since(mark)?
            .into_iter()
            .filter(AuditEvent::is_write)
            .collect())
    }
}

/// Counts events by user, verb and resource.
pub fn count(events: &[AuditEvent]) -> BTreeMap<(String, String, String), usize> {
    let mut counts = BTreeMap::new();
    for event in events {
        *counts
            .entry((event.user.clone(), event.verb.clone(), event.resource.clone()))
            .or_default() += 1;
    }
    counts
}

/// One answered request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    /// Who asked, such as `system:serviceaccount:larder-system:larder-operator`.
    pub user: String,
    /// Whom they pretended to be, if they did.
    pub impersonated: Option<String>,
    /// Such as `get`, `watch`, `create`, `patch`, `deletecollection`.
    pub verb: String,
    /// API group of the object; empty for the core group.
    pub group: String,
    /// Resource in the plural, with its subresource after a slash, such as `imagecaches/status`; empty for paths that
    /// are no objects.
    pub resource: String,
    /// Namespace of the object; empty where it has none.
    pub namespace: String,
    /// Name of the object; empty where the request names none.
    pub name: String,
    /// The path and query asked for.
    pub uri: String,
    /// The HTTP status of the answer.
    pub code: u16,
    /// When the request arrived, RFC 3339 with microseconds.
    pub at: String,
    /// What the client calls itself.
    pub user_agent: String,
}

impl AuditEvent {
    /// Whether it is meant to change an object.
    pub fn is_write(&self) -> bool {
        let writes =
            ["create", "update", "patch", "delete", "deletecollection"].contains(&self.verb.as_str());
        let review = ["authentication.k8s.io", "authorization.k8s.io"].contains(&self.group.as_str());
        let token = self.resource == "serviceaccounts/token";
        writes && !review && !token && !self.uri.contains("dryRun=All")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    verb: String,
    #[serde(rename = "requestURI")]
    uri: String,
    user: User,
    impersonated_user: Option<User>,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: Status,
    request_received_timestamp: String,
    #[serde(default)]
    user_agent: String,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
    api_group: String,
}

#[derive(Deserialize, Default)]
struct Status {
    #[serde(default)]
    code: u16,
}

impl From<Line> for AuditEvent {
    fn from(line: Line) -> Self {
        let object = line.object_ref;
        let resource = if object.subresource.is_empty() {
            object.resource
        } else {
            format!("{}/{}", object.resource, object.subresource)
        };
        Self {
            user: line.user.username,
            impersonated: line.impersonated_user.map(|user| user.username),
            verb: line.verb,
            group: object.api_group,
            resource,
            namespace: object.namespace,
            name: object.name,
            uri: line.uri,
            code: line.response_status.code,
            at: line.request_received_timestamp,
            user_agent: line.user_agent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"x","stage":"ResponseComplete",
        "requestURI":"/apis/larder.dev/v1alpha1/namespaces/a/imagecaches/web/status?fieldManager=larder","verb":"patch",
        "user":{"username":"system:serviceaccount:s:o","groups":["g"]},"sourceIPs":["10.77.0.11"],"userAgent":"larder/0.1",
        "objectRef":{"resource":"imagecaches","namespace":"a","name":"web","apiGroup":"larder.dev","apiVersion":"v1alpha1","subresource":"status"},
        "responseStatus":{"metadata":{},"code":200},"requestReceivedTimestamp":"2026-11-21T07:00:00.000001Z","stageTimestamp":"2026-11-21T07:00:00.000002Z"}"#;

    fn line(verb: &str, uri: &str, resource: &str, group: &str) -> String {
        format!(
            r#"{{"verb":"{verb}","requestURI":"{uri}","user":{{"username":"u"}},"objectRef":{{"resource":"{resource}","apiGroup":"{group}"}},"requestReceivedTimestamp":"t"}}"#
        )
    }

    #[test]
    fn events_are_read_from_a_mark_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        fs::write(&path, format!("{}\n", PATCH.replace('\n', ""))).unwrap();
        let audit = Audit::new(path.clone());
        let events = audit.since(AuditMark(0)).unwrap();
        assert_eq!(events[0].resource, "imagecaches/status");
        assert_eq!(
            (events[0].user.as_str(), events[0].code),
            ("system:serviceaccount:s:o", 200)
        );
        let mark = audit.mark().unwrap();
        let old = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{old}{}\n", line("delete", "/x", "pods", ""))).unwrap();
        let events = audit.writes_since(mark).unwrap();
        assert_eq!(
            count(&events),
            [(("u".into(), "delete".into(), "pods".into()), 1)].into()
        );
    }

    #[test]
    fn reads_reviews_and_dry_runs_are_no_writes() {
        let event = |text: String| AuditEvent::from(serde_json::from_str::<Line>(&text).unwrap());
        assert!(event(line("create", "/api/v1/namespaces/a/pods", "pods", "")).is_write());
        assert!(!event(line("list", "/api/v1/pods", "pods", "")).is_write());
        assert!(!event(line("create", "/api/v1/namespaces/a/pods?dryRun=All", "pods", "")).is_write());
        assert!(
            !event(line(
                "create",
                "/x",
                "subjectaccessreviews",
                "authorization.k8s.io"
            ))
            .is_write()
        );
    }
}
