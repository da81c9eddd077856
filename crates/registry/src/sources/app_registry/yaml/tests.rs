use proptest::prelude::*;

use super::*;

fn text(text: &str) -> Yaml {
    Yaml::Text(text.into())
}

fn keys(value: &Yaml) -> Vec<&str> {
    value.as_map().unwrap().keys().map(String::as_str).collect()
}

fn refusal(yaml: &str) -> (SourceReason, String) {
    let error = parse(yaml).unwrap_err();
    (error.reason, error.message)
}

#[test]
fn a_repeated_key_keeps_its_place_and_takes_the_last_value() {
    let map = parse("a: 1\nb: 2\na: 3\n").unwrap();
    assert_eq!(keys(&map), ["a", "b"]);
    assert_eq!(map.get("a"), Some(&Yaml::Int(3)));
}

#[test]
fn anchors_and_merge_keys_work() {
    let yaml = "
base: &base {image: nginx, tag: '1'}
other: &other {tag: '2', extra: x}
one: {<<: *base, tag: '9'}
two:
  <<: [*base, *other]
three:
  \"<<\": plain
copy: *base
";
    let map = parse(yaml).unwrap();
    let one = map.get("one").unwrap();
    assert_eq!(
        (one.get("image"), one.get("tag")),
        (Some(&text("nginx")), Some(&text("9")))
    );
    let two = map.get("two").unwrap();
    assert_eq!(
        (two.get("tag"), two.get("extra")),
        (Some(&text("1")), Some(&text("x")))
    );
    assert_eq!(map.get("three").unwrap().get("<<"), Some(&text("plain")));
    assert_eq!(map.get("copy"), map.get("base"));
}

#[test]
fn quotes_and_tags_decide_what_a_scalar_is() {
    let map = parse("a: 1.10\nb: '1.10'\nc: !!str 1.10\nd: !!int '3'\ne: |\n  1\n1: yes\n~: x\n").unwrap();
    let at = |key| map.get(key).unwrap().clone();
    assert_eq!(at("a"), Yaml::Float(1.1));
    assert_eq!((at("b"), at("c")), (text("1.10"), text("1.10")));
    assert_eq!(
        (at("d"), at("e"), at("1")),
        (Yaml::Int(3), text("1\n"), Yaml::Bool(true))
    );
    assert_eq!(at("None"), text("x"));
    assert_eq!(parse(""), Ok(Yaml::Null));
    assert_eq!(parse("# nothing\n"), Ok(Yaml::Null));
    assert_eq!(parse("--- a\n"), Ok(text("a")));
}

#[test]
fn what_pyyaml_refuses_is_refused() {
    let malformed = SourceReason::Malformed;
    for (yaml, message) in [
        (
            "a: {{x}}",
            "line 1: a map or list is no key; a text that begins with {{ needs quotes",
        ),
        (
            "a: 1\n---\nb: 2",
            "line 2: a second document begins, one is expected",
        ),
        ("a: !thing x", "line 1: a tag of an application is not allowed"),
        (
            "a: !!python/object/apply:os.system [x]",
            "line 1: a tag of an application is not allowed",
        ),
        ("\n<<: 5", "line 2: only maps can be merged by <<"),
        ("<<: [{a: 1}, 5]", "line 1: only maps can be merged by <<"),
    ] {
        assert_eq!(refusal(yaml), (malformed, message.to_owned()), "{yaml}");
    }
    for yaml in ["a: *nowhere", "a: &a [*a]", "image: {{ x }}:1", "a: [", "a: b: c"] {
        assert_eq!(refusal(yaml).0, malformed, "{yaml}");
    }
}

#[test]
fn what_grows_without_bounds_is_refused() {
    let mut laughs = vec!["a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned()];
    for n in 1..30 {
        let items = vec![format!("*a{}", n - 1); 9].join(", ");
        laughs.push(format!("a{n}: &a{n} [{items}]\n"));
    }
    assert_eq!(
        refusal(&laughs.concat()),
        (
            SourceReason::TooLarge,
            "line 6: too much, with what aliases repeat".into()
        )
    );
    assert_eq!(
        refusal(&("[".repeat(65) + &"]".repeat(65))).0,
        SourceReason::TooLarge
    );
    // Deep only once the aliases are put in.
    let nested = |inner: &str| format!("{}{inner}{}", "[".repeat(30), "]".repeat(30));
    let deep = format!(
        "a: &a {}\nb: &b {}\nc: {}\n",
        nested("x"),
        nested("*a"),
        nested("*b")
    );
    assert_eq!(refusal(&deep).0, SourceReason::TooLarge);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn arbitrary_documents_never_panic(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "a", ": ", "\n", "  ", "- ", "[", "]", "{", "}", ", ", "&a ", "*a", "<<: ", "|", ">", "'", "\"", "!!str ", "!x ",
                "# ", "? ", "---\n", "1.5", "{{", "}}", "%", "\t", "\u{feff}", "é",
            ]),
            0..25,
        ),
        text in any::<String>(),
    ) {
        let _ = parse(&pieces.concat());
        let _ = parse(&text);
    }
}
