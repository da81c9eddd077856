//! Where long steps say what they are doing.

/// Takes one finished line at a time; the caller decides where lines go.
pub trait Progress: Sync {
    /// Shows one line, without a line break at its end.
    fn line(&self, text: &str);
}

/// Progress for a person at a terminal: standard error, so that standard output stays for results.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stderr;

impl Progress for Stderr {
    fn line(&self, text: &str) {
        eprintln!("{text}");
    }
}
