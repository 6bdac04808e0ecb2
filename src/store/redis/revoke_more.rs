//! Revocations that lower nothing: of what events tell, the newest may come first.

use super::index::eval;
use super::stream::{Told, millis};
use super::{RedisStore, follow};
use crate::store::{Revocation, StoreError};

impl RedisStore {
    /// See [`crate::store::Store::revoke_more`].
    pub async fn revoke_more(&self, revocation: Revocation<'_>) -> Result<(), StoreError> {
        // Rare, so the script travels with the call.
        let mut key = eval(include_str!("../scripts/revoke_more.lua"), &[revocation.key]);
        key.arg(revocation.value()).arg(millis(revocation.ttl));
        let told = Told::of(&revocation, follow::now_s()).more();
        self.tell(vec![key], told, revocation.stream_ttl.max(revocation.ttl)).await.map(|_| ())
    }
}
