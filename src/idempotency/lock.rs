//! How a request ended, sealed for the store: under a key of its route, and bound to the route and
//! the key that it lies under.

use bytes::Bytes;

use super::record::Ended;
use crate::config::{Idempotency, SealKey};
use crate::sealing::{self, Part, Place};

/// Seals what lies under one idempotency key, and opens it; where the route has no keys, what it
/// writes lies in clear.
#[derive(Debug, Clone)]
pub struct Lock(Option<Box<Sealed>>);

#[derive(Debug, Clone)]
struct Sealed {
    /// The first one seals, each opens.
    keys: Vec<SealKey>,
    /// Name of the route.
    route: String,
    /// Store key of what is sealed.
    key: String,
}

impl Sealed {
    fn place(&self) -> Place<'_> {
        Place { of: &self.route, id: &self.key, part: Part::Ended }
    }
}

impl Lock {
    /// Of what lies under this store key, for a route of this name.
    pub fn of(policy: &Idempotency, route: &str, key: &str) -> Self {
        let sealed = || {
            let (keys, route, key) = (policy.seal.clone(), route.to_owned(), key.to_owned());
            Box::new(Sealed { keys, route, key })
        };
        Self((!policy.seal.is_empty()).then(sealed))
    }

    /// The value for the store. What cannot be sealed becomes a value that nothing opens: never
    /// clear text, and never one that says that nobody was answered.
    pub fn shut(&self, ended: &Ended) -> Vec<u8> {
        let value = ended.value();
        let Some(sealed) = &self.0 else { return value };
        let key = sealed.keys.first();
        let shut = key.and_then(|key| sealing::seal(key, sealed.place(), &value).ok());
        shut.unwrap_or_else(|| sealing::NEVER_OPENS.to_vec())
    }

    /// What was sealed; nothing where no key opens it, it was of another place, or was changed.
    pub fn open(&self, value: &Bytes) -> Option<Ended> {
        let sealed = self.0.as_ref()?;
        Ended::read(&sealing::open(&sealed.keys, sealed.place(), value).ok()?)
    }
}
