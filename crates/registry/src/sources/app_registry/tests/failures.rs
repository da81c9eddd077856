//! What cannot be read, and what it costs.

use proptest::prelude::*;

use super::*;

#[test]
fn contexts_that_extend_themselves_or_nothing_are_errors() {
    let contexts = "
  a: {extends: [b]}
  b: {extends: [a]}
  c: {extends: [nowhere]}
  diamond: {extends: [left, right]}
  left: {extends: [bottom]}
  right: {extends: [bottom]}
  bottom: {apps: {x: {}}}
";
    let mut contexts = vec![contexts.to_owned(), "  l0: {}\n".to_owned()];
    for n in 1..40 {
        contexts.push(format!("  l{n}: {{extends: [l{0}, l{0}]}}\n", n - 1));
    }
    let memory = registry(&contexts.concat(), &["x"]);
    assert_eq!(
        refusal(&memory, "a"),
        "BrokenContext context \"a\" extends itself"
    );
    assert_eq!(
        refusal(&memory, "c"),
        "BrokenContext context \"c\" extends \"nowhere\", which does not exist"
    );
    assert_eq!(
        refusal(&memory, "l39"),
        "BrokenContext contexts extend each other too often or too deeply"
    );
    assert_eq!(images(&memory, "diamond"), ["x main x:1"]);
}

#[test]
fn an_unknown_brand_is_not_an_unreachable_registry() {
    let mut memory = registry("  one: {}\n  two: {}\n", &[]);
    assert_eq!(
        refusal(&memory, "three"),
        "UnknownBrand the registry has no brand \"three\"; it has one, two"
    );
    assert_eq!(images(&memory, "one"), Vec::<String>::new());
    memory.put("app-registry.yaml", Err(SourceReason::Unreachable));
    assert_eq!(
        refusal(&memory, "three"),
        "Unreachable https://registry.example/main/app-registry.yaml: status for Unreachable"
    );
    for (body, expected) in [
        ("[1]", "Malformed app-registry.yaml is not a map"),
        (
            "a: [",
            "Malformed https://registry.example/main/app-registry.yaml: not YAML: line 1, column ",
        ),
        (
            "a: 1",
            "UnknownBrand the registry has no brand \"three\"; it has none",
        ),
    ] {
        memory.put("app-registry.yaml", Ok(body.to_owned()));
        assert!(refusal(&memory, "three").starts_with(expected), "{body}");
    }
    let error = futures::executor::block_on(read(&memory, "ftp://x", "a")).unwrap_err();
    assert_eq!(error.message, "the registry's url is neither http nor https");
}

#[test]
fn defaults_that_cannot_be_read_are_said() {
    let mut memory = registry("  brand: {apps: {a: {}}}\n", &["a"]);
    memory.put("app-defaults.yaml", Err(SourceReason::Unreachable));
    assert_eq!(
        lines(&memory, "brand"),
        (
            vec!["a main a:1".to_owned()],
            vec![
                "Unreachable https://registry.example/main/app-defaults.yaml: status for Unreachable"
                    .to_owned()
            ]
        )
    );
}

/// Stores that may not be listed answer so for what they do not have.
#[test]
fn defaults_that_are_refused_are_none() {
    let mut memory = registry("  brand: {apps: {a: {}}}\n", &["a"]);
    memory.put("app-defaults.yaml", Err(SourceReason::Unauthorized));
    assert_eq!(images(&memory, "brand"), ["a main a:1"]);
}

#[test]
fn one_bad_app_costs_only_itself() {
    let contexts = "
  brand:
    apps:
      good: {}
      missing: {}
      forbidden: {}
      broken: {}
      elsewhere: {}
      loops: {}
      notyaml: {}
      braces: {}
      empty: {}
      list: {}
      partly: {}
      text: just a text
      number: {spec: 5}
      file: {spec: 'file:///etc/passwd'}
      last: {}
";
    let mut memory = registry(contexts, &["good", "last"]);
    for (app, answer) in [
        ("forbidden", Err(SourceReason::Unauthorized)),
        ("broken", Ok(compose("'{{ x | }}'"))),
        (
            "elsewhere",
            Ok("services: {main: {image: 'e:1', command: ['{{ x']}}".into()),
        ),
        (
            "loops",
            Ok("services: {main: {image: 'l:1', command: '{% for a in b %}{% endfor %}'}}".into()),
        ),
        ("notyaml", Ok("services: [".into())),
        ("braces", Ok(compose("{{ x }}:1"))),
        ("empty", Ok(String::new())),
        ("list", Ok("services: [a]".into())),
        (
            "partly",
            Ok("services: {one: {image: 'one:1'}, two: {build: .}, three: {image: 3}}".into()),
        ),
    ] {
        memory.put(&format!("apps/{app}/docker-compose.yaml"), answer);
    }
    let (images, errors) = lines(&memory, "brand");
    assert_eq!(
        images,
        [
            "good main good:1",
            "loops main l:1",
            "partly one one:1",
            "last main last:1"
        ]
    );
    let address = "https://registry.example/main/apps";
    let expected = [
        format!("NotFound missing: {address}/missing/docker-compose.yaml: status for NotFound"),
        format!("Unauthorized forbidden: {address}/forbidden/docker-compose.yaml: status for Unauthorized"),
        "BrokenTemplate broken: template at services.main.image: syntax error: ".into(),
        "BrokenTemplate elsewhere: template at services.main.command[0]: syntax error: ".into(),
        format!("Malformed notyaml: {address}/notyaml/docker-compose.yaml: not YAML: line 1, column "),
        format!("Malformed braces: {address}/braces/docker-compose.yaml: "),
        "Malformed empty: its compose file has no services".into(),
        "Malformed list: services of its compose file is not a map".into(),
        "Malformed partly: service \"two\": it has no image".into(),
        "Malformed partly: service \"three\": its image is not a text".into(),
        "Malformed text: its entry in app-registry.yaml is not a map".into(),
        "Malformed number: its spec is not the address of a compose file".into(),
        "Malformed file: \"file:///etc/passwd\" is no http or https address".into(),
    ];
    assert_eq!(errors.len(), expected.len(), "{errors:#?}");
    for (error, expected) in errors.iter().zip(&expected) {
        assert!(error.starts_with(expected), "{error}\n{expected}");
    }
}

#[test]
fn addresses_in_messages_show_no_password() {
    let memory = Memory::default();
    let read = read(
        &memory,
        "https://user:hunter2@registry.example:8443/a?token=hunter2",
        "x",
    );
    let error = futures::executor::block_on(read).unwrap_err();
    assert_eq!(
        error.message,
        "https://registry.example:8443/a/app-registry.yaml: status for NotFound"
    );
}

#[test]
fn too_many_apps_or_images_are_refused() {
    let many = |n: usize| {
        (0..n)
            .map(|n| format!("a{n}: {{}}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let memory = registry(&format!("  brand: {{apps: {{{}}}}}\n", many(501)), &[]);
    assert_eq!(
        refusal(&memory, "brand"),
        "TooLarge the brand has more than 500 apps"
    );
    let services: Vec<String> = (0..501).map(|n| format!("s{n}: {{image: 'x:{n}'}}")).collect();
    let mut memory = registry("  brand: {apps: {a: {}}}\n", &[]);
    let spec = format!("services: {{{}}}", services.join(", "));
    memory.put("apps/a/docker-compose.yaml", Ok(spec));
    assert_eq!(
        refusal(&memory, "brand"),
        "TooLarge 501 images, at most 500 are allowed"
    );
}

#[test]
fn it_is_known_which_app_has_which_images_and_which_may_be_back() {
    let mut memory = registry("  brand: {apps: {a: {}, b: {}, gone: {}, down: {}}}\n", &["a"]);
    let two = "services: {one: {image: 'a:1'}, two: {image: 'b:1'}, three: {image: 'B 1'}}";
    memory.put("apps/b/docker-compose.yaml", Ok(two.into()));
    memory.put("apps/down/docker-compose.yaml", Err(SourceReason::Unreachable));
    let found = read_brand(&memory, "brand").unwrap();
    let of = |images: &[&str]| {
        let images = images.iter().map(|i| format!("docker.io/library/{i}")).collect();
        Some(images)
    };
    let expected = [
        ("a".to_owned(), of(&["a:1"])),
        ("b".to_owned(), of(&["a:1", "b:1"])),
        ("down".to_owned(), None),
    ];
    assert_eq!(found.apps, BTreeMap::from(expected));
}

/// Each of these would take gigabytes or hours.
#[test]
fn what_is_small_and_asks_for_much_is_refused() {
    let apps = (0..500)
        .map(|n| format!("a{n}: {{}}"))
        .collect::<Vec<_>>()
        .join(", ");
    let brand = format!("  brand: {{apps: {{{apps}}}}}\n");
    let huge = "x".repeat(2 * 1024 * 1024);
    let mut memory = registry(&brand, &[]);
    memory.put("app-defaults.yaml", Ok(format!("spec: {huge}")));
    let broken = "Malformed a0: its spec is not the address of a compose file";
    assert_eq!(lines(&memory, "brand").1[0], broken);

    let mut memory = registry(&brand, &[]);
    memory.put(
        "app-registry.yaml",
        Ok(format!(
            "repositories: {{r: {{url: 'http://{}'}}}}\ncontexts:\n{brand}",
            "x".repeat(4000)
        )),
    );
    memory.put("app-defaults.yaml", Ok(format!("spec: {}", "$r".repeat(2000))));
    assert_eq!(lines(&memory, "brand").1[0], broken);

    let mixins = "m, ".repeat(60_000);
    let memory = registry(
        &format!("  brand: {{mixin: [{mixins}], apps: {{{apps}}}}}\n  m: {{apps: {{}}}}\n"),
        &[],
    );
    assert_eq!(
        refusal(&memory, "brand"),
        "BrokenContext contexts have too many mixins"
    );
}

#[test]
fn compose_files_have_an_end_and_their_templates_too() {
    let with = |templates: usize, padding: usize| {
        let texts = vec!["'{{ a }}{{ b }}'"; templates].join(", ");
        format!(
            "services: {{main: {{image: 'x:1', command: [{texts}]}}}}\n#{}",
            "x".repeat(padding)
        )
    };
    let mut memory = registry("  brand: {apps: {a: {}, b: {}, c: {}, d: {}}}\n", &["a"]);
    memory.put("apps/b/docker-compose.yaml", Ok(with(10, 1024 * 1024)));
    memory.put("apps/c/docker-compose.yaml", Ok(with(20_000, 0)));
    memory.put("apps/d/docker-compose.yaml", Ok(with(1_000, 100_000)));
    let (images, errors) = lines(&memory, "brand");
    assert_eq!(images, ["a main a:1", "d main x:1"]);
    assert!(
        errors[0].starts_with("TooLarge b: https://") && errors[0].contains("at most 1048576 are allowed"),
        "{errors:?}"
    );
    assert_eq!(
        errors[1],
        "TooLarge c: its compose file has more than 262144 bytes of templates"
    );
    let templates = Templates::new(None).unwrap();
    let allowed = (0..20).filter(|_| templates.allow(256 * 1024).is_ok()).count();
    assert_eq!(allowed, 16, "and all files together");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// Documents that look like a registry's, with anything anywhere.
    #[test]
    fn arbitrary_registries_never_panic(
        contexts in prop::collection::vec(
            ("[a-c]", "(extends|mixin|apps|[a-c])", "(\\[[a-c], [a-c]\\]|\\{[a-c]: \\{spec: \\$[a-c]/x\\}\\}|\\{[a-c]: \\}|[a-c]|5)"),
            0..8,
        ),
        spec in "(services: )?(\\{[a-c]: \\{image: '[a-c{}%|\\$ ]{0,8}'\\}\\}|\\[|\\{\\{|[a-c])?",
        repositories in "(\\{[a-c]: \\{url: [a-c]\\}\\}|[a-c]|)",
        anything in any::<String>(),
    ) {
        let line = |(name, key, value): &(String, String, String)| format!("  {name}: {{{key}: {value}}}\n");
        let contexts = contexts.iter().map(line).collect::<Vec<_>>().concat();
        let registry = format!("repositories: {repositories}\nsettings: {{a: b}}\ncontexts:\n{contexts}");
        let mut memory = Memory::of([("app-registry.yaml", registry.as_str()), ("app-defaults.yaml", &anything)]);
        for app in ["a", "b", "c"] {
            for folder in ["a", "b", "c"] {
                memory.put(&format!("{folder}/{app}/docker-compose.yaml"), Ok(spec.clone()));
                memory.put(&format!("{folder}/x"), Ok(anything.clone()));
            }
        }
        for brand in ["a", anything.as_str()] {
            let _ = read_brand(&memory, brand);
        }
    }
}
