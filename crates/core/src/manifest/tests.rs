use proptest::prelude::*;
use serde_json::json;

use super::*;

fn digest(of: char) -> String {
    format!("sha256:{}", of.to_string().repeat(64))
}

fn parse(value: &serde_json::Value) -> Result<Manifest, ManifestError> {
    Manifest::parse(value.to_string().as_bytes())
}

fn image(value: &serde_json::Value) -> ImageManifest {
    match parse(value) {
        Ok(Manifest::Image(image)) => image,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_image_has_its_parts_and_the_size_of_them_all() {
    let blob = |of, size| Descriptor {
        digest: digest(of),
        size,
    };
    let image = image(&json!({
        "schemaVersion": 2,
        "config": {"digest": digest('a'), "size": 7, "mediaType": "x"},
        "layers": [{"digest": digest('b'), "size": 100}, {"digest": digest('c'), "size": 20}],
    }));
    assert_eq!(image.config, blob('a', 7));
    assert_eq!(image.layers, [blob('b', 100), blob('c', 20)]);
    assert_eq!(image.size_bytes(), 127);
}

#[test]
fn sizes_that_lie_do_not_overflow() {
    let layer = json!({"digest": digest('b'), "size": u64::MAX});
    let config =
        |size: i64| json!({"config": {"digest": digest('a'), "size": size}, "layers": [layer, layer]});
    assert_eq!(image(&config(5)).size_bytes(), i64::MAX);
    assert!(matches!(parse(&config(-5)), Err(ManifestError::Json(_))));
}

#[test]
fn an_index_lists_platforms_without_attestations() {
    let index = json!({"schemaVersion": 2, "manifests": [
        {"digest": digest('a'), "size": 1, "platform": {"os": "linux", "architecture": "amd64"}},
        {"digest": digest('b'), "size": 1, "platform": {"os": "linux", "architecture": "arm", "variant": "v7"}},
        {"digest": digest('c'), "size": 1, "platform": {"os": "unknown", "architecture": "unknown"}},
        {"digest": digest('d'), "size": 1},
    ]});
    let entry = |of, platform: Option<(&str, &str, Option<&str>)>| IndexEntry {
        digest: digest(of),
        platform: platform.map(|(os, arch, variant)| (os.into(), arch.into(), variant.map(Into::into))),
    };
    let expected = vec![
        entry('a', Some(("linux", "amd64", None))),
        entry('b', Some(("linux", "arm", Some("v7")))),
        entry('d', None),
    ];
    assert_eq!(parse(&index), Ok(Manifest::Index(expected)));
}

#[test]
fn an_index_gives_the_manifests_that_can_be_a_platforms() {
    let of = |of, platform: &str| match platform.split_once('/') {
        Some((architecture, variant)) => json!({"digest": digest(of), "size": 1,
            "platform": {"os": "linux", "architecture": architecture, "variant": variant}}),
        None => json!({"digest": digest(of), "size": 1}),
    };
    let index = json!({"manifests": [of('a', ""), of('b', "arm/v6"), of('c', "arm/v7")]});
    let index = parse(&index).unwrap();
    assert_eq!(
        index.candidates("linux", "arm"),
        [digest('b'), digest('c'), digest('a')]
    );
    assert_eq!(index.candidates("linux", "amd64"), [digest('a')]);
}

#[test]
fn anything_else_is_refused() {
    let table = [
        (
            json!({"schemaVersion": 1, "fsLayers": []}),
            "its manifest has schema version 1, 2 is expected",
        ),
        (
            json!({"schemaVersion": 2}),
            "its manifest has neither manifests nor config and layers",
        ),
        (
            json!({"schemaVersion": 2, "manifests": [{"digest": "sha256:../../x"}]}),
            "its manifest names the malformed digest \"sha256:../../x\"",
        ),
        (
            json!({"schemaVersion": 2, "config": {"digest": "x", "size": 1}, "layers": []}),
            "its manifest names the malformed digest \"x\"",
        ),
        (
            json!({"config": {"digest": digest('a'), "size": 1}, "layers": [{"digest": "y", "size": 1}]}),
            "its manifest names the malformed digest \"y\"",
        ),
    ];
    for (value, message) in table {
        assert_eq!(parse(&value).map_err(|e| e.to_string()), Err(message.to_owned()));
    }
    assert!(matches!(Manifest::parse(b"<html>"), Err(ManifestError::Json(_))));
}

#[test]
fn a_configuration_names_the_platform() {
    let table = [
        (
            json!({"os": "linux", "architecture": "arm64", "variant": "v8"}),
            ("linux", "arm64", Some("v8")),
        ),
        (
            json!({"os": "linux", "architecture": "amd64", "variant": ""}),
            ("linux", "amd64", None),
        ),
        (json!({}), ("", "", None)),
    ];
    for (config, (os, architecture, variant)) in table {
        let expected = (os.to_owned(), architecture.to_owned(), variant.map(str::to_owned));
        assert_eq!(platform_of_config(config.to_string().as_bytes()), Ok(expected));
    }
}

/// JSON with the names that the parser looks for, in any places.
fn near_manifests() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(|n| json!(n)),
        Just(json!(2)),
        Just(json!(null)),
        Just(json!(digest('a'))),
        any::<String>().prop_map(|s| json!(s)),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        let name = prop::sample::select(vec![
            "schemaVersion",
            "manifests",
            "config",
            "layers",
            "digest",
            "size",
            "platform",
            "os",
            "variant",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            prop::collection::btree_map(name, inner, 0..7)
                .prop_map(|map| map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Manifest::parse(&bytes);
        let _ = platform_of_config(&bytes);
    }

    #[test]
    fn arbitrary_json_never_panics(value in near_manifests()) {
        let text = value.to_string();
        let _ = platform_of_config(text.as_bytes());
        if let Ok(Manifest::Image(image)) = Manifest::parse(text.as_bytes()) {
            prop_assert!(image.size_bytes() >= 0);
        }
    }
}
