use proptest::prelude::*;

use super::super::yaml;
use super::*;

fn templates() -> Templates {
    let settings = yaml::parse(
        "registry: quay.io/helx\ntag: 1.10\nquoted: '1.10'\ncount: 3\non_: yes\nnothing: null\nlist: [a, b]\n\
         nested: {host: h.example, 'a b': c}\ntemplate: '{{ registry }}'\n",
    );
    Templates::new(Some(&settings.unwrap())).unwrap()
}

#[test]
fn templates_are_rendered_as_jinja_does() {
    // Each line was held against Jinja 3.1.6.
    let templates = templates();
    for (text, expected) in [
        ("nginx:1.27", "nginx:1.27"),
        ("{{registry}}/x:{{ quoted }}", "quay.io/helx/x:1.10"),
        ("x:{{ tag }}", "x:1.1"),
        ("{{ count }}-{{ on_ }}-{{ nothing }}", "3-True-None"),
        ("x:{{ unknown }}", "x:"),
        ("x:{{ unknown | default('latest') }}", "x:latest"),
        ("x:{{ unknown|d }}", "x:"),
        ("x:{{ nothing | default('latest', true) }}", "x:latest"),
        ("{{ registry ~ '/' ~ count }}", "quay.io/helx/3"),
        ("{{ nested.host }}/{{ nested['a b'] }}", "h.example/c"),
        (
            "{{ list[0] }}{{ list | last }}{{ list | length }}{{ list | join('-') }}",
            "ab2a-b",
        ),
        (
            "{{ registry | upper | replace('QUAY.IO', 'ghcr.io') | lower }}",
            "ghcr.io/helx",
        ),
        ("{% if on_ %}a{% elif count > 2 %}b{% else %}c{% endif %}", "a"),
        (
            "{%- if unknown is defined -%} a {%- else -%} b {%- endif -%}",
            "b",
        ),
        ("{{ 'x' if count == 3 else 'y' }}", "x"),
        ("{{ template }}", "{{ registry }}"),
        ("${TAG}/{# a comment #}$X", "${TAG}/$X"),
        ("{% raw %}{{ x }}{% endraw %}", "{{ x }}"),
        ("{{ registry }}\n", "quay.io/helx"),
        ("{{ '<&>' }}", "<&>"),
    ] {
        assert_eq!(templates.render(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn what_jinja_refuses_is_broken() {
    let templates = templates();
    for text in [
        "{{ registry | }}",
        "{{ registry",
        "{% if x %}",
        "{% frobnicate %}",
        "{{ registry | frobnicate }}",
        "{{ unknown.attribute }}",
        "{{ 1 + 'a' }}",
        "{{ }}",
    ] {
        let rendered = templates.render(text);
        assert!(
            matches!(rendered, Err(TemplateError::Broken(_))),
            "{text}: {rendered:?}"
        );
    }
}

#[test]
fn what_could_take_all_memory_is_not_offered() {
    let templates = templates();
    let squares = "{{ registry".to_owned() + &" | replace('', registry)".repeat(40) + " }}";
    let long = format!("{{{{ x }}}}{}", "x".repeat(5000));
    let fuel = "{{ count }}".repeat(300);
    for text in [
        "{{ 'a' * 99999999 }}",
        "{% set x = 'a' %}",
        "{%-for x in list %}{% endfor %}",
        "{% macro x() %}{% endmacro %}",
        "{{ 'a'~'a'~'a'~'a'~'a'~'a'~'a'~'a'~'a'~'a' }}",
        "{{ registry | indent(99999999) }}",
        "{{ '%099999999d' | format(1) }}",
        &squares,
        &long,
        &fuel,
    ] {
        let rendered = templates.render(text);
        assert!(
            matches!(rendered, Err(TemplateError::Unsupported(_))),
            "{text}: {rendered:?}"
        );
    }
    let large = yaml::parse(&format!("a: {}", "x".repeat(70_000))).unwrap();
    assert_eq!(
        Templates::new(Some(&large)).err().map(|e| e.reason),
        Some(SourceReason::TooLarge)
    );
    assert_eq!(
        Templates::new(Some(&Yaml::Int(1))).err().map(|e| e.reason),
        Some(SourceReason::Malformed)
    );
    assert!(Templates::new(None).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn arbitrary_templates_never_panic_nor_grow(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "{{", "}}", "{%", "%}", "{#", "#}", " if ", " else ", "endif", "registry", "list", "nested", ".host", "|", "upper",
                "default(", "join(", "replace(", "'", "a", ")", "(", "[", "]", "0", ":", "~", "+", "-", " ", "is ", "not ",
                "defined", "//", "<", "==", "raw", "endraw", "\n", "é", "in ", "round", "int", "9999999999", ",",
            ]),
            0..25,
        ),
    ) {
        if let Ok(text) = templates().render(&pieces.concat()) {
            prop_assert!(text.len() < 10_000);
        }
    }
}
