//! The fake registry's handle.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

use super::{
    auth::{Auth, Issued},
    authority::Authority,
    fault::Fault,
    image::TestImage,
    serve,
    store::Store,
};

/// A registry in memory, on a loopback port of its own, until it is dropped.
#[derive(Debug)]
pub struct FakeRegistry {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

/// A request that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// `HEAD`, `GET`, …
    pub method: String,
    /// `/v2/…`, without the query.
    pub path: String,
    /// The query, decoded by nobody.
    pub query: String,
    /// The scheme of its Authorization header: `Basic`, `Bearer`.
    pub authorization: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) auth: Auth,
    pub(super) state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) store: Store,
    pub(super) issued: Issued,
    pub(super) log: Vec<LogEntry>,
    pub(super) faults: BTreeMap<String, Fault>,
    /// URL of the token service.
    pub(super) realm: String,
    /// Requests that are being answered, and the most that ever were.
    pub(super) at_a_time: usize,
    pub(super) most_at_a_time: usize,
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FakeRegistry {
    /// Starts it on a free port of 127.0.0.1.
    pub async fn start(auth: Auth) -> io::Result<Self> {
        Self::start_with(auth, None).await
    }

    /// The same with HTTPS. Its token service is over HTTPS too.
    pub async fn start_tls(auth: Auth, authority: &Authority) -> io::Result<Self> {
        Self::start_with(auth, Some(authority.acceptor())).await
    }

    async fn start_with(auth: Auth, tls: Option<TlsAcceptor>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let shared = Arc::new(Shared {
            auth,
            state: Mutex::new(State {
                realm: format!("{scheme}://{address}/token"),
                ..State::default()
            }),
        });
        let server = tokio::spawn(serve::serve(listener, tls, Arc::clone(&shared)));
        Ok(Self {
            address,
            shared,
            server,
        })
    }

    /// `127.0.0.1:PORT`, as references name it.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Holds the image under the tag, which moves if it was there. Gives the digest.
    pub fn put(&self, repository: &str, tag: &str, image: &TestImage) -> String {
        self.shared.state().store.put_image(repository, Some(tag), image);
        image.digest()
    }

    /// Holds a manifest under a tag, which moves if it was there. Gives the digest.
    pub fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: Bytes) -> String {
        let mut state = self.shared.state();
        state.store.put_manifest(repository, tag, media_type, bytes)
    }

    /// Holds a configuration or layer. Gives the digest.
    pub fn put_blob(&self, repository: &str, bytes: Bytes) -> String {
        self.shared.state().store.put_blob(repository, bytes)
    }

    /// Forgets a tag, or a manifest by its digest.
    pub fn remove(&self, repository: &str, reference: &str) {
        self.shared.state().store.remove(repository, reference);
    }

    /// From now on this goes wrong for the path, as in `/v2/a/b/manifests/1`; a `*` at its end stands for any rest. The
    /// longest that fits counts.
    pub fn fault(&self, path: &str, fault: Fault) {
        self.shared.state().faults.insert(path.to_owned(), fault);
    }

    /// Nothing goes wrong any more.
    pub fn clear_faults(&self) {
        self.shared.state().faults.clear();
    }

    /// From now on challenges name this URL as token service.
    pub fn set_realm(&self, url: impl Into<String>) {
        self.shared.state().realm = url.into();
    }

    /// From now on the tokens given so far are refused.
    pub fn revoke_tokens(&self) {
        self.shared.state().issued.revoke();
    }

    /// The most requests that were answered at the same time, slow ones included.
    pub fn most_at_a_time(&self) -> usize {
        self.shared.state().most_at_a_time
    }

    /// All requests since the start or the last call of this.
    pub fn take_log(&self) -> Vec<LogEntry> {
        std::mem::take(&mut self.shared.state().log)
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.server.abort();
    }
}
