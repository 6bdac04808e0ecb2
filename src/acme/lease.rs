//! A lease on what only one gateway of a fleet may do at a time. It is renewed while the work goes
//! on; who loses it stops, and writes nothing more (`Vault::put_fenced`).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::failure::Failure;
use crate::base::http::hex;
use crate::store::{HeldLock, Store};

/// See the module. It ends with [`Lease::release`], or by itself.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) lock: HeldLock,
    store: Arc<Store>,
    life: Duration,
}

impl Lease {
    /// Takes a lease that nobody has; nothing where somebody has it.
    ///
    /// # Errors
    /// The store did not answer.
    pub(super) async fn take(
        store: &Arc<Store>,
        key: String,
        life: Duration,
    ) -> Result<Option<Self>, Failure> {
        let lock = HeldLock { key, token: nonce()? };
        let taken = store.lock(&lock, life).await?;
        Ok(taken.then(|| Self { lock, store: Arc::clone(store), life }))
    }

    /// Does a piece of work for as long as the lease is ours.
    ///
    /// # Errors
    /// Those of the work, and [`Failure::LeaseLost`].
    pub(super) async fn during<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            // Whoever was stopped for longer than the lease lasts must not go on first.
            biased;
            () = self.lost() => Err(Failure::LeaseLost),
            done = work => done,
        }
    }

    /// Renews the lease again and again; returns when it is somebody else's, or may be.
    async fn lost(&self) {
        let mut sure_until = Instant::now() + self.life;
        loop {
            tokio::time::sleep(self.life / 3).await;
            let asked_at = Instant::now();
            match self.store.extend_lock(&self.lock, self.life).await {
                Ok(true) => sure_until = asked_at + self.life,
                Ok(false) => return,
                Err(_) if Instant::now() >= sure_until => return,
                Err(_) => {}
            }
        }
    }

    /// Gives it back; where the store is away it ends by itself.
    pub(super) async fn release(self) {
        let _ = self.store.unlock(&self.lock).await;
    }
}

/// 128 random bits in hexadecimal.
pub(super) fn nonce() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Failure::Crypto("making a random number"))?;
    Ok(hex::encode(&bytes))
}
