//! A runtime in memory behind a real Unix socket: CRI and containerd's own API over one set of images.
//!
//! It behaves as containerd 2.3 was seen to behave; the same [`conformance()`] function runs against both.

mod conformance;
mod containerd;
mod content;
mod cri;
mod download;
mod events;
mod faults;
mod image;
mod login;
mod model;
mod store;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use larder_runtime::proto::containerd::services::content::v1::content_server::ContentServer;
use larder_runtime::proto::containerd::services::events::v1::events_server::EventsServer;
use larder_runtime::proto::containerd::services::images::v1::images_server::ImagesServer;
use larder_runtime::proto::containerd::services::snapshots::v1::snapshots_server::SnapshotsServer;
use larder_runtime::proto::containerd::services::version::v1::version_server::VersionServer;
use larder_runtime::proto::cri::image_service_server::ImageServiceServer;
use larder_runtime::proto::cri::runtime_service_server::RuntimeServiceServer;
use tokio::net::UnixListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

pub use conformance::{ConformanceImages, conformance};
pub use download::Speed;
pub use faults::{Call, Fault};
pub use image::FakeImage;
pub use model::{FakeContainer, Model};

use faults::Faults;

/// Which APIs a fake serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Serves {
    /// CRI and containerd's own API, as containerd does.
    #[default]
    Containerd,
    /// CRI alone, as CRI-O and cri-dockerd do.
    CriOnly,
    /// containerd's own API alone, as Docker's containerd does.
    NoCri,
}

/// A runtime in memory that serves on a socket until it is dropped or stopped.
#[derive(Debug)]
pub struct FakeRuntime {
    path: PathBuf,
    serves: Serves,
    shared: Shared,
    server: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// What the services and the test see alike.
#[derive(Clone, Debug, Default)]
struct Shared {
    model: Arc<Mutex<Model>>,
    faults: Arc<Mutex<Faults>>,
    /// How many times it was stopped.
    stops: watch::Sender<u64>,
}

impl FakeRuntime {
    /// Serves on a new socket at this path; its folder is made if need be.
    pub async fn start(path: &Path, serves: Serves) -> io::Result<Self> {
        let mut fake = Self {
            path: path.to_owned(),
            serves,
            shared: Shared::default(),
            server: None,
        };
        fake.serve().await?;
        Ok(fake)
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the node holds: to be looked at, or changed behind everyone's back.
    pub fn model(&self) -> MutexGuard<'_, Model> {
        self.shared.model()
    }

    /// Makes every further call of this kind hang or fail, until [`Self::heal`].
    pub fn fault(&self, call: Call, fault: Fault) {
        self.fail_after(call, 0, fault);
    }

    /// As [`Self::fault`], but this many calls are answered first.
    pub fn fail_after(&self, call: Call, answered: usize, fault: Fault) {
        self.shared.faults().set(call, answered, fault);
    }

    /// Makes every further pull from a repository hang or fail once it has fetched this many bytes, until [`Self::heal`].
    pub fn fault_pull(&self, repository: &str, bytes: u64, fault: Fault) {
        self.shared.faults().set_pull(repository, bytes, fault);
    }

    /// Ends all faults; calls that hang stay so.
    pub fn heal(&self) {
        self.shared.faults().clear();
    }

    /// Runs this before the next call of this kind is answered, once.
    pub fn before_next(&self, call: Call, change: impl FnOnce(&mut Model) + Send + 'static) {
        self.shared.faults().before_next(call, Box::new(change));
    }

    /// Ends the server as a crash does and takes the socket away; connections are closed, and what pulls have fetched
    /// stays for the next one.
    pub async fn stop(&mut self) -> io::Result<()> {
        if let Some((signal, server)) = self.server.take() {
            drop(signal);
            self.shared.stops.send_modify(|stops| *stops += 1);
            self.shared.model().restart();
            server.abort();
            // Ended one way or the other: either way nobody listens any more.
            let _ = server.await;
            tokio::fs::remove_file(&self.path).await?;
        }
        Ok(())
    }

    /// Serves again after [`Self::stop`], on a new socket at the same path, with the same images.
    pub async fn serve(&mut self) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            tokio::fs::create_dir_all(folder).await?;
        }
        let listener = UnixListener::bind(&self.path)?;
        let (signal, stopped) = oneshot::channel::<()>();
        let shared = &self.shared;
        let cri = self.serves != Serves::NoCri;
        let containerd = self.serves != Serves::CriOnly;
        let serving = Server::builder()
            .add_optional_service(cri.then(|| RuntimeServiceServer::new(shared.clone())))
            .add_optional_service(cri.then(|| ImageServiceServer::new(shared.clone())))
            .add_optional_service(containerd.then(|| VersionServer::new(shared.clone())))
            .add_optional_service(containerd.then(|| ImagesServer::new(shared.clone())))
            .add_optional_service(containerd.then(|| ContentServer::new(shared.clone())))
            .add_optional_service(containerd.then(|| SnapshotsServer::new(shared.clone())))
            .add_optional_service(containerd.then(|| EventsServer::new(shared.clone())))
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), async {
                // Sent or dropped, it means the end.
                let _ = stopped.await;
            });
        let server = tokio::spawn(async move {
            // The transport's errors are the client's to see.
            let _ = serving.await;
        });
        self.server = Some((signal, server));
        Ok(())
    }
}

impl Shared {
    /// A panic in one test's closure is that test's failure; the model stays usable.
    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
