#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn named(username: &str) -> Credential {
    Credential::Basic {
        username: username.into(),
        password: "p".into(),
    }
}

/// The keyring's users for the image, each entry's user being the entry itself.
fn users(entries: &[&str], image: &str) -> Vec<String> {
    let mut keyring = Keyring::default();
    for entry in entries {
        keyring.add(entry, named(entry));
    }
    let credentials = keyring.credentials(&ImageRef::parse(image).unwrap());
    credentials
        .in_order()
        .into_iter()
        .flatten()
        .map(|c| match c {
            Credential::Basic { username, .. } => username.clone(),
            Credential::IdentityToken { .. } => unreachable!("only users were added"),
        })
        .collect()
}

#[test]
fn an_entry_fits_or_not() {
    let table = [
        // whole labels and parts of them
        ("*.kubernetes.io", "prefix.kubernetes.io/x", true),
        ("prefix.*.io", "prefix.kubernetes.io/x", true),
        ("prefix.kubernetes.*", "prefix.kubernetes.io/x", true),
        ("*-good.kubernetes.io", "prefix-good.kubernetes.io/x", true),
        ("k*.io", "quay.io/x", false),
        ("qu?y.io", "quay.io/x", true),
        // paths
        ("*.kubernetes.io/blah", "prefix.kubernetes.io/blah", true),
        ("prefix.*.io/foo", "prefix.kubernetes.io/foo/bar", true),
        ("prefix.*.io/foo", "prefix.kubernetes.io/bar/foo", false),
        // a prefix of characters, as in the kubelet
        ("quay.io/foo", "quay.io/foobar", true),
        // ports
        (
            "*.kubernetes.io:1111/blah",
            "prefix.kubernetes.io:1111/blah",
            true,
        ),
        (
            "*.kubernetes.io:1234/blah",
            "prefix.kubernetes.io:1111/blah",
            false,
        ),
        ("prefix.*.io/foo", "prefix.kubernetes.io:1111/foo/bar", false),
        ("prefix.docker.io:1111", "prefix.docker.io/x", false),
        ("[::1]:5000", "[::1]:5000/x", true),
        ("10.77.0.3:5000", "10.77.0.3:5000/x", true),
        // as many labels
        ("*.kubernetes.io", "kubernetes.io/x", false),
        ("*.*.kubernetes.io", "prefix.kubernetes.io/x", false),
        ("*.io", "prefix.kubernetes.io/x", false),
        ("kubernetes.io", "kubernetes.com/x", false),
        // scheme and API version say nothing
        ("https://hello.kubernetes.io", "hello.kubernetes.io/x", true),
        ("http://hello.kubernetes.io", "hello.kubernetes.io/x", true),
        ("https://*.docker.io/v1/", "prefix.docker.io/x", true),
        ("https://*.docker.io/v2/", "prefix.docker.io/x", true),
        ("https://*.docker.io/v2", "prefix.docker.io/x", false),
        ("https://quay.io/", "quay.io/x", true),
        ("suffix.*.io", "prefix.docker.io/x", false),
        // Docker Hub by its three names
        ("https://index.docker.io/v1/", "nginx", true),
        ("index.docker.io", "docker.io/acme/tool:1", true),
        ("docker.io", "nginx", true),
        ("docker.io/acme", "acme/tool", true),
        ("registry-1.docker.io", "nginx", false),
        ("https://index.docker.io/v1/", "quay.io/nginx", false),
        ("", "nginx", false),
    ];
    for (entry, image, fits) in table {
        assert_eq!(users(&[entry], image) == [entry], fits, "{entry} for {image}");
    }
}

#[test]
fn the_most_specific_is_tried_first() {
    assert_eq!(
        users(
            &["*.io", "quay.io", "quay.io/coreos", "quay.io/core", "docker.io"],
            "quay.io/coreos/etcd"
        ),
        ["quay.io/coreos", "quay.io/core", "quay.io", "*.io"]
    );
    assert_eq!(users(&["index.docker.io", "docker.io"], "nginx"), ["docker.io"]);
}

#[test]
fn secrets_are_joined_in_their_order() {
    let first = br#"{"auths": {"quay.io": {"username": "one", "password": "1"}}}"#;
    let second = br#"{"https://quay.io/v2/": {"username": "two", "password": "2"}}"#;
    let mut keyring = Keyring::default();
    keyring
        .add_secret("kubernetes.io/dockerconfigjson", |k| {
            (k == ".dockerconfigjson").then_some(&first[..])
        })
        .unwrap();
    keyring
        .add_secret("kubernetes.io/dockercfg", |k| {
            (k == ".dockercfg").then_some(&second[..])
        })
        .unwrap();
    // The same once more changes nothing.
    keyring
        .add_secret("kubernetes.io/dockercfg", |k| {
            (k == ".dockercfg").then_some(&second[..])
        })
        .unwrap();
    let expected = Credentials::new(vec![
        Credential::Basic {
            username: "one".into(),
            password: "1".into(),
        },
        Credential::Basic {
            username: "two".into(),
            password: "2".into(),
        },
    ]);
    assert_eq!(
        keyring.credentials(&ImageRef::parse("quay.io/x").unwrap()),
        expected
    );
}

#[test]
fn other_secrets_are_refused() {
    let mut keyring = Keyring::default();
    let error = keyring.add_secret("Opaque", |_| None).unwrap_err().to_string();
    assert_eq!(error, "a secret of type \"Opaque\" holds no registry credentials");
    let error = keyring
        .add_secret("kubernetes.io/dockercfg", |_| None)
        .unwrap_err()
        .to_string();
    assert_eq!(error, "the secret has no .dockercfg");
    assert_eq!(keyring, Keyring::default());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn arbitrary_entries_never_panic(entry in "[a-z*?.:/\\[\\]]{0,30}|.{0,30}") {
        users(&[&entry], "a.b.io:5000/x/y");
    }

    #[test]
    fn a_host_fits_itself_and_its_glob(host in "[a-z]{1,5}\\.[a-z]{1,5}(:[1-9][0-9]{0,3})?") {
        let image = format!("{host}/x/y");
        prop_assert_eq!(users(&[&host], &image).len(), 1);
        let glob = format!("*{}", &host[host.find('.').unwrap()..]);
        prop_assert_eq!(users(&[&glob], &image).len(), 1);
    }
}
