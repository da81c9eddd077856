//! Cuts texts to what is read first.

/// At most `max_chars` characters on one line, `…` where something was cut.
///
/// What the kubelet and containerd put around the registry's own words goes first.
pub fn shorten(message: &str, max_chars: usize) -> String {
    let line = message
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|w| !w.is_empty());
    cut(unwrap(&line.collect::<Vec<_>>().join(" ")), max_chars)
}

/// At most `max_chars` characters, with `…` as the last of them where something was cut.
pub(crate) fn cut(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        None => text.to_owned(),
        Some(_) if max_chars == 0 => String::new(),
        Some(_) => {
            let kept: String = text.chars().take(max_chars - 1).collect();
            format!("{}…", kept.trim_end())
        }
    }
}

/// The innermost words. Stops before nothing would be left.
fn unwrap(message: &str) -> &str {
    let mut text = message.trim();
    while let Some(inner) = peel(text).map(str::trim).filter(|t| !t.is_empty()) {
        text = inner;
    }
    text
}

/// The text without its outermost wrapping, if it has one that is known.
fn peel(text: &str) -> Option<&str> {
    const PLAIN: [&str; 6] = [
        "ErrImagePull: ",
        "RegistryUnavailable: ",
        "SignatureValidationFailed: ",
        "failed to resolve image: ",
        "failed to do request: ",
        "failed to authorize: ",
    ];
    // Followed by the image in quotes and a colon.
    const WITH_IMAGE: [&str; 5] = [
        "Back-off pulling image ",
        "Failed to pull image ",
        "failed to pull image ",
        "failed to pull and unpack image ",
        "failed to resolve reference ",
    ];
    if let Some(list) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'))
        && list.starts_with("rpc error: ")
    {
        // The kubelet tried several credentials, each with its own error.
        return Some(list);
    }
    if let Some(inner) = PLAIN.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        return Some(inner);
    }
    if let Some(status) = text.strip_prefix("rpc error: code = ") {
        return status.split_once(" desc = ").map(|(_, words)| words);
    }
    let quoted = WITH_IMAGE
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix))?
        .strip_prefix('"')?;
    quoted.split_once("\": ").map(|(_, words)| words)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::shorten;

    #[test]
    fn the_registrys_words_come_first() {
        for (text, expected) in [
            (
                "Back-off pulling image \"r.example/x:1\": ErrImagePull: rpc error: code = NotFound desc = failed to pull and \
                 unpack image \"r.example/x:1\": failed to resolve reference \"r.example/x:1\": r.example/x:1: not found",
                "r.example/x:1: not found",
            ),
            (
                "rpc error: code = Unknown desc = failed to pull and unpack image \"r.example/x:1\": failed to resolve \
                 reference \"r.example/x:1\": failed to do request: Head \"https://r.example/v2/x/manifests/1\": dial tcp \
                 10.0.0.1:443: connect: connection refused",
                "Head \"https://r.example/v2/x/manifests/1\": dial tcp 10.0.0.1:443: connect: connection refused",
            ),
            (
                "rpc error: code = NotFound desc = failed to pull and unpack image \"r.example/x:1\": failed to resolve \
                 image: r.example/x:1: not found",
                "r.example/x:1: not found",
            ),
            (
                "[rpc error: code = Unknown desc = failed to pull and unpack image \"x\": 401 Unauthorized, rpc error: code = \
                 Unknown desc = second]",
                "401 Unauthorized, rpc error: code = Unknown desc = second",
            ),
            (
                "Back-off pulling image \"r.example/x:1\"",
                "Back-off pulling image \"r.example/x:1\"",
            ),
            ("ErrImagePull: ", "ErrImagePull:"),
            (
                "pods \"x\" is forbidden: exceeded quota",
                "pods \"x\" is forbidden: exceeded quota",
            ),
            (
                "403 Forbidden\ndenied: \trequested access\r\n",
                "403 Forbidden denied: requested access",
            ),
            ("", ""),
        ] {
            assert_eq!(shorten(text, 500), expected);
        }
    }

    #[test]
    fn cuts_on_a_character() {
        assert_eq!(shorten("größer", 6), "größer");
        assert_eq!(shorten("größer", 5), "größ…");
        assert_eq!(shorten("a bcd", 3), "a…");
        assert_eq!(shorten("größer", 1), "…");
        assert_eq!(shorten("größer", 0), "");
    }

    proptest! {
        #[test]
        fn one_line_and_never_too_long(text in any::<String>(), max in 0_usize..300) {
            let short = shorten(&text, max);
            prop_assert!(short.chars().count() <= max);
            prop_assert!(!short.chars().any(char::is_control));
        }

        #[test]
        fn what_fits_loses_no_word(words in prop::collection::vec("[a-z]{1,8}", 1..10)) {
            let text = words.join("\n");
            prop_assert_eq!(shorten(&text, 500), words.join(" "));
        }
    }
}
