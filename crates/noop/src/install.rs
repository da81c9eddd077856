//! Copies the running program to a path.

use crate::sys::{self, Descriptor, Errno};
use core::ffi::CStr;

/// Where the kernel shows the running program's file, also when its path is not known.
const SELF: &CStr = c"/proc/self/exe";

/// The step that failed, and the kernel's error number.
pub enum Failure {
    /// The running program could not be opened: usually no `/proc`.
    OpenSelf(Errno),
    /// An older file at the path could not be removed.
    RemoveOld(Errno),
    /// The new file could not be created.
    Create(Errno),
    /// The content could not be read or written.
    Copy(Errno),
    /// The mode could not be set.
    Mode(Errno),
}

impl Failure {
    /// Says on standard error what failed, where, and with which error number.
    pub fn report(&self, path: &CStr) {
        let (step, Errno(number)) = match self {
            Self::OpenSelf(errno) => (&b"open /proc/self/exe"[..], errno),
            Self::RemoveOld(errno) => (&b"remove the old file"[..], errno),
            Self::Create(errno) => (&b"create the file"[..], errno),
            Self::Copy(errno) => (&b"copy"[..], errno),
            Self::Mode(errno) => (&b"set the mode"[..], errno),
        };
        let parts = [
            b"larder-noop: install ",
            path.to_bytes(),
            b": cannot ",
            step,
            b": error ",
        ];
        parts.into_iter().for_each(sys::print_error);
        sys::print_error_number(*number);
        sys::print_error(b"\n");
    }
}

/// Copies the running program to `path`, mode 0755 whatever the umask. A file already there is replaced: removed
/// first, because one that is being executed cannot be opened for writing. On failure nothing is left at `path`.
pub fn install(path: &CStr) -> Result<(), Failure> {
    let source = Descriptor::open_read(SELF).map_err(Failure::OpenSelf)?;
    match sys::remove(path) {
        Ok(()) | Err(Errno::NOT_FOUND) => {}
        Err(errno) => return Err(Failure::RemoveOld(errno)),
    }
    let target = Descriptor::create_new(path).map_err(Failure::Create)?;
    let copied = source
        .copy_to(&target)
        .map_err(Failure::Copy)
        .and_then(|()| target.set_mode(0o755).map_err(Failure::Mode));
    if copied.is_err() {
        // Half a program is worse than none; if it cannot be removed, the first error is the one to tell.
        let _ = sys::remove(path);
    }
    copied
}
