//! Where the API server is: an address that no tenant has contacted in the operator's place.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client};
use larder_registry::SharedPolicy;
use tokio::time::timeout;

/// How often it is looked up.
const AGAIN: Duration = Duration::from_mins(1);
/// How long a look may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Service and slice of the API server: it keeps both itself.
const NAME: &str = "kubernetes";

/// Looks for the API server.
pub struct Lookout {
    client: Client,
    policy: SharedPolicy,
    /// Names and addresses that are known without asking, with what they led to last.
    hosts: BTreeMap<String, Vec<IpAddr>>,
    /// What was behind the service last.
    endpoints: BTreeSet<IpAddr>,
}

impl Lookout {
    /// `service` is the value of `KUBERNETES_SERVICE_HOST`, `configured` the host that the client asks.
    pub fn new(
        client: Client,
        service: Option<String>,
        configured: Option<&str>,
        policy: SharedPolicy,
    ) -> Self {
        let bare = |host: &str| (host.trim_matches(['[', ']']).to_owned(), Vec::new());
        let hosts = service.as_deref().into_iter().chain(configured).map(bare);
        Self {
            client,
            policy,
            hosts: hosts.collect(),
            endpoints: BTreeSet::new(),
        }
    }

    /// Tells the policy once. What cannot be seen now stays as it was; an error if that are the endpoints.
    pub async fn look(&mut self) -> Result<(), LookError> {
        for (host, addresses) in &mut self.hosts {
            if let Some(found) = resolve(host).await {
                *addresses = found;
            }
        }
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), "default");
        let answer = match timeout(PATIENCE, api.get(NAME)).await {
            Ok(Ok(slice)) => {
                self.endpoints = addresses(&slice);
                Ok(())
            }
            Ok(Err(error)) => Err(LookError::Refused(error)),
            Err(_) => Err(LookError::Late),
        };
        let hosts = self.hosts.values().flatten();
        self.policy.set_api_server(hosts.chain(&self.endpoints).copied());
        answer
    }

    /// Looks again and again.
    pub async fn keep_looking(mut self) {
        loop {
            tokio::time::sleep(AGAIN).await;
            if let Err(error) = self.look().await {
                tracing::debug!(%error, "looking for the API server");
            }
        }
    }
}

/// Why the endpoints cannot be seen.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// The API server does not tell, perhaps for want of a right.
    #[error("cannot read the API server's endpoints: {0}")]
    Refused(kube::Error),
    /// It does not answer.
    #[error("no answer about the API server's endpoints")]
    Late,
}

fn addresses(slice: &EndpointSlice) -> BTreeSet<IpAddr> {
    let endpoints = slice.endpoints.iter().flat_map(|e| &e.addresses);
    endpoints.filter_map(|address| address.parse().ok()).collect()
}

async fn resolve(host: &str) -> Option<Vec<IpAddr>> {
    if let Ok(ip) = host.parse() {
        return Some(vec![ip]);
    }
    let found = timeout(PATIENCE, tokio::net::lookup_host((host, 0))).await;
    Some(found.ok()?.ok()?.map(|address| address.ip()).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Mutex;

    use http::{Request, Response};
    use kube::client::Body;
    use larder_registry::address::{Policy, Refused, may_contact};

    use super::*;

    /// An API server that answers every request with this status and text.
    fn client(status: u16, text: &'static str, asked: &'static Mutex<Vec<String>>) -> Client {
        let service = tower::service_fn(move |request: Request<Body>| async move {
            asked.lock().unwrap().push(request.uri().path().to_owned());
            Response::builder()
                .status(status)
                .body(Body::from(text.as_bytes().to_vec()))
        });
        Client::new(service, "default")
    }

    fn refused(policy: &SharedPolicy, ip: &str) -> bool {
        let policy: Policy = policy.now();
        may_contact(ip.parse().unwrap(), &policy) == Err(Refused::ApiServer)
    }

    #[tokio::test]
    async fn service_and_endpoints_are_kept_from_tenants() {
        static ASKED: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let slice = r#"{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"name":"kubernetes"},
            "addressType":"IPv4","endpoints":[{"addresses":["192.168.7.1"]},{"addresses":["192.168.7.2"]}],"ports":[]}"#;
        let policy = SharedPolicy::default();
        let service = Some("10.96.0.1".to_owned());
        let mut lookout = Lookout::new(
            client(200, slice, &ASKED),
            service,
            Some("[fd00::1]"),
            policy.clone(),
        );
        lookout.look().await.unwrap();
        for ip in ["10.96.0.1", "fd00::1", "192.168.7.1", "192.168.7.2"] {
            assert!(refused(&policy, ip), "{ip}");
        }
        assert!(!refused(&policy, "192.168.7.3"));
        assert_eq!(
            *ASKED.lock().unwrap(),
            ["/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes"]
        );
    }

    #[tokio::test]
    async fn without_the_right_to_see_endpoints_the_service_is_known() {
        static ASKED: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let forbidden =
            r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403}"#;
        let policy = SharedPolicy::default();
        let mut lookout = Lookout::new(
            client(403, forbidden, &ASKED),
            Some("10.96.0.1".to_owned()),
            None,
            policy.clone(),
        );
        assert!(matches!(lookout.look().await, Err(LookError::Refused(_))));
        assert!(refused(&policy, "10.96.0.1"));
        assert_eq!(ASKED.lock().unwrap().len(), 1);
    }
}
