//! What is shown to an authority that asks in a handshake: made once for each answer, and kept
//! while that stands. Anybody can ask.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::ServerConfig;

use crate::tls;

/// By name, each with its key authorization. The configuration bounds the names.
#[derive(Debug, Default)]
pub(super) struct Proofs(Mutex<HashMap<String, (String, Arc<ServerConfig>)>>);

impl Proofs {
    fn known(&self) -> MutexGuard<'_, HashMap<String, (String, Arc<ServerConfig>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What proves a name by this key authorization (RFC 8737 §3); nothing where it cannot be made.
    pub(super) fn of(&self, name: &str, key_authorization: &str) -> Option<Arc<ServerConfig>> {
        // Held while it is made: whoever asks at the same time gets the same one.
        let mut known = self.known();
        if let Some((of, made)) = known.get(name)
            && of == key_authorization
        {
            return Some(Arc::clone(made));
        }
        let digest = digest(&SHA256, key_authorization.as_bytes());
        let made = tls::proof(name, digest.as_ref());
        let made = Arc::new(made.map_err(|error| tracing::warn!("{error}")).ok()?);
        known.insert(name.to_owned(), (key_authorization.to_owned(), Arc::clone(&made)));
        Some(made)
    }

    /// Forgets what proved a name: there is nothing to be proved.
    pub(super) fn forget(&self, name: &str) {
        self.known().remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_made_once_for_each_answer() {
        let proofs = Proofs::default();
        let first = proofs.of("a.test", "t0.print").unwrap();
        assert!(Arc::ptr_eq(&first, &proofs.of("a.test", "t0.print").unwrap()));
        let second = proofs.of("a.test", "t1.print").unwrap();
        assert!(!Arc::ptr_eq(&first, &second), "another order");
        assert!(!Arc::ptr_eq(&second, &proofs.of("b.test", "t1.print").unwrap()));
        assert!(Arc::ptr_eq(&second, &proofs.of("a.test", "t1.print").unwrap()));
        proofs.forget("a.test");
        assert_eq!(proofs.known().len(), 1);
        assert!(proofs.of("ü.test", "t1.print").is_none());
    }
}
