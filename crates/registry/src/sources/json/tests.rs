use proptest::prelude::*;
use serde_json::json;

use super::*;

fn read(path: &str, document: &Value) -> Result<(Vec<String>, Vec<String>), String> {
    let path = JsonPath::parse(path).map_err(|e| e.to_string())?;
    let found = parse(document.to_string().as_bytes(), &path).map_err(|e| e.to_string())?;
    let images = found.images.into_iter().map(|i| i.image).collect();
    Ok((images, found.errors.iter().map(ToString::to_string).collect()))
}

#[test]
fn paths_lead_where_kubectl_would_go() {
    let document = json!({
        "items": [
            {"image": "nginx:1", "tags": ["a:1", "a:2"]},
            {"name": "without an image"},
            {"image": "redis:7", "tags": []},
        ],
        "my key": {"x.y": "quay.io/x/y:1"},
        "by-name": {"one": "one:1", "two": "two:1"},
        "empty": [],
    });
    for (path, expected) in [
        ("{.items[*].image}", vec!["nginx:1", "redis:7"]),
        ("{ .items[*].image }", vec!["nginx:1", "redis:7"]),
        ("$.items[*].image", vec!["nginx:1", "redis:7"]),
        ("items[*].image", vec!["nginx:1", "redis:7"]),
        ("$['items'][*]['image']", vec!["nginx:1", "redis:7"]),
        (".items[*].tags[*]", vec!["a:1", "a:2"]),
        (".items[0].image", vec!["nginx:1"]),
        (".items[-1].image", vec!["redis:7"]),
        ("['my key'][\"x.y\"]", vec!["quay.io/x/y:1"]),
        (".by-name.*", vec!["one:1", "two:1"]),
        (".empty[*]", vec![]),
        (".empty[*].image", vec![]),
    ] {
        let images = expected.into_iter().map(str::to_owned).collect();
        assert_eq!(read(path, &document), Ok((images, vec![])), "{path}");
    }
    assert_eq!(
        read("[*]", &json!(["a", 5, null, ["b"], "B ad"])).unwrap().1,
        [
            "value 2: a text is expected, this is a number",
            "value 3: a text is expected, this is null",
            "value 4: a text is expected, this is a list; its items are at [*]",
            "value 5 is no image reference: it has a character that is not allowed",
        ]
    );
}

#[test]
fn refusals_say_what_is_wrong() {
    for (path, expected) in [
        ("", "jsonPath \"\": it names nothing"),
        ("$", "jsonPath \"$\": it names nothing"),
        ("{.a", "jsonPath \"{.a\": the brace is not closed"),
        (
            "{range .items[*]}",
            "jsonPath \"{range .items[*]}\": at \".range .items[*]\": only names, indexes and [*] are supported; names with other characters go in ['…']",
        ),
        (
            "..image",
            "jsonPath \"..image\": at \"..image\": recursive descent is not supported",
        ),
        (
            ".a[?(@.b)]",
            "jsonPath \".a[?(@.b)]\": at \"[?(@.b)]\": only [*], an index or a quoted name is supported in brackets",
        ),
        (
            ".a[0:2]",
            "jsonPath \".a[0:2]\": at \"[0:2]\": only [*], an index or a quoted name is supported in brackets",
        ),
        (".a['b", "jsonPath \".a['b\": at \"['b\": the quote is not closed"),
        (".a.", "jsonPath \".a.\": at \".\": a name is expected"),
        (".b[*]", "jsonPath: the document has nothing at [\"b\"]"),
        (".a.c", "jsonPath: the document has nothing at [\"c\"]"),
        (".a[*]", "jsonPath: the document has nothing at [*]"),
        (".l[3]", "jsonPath: the document has nothing at [3]"),
    ] {
        assert_eq!(read(path, &json!({"a": "x", "l": []})), Err(expected.to_owned()));
    }
    let path = JsonPath::parse("[*]").unwrap();
    let error = parse(b"[\"hunter2\"", &path).unwrap_err();
    assert_eq!(error.to_string(), "not JSON: line 1, column 10");
    let many: Vec<String> = (0..6000).map(|n| format!("nginx:{n}")).collect();
    assert_eq!(
        read("[*]", &json!(many)),
        Err("jsonPath leads to more than 5000 values".into())
    );
    assert_eq!(
        read("[*]", &json!(many[..600])),
        Err("600 images, at most 500 are allowed".into())
    );
}

/// An object of one key in five bytes takes more than a hundred times as much once it is read.
#[test]
fn small_documents_that_take_much_memory_are_refused() {
    let nested = format!("{}1{}", "{\"\":".repeat(100), "}".repeat(100));
    let path = JsonPath::parse("[*]").unwrap();
    for (item, times) in [
        (nested.as_str(), 2_000),
        ("{\"\":0}", 400_000),
        ("[]", 400_000),
        ("0", 1_000_000),
    ] {
        let document = format!("[{}]", vec![item; times].join(","));
        let error = parse(document.as_bytes(), &path).unwrap_err();
        assert_eq!(
            error.to_string(),
            "too many objects, lists and values",
            "{item:.20}"
        );
    }
    let release = |n: usize| {
        json!({
            "name": format!("release {n}"), "draft": false, "created": "2026-11-21T10:00:00Z",
            "notes": "x ".repeat(2_000), "image": format!("r.example/app:{n}"),
            "assets": [{"name": "a.tar.gz", "size": 1_000_000}, {"name": "b.tar.gz", "size": 2_000_000}],
        })
    };
    let releases = Value::from((0..400).map(release).collect::<Vec<_>>());
    let (images, _) = read("[*].image", &releases).unwrap();
    assert_eq!(images.len(), 400, "what people keep is read");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn arbitrary_documents_never_panic(
        path in "([.]?([a-c*$]|\\[([*]|-?[0-9]{1,20}|'[a-c ]')\\]|[{}'\\[\\]])){0,6}",
        document in "(\\{\"a\":|\\[|\\]|\\}|,|\"b\":|\"nginx\"|1){0,12}",
        bytes in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        if let Ok(path) = JsonPath::parse(&path) {
            let _ = parse(document.as_bytes(), &path);
            let _ = parse(&bytes, &path);
        }
    }
}
