//! API writes, from the audit log.

use std::collections::BTreeMap;

use larder_e2e::cluster::audit::AuditEvent;

/// The writes of everybody in some time, leases aside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// All of them.
    pub all: usize,
    /// Those that are not of events.
    pub without_events: usize,
    /// Each kind's number, as `verb resource by whom`.
    pub by_kind: BTreeMap<String, usize>,
}

impl Writes {
    /// Counts the writes among these requests. Dry runs and reviews change nothing and are none; leases are renewed
    /// whatever happens.
    pub fn among<'a>(events: impl IntoIterator<Item = &'a AuditEvent>) -> Self {
        let mut found = Self::default();
        let counted = |event: &&AuditEvent| event.is_write() && event.resource != "leases";
        for event in events.into_iter().filter(counted) {
            found.all += 1;
            found.without_events += usize::from(event.resource != "events");
            let kind = format!("{} {} by {}", event.verb, event.resource, who(&event.user));
            *found.by_kind.entry(kind).or_default() += 1;
        }
        found
    }
}

/// Whether a kubelet told of itself, as it does every few seconds whatever happens.
pub fn is_heartbeat(event: &AuditEvent) -> bool {
    event.verb == "patch" && event.resource == "nodes/status" && event.user.starts_with("system:node:")
}

/// A user in a word: all kubelets are one.
fn who(user: &str) -> &str {
    if user.starts_with("system:node:") {
        return "kubelet";
    }
    user.rsplit(':').next().unwrap_or(user)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn event(user: &str, verb: &str, resource: &str, uri: &str) -> AuditEvent {
        AuditEvent {
            user: user.into(),
            impersonated: None,
            verb: verb.into(),
            group: String::new(),
            resource: resource.into(),
            namespace: "bench".into(),
            name: "n".into(),
            uri: uri.into(),
            code: 200,
            at: "2026-11-21T07:00:00.000000Z".into(),
            user_agent: String::new(),
        }
    }

    #[test]
    fn everybodys_writes_count_but_for_leases_dry_runs_and_reads() {
        let events = [
            event("system:node:a", "patch", "pods/status", "/x"),
            event("system:node:b", "patch", "pods/status", "/x"),
            event("system:node:b", "create", "events", "/x"),
            event(
                "system:serviceaccount:larder-system:larder-operator",
                "create",
                "pods",
                "/x?dryRun=All",
            ),
            event(
                "system:serviceaccount:larder-system:larder-operator",
                "create",
                "jobs",
                "/x",
            ),
            event("system:node:a", "update", "leases", "/x"),
            event("larder-cluster-admin", "list", "pods", "/x"),
        ];
        let found = Writes::among(&events);
        assert_eq!((found.all, found.without_events), (4, 3));
        let kinds: Vec<(&str, usize)> = found.by_kind.iter().map(|(k, n)| (k.as_str(), *n)).collect();
        assert_eq!(
            kinds,
            [
                ("create events by kubelet", 1),
                ("create jobs by larder-operator", 1),
                ("patch pods/status by kubelet", 2)
            ]
        );
    }

    #[test]
    fn heartbeats_are_told_from_other_writes_of_nodes() {
        assert!(is_heartbeat(&event(
            "system:node:a",
            "patch",
            "nodes/status",
            "/x"
        )));
        assert!(!is_heartbeat(&event(
            "system:node:a",
            "patch",
            "pods/status",
            "/x"
        )));
        assert!(!is_heartbeat(&event("admin", "patch", "nodes/status", "/x")));
    }
}
