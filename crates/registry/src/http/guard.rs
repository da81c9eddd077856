//! The resolver of every connection: names become addresses here, and only those that may be contacted are dialled.
//!
//! What was judged is what the connector gets, so a name that changes its meaning between two look-ups gains nothing.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, PoisonError, RwLock},
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use super::{FetchError, error::Unresolved};
use crate::address::{Policy, Refused, may_contact};

/// A policy whose API server may move. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct SharedPolicy {
    policy: Arc<RwLock<Policy>>,
}

impl SharedPolicy {
    /// Begins with this policy.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy: Arc::new(RwLock::new(policy)),
        }
    }

    /// From now on the API server has these addresses.
    pub fn set_api_server(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        let mut policy = self.policy.write().unwrap_or_else(PoisonError::into_inner);
        policy.api_server = addresses.into_iter().collect();
    }

    /// The policy at this moment.
    pub fn now(&self) -> Policy {
        self.policy.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Judges the addresses of one client.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    policy: SharedPolicy,
    /// The hosts that this client is used for were listed with `allowPrivate`.
    listed: bool,
}

impl Guard {
    pub(super) fn new(policy: SharedPolicy, listed: bool) -> Self {
        Self { policy, listed }
    }

    /// Refuses other schemes, and literal addresses, for which no connector asks a resolver.
    pub(super) fn check(&self, url: &Url) -> Result<(), FetchError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(FetchError::Scheme);
        }
        match url.host() {
            Some(Host::Ipv4(ip)) => self.may_contact(IpAddr::V4(ip))?,
            Some(Host::Ipv6(ip)) => self.may_contact(IpAddr::V6(ip))?,
            Some(Host::Domain(_)) => {}
            None => return Err(FetchError::Scheme),
        }
        Ok(())
    }

    /// For what a proxy is to dial: refuses names that lead here to an address that is not to be contacted. A name that
    /// only the proxy knows is the proxy's to judge.
    pub(super) async fn check_for_proxy(&self, url: &Url) -> Result<(), FetchError> {
        let Some(Host::Domain(name)) = url.host() else {
            return Ok(());
        };
        for address in look_up(name).await.unwrap_or_default() {
            self.may_contact(address.ip())?;
        }
        Ok(())
    }

    fn may_contact(&self, ip: IpAddr) -> Result<(), Refused> {
        let mut policy = self.policy.now();
        policy.allow_private |= self.listed;
        may_contact(ip, &policy)
    }

    /// Those that may be contacted; an error if there are none.
    fn admitted(&self, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Refused> {
        let mut refused = None;
        let mut admitted = Vec::new();
        for address in found {
            match self.may_contact(address.ip()) {
                Ok(()) => admitted.push(address),
                Err(why) => refused = refused.or(Some(why)),
            }
        }
        match refused {
            Some(why) if admitted.is_empty() => Err(why),
            _ => Ok(admitted),
        }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let admitted = guard.admitted(look_up(name.as_str()).await?)?;
            Ok(Box::new(admitted.into_iter()) as Addrs)
        })
    }
}

/// The port is that of the URL: 0 stands for it.
pub(super) async fn look_up(name: &str) -> Result<Vec<SocketAddr>, Unresolved> {
    match tokio::net::lookup_host((name, 0)).await {
        Ok(found) => Ok(found.collect()),
        Err(error) => Err(Unresolved(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn guard(listed: bool) -> Guard {
        Guard::new(SharedPolicy::default(), listed)
    }

    fn check(url: &str, listed: bool) -> Result<(), FetchError> {
        guard(listed).check(&Url::parse(url).unwrap())
    }

    #[test]
    fn every_spelling_of_a_literal_address_is_judged() {
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.1",
            "0177.0.0.1",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "127.0.0.1:8443",
            "user@127.0.0.1",
        ] {
            let url = format!("https://{host}/v2/");
            assert_eq!(
                check(&url, false),
                Err(FetchError::Refused(Refused::Loopback)),
                "{url}"
            );
            assert_eq!(check(&url, true), Ok(()), "{url}");
        }
        assert_eq!(check("http://10.77.0.2:5000/", false), Ok(()));
    }

    #[test]
    fn other_schemes_are_refused() {
        for url in ["file:///etc/passwd", "ftp://a.io/", "unix:/run/x", "data:,x"] {
            assert_eq!(check(url, true), Err(FetchError::Scheme), "{url}");
        }
    }

    #[test]
    fn only_addresses_that_may_be_contacted_are_dialled() {
        let addresses =
            |list: &[&str]| -> Vec<SocketAddr> { list.iter().map(|a| a.parse().unwrap()).collect() };
        let mixed = addresses(&["127.0.0.1:0", "93.184.216.34:0", "[fe80::1]:0"]);
        assert_eq!(guard(false).admitted(mixed), Ok(addresses(&["93.184.216.34:0"])));
        let none = addresses(&["169.254.169.254:0", "127.0.0.1:0"]);
        assert_eq!(guard(false).admitted(none.clone()), Err(Refused::LinkLocal));
        assert_eq!(guard(true).admitted(none.clone()), Ok(none));
        assert_eq!(guard(false).admitted(Vec::new()), Ok(Vec::new()));
    }

    #[tokio::test]
    async fn names_are_judged_by_what_they_lead_to() {
        let resolve = async |listed: bool| {
            let found = guard(listed).resolve("localhost".parse().unwrap()).await;
            found.map(Iterator::count).map_err(|e| e.to_string())
        };
        assert_eq!(resolve(false).await, Err(Refused::Loopback.to_string()));
        assert!(resolve(true).await.unwrap() > 0);
    }

    #[test]
    fn the_api_server_may_move() {
        let policy = SharedPolicy::default();
        let guard = Guard::new(policy.clone(), false);
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        assert_eq!(guard.may_contact(ip), Ok(()));
        policy.set_api_server([ip]);
        assert_eq!(guard.may_contact(ip), Err(Refused::ApiServer));
    }
}
