//! Runs a program of the system to its end. Arguments are a vector; no shell is ever involved.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use crate::cluster::error::{Error, Result};

/// How much of a program's error output goes into a message, in bytes.
const TAIL: usize = 2000;

/// Runs `program` and returns what it printed, or an error with the end of what it complained about.
pub fn run<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Result<String> {
    output(Command::new(program).args(args))
}

/// As [`run`], for a command that has been set up already.
pub fn output(command: &mut Command) -> Result<String> {
    let line = describe(command);
    let done = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error::Command {
            program: line.clone(),
            detail: error.to_string(),
        })?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let said = [done.stdout.as_slice(), done.stderr.as_slice()].concat();
    let said = String::from_utf8_lossy(&said);
    Err(Error::Command {
        program: line,
        detail: format!("{}: {}", done.status, end_of(said.trim(), TAIL)),
    })
}

/// The command line as a person would type it, without quoting.
fn describe(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|part| part.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The last `most` bytes of a text, cut at a character.
pub fn end_of(text: &str, most: usize) -> &str {
    let mut from = text.len().saturating_sub(most);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_what_it_said() {
        let error = run("ls", &["/nonexistent-folder"]).unwrap_err().to_string();
        assert!(error.contains("ls /nonexistent-folder"), "{error}");
        assert!(error.contains("No such file"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run("no-such-program-here", &["x"]).unwrap_err().to_string();
        assert!(error.contains("no-such-program-here x"), "{error}");
    }

    #[test]
    fn the_end_is_cut_at_a_character() {
        assert_eq!(end_of("abcdef", 3), "def");
        assert_eq!(end_of("ab", 3), "ab");
        assert_eq!(end_of("aéé", 3), "é");
    }
}
