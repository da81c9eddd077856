//! The hosts whose addresses nobody judges: listed with `allowPrivate` by whoever runs the operator.

use std::collections::BTreeSet;

use larder_core::image_ref::ImageRef;
use url::Url;

use crate::{RegistriesConfig, RegistryHost};

/// Hosts with their ports, as connections are made to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    hosts: BTreeSet<(String, u16)>,
    /// `*` is listed: all are but these.
    all_but: Option<BTreeSet<(String, u16)>>,
}

impl Listed {
    pub(crate) fn new(config: &RegistriesConfig) -> Self {
        let mut listed = Self::default();
        let mut others = BTreeSet::new();
        for (host, how) in config.entries() {
            let place = place_of(host, how);
            match (host, how.allow_private, place) {
                // With a mirror it is the mirror that is meant.
                (None, true, None) => listed.all_but = Some(BTreeSet::new()),
                (_, true, Some(place)) => {
                    listed.hosts.insert(place);
                }
                (Some(_), false, Some(place)) => {
                    others.insert(place);
                }
                _ => {}
            }
        }
        if let Some(all_but) = &mut listed.all_but {
            *all_but = others;
        }
        listed
    }

    /// Whether this URL's host was listed. Neither a redirect nor a challenge of a listed host makes another one so.
    pub(crate) fn contains(&self, url: &Url) -> bool {
        let Some(place) = place(url) else { return false };
        self.hosts.contains(&place)
            || self
                .all_but
                .as_ref()
                .is_some_and(|all_but| !all_but.contains(&place))
    }
}

/// Where an entry's registry is asked; none for `*` without a mirror.
fn place_of(host: Option<&str>, how: &RegistryHost) -> Option<(String, u16)> {
    if let Some(mirror) = &how.mirror {
        return place(mirror);
    }
    let image = ImageRef::parse(&format!("{}/x/x", host?)).ok()?;
    let scheme = if how.plain_http { "http" } else { "https" };
    place(&Url::parse(&format!("{scheme}://{}", image.api_host())).ok()?)
}

fn place(url: &Url) -> Option<(String, u16)> {
    Some((url.host_str()?.to_owned(), url.port_or_known_default()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_host_is_listed_with_its_port() {
        let table = [
            (
                "10.0.0.1:5000: {plainHTTP: true, allowPrivate: true}",
                vec!["http://10.0.0.1:5000/v2/", "https://10.0.0.1:5000/token"],
                vec![
                    "http://10.0.0.1/",
                    "http://10.0.0.1:5001/",
                    "http://10.0.0.2:5000/",
                ],
            ),
            (
                "docker.io: {allowPrivate: true}",
                vec!["https://registry-1.docker.io/v2/"],
                vec!["https://auth.docker.io/token", "http://registry-1.docker.io/v2/"],
            ),
            (
                "docker.io: {mirror: 'http://127.0.0.1:5000/base', allowPrivate: true}",
                vec!["http://127.0.0.1:5000/base/v2/"],
                vec!["https://registry-1.docker.io/v2/"],
            ),
            (
                "a.io: {}\n'*': {allowPrivate: true}",
                vec!["https://b.io/", "https://127.0.0.1/"],
                vec!["https://a.io/"],
            ),
            (
                "'*': {mirror: 'http://127.0.0.1:5000', allowPrivate: true}",
                vec!["http://127.0.0.1:5000/"],
                vec!["https://127.0.0.1/"],
            ),
            ("a.io: {plainHTTP: true}", vec![], vec!["http://a.io/"]),
        ];
        for (yaml, yes, no) in table {
            let listed = Listed::new(&RegistriesConfig::parse(yaml).unwrap());
            for url in yes {
                assert!(listed.contains(&Url::parse(url).unwrap()), "{yaml}: {url}");
            }
            for url in no {
                assert!(!listed.contains(&Url::parse(url).unwrap()), "{yaml}: {url}");
            }
        }
    }
}
