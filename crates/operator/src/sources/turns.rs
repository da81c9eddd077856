//! How many sources are asked at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Over all caches.
const AT_A_TIME: usize = 16;
/// Of the caches of one namespace: whoever names servers that hang waits alone.
const OF_A_NAMESPACE: usize = 2;

/// Hands out turns, first come, first served.
pub(super) struct Turns {
    all: Arc<Semaphore>,
    /// Of the namespaces where some source is asked, or waits for its turn.
    namespaces: Mutex<BTreeMap<String, Weak<Semaphore>>>,
}

/// Ends when it is dropped.
pub(super) struct Turn {
    _own: Option<OwnedSemaphorePermit>,
    _all: Option<OwnedSemaphorePermit>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(AT_A_TIME)),
            namespaces: Mutex::default(),
        }
    }
}

impl Turns {
    /// Waits for the namespace's own turn first: it must not use up everybody's.
    pub(super) async fn take(&self, namespace: &str) -> Turn {
        let own = self.of(namespace).acquire_owned().await.ok();
        let all = Arc::clone(&self.all).acquire_owned().await.ok();
        Turn { _own: own, _all: all }
    }

    fn of(&self, namespace: &str) -> Arc<Semaphore> {
        let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        namespaces.retain(|_, turns| turns.strong_count() > 0);
        if let Some(turns) = namespaces.get(namespace).and_then(Weak::upgrade) {
            return turns;
        }
        let turns = Arc::new(Semaphore::new(OF_A_NAMESPACE));
        namespaces.insert(namespace.to_owned(), Arc::downgrade(&turns));
        turns
    }
}
