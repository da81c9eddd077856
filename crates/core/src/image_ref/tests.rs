#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const DIGEST: &str = "sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

#[test]
fn normalises_as_the_runtime_does() {
    // Written, normalised, host, repository, tag. D stands for a digest, - for no tag.
    let table = "
        nginx                   docker.io/library/nginx:latest      docker.io           library/nginx     latest
        nginx:1.27              docker.io/library/nginx:1.27        docker.io           library/nginx     1.27
        docker.io/nginx:1.27    docker.io/library/nginx:1.27        docker.io           library/nginx     1.27
        index.docker.io/nginx   docker.io/library/nginx:latest      docker.io           library/nginx     latest
        acme/tool               docker.io/acme/tool:latest          docker.io           acme/tool         latest
        docker.io/acme/tool     docker.io/acme/tool:latest          docker.io           acme/tool         latest
        test.com:5000           docker.io/library/test.com:5000     docker.io           library/test.com  5000
        localhost/x             localhost/x:latest                  localhost           x                 latest
        test:5000/repo:5050     test:5000/repo:5050                 test:5000           repo              5050
        10.0.0.3:50/a/b__c:T_-  10.0.0.3:50/a/b__c:T_-              10.0.0.3:50         a/b__c            T_-
        [2001:db8::1]:5000/r    [2001:db8::1]:5000/r:latest         [2001:db8::1]:5000  r                 latest
        [::1]/r:x               [::1]/r:x                           [::1]               r                 x
        Big/lower:tag           Big/lower:tag                       Big                 lower             tag
        test_com/foo            docker.io/test_com/foo:latest       docker.io           test_com/foo      latest
        xn--n3h.com/my---image  xn--n3h.com/my---image:latest       xn--n3h.com         my---image        latest
        quay.io/a/b@D           quay.io/a/b@D                       quay.io             a/b               -
        nginx:1.27@D            docker.io/library/nginx:1.27@D      docker.io           library/nginx     1.27
    ";
    for line in table.lines().filter(|l| !l.trim().is_empty()) {
        let has_digest = line.contains("@D");
        let line = line.replace("@D", &format!("@{DIGEST}"));
        let [written, normalized, host, repository, tag] = line.split_whitespace().collect::<Vec<_>>()[..]
        else {
            unreachable!("five columns: {line}")
        };
        let image = ImageRef::parse(written).unwrap();
        assert_eq!(image.as_written(), written);
        assert_eq!(image.to_string(), written);
        assert_eq!(image.normalized(), normalized);
        assert_eq!(image.registry_host(), host);
        assert_eq!(image.repository(), repository);
        assert_eq!(image.name(), format!("{host}/{repository}"));
        assert_eq!(image.tag(), Some(tag).filter(|t| *t != "-"));
        assert_eq!(image.digest(), has_digest.then_some(DIGEST));
    }
}

#[test]
fn docker_hub_serves_its_api_elsewhere() {
    assert_eq!(
        ImageRef::parse("nginx").unwrap().api_host(),
        "registry-1.docker.io"
    );
    assert_eq!(
        ImageRef::parse("10.77.0.3:5000/x").unwrap().api_host(),
        "10.77.0.3:5000"
    );
}

#[test]
fn refusals_say_what_is_wrong() {
    let long_tag = format!("nginx:{}", "t".repeat(129));
    let long_name = format!("host.io/{}a", "a/".repeat(128));
    let too_long = "a".repeat(600);
    let id = "f".repeat(64);
    let upper_digest = format!("nginx@{}", DIGEST.replace('f', "F"));
    let table = [
        ("", "the image reference is empty"),
        (
            &too_long,
            "the image reference has 600 characters, 500 are allowed",
        ),
        (
            "nginx:1 .27",
            "character ' ' at position 8 is not allowed in an image reference",
        ),
        (
            "nginx\n",
            "character '\\n' at position 6 is not allowed in an image reference",
        ),
        (
            "nginx;rm -rf /",
            "character ';' at position 6 is not allowed in an image reference",
        ),
        (
            "nginx:ä",
            "character 'ä' at position 7 is not allowed in an image reference",
        ),
        (
            "https://docker.io/nginx",
            "an image reference has no scheme: leave out \"https://\"",
        ),
        (
            "Nginx:1",
            "repository \"Nginx\" has upper-case letters, only lower case is allowed",
        ),
        (
            "test:5000/Upper/x",
            "repository \"Upper/x\" has upper-case letters, only lower case is allowed",
        ),
        (
            ":tag",
            "repository \"\" is malformed at \"\": parts are letters and digits, joined by one of . _ __ or dashes",
        ),
        (
            "quay.io/a//b",
            "repository \"a//b\" is malformed at \"\": parts are letters and digits, joined by one of . _ __ or dashes",
        ),
        (
            "a..b",
            "repository \"a..b\" is malformed at \"a..b\": parts are letters and digits, joined by one of . _ __ or dashes",
        ),
        (&long_name, "the repository has 257 characters, 255 are allowed"),
        ("-a.io/x", "\"-a.io\" is not a registry host"),
        ("a.io:/x", "\"a.io:\" is not a registry host"),
        ("a.io:65536/x", "\"a.io:65536\" is not a registry host"),
        ("[::1]x:/x", "\"[::1]x:\" is not a registry host"),
        (&id, "64 hexadecimal digits are an image id, not a repository"),
        (
            "nginx:",
            "tag \"\" is malformed: 1 to 128 letters, digits, _ . or -, not starting with . or -",
        ),
        (
            "nginx:-x",
            "tag \"-x\" is malformed: 1 to 128 letters, digits, _ . or -, not starting with . or -",
        ),
        (
            "nginx@sha256:ff",
            "digest \"sha256:ff\" is malformed: sha256: and 64 lower-case hexadecimal digits are expected",
        ),
    ];
    for (written, message) in table {
        assert_eq!(
            ImageRef::parse(written).unwrap_err().to_string(),
            message,
            "{written:?}"
        );
    }
    assert!(matches!(
        ImageRef::parse(&long_tag),
        Err(ImageRefError::Tag { .. })
    ));
    assert!(matches!(
        ImageRef::parse(&upper_digest),
        Err(ImageRefError::Digest { .. })
    ));
}

#[test]
fn two_spellings_are_one_image() {
    let spellings = ["nginx", "docker.io/library/nginx", "index.docker.io/nginx:latest"];
    let set: BTreeSet<ImageRef> = spellings.iter().map(|s| ImageRef::parse(s).unwrap()).collect();
    assert_eq!(set.len(), 1);
    assert_ne!(
        ImageRef::parse("nginx:1").unwrap(),
        ImageRef::parse("nginx:2").unwrap()
    );
}

#[test]
fn serde_keeps_the_spelling_and_refuses_the_rest() {
    let image: ImageRef = serde_json::from_str("\"nginx:1.27\"").unwrap();
    assert_eq!(serde_json::to_string(&image).unwrap(), "\"nginx:1.27\"");
    let error = serde_json::from_str::<ImageRef>("\"Nginx\"")
        .unwrap_err()
        .to_string();
    assert!(error.contains("upper-case"), "{error}");
}

/// Texts near the grammar: its own pieces in any order.
pub(super) fn near_references() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("docker.io".to_owned()),
        Just("localhost".to_owned()),
        Just(DIGEST.to_owned()),
        Just("[::1]".to_owned()),
        "[a-z0-9]{1,3}",
        "[A-Z.:/@_-]",
        "[._-]{1,2}",
    ];
    prop::collection::vec(piece, 0..9).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        let _ = ImageRef::parse(&text).map_err(|e| e.to_string());
    }

    #[test]
    fn normalised_parses_to_itself(text in near_references()) {
        if let Ok(image) = ImageRef::parse(&text) {
            let again = ImageRef::parse(image.normalized()).unwrap();
            prop_assert_eq!(again.normalized(), image.normalized());
            prop_assert_eq!(again.tag(), image.tag());
            prop_assert_eq!(again.digest(), image.digest());
            prop_assert_eq!(again.repository(), image.repository());
            prop_assert!(image.tag().is_some() || image.digest().is_some());
        }
    }

    #[test]
    fn well_formed_references_are_accepted(
        host in "([a-z][a-z0-9]{0,8}\\.[a-z]{2,3}(:[1-9][0-9]{0,3})?/)?",
        path in "[a-z0-9]{1,8}((\\.|_|__|-{1,3})[a-z0-9]{1,4})?(/[a-z0-9]{1,5}){0,3}",
        tag in "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,20})?",
    ) {
        let text = format!("{host}{path}{tag}");
        prop_assert!(ImageRef::parse(&text).is_ok(), "{}", text);
    }
}
