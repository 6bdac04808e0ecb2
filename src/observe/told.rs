//! What the log says once: a mistake that clients repeat would fill it otherwise.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// What was said since the process began. Bounded by the names in the configuration.
#[derive(Debug, Default)]
pub struct Told(Mutex<BTreeSet<(&'static str, String)>>);

impl Told {
    /// Whether this of `name`, such as a route's, is to be said: true the first time.
    pub fn first(&self, what: &'static str, name: &str) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert((what, name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_said_once() {
        let told = Told::default();
        assert!(told.first("a", "x") && told.first("a", "y") && told.first("b", "x"));
        assert!(!told.first("a", "x") && !told.first("b", "x"));
    }
}
