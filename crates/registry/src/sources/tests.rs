use super::*;

#[test]
fn messages_are_one_short_line() {
    let error = SourceError::of_app(
        "blast",
        SourceReason::Malformed,
        format!("a\nb{}", "ö".repeat(400)),
    );
    assert_eq!(error.message.chars().count(), 300);
    assert!(error.message.starts_with("a bö") && error.message.ends_with("ö…"));
    assert!(error.to_string().starts_with("blast: a b"));
    assert_eq!(SourceReason::UnknownBrand.to_string(), "UnknownBrand");
}
