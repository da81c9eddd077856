//! What is learned of servers while the documents of one registry are read.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use larder_registry::FetchError;
use url::Url;

/// A server that never answered is not asked again after this many failures: with one, a single document that takes too
/// long could cost all others of its server.
const ENOUGH: usize = 2;

/// The servers of one registry's documents.
pub(super) struct Hosts {
    /// Where the registry itself is.
    own: Option<Url>,
    /// By scheme, host and port.
    all: Mutex<BTreeMap<String, Host>>,
}

#[derive(Default)]
struct Host {
    answered: bool,
    failures: usize,
    failure: Option<FetchError>,
    /// How long it asks to be left alone, of all its answers the longest.
    longest: Option<Duration>,
}

impl Hosts {
    /// For the registry at `own`.
    pub(super) fn new(own: &str) -> Self {
        Self {
            own: Url::parse(own).ok(),
            all: Mutex::default(),
        }
    }

    /// Why a server is not worth asking: nobody is there, or nobody answers.
    pub(super) fn given_up(&self, url: &Url) -> Option<FetchError> {
        self.with(url, |host| {
            let silent = !host.answered && host.failures >= ENOUGH;
            host.failure.clone().filter(|_| silent)
        })
    }

    /// Takes up what came of asking.
    pub(super) fn learn(&self, url: &Url, error: Option<&FetchError>) {
        let silence = error.filter(|error| {
            matches!(
                error,
                FetchError::Name { .. }
                    | FetchError::ConnectTimeout
                    | FetchError::Connect { .. }
                    | FetchError::Timeout
            )
        });
        self.with(url, |host| {
            if silence.is_some() {
                host.failures += 1;
                host.failure = silence.cloned();
            } else {
                host.answered = true;
                host.longest = host.longest.max(error.and_then(FetchError::retry_after));
            }
        });
    }

    /// How long the registry's own server asks to be left alone. Another one speaks for its own apps only, and those are
    /// no reason to leave the rest unread.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.with(self.own.as_ref()?, |host| host.longest)
    }

    fn with<T>(&self, url: &Url, f: impl FnOnce(&mut Host) -> T) -> T {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        f(all.entry(url.origin().ascii_serialization()).or_default())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use reqwest::StatusCode;

    use super::*;

    fn at(url: &str) -> Url {
        Url::parse(url).unwrap()
    }

    fn busy(seconds: u64) -> FetchError {
        FetchError::Status {
            status: StatusCode::SERVICE_UNAVAILABLE,
            retry_after: Some(Duration::from_secs(seconds)),
        }
    }

    #[test]
    fn the_registry_is_left_alone_as_long_as_its_own_server_asks() {
        let hosts = Hosts::new("https://apps.example.org/main");
        hosts.learn(&at("https://apps.example.org:8443/a.yaml"), Some(&busy(3600)));
        hosts.learn(&at("https://other.example.org/a.yaml"), Some(&busy(3600)));
        assert_eq!(hosts.retry_after(), None);
        hosts.learn(&at("https://apps.example.org/main/a.yaml"), Some(&busy(60)));
        hosts.learn(&at("https://apps.example.org:443/b.yaml"), Some(&busy(30)));
        assert_eq!(hosts.retry_after(), Some(Duration::from_mins(1)));
    }

    #[test]
    fn a_server_that_never_answers_is_asked_twice() {
        let hosts = Hosts::new("https://apps.example.org/main");
        let (silent, other) = (at("https://silent.org/a"), at("https://silent.org:8443/a"));
        hosts.learn(&silent, Some(&FetchError::Timeout));
        assert_eq!(hosts.given_up(&silent), None, "it may be the document");
        hosts.learn(&silent, Some(&FetchError::ConnectTimeout));
        assert_eq!(hosts.given_up(&silent), Some(FetchError::ConnectTimeout));
        assert_eq!(hosts.given_up(&other), None);
        hosts.learn(&silent, None);
        assert_eq!(hosts.given_up(&silent), None, "it answered after all");

        let slow = at("https://apps.example.org/slow");
        hosts.learn(&slow, Some(&busy(1)));
        for _ in 0..5 {
            hosts.learn(&slow, Some(&FetchError::Timeout));
        }
        assert_eq!(hosts.given_up(&slow), None, "a document of a server that answers");
    }
}
