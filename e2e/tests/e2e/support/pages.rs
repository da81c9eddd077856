//! A small web server inside the cluster's network: beside the registries, where the operator reaches it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use larder_e2e::cluster::addresses::REGISTRY_OPEN;
use larder_e2e::images::sha256_digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use super::Env;

/// Pages by path. Each has an ETag of its content. Serves until dropped.
pub struct Pages {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Default)]
struct Shared {
    pages: Mutex<BTreeMap<String, String>>,
    /// Path and status of each answer.
    answers: Mutex<Vec<(String, u16)>>,
    /// Everything is answered with this instead.
    broken: Mutex<Option<u16>>,
    /// Requests without this Authorization are answered with 401.
    authorization: Mutex<Option<String>>,
}

impl Pages {
    /// Listens in the namespace of the control plane, at a free port.
    pub fn serve(env: &Env) -> Self {
        let listener = env.listen((REGISTRY_OPEN, 0).into());
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::spawn(answer(stream, Arc::clone(&shared)));
                }
            }
        });
        Self {
            address,
            shared,
            task: task.abort_handle(),
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Scheme, host and port, as a secret names where it may be sent.
    pub fn origin(&self) -> String {
        self.url("")
    }

    pub fn put(&self, path: &str, text: &str) {
        self.shared
            .pages
            .lock()
            .unwrap()
            .insert(path.to_owned(), text.to_owned());
    }

    /// From now on every answer is this status; none: the pages again.
    pub fn fail(&self, status: Option<u16>) {
        *self.shared.broken.lock().unwrap() = status;
    }

    /// From now on requests need this Authorization.
    pub fn require(&self, authorization: &str) {
        *self.shared.authorization.lock().unwrap() = Some(authorization.to_owned());
    }

    /// Statuses of the answers for a path, in order.
    pub fn answers(&self, path: &str) -> Vec<u16> {
        let answers = self.shared.answers.lock().unwrap();
        answers
            .iter()
            .filter(|(p, _)| p == path)
            .map(|(_, status)| *status)
            .collect()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One request and its answer; the connection is closed then.
async fn answer(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut request = Vec::new();
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        let mut bytes = [0; 4096];
        match stream.read(&mut bytes).await {
            Ok(n) if n > 0 => request.extend_from_slice(&bytes[..n]),
            _ => return,
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let header = |wanted: &str| {
        request.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned())
        })
    };
    let known = header("if-none-match");
    let required = shared.authorization.lock().unwrap().clone();
    let refused = required.is_some() && header("authorization") != required;
    let page = shared.pages.lock().unwrap().get(&path).cloned();
    let broken = *shared.broken.lock().unwrap();
    let etag = page.as_deref().map(etag).unwrap_or_default();
    let (status, body) = match (broken, page) {
        (Some(status), _) => (status, String::new()),
        (None, _) if refused => (401, String::new()),
        (None, None) => (404, String::new()),
        (None, Some(_)) if known.as_ref() == Some(&etag) => (304, String::new()),
        (None, Some(page)) => (200, page),
    };
    shared.answers.lock().unwrap().push((path, status));
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} Status\r\nETag: {etag}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let _ = stream.write_all((head + &body).as_bytes()).await;
}

fn etag(page: &str) -> String {
    format!("\"{}\"", sha256_digest(page.as_bytes()))
}
