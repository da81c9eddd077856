//! Where an image of some name goes in a registry that serves as everyone's mirror.

use super::Error;

/// Repository and tag under which a registry that mirrors all others is asked for a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Path without a registry host, such as `library/nginx`.
    pub repository: String,
    /// Tag, such as `1.27`.
    pub tag: String,
}

impl Destination {
    /// Reads a reference as container runtimes do: `nginx:1.27` is `docker.io/library/nginx:1.27`.
    /// The host is dropped, since nodes ask the mirror for the path alone.
    pub fn parse(reference: &str) -> Result<Self, Error> {
        let refuse = |what| Error::Reference {
            reference: reference.to_owned(),
            what,
        };
        if reference.contains('@') {
            return Err(refuse("a digest follows from the image and cannot be chosen"));
        }
        let (host, path) = match reference.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
            _ => ("docker.io", reference),
        };
        let (name, tag) = path.rsplit_once(':').unwrap_or((path, "latest"));
        let official = host == "docker.io" && !name.contains('/');
        let repository = if official {
            format!("library/{name}")
        } else {
            name.to_owned()
        };
        let is_name = |part: &str| {
            !part.is_empty()
                && part
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c))
        };
        if !repository.split('/').all(is_name) {
            return Err(refuse(
                "a repository has lower-case letters, digits, '.', '_' and '-' between slashes",
            ));
        }
        let is_tag = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if tag.is_empty() || tag.len() > 128 || !tag.chars().all(is_tag) || tag.starts_with(['.', '-']) {
            return Err(refuse("a tag has at most 128 letters, digits, '.', '_' and '-'"));
        }
        Ok(Self {
            repository,
            tag: tag.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn references_go_where_nodes_ask_for_them() {
        for (reference, repository, tag) in [
            ("nginx:1.27", "library/nginx", "1.27"),
            ("nginx", "library/nginx", "latest"),
            ("docker.io/nginx:1", "library/nginx", "1"),
            ("docker.io/library/nginx:1", "library/nginx", "1"),
            ("bitnami/redis:7", "bitnami/redis", "7"),
            (
                "ghcr.io/larder-dev/larder-noop:v0.1.0",
                "larder-dev/larder-noop",
                "v0.1.0",
            ),
            ("10.77.0.2:5000/team/app:a", "team/app", "a"),
            ("10.77.0.2:5000/app", "app", "latest"),
            ("localhost/app:1", "app", "1"),
        ] {
            let expected = Destination {
                repository: repository.to_owned(),
                tag: tag.to_owned(),
            };
            assert_eq!(Destination::parse(reference).unwrap(), expected, "{reference}");
        }
    }

    #[test]
    fn what_no_registry_takes_is_refused() {
        for reference in [
            "",
            "Nginx:1",
            "nginx:",
            "nginx: 1",
            "a//b:1",
            "nginx@sha256:00",
            "x/../y:-1",
        ] {
            assert!(Destination::parse(reference).is_err(), "{reference}");
        }
    }
}
