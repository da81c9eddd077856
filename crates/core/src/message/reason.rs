//! From a waiting container's reason and message to a [`Reason`].

use larder_api::names::Reason;

/// What text means what, in the order of precedence: the first row with a text in the message decides. Texts are lower
/// case. Sources: kubelet 1.32 to 1.36 (`pkg/kubelet/images`), containerd 1.7 and 2.x (`core/remotes/docker`,
/// `core/images`, `plugins/content/local`), CRI-O (`containers/image`), Go's `net` and `net/http`.
const TEXTS: [(Reason, &[&str]); 12] = [
    (
        Reason::CredentialsMissing,
        &[
            "no basic auth credentials",
            "missing username or secret",
            "unable to retrieve some image pull secrets",
        ],
    ),
    (
        Reason::NoMatchingPlatform,
        &[
            "no match for platform",
            "no match for current platform",
            "no matching manifest",
            "no image found in image index",
            "no image found in manifest list",
        ],
    ),
    (
        Reason::DigestMismatch,
        &[
            "unexpected commit digest",
            "unexpected commit size",
            "digest did not match",
            "not a valid digest",
        ],
    ),
    (
        Reason::InsufficientDisk,
        &["no space left on device", "disk quota exceeded"],
    ),
    (Reason::RateLimited, &["too many requests", "toomanyrequests"]),
    (
        Reason::PolicyDenied,
        &["signature validation failed", "source image rejected"],
    ),
    (
        Reason::InvalidReference,
        &[
            "invalid reference format",
            "couldn't parse image",
            "could not parse reference",
            "failed to parse image reference",
            "repository name must be lowercase",
        ],
    ),
    // Before NotFound: a registry that hides what exists says "does not exist or may require authorization".
    (
        Reason::Unauthorized,
        &[
            "unauthorized",
            "403 forbidden",
            "authorization failed",
            "insufficient_scope",
            "authentication required",
            "access denied",
            "is denied",
            "denied:",
            "invalid username",
        ],
    ),
    // Before NotFound: what the runtime misses in its own store is no word of the registry.
    (
        Reason::RuntimeError,
        &[
            "snapshot",
            "content digest",
            "failed to extract",
            "failed to unpack",
            " lease",
            "desc = connection error",
        ],
    ),
    (
        Reason::RegistryUnreachable,
        &[
            "dial tcp",
            "connection refused",
            "connection reset",
            "broken pipe",
            "i/o timeout",
            "no such host",
            "server misbehaving",
            "name resolution",
            "network is unreachable",
            "no route to host",
            "handshake",
            "x509",
            "tls:",
            "certificate",
            "proxyconnect",
            "eof",
            "gave http response to https client",
            "malformed http",
            "awaiting headers",
            "awaiting response headers",
            "waiting for connection",
            "server closed",
            "500 internal server error",
            "502 bad gateway",
            "503 service",
            "504 gateway",
            "service unavailable",
            "registry is unavailable",
        ],
    ),
    (
        Reason::Timeout,
        &[
            "deadline exceeded",
            "deadlineexceeded",
            "context canceled",
            "no progress",
            "timed out",
            "timeout",
        ],
    ),
    (
        Reason::NotFound,
        &[
            "not found",
            "manifest unknown",
            "name unknown",
            "name not known",
            "does not exist",
            "code = notfound",
        ],
    ),
];

/// Why a container waits, if that is a failure; none while it waits its turn.
///
/// `waiting_reason` and `message` are those of `state.waiting` in the pod's status.
pub fn pull_reason(waiting_reason: &str, message: &str) -> Option<Reason> {
    match waiting_reason {
        "" | "ContainerCreating" | "PodInitializing" => None,
        "InvalidImageName" => Some(Reason::InvalidReference),
        "SignatureValidationFailed" => Some(Reason::PolicyDenied),
        "ErrImagePull" | "ImagePullBackOff" => pull_error(message),
        "RegistryUnavailable" => Some(classify(message).unwrap_or(Reason::RegistryUnreachable)),
        // The image is there, or its absence is not the registry's doing: only a full disk is told apart.
        _ => Some(
            classify(message)
                .filter(|r| *r == Reason::InsufficientDisk)
                .unwrap_or(Reason::RuntimeError),
        ),
    }
}

fn pull_error(message: &str) -> Option<Reason> {
    let text = without_names(message);
    // The kubelet's own limit: it asks again by itself, and the registry was not even asked.
    if text.contains("pull qps exceeded") {
        return None;
    }
    // Older kubelets, and one that was restarted, say that they wait but not what for.
    let bare = text
        .strip_prefix("back-off pulling image")
        .is_some_and(|rest| rest.trim().is_empty());
    if bare || text.trim().is_empty() {
        return None;
    }
    Some(classify(message).unwrap_or(Reason::RuntimeError))
}

fn classify(message: &str) -> Option<Reason> {
    if message.contains("dial unix") {
        // The runtime itself does not answer; the text goes on like that of a registry.
        return Some(Reason::RuntimeError);
    }
    let text = without_names(message);
    TEXTS
        .iter()
        .find(|(_, texts)| texts.iter().any(|t| text.contains(t)))
        .map(|(reason, _)| *reason)
}

/// Lower case, and without what users and networks named: quoted texts, references, URLs and host names could contain
/// any of the words that are looked for.
fn without_names(message: &str) -> String {
    let mut unquoted = String::with_capacity(message.len());
    let mut pieces = message.split('"');
    unquoted.push_str(pieces.next().unwrap_or_default());
    while let Some(quoted) = pieces.next() {
        match pieces.next() {
            Some(after) => unquoted.push_str(after),
            // No closing quote: the message was cut, and the rest is all there is.
            None => unquoted.push_str(quoted),
        }
    }
    let words: Vec<String> = unquoted
        .split_whitespace()
        .map(str::to_lowercase)
        .map(|word| if is_name(&word) { String::new() } else { word })
        .collect();
    words.join(" ").replace("  ", " ")
}

fn is_name(word: &str) -> bool {
    let dotted = word
        .as_bytes()
        .windows(3)
        .any(|w| w[1] == b'.' && w[0].is_ascii_alphanumeric() && w[2].is_ascii_alphanumeric());
    dotted || word.contains('/') && !word.contains("i/o")
}

#[cfg(test)]
mod tests {
    use larder_api::names::Reason;
    use proptest::prelude::*;

    use super::pull_reason;

    /// As the kubelet words what containerd answered to a pull.
    fn pull(rest: &str) -> String {
        format!(
            "rpc error: code = Unknown desc = failed to pull and unpack image \"r.example:5000/team/app:1\": \
             failed to resolve reference \"r.example:5000/team/app:1\": {rest}"
        )
    }

    #[test]
    fn texts_of_containerd() {
        use Reason::*;
        let head = "failed to do request: Head \"https://r.example:5000/v2/team/app/manifests/1\":";
        for (text, reason) in [
            ("r.example:5000/team/app:1: not found".to_owned(), NotFound),
            ("unexpected status from HEAD request to https://r.example:5000/v2/team/app/manifests/1: 401 Unauthorized".to_owned(), Unauthorized),
            ("unexpected status code [manifests 1]: 401 Unauthorized".to_owned(), Unauthorized),
            ("unexpected status from HEAD request to https://r.example:5000/v2/team/app/manifests/1: 403 Forbidden\ndenied: requested access to the resource is denied".to_owned(), Unauthorized),
            ("pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed".to_owned(), Unauthorized),
            ("pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials".to_owned(), CredentialsMissing),
            ("failed to authorize: failed to handle basic auth because missing username or secret".to_owned(), CredentialsMissing),
            ("failed to authorize: failed to fetch anonymous token: unexpected status from GET request to https://auth.example/token?scope=x: 401 Unauthorized".to_owned(), Unauthorized),
            ("failed to authorize: failed to fetch anonymous token: Get \"https://auth.example/token\": dial tcp 10.0.0.1:443: i/o timeout".to_owned(), RegistryUnreachable),
            ("failed to authorize: failed to fetch oauth token: Post \"https://auth.example/token\": context deadline exceeded".to_owned(), Timeout),
            (format!("{head} dial tcp 10.0.0.1:5000: connect: connection refused"), RegistryUnreachable),
            (format!("{head} dial tcp 10.0.0.1:5000: i/o timeout"), RegistryUnreachable),
            (format!("{head} dial tcp: lookup r.example on 10.0.0.10:53: no such host"), RegistryUnreachable),
            (format!("{head} read tcp 10.2.0.49:42728->23.20.95.219:443: read: connection reset by peer"), RegistryUnreachable),
            (format!("{head} tls: failed to verify certificate: x509: certificate signed by unknown authority"), RegistryUnreachable),
            (format!("{head} http: server gave HTTP response to HTTPS client"), RegistryUnreachable),
            (format!("{head} net/http: TLS handshake timeout"), RegistryUnreachable),
            (format!("{head} net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)"), RegistryUnreachable),
            (format!("{head} EOF"), RegistryUnreachable),
            (format!("{head} context deadline exceeded"), Timeout),
            ("unexpected status from HEAD request to https://r.example:5000/v2/team/app/manifests/1: 429 Too Many Requests\ntoomanyrequests: You have reached your unauthenticated pull rate limit.".to_owned(), RateLimited),
            ("unexpected status from HEAD request to https://r.example:5000/v2/team/app/manifests/1: 503 Service Unavailable".to_owned(), RegistryUnreachable),
            ("unexpected status from HEAD request to https://r.example:5000/v2/team/app/manifests/1: 500 Internal Server Error".to_owned(), RegistryUnreachable),
        ] {
            assert_eq!(pull_reason("ErrImagePull", &pull(&text)), Some(reason), "{text}");
            let backing_off = format!("Back-off pulling image \"r.example:5000/team/app:1\": ErrImagePull: {}", pull(&text));
            assert_eq!(pull_reason("ImagePullBackOff", &backing_off), Some(reason), "{backing_off}");
        }
    }

    #[test]
    fn texts_of_the_transfer_service_and_the_content_store() {
        let unpack = |rest: &str| {
            format!(
                "rpc error: code = NotFound desc = failed to pull and unpack image \"docker.io/library/x:1\": {rest}"
            )
        };
        for (text, reason) in [
            (
                "failed to resolve image: docker.io/library/x:1: not found",
                Reason::NotFound,
            ),
            (
                "no match for platform in manifest: not found",
                Reason::NoMatchingPlatform,
            ),
            (
                "no match for platform in manifest sha256:32efb15c: not found",
                Reason::NoMatchingPlatform,
            ),
            (
                "failed commit on ref \"layer-sha256:0ee2\": unexpected commit digest sha256:1111, expected sha256:0ee2: failed precondition",
                Reason::DigestMismatch,
            ),
            (
                "failed to copy: write /var/lib/containerd/io.containerd.content.v1.content/ingest/1/data: no space left on device",
                Reason::InsufficientDisk,
            ),
            (
                "failed to extract layer sha256:1: write /var/lib/x: no space left on device: unknown",
                Reason::InsufficientDisk,
            ),
            (
                "failed to prepare extraction snapshot \"extract-7 sha256:92\": parent snapshot sha256:0b does not exist: not found",
                Reason::RuntimeError,
            ),
            (
                "could not fetch content descriptor sha256:00 (application/vnd.oci.image.layer.v1.tar+gzip) from remote: not found",
                Reason::NotFound,
            ),
            ("context canceled", Reason::Timeout),
            ("something else", Reason::RuntimeError),
        ] {
            let text = unpack(text).replace(
                "NotFound",
                if reason == Reason::NotFound {
                    "NotFound"
                } else {
                    "Unknown"
                },
            );
            assert_eq!(pull_reason("ErrImagePull", &text), Some(reason), "{text}");
        }
    }

    #[test]
    fn texts_of_other_runtimes() {
        for (text, reason) in [
            (
                "reading manifest v9 in registry.example/app: manifest unknown: Failed to fetch",
                Reason::NotFound,
            ),
            (
                "unable to retrieve auth token: invalid username/password: unauthorized: incorrect username or password",
                Reason::Unauthorized,
            ),
            (
                "choosing image instance: no image found in image index for architecture arm64, variant \"v8\", OS linux",
                Reason::NoMatchingPlatform,
            ),
            (
                "Source image rejected: A signature was required, but no signature exists",
                Reason::PolicyDenied,
            ),
            (
                "pinging container registry r.example: Get \"https://r.example/v2/\": dial tcp 1.2.3.4:443: connect: no route to host",
                Reason::RegistryUnreachable,
            ),
            ("repository name not known to registry", Reason::NotFound),
        ] {
            assert_eq!(pull_reason("ErrImagePull", text), Some(reason), "{text}");
        }
    }

    #[test]
    fn reasons_of_the_kubelet() {
        for (waiting, text, reason) in [
            ("", "", None),
            ("ContainerCreating", "", None),
            ("PodInitializing", "whatever: not found", None),
            ("ErrImagePull", "pull QPS exceeded", None),
            (
                "ImagePullBackOff",
                "Back-off pulling image \"x\": ErrImagePull: pull QPS exceeded",
                None,
            ),
            (
                "ImagePullBackOff",
                "Back-off pulling image \"r.example/x:1\"",
                None,
            ),
            ("ErrImagePull", "", None),
            (
                "InvalidImageName",
                "Failed to apply default image tag \"X\": couldn't parse image name",
                Some(Reason::InvalidReference),
            ),
            (
                "RegistryUnavailable",
                "image pull failed for r.example/x because the registry is unavailable",
                Some(Reason::RegistryUnreachable),
            ),
            (
                "RegistryUnavailable",
                "image pull failed for r.example/x because the registry is unavailable: 429 Too Many Requests",
                Some(Reason::RateLimited),
            ),
            (
                "SignatureValidationFailed",
                "image pull failed for x because the signature validation failed",
                Some(Reason::PolicyDenied),
            ),
            (
                "ImageInspectError",
                "Failed to inspect image \"\": rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while dialing: dial unix /run/containerd/containerd.sock: connect: connection refused\"",
                Some(Reason::RuntimeError),
            ),
            (
                "ErrImagePull",
                "rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while dialing: dial unix /run/containerd/containerd.sock: connect: connection refused\"",
                Some(Reason::RuntimeError),
            ),
            (
                "ErrImageNeverPull",
                "Container image \"x\" is not present with pull policy of Never",
                Some(Reason::RuntimeError),
            ),
            (
                "CreateContainerError",
                "failed to create containerd container: error unpacking image: content digest sha256:1: not found",
                Some(Reason::RuntimeError),
            ),
            (
                "CreateContainerError",
                "mkdir /run/x: no space left on device",
                Some(Reason::InsufficientDisk),
            ),
            (
                "CreateContainerConfigError",
                "secret \"x\" not found",
                Some(Reason::RuntimeError),
            ),
        ] {
            assert_eq!(pull_reason(waiting, text), reason, "{waiting}: {text}");
        }
    }

    #[test]
    fn names_do_not_decide() {
        for name in [
            "x509.example/401/unauthorized:toomanyrequests",
            "r.example/no/denied:eof",
        ] {
            let text = format!(
                "rpc error: code = NotFound desc = failed to pull and unpack image \"{name}\": failed to resolve reference \
                 \"{name}\": {name}: not found"
            );
            assert_eq!(
                pull_reason("ErrImagePull", &text),
                Some(Reason::NotFound),
                "{text}"
            );
        }
        let text = "failed to do request: Head \"https://unauthorized.example/v2/\": dial tcp: lookup unauthorized.example on 10.0.0.1:53: no such host";
        assert_eq!(
            pull_reason("ErrImagePull", text),
            Some(Reason::RegistryUnreachable)
        );
    }

    proptest! {
        #[test]
        fn any_text_has_an_answer(waiting in "[A-Za-z]{0,12}", message in any::<String>()) {
            // A reason that is not one of the waiting ones is always a failure.
            let answer = pull_reason(&waiting, &message);
            prop_assert!(answer.is_some() || waiting.is_empty());
        }
    }
}
