//! What the log says once: a mistake that clients repeat would fill it otherwise.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// What was logged since the process began. Bounded by the names in the configuration.
#[derive(Debug, Default)]
pub struct LoggedOnce(Mutex<BTreeSet<(&'static str, String)>>);

impl LoggedOnce {
    /// Whether `what` of `name`, such as a route's, is to be logged: true the first time.
    pub fn first(&self, what: &'static str, name: &str) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logged.insert((what, name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_said_once() {
        let logged = LoggedOnce::default();
        assert!(logged.first("a", "x") && logged.first("a", "y") && logged.first("b", "x"));
        assert!(!logged.first("a", "x") && !logged.first("b", "x"));
    }
}
