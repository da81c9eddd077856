use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn the_newest_versions_that_fit_a_requirement() {
    let tags = [
        "latest",
        "1",
        "1.2",
        "1.2.0",
        "v1.2.0",
        "1.10.1",
        "v1.9.0",
        "1.10.1-alpine",
        "2.0.0-rc.1",
        "2.0.0",
        "0.9.9",
        "20240101",
        "2024.01.02",
        "sha-abcdef",
        "1.11",
        "1.02.3",
    ];
    for (requirement, newest, expected) in [
        (">=1, <2", 3, vec!["1.11", "1.10.1", "v1.9.0"]),
        ("^1.2", 9, vec!["1.11", "1.10.1", "v1.9.0", "1.2.0"]),
        ("*", 2, vec!["2.0.0", "1.11"]),
        ("~1.10.0", 5, vec!["1.10.1"]),
        (">=2.0.0-rc.0", 5, vec!["2.0.0", "2.0.0-rc.1"]),
        ("=1.10.1-alpine", 5, vec!["1.10.1-alpine"]),
        (">3", 5, vec![]),
    ] {
        let filter = TagFilter::semver(requirement, newest).unwrap();
        assert_eq!(filter.choose(tags), expected, "{requirement}");
    }
}

#[test]
fn a_pushed_version_moves_the_newest_two() {
    let filter = TagFilter::semver("^1", 2).unwrap();
    assert_eq!(filter.choose(["1.1.0", "1.2.0"]), ["1.2.0", "1.1.0"]);
    assert_eq!(filter.choose(["1.1.0", "1.2.0", "1.3.0"]), ["1.3.0", "1.2.0"]);
}

#[test]
fn the_newest_tags_that_fit_an_expression() {
    let tags = [
        "1.9-alpine",
        "1.10-alpine",
        "1.10",
        "main-9-f00",
        "main-10-bad",
        "main-10-bad",
    ];
    for (expression, newest, expected) in [
        ("-alpine$", 1, vec!["1.10-alpine"]),
        ("^main-", 5, vec!["main-10-bad", "main-9-f00"]),
        ("^[a-z]+-(?:[0-9]+)-([0-9a-f]+)$", 1, vec!["main-9-f00"]),
        ("nothing", 5, vec![]),
    ] {
        let filter = TagFilter::regex(expression, newest).unwrap();
        assert_eq!(filter.choose(tags), expected, "{expression}");
    }
}

#[test]
fn refusals_say_what_is_wrong() {
    let message = |filter: Result<TagFilter, SourceError>| filter.map_err(|e| e.message).unwrap_err();
    assert!(message(TagFilter::semver("1.2.", 1)).starts_with("semver \"1.2.\": "));
    assert!(message(TagFilter::regex("a(", 1)).starts_with("regex \"a(\": "));
    assert!(message(TagFilter::regex("(\\w{99}){99}", 1)).contains("regex"));
    assert_eq!(
        message(TagFilter::regex("a", 0)),
        "newest must be between 1 and 500"
    );
    assert_eq!(
        message(TagFilter::semver("", 1)),
        "semver or regex must have 1 to 200 characters"
    );
}

#[test]
fn pages_end_and_are_bounded() {
    let mut list = TagList::default();
    let page = json!({"name": "a/b", "tags": ["1.0", "", "-bad", "b ad", "2.0"]}).to_string();
    let next = list.take(
        page.as_bytes(),
        Some(r#"</v2/a/b/tags/list?last=2.0&n=2>; rel="next""#),
    );
    assert_eq!(next, Ok(Some("/v2/a/b/tags/list?last=2.0&n=2".into())));
    assert_eq!(list.take(br#"{"tags": null}"#, None), Ok(None));
    assert_eq!(list.tags().collect::<Vec<_>>(), ["1.0", "2.0"]);

    let endless = (0..MAX_PAGES)
        .map(|_| list.take(br#"{"tags": []}"#, Some("<x>; rel=next")))
        .last();
    assert!(matches!(endless, Some(Err(error)) if error.reason == SourceReason::TooLarge));
    let many: Vec<String> = (0..20_001).map(|n| n.to_string()).collect();
    let many = json!({ "tags": many }).to_string();
    assert!(TagList::default().take(many.as_bytes(), None).is_err());
    let error = TagList::default().take(b"<html>", None).unwrap_err();
    assert_eq!(error.message, "not a list of tags: line 1, column 1");
}

#[test]
fn only_the_link_to_the_next_page_counts() {
    for (link, next) in [
        ("<a>; rel=\"next\"", Some("a")),
        ("<a>; rel=prev, <b>; title=x; rel = next", Some("b")),
        ("<a>; rel=prev", None),
        ("<>; rel=next", None),
        ("a; rel=next", None),
        ("<a", None),
    ] {
        assert_eq!(next_page(link).as_deref(), next, "{link}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn what_is_chosen_fits_and_depends_on_no_order(
        tags in prop::collection::vec("v?[0-9]{1,2}(\\.[0-9]{1,2}){0,3}(-[a-z0-9.]{1,4})?", 0..12)
            .prop_flat_map(|tags| (Just(tags.clone()), Just(tags).prop_shuffle())),
        newest in 1_usize..5,
    ) {
        let (tags, shuffled) = tags;
        for filter in [TagFilter::semver("<20", newest).unwrap(), TagFilter::regex("[0-9]", newest).unwrap()] {
            let chosen = filter.choose(tags.iter().map(String::as_str));
            prop_assert!(chosen.len() <= newest);
            prop_assert_eq!(&chosen, &filter.choose(shuffled.iter().map(String::as_str)));
        }
    }

    #[test]
    fn arbitrary_lists_never_panic(
        filter in any::<String>(), link in "[<>;,=a-z \"]{0,30}", tag in any::<String>(),
    ) {
        let _ = TagList::default().take(filter.as_bytes(), Some(&link));
        for filter in [TagFilter::semver(&filter, 1), TagFilter::regex(&filter, 1)].into_iter().flatten() {
            filter.choose([tag.as_str()]);
        }
    }
}
