//! Reading the API server's refusals.

use kube::Error;

/// Nothing of that name is there.
pub fn is_not_found(error: &Error) -> bool {
    code(error) == Some(404)
}

/// Something has changed since, or a precondition does not hold.
pub fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 409 && status.reason != "AlreadyExists")
}

/// Something of that name is there.
pub fn is_already_exists(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.reason == "AlreadyExists")
}

/// The API server's words, if it looked at the object and will not have it: quota, admission, validation, a namespace
/// that goes away. None where repeating may well help.
pub fn refusal(error: &Error) -> Option<&str> {
    match error {
        Error::Api(status) if matches!(status.code, 400 | 403 | 404 | 413 | 422) => Some(&status.message),
        _ => None,
    }
}

/// The namespace is going away: nothing can be made in it any more, and what is there goes, too.
pub fn is_terminating(error: &Error) -> bool {
    let Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403
        && causes
            .into_iter()
            .any(|cause| cause.reason == "NamespaceTerminating")
}

fn code(error: &Error) -> Option<u16> {
    match error {
        Error::Api(status) => Some(status.code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn refusals_are_told_from_accidents() {
        let error = |code, reason| Error::Api(Status::failure("words", reason).with_code(code).boxed());
        assert_eq!(refusal(&error(403, "Forbidden")), Some("words"));
        assert_eq!(refusal(&error(422, "Invalid")), Some("words"));
        for (code, reason) in [
            (409, "Conflict"),
            (429, "TooManyRequests"),
            (500, "InternalError"),
            (503, ""),
        ] {
            assert_eq!(refusal(&error(code, reason)), None, "{code}");
        }
        assert!(is_conflict(&error(409, "Conflict")) && !is_conflict(&error(409, "AlreadyExists")));
        assert!(is_already_exists(&error(409, "AlreadyExists")));
        assert!(is_not_found(&error(404, "NotFound")));
    }
}
