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
mod tests;
