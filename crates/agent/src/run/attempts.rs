//! The last attempts at pulls, for whoever collects them.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::Attempt;

/// What is kept; a collector that comes once in a while loses older ones.
const MAX_ATTEMPTS: usize = 1000;

/// The last attempts, oldest first.
#[derive(Debug, Default)]
pub(super) struct Attempts(Mutex<VecDeque<Attempt>>);

impl Attempts {
    pub(super) fn add(&self, attempt: Attempt) {
        let mut attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if attempts.len() == MAX_ATTEMPTS {
            attempts.pop_front();
        }
        attempts.push_back(attempt);
    }

    pub(super) fn all(&self) -> Vec<Attempt> {
        let attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_oldest_go_first() {
        let attempts = Attempts::default();
        for i in 0..=MAX_ATTEMPTS {
            let image = format!("i{i}");
            attempts.add(Attempt::new(
                "node",
                &image,
                jiff::Timestamp::UNIX_EPOCH,
                Duration::ZERO,
            ));
        }
        let all = attempts.all();
        assert_eq!((all.len(), all[0].image.as_str()), (MAX_ATTEMPTS, "i1"));
    }
}
