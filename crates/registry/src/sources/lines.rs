//! A reference a line: `ConfigMaps`, and lists over HTTP.
//!
//! What follows a `#` is a comment: no reference has one. Blank lines do not count. A line that is no reference is an
//! error that names it by its number, and the others are read all the same.

use super::{Collector, Found, SourceError, SourceReason, check_size};

/// Lines of a list, comments and blank ones included.
pub const MAX_LINES: usize = 2000;

/// Reads a list. A byte order mark at the beginning is passed over. Fails for what is too long, or not UTF-8.
pub fn parse(bytes: &[u8]) -> Result<Found, SourceError> {
    check_size(bytes.len())?;
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        let line = before.matches('\n').count() + 1;
        SourceError::new(SourceReason::Malformed, format!("line {line} is not UTF-8"))
    })?;
    let text = text.trim_start_matches('\u{feff}');
    let lines = text.lines().count();
    if lines > MAX_LINES {
        return Err(SourceError::new(
            SourceReason::TooLarge,
            format!("{lines} lines, at most {MAX_LINES} are allowed"),
        ));
    }
    let mut collector = Collector::default();
    for (at, line) in text.lines().enumerate() {
        let image = line.split('#').next().unwrap_or_default().trim();
        if !image.is_empty() {
            collector.add_listed(image, &format!("line {}", at + 1));
        }
    }
    collector.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_comments_blank_lines_and_repetitions() {
        let text = "\u{feff}# ours\nnginx:1.27\r\n\n  docker.io/library/nginx:1.27 # again\nBad Name\nquay.io/a/b:1 #x\n";
        let found = parse(text.as_bytes()).unwrap();
        let images: Vec<&str> = found.images.iter().map(|i| i.image.as_str()).collect();
        assert_eq!(images, ["nginx:1.27", "quay.io/a/b:1"]);
        let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            ["line 5 is no image reference: it has a character that is not allowed"]
        );
        assert_eq!(parse(b"").unwrap(), Found::default());
    }

    #[test]
    fn what_is_too_much_is_refused_whole() {
        let list = |lines: usize| {
            let lines: Vec<String> = (0..lines).map(|n| format!("nginx:{n}\n")).collect();
            lines.concat().into_bytes()
        };
        let refusal = |bytes: &[u8]| parse(bytes).map_err(|e| (e.reason, e.message));
        assert_eq!(parse(&list(500)).unwrap().images.len(), 500);
        assert_eq!(
            refusal(&list(501)),
            Err((
                SourceReason::TooLarge,
                "501 images, at most 500 are allowed".into()
            ))
        );
        assert_eq!(
            refusal(&list(5000)),
            Err((
                SourceReason::TooLarge,
                "5000 lines, at most 2000 are allowed".into()
            ))
        );
        assert_eq!(
            refusal(&vec![b'x'; 5_000_000]),
            Err((
                SourceReason::TooLarge,
                "5000000 bytes, at most 4194304 are allowed".into()
            ))
        );
        assert_eq!(
            refusal(b"nginx\n\xff\n"),
            Err((SourceReason::Malformed, "line 2 is not UTF-8".into()))
        );
        let bad = "Bad Name\n".repeat(60).replace("Name", "Name X");
        let found = parse(bad.as_bytes()).unwrap();
        assert_eq!(found.errors.len(), 50);
        assert_eq!(found.errors[49].message, "and 11 further errors");
    }
}
