use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const BASE: &str = "https://registry.example/main";

/// Documents in memory, by address; what is not there is not found.
#[derive(Default)]
struct Memory(BTreeMap<String, Result<String, SourceReason>>);

impl Memory {
    /// Of documents by their path below the registry's folder, or by their whole address.
    fn of<const N: usize>(documents: [(&str, &str); N]) -> Self {
        let mut memory = Self::default();
        for (path, body) in documents {
            memory.put(path, Ok(body.to_owned()));
        }
        memory
    }

    fn put(&mut self, path: &str, answer: Result<String, SourceReason>) {
        let address = if path.starts_with("http") {
            path.to_owned()
        } else {
            format!("{BASE}/{path}")
        };
        self.0.insert(address, answer);
    }
}

#[async_trait]
impl Documents for Memory {
    async fn get(&self, url: &str) -> Result<Document, FetchError> {
        let answer = self.0.get(url).cloned().unwrap_or(Err(SourceReason::NotFound));
        let body = answer.map_err(|reason| FetchError {
            reason,
            message: format!("status for {reason}"),
        })?;
        Ok(Document {
            body: body.into_bytes(),
        })
    }
}

fn read_brand(memory: &Memory, brand: &str) -> Result<Found, SourceError> {
    futures::executor::block_on(read(memory, BASE, brand))
}

/// `app image` lines and errors.
fn lines(memory: &Memory, brand: &str) -> (Vec<String>, Vec<String>) {
    let found = read_brand(memory, brand).unwrap();
    let image = |i: SourceImage| format!("{} {} {}", i.app.unwrap(), i.service.unwrap(), i.image);
    let images = found.images.into_iter().map(image).collect();
    let error = |e: &SourceError| format!("{} {e}", e.reason);
    (images, found.errors.iter().map(error).collect())
}

fn images(memory: &Memory, brand: &str) -> Vec<String> {
    let (images, errors) = lines(memory, brand);
    assert_eq!(errors, Vec::<String>::new());
    images
}

fn refusal(memory: &Memory, brand: &str) -> String {
    let error = read_brand(memory, brand).unwrap_err();
    assert_eq!(error.app, None);
    format!("{} {error}", error.reason)
}

/// A compose file of one service.
fn compose(image: &str) -> String {
    format!("services:\n  main:\n    image: {image}\n")
}

/// A registry, with compose files of one service in the folder `apps`; the image is named after the app.
fn registry(contexts: &str, apps: &[&str]) -> Memory {
    let registry = format!("repositories: {{apps: {{url: apps}}}}\ncontexts:\n{contexts}");
    let mut memory = Memory::of([("app-registry.yaml", registry.as_str())]);
    for app in apps {
        memory.put(
            &format!("apps/{app}/docker-compose.yaml"),
            Ok(compose(&format!("{app}:1"))),
        );
    }
    memory
}

#[test]
fn a_brand_has_the_apps_of_its_bases_first_and_depth_first() {
    let contexts = "
  base: {apps: {a: {}, b: {}}}
  middle: {extends: [base], apps: {c: {}}}
  other: {apps: {d: null}}
  brand: {extends: [middle, other], apps: {e: {name: E}, b: {name: again}}}
";
    let memory = registry(contexts, &["a", "b", "c", "d", "e"]);
    assert_eq!(
        images(&memory, "brand"),
        [
            "a main a:1",
            "b main b:1",
            "c main c:1",
            "d main d:1",
            "e main e:1"
        ]
    );
    assert_eq!(images(&memory, "other"), ["d main d:1"]);
}

#[test]
fn an_app_met_again_replaces_the_earlier_whole() {
    let contexts = "
  base: {apps: {a: {spec: 'https://elsewhere.example/a.yaml'}}}
  brand: {extends: [base], apps: {a: {name: only a name}}}
";
    let mut memory = registry(contexts, &["a"]);
    memory.put("https://elsewhere.example/a.yaml", Ok(compose("elsewhere:1")));
    assert_eq!(images(&memory, "brand"), ["a main a:1"]);
    assert_eq!(images(&memory, "base"), ["a main elsewhere:1"]);
}

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
            "Malformed https://registry.example/main/app-registry.yaml: not YAML: line 1: ",
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
fn defaults_win_over_apps() {
    let contexts = "  brand: {apps: {a: {spec: 'https://elsewhere.example/a.yaml'}, b: {}}}\n";
    let mut memory = registry(contexts, &["a", "b"]);
    memory.put("https://elsewhere.example/a.yaml", Ok(compose("own:1")));
    memory.put("https://elsewhere.example/default.yaml", Ok(compose("default:1")));
    memory.put("app-defaults.yaml", Ok("services: {x: 1}\n".into()));
    assert_eq!(images(&memory, "brand"), ["a main own:1", "b main b:1"]);
    memory.put(
        "app-defaults.yaml",
        Ok("spec: https://elsewhere.example/default.yaml\n".into()),
    );
    assert_eq!(
        images(&memory, "brand"),
        ["a main default:1"],
        "and both are one image"
    );
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

#[test]
fn mixins_change_apps_and_add_none() {
    let contexts = "
  mix: {extends: [more], apps: {a: {spec: $apps/b/docker-compose.yaml}, c: {}}}
  more: {apps: {d: {spec: $apps/c/docker-compose.yaml}}}
  late: {apps: {a: {spec: $apps/c/docker-compose.yaml}}}
  base: {mixin: [mix], apps: {a: {}, d: {}}}
  brand: {extends: [base]}
  both: {extends: [base], mixin: [late, nowhere]}
";
    let memory = registry(contexts, &["a", "b", "c", "d"]);
    assert_eq!(images(&memory, "brand"), ["a main b:1", "d main d:1"]);
    assert_eq!(
        images(&memory, "both"),
        ["a main c:1", "d main d:1"],
        "bases first"
    );
}

#[test]
fn repositories_say_where_compose_files_are() {
    let registry = "
repositories:
  first: {url: 'https://one.example/apps/'}
  second: {url: two}
contexts:
  brand:
    apps:
      a: {}
      b: {spec: '${second}/b.yaml', docs: '$second'}
      c: {spec: '$second/$unknown.yaml'}
      d: {spec: three/d.yaml}
";
    let memory = Memory::of([
        ("app-registry.yaml", registry),
        ("https://one.example/apps/a/docker-compose.yaml", &compose("a:1")),
        ("two/b.yaml", &compose("b:1")),
        ("two/$unknown.yaml", &compose("c:1")),
        ("three/d.yaml", &compose("d:1")),
    ]);
    assert_eq!(
        images(&memory, "brand"),
        ["a main a:1", "b main b:1", "c main c:1", "d main d:1"]
    );
    let bare = Memory::of([("app-registry.yaml", "contexts: {brand: {apps: {a: {}}}}")]);
    assert_eq!(
        lines(&bare, "brand").1,
        ["Malformed a: it has no spec, and the registry names no repository"]
    );
}

#[test]
fn blocks_named_after_an_app_replace_its_keys() {
    let contexts = "
  base: {apps: {a: {}, b: {}}, b: {spec: 'https://elsewhere.example/ignored.yaml'}}
  brand:
    extends: [base]
    a: {spec: 'https://elsewhere.example/a.yaml'}
    unknown: {spec: x}
";
    let mut memory = registry(contexts, &["a", "b"]);
    memory.put("https://elsewhere.example/a.yaml", Ok(compose("elsewhere:1")));
    assert_eq!(
        images(&memory, "brand"),
        ["a main elsewhere:1", "b main b:1"],
        "those of a base do not count"
    );
}

#[test]
fn templates_take_the_settings() {
    let mut memory = registry(
        "  brand: {apps: {a: {}}}\nsettings: {host: quay.io, tag: 1.10}\n",
        &[],
    );
    let spec = "
services:
  main:
    image: '{{ host }}/a:{{ tag }}-{{ suffix | default(\"x\") }}'
    environment: ['HOME=${HOME}', '{{ unknown }}']
  side: {image: 'side:{{ unknown }}1'}
  joined: {image: '{{ host }}a/B'}
  compose: {image: '${X}/a'}
";
    memory.put("apps/a/docker-compose.yaml", Ok(spec.into()));
    assert_eq!(
        lines(&memory, "brand"),
        (
            vec!["a main quay.io/a:1.1-x".to_owned(), "a side side:1".to_owned()],
            vec![
                "InvalidReference a: \"quay.ioa/B\": repository \"B\" has upper-case letters, only lower case is allowed"
                    .to_owned(),
                "InvalidReference a: \"${X}/a\": character '$' at position 1 is not allowed in an image reference"
                    .to_owned(),
            ]
        )
    );
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
        format!("Malformed notyaml: {address}/notyaml/docker-compose.yaml: not YAML: line 1: "),
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
