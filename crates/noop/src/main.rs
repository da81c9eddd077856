//! A static program of a few KiB that does nothing, so that a container of any image can be started with it,
//! also where the image has no shell and no C library.
//!
//! - `larder-noop` exits 0 at once: the command of the containers by which the kubelet pulls an image.
//! - `larder-noop install PATH` copies itself to PATH with mode 0755: the first container of those pods.
//! - `larder-noop hold` waits for SIGTERM or SIGINT and reaps orphans meanwhile: a pause container.
//!
//! It is not a shell and interprets nothing. Any other argument is an error, exit code 2.
//!
//! The release build (`freestanding`, see `build.rs`) has no standard library and its own entry point; the
//! development build has the ordinary one, so that check, clippy and test work on the whole workspace. What they
//! do is the same code.
#![cfg_attr(freestanding, no_std, no_main)]

mod hold;
mod install;
mod sys;

use core::ffi::CStr;

const USAGE: &CStr = c"usage: larder-noop [install PATH | hold]\n";

/// Exit code for arguments that mean nothing.
const EXIT_USAGE: u8 = 2;

/// Does what the arguments (without the program's name) ask for and returns the exit code.
fn run<'a>(mut arguments: impl Iterator<Item = &'a CStr>) -> u8 {
    let (command, operand, rest) = (arguments.next(), arguments.next(), arguments.next());
    match (command.map(CStr::to_bytes), operand, rest) {
        (None, _, _) => 0,
        (Some(b"hold"), None, _) => hold::hold(),
        (Some(b"install"), Some(path), None) => match install::install(path) {
            Ok(()) => 0,
            Err(failure) => {
                failure.report(path);
                1
            }
        },
        _ => {
            sys::print_error(USAGE.to_bytes());
            EXIT_USAGE
        }
    }
}

#[cfg(not(freestanding))]
fn main() -> std::process::ExitCode {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStringExt;

    // Arguments come from the kernel as C strings: none holds a zero byte.
    let arguments: Vec<CString> = std::env::args_os()
        .skip(1)
        .flat_map(|argument| CString::new(argument.into_vec()))
        .collect();
    run(arguments.iter().map(CString::as_c_str)).into()
}

/// Nothing here panics; the language still asks for what would happen.
#[cfg(freestanding)]
#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    sys::exit(101)
}
