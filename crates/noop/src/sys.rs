//! The system calls that this program needs, for Linux on `x86_64`, and its entry point.
//!
//! The only file with unsafe code. Numbers and flags are those of the kernel's x86-64 system call table and of
//! `asm-generic/fcntl.h`; they never change.
#![allow(unsafe_code)]

use core::arch::asm;
use core::ffi::CStr;
use core::mem::MaybeUninit;

mod number {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const CLOSE: usize = 3;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const WAIT4: usize = 61;
    pub const FCHMOD: usize = 91;
    pub const RT_SIGTIMEDWAIT: usize = 128;
    #[cfg(freestanding)]
    pub const EXIT_GROUP: usize = 231;
    pub const OPENAT: usize = 257;
    pub const UNLINKAT: usize = 263;
}

const AT_FDCWD: usize = (-100_isize).cast_unsigned();
const O_WRONLY: usize = 0o1;
const O_CREAT: usize = 0o100;
const O_EXCL: usize = 0o200;
const O_CLOEXEC: usize = 0o2_000_000;
const SIG_BLOCK: usize = 0;
const WNOHANG: usize = 1;
const STANDARD_ERROR: usize = 2;

const SIGINT: usize = 2;
const SIGTERM: usize = 15;
const SIGCHLD: usize = 17;
/// The set of signals as the kernel takes it: bit n-1 for signal n.
const AWAITED: u64 = (1 << (SIGINT - 1)) | (1 << (SIGTERM - 1)) | (1 << (SIGCHLD - 1));

/// An error number of the kernel (`errno`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub usize);

impl Errno {
    /// `ENOENT`.
    pub const NOT_FOUND: Self = Self(2);
    const INTERRUPTED: Self = Self(4);
}

/// # Safety
/// The arguments must be what the kernel expects for this number; pointers must be valid for its reads and writes.
unsafe fn call(number: usize, a: usize, b: usize, c: usize, d: usize) -> Result<usize, Errno> {
    let answer: isize;
    // SAFETY: the caller's duty; the kernel overwrites only rax, rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number.cast_signed() => answer,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    // -4095 to -1 are error numbers, everything else is a result.
    if (-4095..0).contains(&answer) {
        Err(Errno(answer.unsigned_abs()))
    } else {
        Ok(answer.cast_unsigned())
    }
}

/// An open file, closed on drop.
pub struct Descriptor(usize);

impl Descriptor {
    /// Opens a file for reading.
    pub fn open_read(path: &CStr) -> Result<Self, Errno> {
        Self::open(path, O_CLOEXEC, 0)
    }

    /// Creates a file, mode 0600, and opens it for writing; an error when anything is there, a link included.
    pub fn create_new(path: &CStr) -> Result<Self, Errno> {
        Self::open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
    }

    fn open(path: &CStr, flags: usize, mode: usize) -> Result<Self, Errno> {
        // SAFETY: path ends with a zero byte and outlives the call.
        unsafe { call(number::OPENAT, AT_FDCWD, path.as_ptr() as usize, flags, mode) }.map(Self)
    }

    /// Copies from the current position to the end.
    pub fn copy_to(&self, target: &Self) -> Result<(), Errno> {
        let mut buffer = MaybeUninit::<[u8; 4096]>::uninit();
        loop {
            let start = buffer.as_mut_ptr() as usize;
            // SAFETY: the kernel writes at most the buffer's size into it.
            let length = match unsafe { call(number::READ, self.0, start, size_of_val(&buffer), 0) } {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(Errno::INTERRUPTED) => continue,
                Err(errno) => return Err(errno),
            };
            // SAFETY: the kernel has just filled `length` bytes from `start`.
            unsafe { write_all(target.0, start, length) }?;
        }
    }

    /// Sets the permission bits, whatever the umask.
    pub fn set_mode(&self, mode: usize) -> Result<(), Errno> {
        // SAFETY: no pointers.
        unsafe { call(number::FCHMOD, self.0, mode, 0, 0) }.map(drop)
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: the descriptor is ours and used no more. An error of close cannot be acted on.
        let _ = unsafe { call(number::CLOSE, self.0, 0, 0, 0) };
    }
}

/// # Safety
/// `length` bytes from `start` must be readable.
unsafe fn write_all(descriptor: usize, start: usize, length: usize) -> Result<(), Errno> {
    let mut done = 0;
    while done < length {
        // SAFETY: within the range that the caller vouches for.
        match unsafe { call(number::WRITE, descriptor, start + done, length - done, 0) } {
            Ok(written) => done += written,
            Err(Errno::INTERRUPTED) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Removes a file or link, not a directory.
pub fn remove(path: &CStr) -> Result<(), Errno> {
    // SAFETY: path ends with a zero byte and outlives the call.
    unsafe { call(number::UNLINKAT, AT_FDCWD, path.as_ptr() as usize, 0, 0) }.map(drop)
}

/// Writes to standard error; where that fails there is nobody to tell.
pub fn print_error(text: &[u8]) {
    // SAFETY: the slice is readable.
    let _ = unsafe { write_all(STANDARD_ERROR, text.as_ptr() as usize, text.len()) };
}

/// Writes a number in decimal to standard error.
pub fn print_error_number(value: usize) {
    if value >= 10 {
        print_error_number(value / 10);
    }
    print_error(&[b'0' + (value % 10).to_le_bytes()[0]]);
}

/// What a signal means to this program.
pub enum Signal {
    /// SIGTERM or SIGINT.
    Stop,
    /// A child ended, or the wait was cut short.
    Other,
}

/// Blocks the signals that [`next_signal`] fetches.
pub fn block_signals() {
    let set = AWAITED;
    // SAFETY: the kernel reads the eight bytes of the set and writes no old set. It cannot fail so.
    let _ = unsafe {
        call(
            number::RT_SIGPROCMASK,
            SIG_BLOCK,
            &raw const set as usize,
            0,
            size_of_val(&set),
        )
    };
}

/// Sleeps until one of the blocked signals is there.
pub fn next_signal() -> Signal {
    let set = AWAITED;
    // SAFETY: the kernel reads the eight bytes of the set; no information is asked for, and no time limit given.
    let fetched = unsafe {
        call(
            number::RT_SIGTIMEDWAIT,
            &raw const set as usize,
            0,
            0,
            size_of_val(&set),
        )
    };
    match fetched {
        Ok(signal) if signal == SIGTERM || signal == SIGINT => Signal::Stop,
        Ok(_) | Err(_) => Signal::Other,
    }
}

/// Collects every child that has ended.
pub fn reap_children() {
    // SAFETY: no status and no usage is asked for. 0 means children that still run, an error none at all.
    while matches!(unsafe { call(number::WAIT4, usize::MAX, 0, WNOHANG, 0) }, Ok(child) if child > 0) {}
}

/// Ends the process.
#[cfg(freestanding)]
pub fn exit(code: u8) -> ! {
    loop {
        // SAFETY: no pointers; does not return.
        let _ = unsafe { call(number::EXIT_GROUP, usize::from(code), 0, 0, 0) };
    }
}

#[cfg(freestanding)]
mod entry {
    use core::ffi::CStr;
    use core::slice;

    // The kernel starts the program with the stack pointer at argc, then argv, and the stack aligned to 16 bytes.
    core::arch::global_asm!(
        ".globl _start",
        "_start:",
        "xor ebp, ebp",
        "mov rdi, rsp",
        "call {start}",
        "ud2",
        start = sym start
    );

    extern "C" fn start(stack: *const usize) -> ! {
        // SAFETY: argc strings, each ending with a zero byte, live as long as the process.
        let (count, first) = unsafe { (*stack, stack.add(1).cast::<*const u8>()) };
        // SAFETY: as above, index < argc.
        let arguments = (1..count).map(|index| unsafe { text(*first.add(index)) });
        super::exit(crate::run(arguments))
    }

    /// # Safety
    /// `start` must point at a string that ends with a zero byte and is never freed.
    unsafe fn text(start: *const u8) -> &'static CStr {
        let mut length = 0;
        // SAFETY: up to and including the zero byte. Volatile, because the compiler would make a plain loop a call
        // of strlen, and there is no C library to call.
        while unsafe { start.add(length).read_volatile() } != 0 {
            length += 1;
        }
        // SAFETY: the range just read, with its only zero byte at the end.
        unsafe { CStr::from_bytes_with_nul_unchecked(slice::from_raw_parts(start, length + 1)) }
    }
}
