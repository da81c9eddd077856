//! Waits until asked to stop, as the first process of a pod's namespaces.

use crate::sys::{self, Signal};

/// Returns 0 after SIGTERM or SIGINT. Reaps every child that ends meanwhile: as process 1 of a shared PID
/// namespace it inherits all orphans.
///
/// The signals are blocked and fetched rather than handled: process 1 ignores signals whose action is the default,
/// but blocked ones are queued for it like for any other process.
pub fn hold() -> u8 {
    sys::block_signals();
    loop {
        sys::reap_children();
        match sys::next_signal() {
            Signal::Stop => return 0,
            Signal::Other => {}
        }
    }
}
