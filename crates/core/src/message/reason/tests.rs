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
