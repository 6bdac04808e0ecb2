//! What connections to Redis are made with: the password and what TLS needs, as their files are
//! now. All connections of a process share it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};

use crate::base::units::Secret;
use crate::config::{self, StoreTls, reread_secret};

/// What a connection is made with.
#[derive(Debug)]
pub(super) struct Material {
    pub(super) tls: Option<Tls>,
    pub(super) password: Option<Secret>,
}

/// TLS towards Redis.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    /// What is wrong with the files, where they cannot be used.
    pub(super) client: Result<Arc<ClientConfig>, String>,
    /// The name that the server must prove; that of its address where there is none.
    pub(super) server_name: Option<ServerName<'static>>,
}

impl Tls {
    fn of(written: &StoreTls) -> Self {
        let client = written.client().map(Arc::new).map_err(|flaw| flaw.to_string());
        Self { client, server_name: written.server_name.clone() }
    }
}

impl Material {
    /// Whether connections made with the one are as good as those made with the other.
    pub(super) fn has_tls_of(&self, other: &Self) -> bool {
        let client = |it: &Self| it.tls.as_ref().and_then(|tls| tls.client.clone().ok());
        match (client(self), client(other)) {
            (Some(one), Some(another)) => Arc::ptr_eq(&one, &another),
            (one, another) => one.is_none() && another.is_none(),
        }
    }
}

/// What the files held.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Files {
    password: Option<Secret>,
    tls: Option<StoreTls>,
}

/// Files that changed, and what is made of them.
#[derive(Debug)]
pub(super) struct Change {
    files: Files,
    pub(super) material: Arc<Material>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Credentials {
    written: config::Store,
    /// What the material in force was made of.
    files: Mutex<Files>,
    current: watch::Sender<Arc<Material>>,
    /// Connections are replaced one by one.
    turn: Semaphore,
    /// Asks for a look at the files before it is time.
    pub(super) look: Arc<Notify>,
}

impl Credentials {
    /// Those of the configuration as it was read.
    pub(super) fn of(written: &config::Store) -> Arc<Self> {
        let files = Files { password: written.password.clone(), tls: written.tls.clone() };
        let tls = written.tls.as_ref().map(Tls::of);
        let material = Arc::new(Material { tls, password: written.password.clone() });
        Arc::new(Self {
            written: written.clone(),
            files: Mutex::new(files),
            current: watch::Sender::new(material),
            turn: Semaphore::new(1),
            look: Arc::default(),
        })
    }

    /// `store.max_in_flight`
    pub(super) fn max_in_flight(&self) -> usize {
        self.written.max_in_flight
    }

    /// What the next connection is made with.
    pub(super) fn now(&self) -> Arc<Material> {
        Arc::clone(&self.current.borrow())
    }

    /// Tells when that is something else.
    pub(super) fn changes(&self) -> watch::Receiver<Arc<Material>> {
        self.current.subscribe()
    }

    /// Whether anything comes from a file.
    pub(super) fn have_files(&self) -> bool {
        self.written.password_file.is_some() || self.written.tls.is_some()
    }

    /// Waits until no other connection is being replaced.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turn.acquire().await.ok()
    }

    /// What the files hold now, where that is something else. Reads files: not for threads that
    /// serve.
    ///
    /// # Errors
    /// Why it cannot be used.
    fn reread(&self) -> Result<Option<Change>, String> {
        let of_file =
            |path: &Path, why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        let known = self.files.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let password = match &self.written.password_file {
            Some(path) => Some(reread_secret(path).map_err(|why| of_file(path, &why))?),
            None => known.password.clone(),
        };
        let tls = self.written.tls.as_ref().map(StoreTls::reread).transpose();
        let tls = tls.map_err(|(path, fault)| of_file(&path, &fault))?;
        let files = Files { password, tls };
        if files == known {
            return Ok(None);
        }
        let material = self.now();
        let tls = if files.tls == known.tls {
            material.tls.clone()
        } else {
            files.tls.as_ref().map(Tls::of)
        };
        if let Some(Tls { client: Err(why), .. }) = &tls {
            return Err(why.clone());
        }
        let material = Material { tls, password: files.password.clone() };
        Ok(Some(Change { files, material: Arc::new(material) }))
    }

    /// The same beside whoever serves.
    ///
    /// # Errors
    /// As [`Self::reread`].
    pub(super) async fn changed(self: &Arc<Self>) -> Result<Option<Change>, String> {
        if !self.have_files() {
            return Ok(None);
        }
        let reading = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || reading.reread()).await;
        read.map_err(|error| error.to_string())?
    }

    /// Redis refused what is in force: what the files hold now can only be better. True when it is
    /// something else. What is wrong with the files is said by who follows them.
    pub(super) async fn give_way(self: &Arc<Self>) -> bool {
        let Ok(Some(change)) = self.changed().await else { return false };
        self.adopt(change);
        true
    }

    /// Connections are made with this from now on.
    pub(super) fn adopt(&self, change: Change) {
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = change.files;
        self.current.send_replace(change.material);
    }
}
