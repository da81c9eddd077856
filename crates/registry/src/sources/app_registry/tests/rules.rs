//! Each rule of the algorithm.

use super::*;

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
                "InvalidReference a: service \"joined\": \"quay.ioa/B\": repository \"B\" has upper-case letters, only lower case is allowed"
                    .to_owned(),
                "InvalidReference a: service \"compose\": \"${X}/a\": character '$' at position 1 is not allowed in an image reference"
                    .to_owned(),
            ]
        )
    );
}
